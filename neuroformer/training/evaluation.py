"""Held-out scores of a trained model beside their baselines: the numbers that training puts into ``summary.json``."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroformer.baselines.glm.fit import glm_scores
from neuroformer.baselines.oracle import oracle_bits_per_spike
from neuroformer.baselines.trace_autoregression import autoregression_bits
from neuroformer.bundle.bundle import STIMULUS, check_units, load_model, read_bundle
from neuroformer.bundle.opening import open_run
from neuroformer.data.prepared import Prepared
from neuroformer.memory import free_memory, give_back
from neuroformer.model.network import Neuroformer
from neuroformer.shown import NamedValues
from neuroformer.training.scoring.rates import rate_scores
from neuroformer.training.scoring.scores import Scores, score

MOST_WINDOWS, FEWEST_WINDOWS = 2**16, 512  # of all recordings of a run together, and of each of them
PROCESS_BYTES = 3e9  # of a process that fits baselines


def evaluate(
    run: Neuroformer | str | Path,
    prepared: Prepared | None = None,
    *,
    recording: str = "",
    baselines: bool | None = None,
    most: int = 0,
    tell: Callable[[str], object] = lambda line: None,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Score a model on the test part of a recording, beside baselines that are fitted on its training part.

    Parameters
    ----------
    run : a model, or the folder of a trained run (its likelihood's best weights are scored; ``stimulus_r`` and FEVE those that
        followed validation clips best)
    prepared : the recording; of a run, its own unless given
    recording : the name of one recording, in a run of several; without it, the scores are the :func:`distribution` over all,
        each scored on a sample of its windows (:func:`sampled`)
    baselines : also fit the GLMs (or, for Gaussian traces, the autoregression); by default for one recording, not for several
    most : windows that are scored, spread evenly over the held-out ones; 0: all
    tell : called with a line on each score that is left out
    say : called with a line before each step that may take long

    Returns
    -------
    dict
        For spikes: ``bits_per_spike`` and ``bits_per_spike_rate_readout`` (see
        :class:`neuroformer.training.scoring.scores.Scores`), ``test_spikes``, ``test_windows``; ``bits_per_spike_oracle`` of a
        recording whose true rates are known; ``bits_per_spike_glm_past``, ``bits_per_spike_glm_every``,
        ``bits_per_spike_glm`` (the stronger one) and ``glm_seconds``.
        With frames (of traces as of spikes), medians over units of the correlation between counts and expected counts over distinct clips, both
        averaged over the windows that saw a clip: ``stimulus_r`` of the model, ``stimulus_r_energy_ridge`` and
        ``stimulus_r_energy_poisson`` of regressions on the Gabor energies of the same frames, and where clips repeat
        ``stimulus_r_ceiling`` of the true expectation and the model's ``stimulus_feve``
        (:class:`neuroformer.training.scoring.rates.HeldOutRates`).
        For traces: ``bits_per_sample`` with its interval, ``test_samples``, ``bits_per_sample_autoregression``.
        Of several recordings, see :func:`distribution`.

    Raises
    ------
    ValueError
        A model without ``prepared``; a folder that holds no run, or whose recording is not the run's.
    """
    if isinstance(run, (str, Path)):
        names = read_bundle(run).names
        if prepared is None and len(names) > 1 and not recording:
            asked, most = bool(baselines), 0 if baselines else sampled(len(names))
            scored = (evaluate(run, recording=n, baselines=asked, most=most, tell=tell, say=say) for n in names)
            return NamedValues(distribution(dict(zip(names, scored, strict=True))))
        if prepared is None:
            bundle, prepared = open_run(Path(run), recording=recording)
        else:
            bundle = read_bundle(run).of(recording or prepared.name)
            check_units(bundle, prepared.rec)
        model = load_model(bundle)
        seeing = load_model(bundle, STIMULUS) if STIMULUS in bundle.digests else model
    elif prepared is None:
        raise ValueError("a model alone cannot be scored; give the prepared recording too, or the folder of a run")
    else:
        model = seeing = run
    return NamedValues(_scores(model, seeing, prepared, baselines is not False, most, tell, say))


def _scores(
    model: Neuroformer,
    seeing: Neuroformer,
    prepared: Prepared,
    baselines: bool,
    most: int,
    tell: Callable[[str], object],
    say: Callable[[str], object],
) -> dict[str, Any]:
    """The scores of one recording; ``seeing``: the model whose expected counts follow stimuli."""
    say("scoring held-out windows")
    scores = score(model, prepared, "test", most)
    if prepared.config.traces.likelihood != "none":
        return _trace_scores(seeing, prepared, scores, baselines)
    out: dict[str, Any] = {
        "bits_per_spike": scores.bits(),
        "bits_per_spike_rate_readout": scores.bits_of_rates(),
        "test_spikes": scores.number,
        "test_windows": scores.num_windows,
    }
    if "rate" in prepared.rec.truth:
        try:
            out["bits_per_spike_oracle"] = oracle_bits_per_spike(prepared, prepared.windows("test"))
        except ValueError as e:  # bins of another width: the other scores count all the same
            tell(f"bits_per_spike_oracle is left out: {e}")
    return out | (_beside_spikes(seeing, prepared, say) if baselines else {})


def _beside_spikes(model: Neuroformer, prepared: Prepared, say: Callable[[str], object]) -> dict[str, Any]:
    """Scores of regressions on frames and of the GLMs, which are fitted for them."""
    out: dict[str, Any] = {}
    give_back()
    if prepared.normalization.frames is not None:
        say("fitting regressions on the energies of frames")
        out |= rate_scores(model, prepared)
    return out | glm_scores(prepared, seed=prepared.config.seed, say=say)


def sampled(recordings: int) -> int:
    """Windows of each of so many recordings that are scored after training, so that many of them take no longer than
    training them.
    """
    return max(FEWEST_WINDOWS, MOST_WINDOWS // recordings)


def distribution(each: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The scores of a run of several recordings, from those of each by name.

    Of every kind of bits, over the recordings that have it: the mean under its own name, ``_median``, ``_lower_quartile``,
    ``_upper_quartile`` and ``_worst``. ``recordings``: how many; ``worst_recording``: which one has the fewest bits.
    """
    out: dict[str, Any] = {"recordings": len(each)}
    for key in dict.fromkeys(k for scores in each.values() for k in scores if k.startswith("bits")):
        having = {name: float(scores[key]) for name, scores in each.items() if scores.get(key) is not None}
        values = list(having.values()) or [float("nan")]
        worst, low, median, high = np.quantile(values, [0, 0.25, 0.5, 0.75]).tolist()
        out |= {key: float(np.mean(values)), f"{key}_median": median, f"{key}_worst": worst}
        out |= {f"{key}_lower_quartile": low, f"{key}_upper_quartile": high}
        if having:
            out.setdefault("worst_recording", min(having, key=having.__getitem__))
    return out


def evaluate_each(
    run: Path, names: Sequence[str], *, baselines: bool, most: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """:func:`evaluate` recordings of a run in parallel processes, as many as there are cores and memory for; each by name as
    it is done.
    """
    room = int(free_memory(torch.device("cpu")) // PROCESS_BYTES)
    jobs = max(1, min(len(names), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, room))
    if jobs == 1:
        for name in names:
            yield name, evaluate(run, recording=name, baselines=baselines, most=most)
        return
    for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[threads] = "1"  # read by the libraries of the new processes
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        asked = {pool.submit(evaluate, run, recording=n, baselines=baselines, most=most): n for n in names}
        for done in as_completed(asked):
            yield asked[done], done.result()


def _trace_scores(model: Neuroformer, prepared: Prepared, scores: Scores, baselines: bool) -> dict[str, Any]:
    """Scores of traces; the baseline is a Gaussian autoregression, so it stands beside Gaussian scores only."""
    c = prepared.config
    low, high = scores.interval()
    out: dict[str, Any] = {
        "bits_per_sample": scores.bits(),
        "bits_per_sample_low": low,
        "bits_per_sample_high": high,
        "test_samples": scores.number,
    }
    if baselines and c.traces.likelihood == "gaussian":
        out["bits_per_sample_autoregression"] = autoregression_bits(prepared)
    if baselines and prepared.normalization.frames is not None:
        out |= rate_scores(model, prepared)
    return out

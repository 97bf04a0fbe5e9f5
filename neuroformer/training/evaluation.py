"""Held-out scores of a trained model beside their baselines: the numbers that training puts into ``summary.json``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.baselines.glm.fit import glm_scores
from neuroformer.baselines.oracle import oracle_bits_per_spike
from neuroformer.baselines.trace_autoregression import autoregression_bits
from neuroformer.bundle.bundle import STIMULUS, check_units, load_model, read_bundle
from neuroformer.bundle.opening import open_run
from neuroformer.data.prepared import Prepared
from neuroformer.model.network import Neuroformer
from neuroformer.training.rates import rate_scores
from neuroformer.training.scores import Scores, score


def evaluate(
    run: Neuroformer | str | Path,
    prepared: Prepared | None = None,
    *,
    recording: str = "",
    baselines: bool = True,
    tell: Callable[[str], object] = lambda line: None,
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Any]:
    """Score a model on the test part of a recording, beside baselines that are fitted on its training part.

    Parameters
    ----------
    run : a model, or the folder of a trained run (its likelihood's best weights are scored; ``stimulus_r`` and FEVE those that
        followed validation clips best)
    prepared : the recording; of a run, its own unless given
    recording : the name of one recording, in a run of several; without it, the scores are the means over all
    baselines : also fit the GLMs (or, for Gaussian traces, the autoregression)
    tell : called with a line on each score that is left out
    say : called with a line before each step that may take long

    Returns
    -------
    dict
        For spikes: ``bits_per_spike`` and ``bits_per_spike_rate_readout`` (see
        :class:`neuroformer.training.scores.Scores`), ``test_spikes``, ``test_windows``; ``bits_per_spike_oracle`` of a
        recording whose true rates are known; ``bits_per_spike_glm_past``, ``bits_per_spike_glm_every``,
        ``bits_per_spike_glm`` (the stronger one) and ``glm_seconds``.
        With frames (of traces as of spikes), medians over units of the correlation between counts and expected counts over distinct clips, both
        averaged over the windows that saw a clip: ``stimulus_r`` of the model, ``stimulus_r_energy_ridge`` and
        ``stimulus_r_energy_poisson`` of regressions on the Gabor energies of the same frames, and where clips repeat
        ``stimulus_r_ceiling`` of the true expectation and the model's ``stimulus_feve``
        (:class:`neuroformer.training.rates.HeldOutRates`).
        For traces: ``bits_per_sample`` with its interval, ``test_samples``, ``bits_per_sample_autoregression``.
        Of several recordings: the means of all bits, and ``recordings``, how many.

    Raises
    ------
    ValueError
        A model without ``prepared``; a folder that holds no run, or whose recording is not the run's.
    """
    if isinstance(run, (str, Path)):
        names = [m.name for m in read_bundle(run).recordings]
        if prepared is None and len(names) > 1 and not recording:
            return mean_scores(
                [evaluate(run, recording=name, baselines=baselines, tell=tell, say=say) for name in names]
            )
        if prepared is None:
            bundle, prepared = open_run(Path(run), recording=recording)
        else:
            bundle = read_bundle(run).of(recording or prepared.rec.name)
            check_units(bundle, prepared.rec)
        model = load_model(bundle)
        seeing = load_model(bundle, STIMULUS) if STIMULUS in bundle.digests else model
    elif prepared is None:
        raise ValueError("a model alone cannot be scored; give the prepared recording too, or the folder of a run")
    else:
        model = seeing = run
    say("scoring held-out windows")
    scores = score(model, prepared, "test")
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
    if prepared.normalization.frames is not None:
        say("fitting regressions on the energies of frames")
        out |= rate_scores(model, prepared)
    return out | glm_scores(prepared, seed=prepared.config.seed, say=say)


def mean_scores(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The scores of a run of several recordings: the mean of every kind of bits over the recordings that have it."""
    names = dict.fromkeys(k for scores in each for k in scores if k.startswith("bits"))
    mean = {k: float(np.mean([scores[k] for scores in each if k in scores])) for k in names}
    return mean | {"recordings": len(each)}


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

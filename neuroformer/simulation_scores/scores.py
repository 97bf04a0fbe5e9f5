"""Simulated trials against held-out ones: every score beside data against data and two Poisson simulators.

Shape suffixes: T trials, K samples, B bins, U units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from neuroformer.intervals import LEAST_TRIALS, left_out
from neuroformer.simulation_scores.drift import Chains, chained, late_scores, since_closed
from neuroformer.simulation_scores.poisson_simulators import PoissonSimulator, homogeneous, psth_poisson
from neuroformer.simulation_scores.psth import WIDTH_S
from neuroformer.simulation_scores.rates import expected_counts, feve, rate_bits, single_trial_r
from neuroformer.simulation_scores.recorded import RecordedTrials
from neuroformer.simulation_scores.sides import Side, over_held_out, with_intervals
from neuroformer.simulation_scores.statistics import MAX_PAIR_UNITS
from neuroformer.simulation_scores.trials import Trials
from neuroformer.simulation_scores.two_sample import two_sample

PRIOR = 1.0  # samples that the mean rate is worth where sampled counts become rates of a likelihood


def score_simulation(
    simulated: Trials,
    parts: RecordedTrials,
    *,
    true_past: Trials | None = None,
    chains: Chains | None = None,
    stated: Mapping[str, list[np.ndarray]] = MappingProxyType({}),
    whole: int = 1,
    seed: int = 0,
    progress: Callable[[str], object] = lambda what: None,
) -> dict[str, Any]:
    """Every score of a simulation, with 95 % intervals, its ceiling and its floors.

    Five candidates are compared with the held-out trials by the same scores: ``model`` (closed loop),
    ``true_past`` (each window drawn after the recorded past, as many samples), ``ceiling`` (as many training
    trials: data against data), ``psth_poisson`` and ``homogeneous`` (as many trials of those simulators).

    Scores are those of :func:`neuroformer.simulation_scores.statistics.compare`, and: ``psth_r``, median over units of r
    between PSTHs in bins of 50 ms, over the stimuli one after another; ``single_trial_r``, mean over units of
    r with single trials, and ``feve``, both of the mean over the samples of a trial (for ``ceiling`` the mean
    over all other repeats of its stimulus: the leave-one-out oracle); ``rate_bits`` and ``rate_bits_per_unit``, bits/spike
    of those means as Poisson rates in bins of 50 ms (pooled over units, and averaged), where samples carry a prior of one
    sample at the training mean: with 3 samples it costs much, so only rates that are ``stated`` and the two simulators
    compare without it; ``classifier``, the balanced accuracy of
    the stronger of two classifiers in telling candidate from held-out trials, 0.5 being perfect. Intervals
    are over held-out trials, as many others of the same kind, of which some are left out with their imitations (training
    trials of ``ceiling`` on their own), see :func:`neuroformer.intervals.over_trials`; fewer than six trials have none.

    Parameters
    ----------
    simulated, true_past : imitations of the held-out trials, by ``source``, the same number of each
    parts : recorded trials
    chains : loops that ran on from trial to trial, for the drift; without them it is read off the trials themselves
    stated : by candidate, (bins, units) log expected counts of each held-out trial: ``readout``, the model's own after the
        recorded past; ``stimulus``, what frames alone tell a regression
    whole : bins per window; likelihoods are of the bins that whole windows tile
    progress : called with what is scored next

    Returns
    -------
    dict, ready for JSON
        ``candidates``: by name and score, ``[value, low, high]``. ``since_closed`` and ``late``: drift, see
        :mod:`neuroformer.simulation_scores.drift`. ``bits_per_spike``: of both Poisson simulators. ``num_samples``, ``num_trials``, ``classifier``.
    """
    held_out = parts.held_out
    progress("Poisson simulators")
    simulators: dict[str, PoissonSimulator | None] = {
        "psth_poisson": psth_poisson(parts.train, parts.valid),
        "homogeneous": homogeneous(parts.train),
    }
    candidates = _candidates(simulated, true_past, parts.train, simulators, seed)
    out = _compared(candidates, parts, simulators, seed, progress)
    for name, log_rates in stated.items():
        out["candidates"][name] = _readout_scores(log_rates, held_out)
    out["expected_counts"] = {"num_samples": len(simulated) / len(held_out), "prior": PRIOR}
    out["bits_per_spike"] = {n: s.bits_per_spike(held_out, whole) for n, s in simulators.items() if s is not None}
    chosen = simulators["psth_poisson"]
    if chosen is not None:
        out["psth_poisson_choice"] = {"smoothing_s": chosen.smoothing_s, "floor": chosen.floor}
    if chains is None:
        chains = chained(np.arange(len(held_out))[None], [simulated], parts, true_past, seed)
    progress("drift")
    out["since_closed"], out["late"] = since_closed(chains), late_scores(chains)
    out["num_samples"] = len(simulated) / len(held_out)
    out["num_trials"] = {"held_out": len(held_out), "simulated": len(simulated), "train": len(parts.train)}
    return out


def _compared(
    candidates: dict[str, Trials],
    parts: RecordedTrials,
    simulators: dict[str, PoissonSimulator | None],
    seed: int,
    progress: Callable[[str], object],
) -> dict[str, Any]:
    """``candidates``: the scores of each against the held-out trials; ``classifier``: the accuracies of both classifiers."""
    held_out = parts.held_out
    busiest = np.argsort(-np.bincount(parts.train.unit, minlength=held_out.num_units))
    pair_units = np.sort(busiest[:MAX_PAIR_UNITS])
    out: dict[str, Any] = {"candidates": {}, "classifier": {}}
    true = Side(held_out, pair_units)
    for name, trials in candidates.items():
        progress(name)
        values = with_intervals(Side(trials, pair_units), true, paired=name != "ceiling")
        values |= _rate_scores(name, trials, parts, simulators)
        test = two_sample(held_out, trials, seed)
        if test is not None:
            values["classifier"] = [test.best, *test.interval()]
            out["classifier"][name] = test.accuracy
        out["candidates"][name] = values
    return out


def _candidates(
    simulated: Trials,
    true_past: Trials | None,
    train: Trials,
    simulators: dict[str, PoissonSimulator | None],
    seed: int,
) -> dict[str, Trials]:
    """The candidates that exist, by name."""
    made = {"model": simulated, "true_past": true_past, "ceiling": _as_many(train, simulated, seed)}
    for i, (name, one) in enumerate(simulators.items()):
        made[name] = None if one is None else one.sample(simulated, seed + 1 + i)
    return {name: trials for name, trials in made.items() if trials is not None}


def _as_many(train: Trials, simulated: Trials, seed: int) -> Trials:
    """Training trials, as many of each stimulus as were simulated, if there are that many. If training showed
    none of these stimuli, trials of others: their rates, intervals and correlations can still be compared.
    """
    rng = np.random.default_rng(seed)
    keep = [np.zeros(0, np.int64)]
    for s in np.unique(simulated.stimulus):
        there = rng.permutation(np.flatnonzero(train.stimulus == s))
        keep.append(there[: int((simulated.stimulus == s).sum())])
    rows = np.concatenate(keep)
    if len(rows) == 0:
        rows = rng.permutation(len(train))[: len(simulated)]
    return train.rows(np.sort(rows))


def _rate_scores(name: str, trials: Trials, parts: RecordedTrials, simulators) -> dict[str, list[float]]:
    """Scores of the expected counts of each held-out trial, in bins of 50 ms, from samples or known rates."""
    held = parts.held_out
    if name in simulators:
        one = simulators[name]
        fine = [one.rates(int(s), int(n)) for s, n in zip(held.stimulus, held.num_ticks, strict=True)]
        return _readout_scores([np.log(x) for x in fine], held)
    join = _join(held)
    samples = _samples_of_each(name, trials, parts, join)
    if any(len(x) == 0 for x in samples):
        return {}
    recorded = [y[: x.shape[1]] for x, y in zip(samples, held.known_counts(join), strict=True)]
    samples = [x[:, : len(y)] for x, y in zip(samples, recorded, strict=True)]
    mean_U = join * simulators["homogeneous"].mean_U
    for x, y in zip(samples, recorded, strict=True):  # what nothing is expected of cannot be scored
        y[~np.isfinite(x).any(0)] = np.nan
    plain = [expected_counts(x) for x in samples]
    likely = [expected_counts(x, prior=PRIOR, mean_U=mean_U) for x in samples]
    return _scores_of_expected(recorded, plain, likely, held.stimulus)


def _readout_scores(log_rates: list[np.ndarray], held: Trials) -> dict[str, list[float]]:
    """The same of (bins, units) log expected counts per bin of each held-out trial, as far as they go."""
    predicted = [expected_counts(x, readout=True, join=_join(held)) for x in log_rates]
    recorded = [y[: len(p.expected_BU)] for y, p in zip(held.known_counts(_join(held)), predicted, strict=True)]
    return _scores_of_expected(recorded, predicted, predicted, held.stimulus)


def _scores_of_expected(recorded, plain, likely, stimulus: np.ndarray) -> dict[str, list[float]]:
    """Scores with intervals over held-out trials, of which some are left out with their expected counts."""
    score = lambda rows: _of_expected(recorded, plain, likely, stimulus, rows)
    values = score(np.arange(len(recorded)))
    trials = len(recorded)
    without = [score(np.flatnonzero(~gone)) for gone in left_out(trials)] if trials >= LEAST_TRIALS else [{}]
    found = over_held_out(values, without, trials)
    return {k: [v, *found[k].ends()[:, 0].tolist()] for k, v in values.items()}


def _of_expected(recorded, plain, likely, stimulus: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    recorded, plain, likely = ([x[i] for i in rows] for x in (recorded, plain, likely))
    r, bits = single_trial_r(recorded, plain), rate_bits(recorded, likely)
    out = {
        "single_trial_r": float(np.nanmean(r)) if np.isfinite(r).any() else float("nan"),
        "rate_bits": bits.pooled,
        "rate_bits_per_unit": bits.per_unit_mean,
    }
    value, units = feve(recorded, plain, stimulus[rows])
    return out | ({"feve": value, "feve_units": units} if units else {})


def _join(held: Trials) -> int:
    return max(1, round(WIDTH_S / held.dt))


def _samples_of_each(name: str, trials: Trials, parts: RecordedTrials, join: int) -> list[np.ndarray]:
    """(K, B, U) samples of every held-out trial: its imitations, or all other repeats of its stimulus."""
    wide = trials.counts(join)
    if name != "ceiling":
        return [np.stack([wide[t] for t in np.flatnonzero(trials.source == s)]) for s in parts.held_out.source]
    recorded = [(side, side.known_counts(join)) for side in (parts.train, parts.held_out)]
    out = []
    for source, stimulus in zip(parts.held_out.source, parts.held_out.stimulus, strict=True):
        others = [
            x
            for side, counts in recorded
            for t, x in enumerate(counts)
            if stimulus >= 0 and side.stimulus[t] == stimulus and side.source[t] != source
        ]
        bins = min((len(x) for x in others), default=0)
        out.append(np.stack([x[:bins] for x in others]) if others else np.zeros((0, 0, 0)))
    return out


def flat_scores(scores: dict[str, Any]) -> dict[str, float]:
    """The scores for a flat summary: ``simulation_SCORE``, its interval, and each other candidate's value.

    ``simulation_rate_ratio_late`` is the population rate over the recorded one from ``simulation_late_s`` of closed
    loop on, 32 s unless the chains of trials are shorter.
    """
    out: dict[str, float] = {}
    for name, values in scores["candidates"].items():
        for key, (value, low, high) in values.items():
            full = f"simulation_{key}" if name == "model" else f"simulation_{key}_{name}"
            out[full] = value
            if name == "model" and np.isfinite(low):
                out |= {f"{full}_low": low, f"{full}_high": high}
    out |= {f"bits_per_spike_{k}": v for k, v in scores["bits_per_spike"].items()}
    late = scores["late"]
    out["simulation_late_s"] = late["since_s"]
    for name in [n for n in late if n in scores["candidates"]]:
        prefix = "simulation_" if name == "model" else f"simulation_{name}_"
        for key, (value, low, high) in late[name].items():
            out |= {
                f"{prefix}{key}_late": value,
                f"{prefix}{key}_late_low": low,
                f"{prefix}{key}_late_high": high,
            }
    return {k: v for k, v in out.items() if np.isfinite(v)}

"""Simulated trials against held-out ones: every score beside data against data and two Poisson simulators.

Shape suffixes: T trials, K samples, B bins, U units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroformer.analysis.poisson import PoissonSimulator, homogeneous, psth_poisson
from neuroformer.analysis.psth import stimulus_of_trials
from neuroformer.analysis.rates import expected_counts, feve, single_trial_r
from neuroformer.analysis.statistics import MAX_PAIR_UNITS, WIDTH_S, Statistics, compare, correlation
from neuroformer.analysis.trials import Trials
from neuroformer.analysis.two_sample import two_sample
from neuroformer.data.splits import Split
from neuroformer.metrics import psth_r
from neuroformer.recording import Recording

STRETCH_S = 4.0  # of the scores against time
LATE_S = 32.0  # the closed loop has run for so long where its drift is read off


@dataclass(frozen=True, eq=False)
class Parts:
    """The recorded trials that a simulation is scored with; :func:`recorded_parts` makes it."""

    train: Trials
    valid: Trials
    held_out: Trials


def recorded_parts(rec: Recording, split: Split, part: str, max_seconds: float = 0.0) -> Parts:
    """Training, validation and held-out trials, at most ``max_seconds`` (0: all) of each.

    In a split by blocks a block is a trial without a stimulus.
    """
    by_trial = rec.num_trials > 0 and len(split.segments) == rec.num_trials
    stimulus = stimulus_of_trials(rec) if by_trial else None
    made = {}
    for name in {"train", "valid", part}:
        blocks = split.blocks[name]
        known = stimulus[blocks[:, 0]] if stimulus is not None else np.full(len(blocks), -1)
        source = blocks[:, 0] if by_trial else np.arange(len(blocks))
        made[name] = Trials.from_recording(rec, split.intervals(name), split.dt, source, known)
        if max_seconds:
            made[name] = made[name].first(round(max_seconds / split.dt))
    return Parts(made["train"], made["valid"], made[part])


def simulated_trials(simulated: Recording, held_out: Trials) -> Trials:
    """The sequences of a simulation of the held-out part, as imitations of its trials or blocks."""
    source = np.asarray(simulated.trials["source_block"], np.int64)
    kind = dict(zip(np.arange(len(held_out)), held_out.stimulus, strict=True))
    return Trials.from_recording(
        simulated, simulated.trial_intervals, held_out.dt, held_out.source[source], [kind[s] for s in source]
    )


def score_simulation(
    simulated: Trials,
    parts: Parts,
    *,
    true_past: Trials | None = None,
    whole: int = 1,
    bootstraps: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Every score of a simulation, with 95 % intervals, its ceiling and its floors.

    Five candidates are compared with the held-out trials by the same scores: ``model`` (closed loop),
    ``true_past`` (each window drawn after the recorded past, as many samples), ``ceiling`` (as many training
    trials: data against data), ``psth_poisson`` and ``homogeneous`` (as many trials of those simulators).

    Scores are those of :func:`neuroformer.analysis.statistics.compare`, and: ``psth_r``, median over units of r
    between PSTHs in bins of 50 ms, over the stimuli one after another; ``single_trial_r``, mean over units of
    r with single trials, and ``feve``, both of the mean over the samples of a trial (for ``ceiling`` the mean
    over all other repeats of its stimulus: the leave-one-out oracle); ``classifier``, the balanced accuracy of
    the stronger of two classifiers in telling candidate from held-out trials, 0.5 being perfect. Intervals:
    held-out trials drawn again with replacement, and their imitations with them (training trials on their own).
    Such a draw holds fewer distinct trials, which lowers whatever averages over them, so the interval is the
    spread of the draws about their median, laid around the value.

    Parameters
    ----------
    simulated, true_past : imitations of the held-out trials, by ``source``, the same number of each
    parts : recorded trials
    whole : bins a window; likelihoods are of the bins that whole windows tile

    Returns
    -------
    dict, ready for JSON
        ``candidates``: by name and score, ``[value, low, high]``. ``since_closed``: lists over stretches of
        4 s. ``bits_per_spike``: of both Poisson simulators. ``num_samples``, ``num_trials``, ``classifier``.
    """
    held_out = parts.held_out
    simulators: dict[str, PoissonSimulator | None] = {
        "psth_poisson": psth_poisson(parts.train, parts.valid), "homogeneous": homogeneous(parts.train),
    }  # fmt: skip
    candidates: dict[str, Trials | None] = {"model": simulated, "true_past": true_past}
    candidates["ceiling"] = _as_many(parts.train, simulated, seed)
    for i, (name, one) in enumerate(simulators.items()):
        candidates[name] = None if one is None else one.sample(simulated, seed + 1 + i)
    pair_units = np.sort(np.argsort(-np.bincount(parts.train.unit, minlength=held_out.num_units))[:MAX_PAIR_UNITS])  # fmt: skip
    out: dict[str, Any] = {"candidates": {}, "classifier": {}}
    true = _Side(held_out, pair_units)
    for name, trials in candidates.items():
        if trials is None:
            continue
        values = _with_intervals(
            _Side(trials, pair_units), true, bootstraps, seed, paired=name not in ("ceiling",)
        )
        values |= _rate_scores(name, trials, parts, simulators)
        test = two_sample(held_out, trials, seed)
        if test is not None:
            values["classifier"] = [test.best, *test.interval(bootstraps, seed)]
            out["classifier"][name] = test.accuracy
        out["candidates"][name] = values
    out["bits_per_spike"] = {n: s.bits_per_spike(held_out, whole) for n, s in simulators.items() if s is not None}  # fmt: skip
    chosen = simulators["psth_poisson"]
    if chosen is not None:
        out["psth_poisson_choice"] = {"smoothing_s": chosen.smoothing_s, "floor": chosen.floor}
    out["since_closed"] = since_closed(
        simulated, held_out, true_past=candidates["true_past"], ceiling=candidates["ceiling"]
    )
    out["num_samples"] = len(simulated) / len(held_out)
    out["num_trials"] = {"held_out": len(held_out), "simulated": len(simulated), "train": len(parts.train)}
    return out


def _as_many(train: Trials, simulated: Trials, seed: int) -> Trials:
    """Training trials, as many of each stimulus as were simulated, where there are that many."""
    rng = np.random.default_rng(seed)
    keep = []
    for s in np.unique(simulated.stimulus):
        there = rng.permutation(np.flatnonzero(train.stimulus == s))
        keep.append(there[: int((simulated.stimulus == s).sum())])
    return train.rows(np.sort(np.concatenate(keep)))


class _Side:
    """A candidate or the held-out trials: their statistics and PSTH counts, ready to be drawn from."""

    def __init__(self, trials: Trials, pair_units: np.ndarray):
        self.trials = trials
        self.statistics = Statistics.of(trials, pair_units)
        self.wide_TBU = trials.dense(max(1, round(WIDTH_S / trials.dt)))
        self.has_stimulus = bool((trials.stimulus >= 0).any())

    def psths(self, rows: np.ndarray) -> dict[int, np.ndarray]:
        stimulus = self.trials.stimulus[rows]
        return {int(s): self.wide_TBU[rows[stimulus == s]].mean(0) for s in np.unique(stimulus[stimulus >= 0])}  # fmt: skip


def _scores(a: _Side, rows_a: np.ndarray, b: _Side, rows_b: np.ndarray) -> dict[str, float]:
    out = compare(a.statistics.total(rows_a), b.statistics.total(rows_b))
    if a.has_stimulus and b.has_stimulus:
        out["psth_r"] = _psth_r(a.psths(rows_a), b.psths(rows_b))
    return out


def _psth_r(a: dict[int, np.ndarray], b: dict[int, np.ndarray]) -> float:
    shared = sorted(set(a) & set(b))
    if not shared:
        return float("nan")
    bins = {s: min(len(a[s]), len(b[s])) for s in shared}
    return psth_r(*(np.concatenate([x[s][: bins[s]] for s in shared]) for x in (a, b))).r


def _with_intervals(
    a: _Side, b: _Side, bootstraps: int, seed: int, *, paired: bool
) -> dict[str, list[float]]:
    rng = np.random.default_rng(seed)
    rows = lambda side: np.arange(len(side.trials))
    value = _scores(a, rows(a), b, rows(b))
    draws: dict[str, list[float]] = {k: [] for k in value}
    imitations = {s: np.flatnonzero(a.trials.source == s) for s in b.trials.source}
    for _ in range(bootstraps if len(b.trials) > 1 else 0):
        rows_b = rng.integers(len(b.trials), size=len(b.trials))
        if paired:
            rows_a = np.concatenate([imitations[s] for s in b.trials.source[rows_b]])
        else:
            rows_a = rng.integers(len(a.trials), size=len(a.trials))
        for k, v in _scores(a, rows_a, b, rows_b).items():
            draws[k].append(v)
    return {k: [v, *_interval(v, draws[k])] for k, v in value.items()}


def _interval(value: float, draws: list[float]) -> tuple[float, float]:
    known = np.array([d for d in draws if np.isfinite(d)])
    if len(known) == 0:
        return float("nan"), float("nan")
    low, middle, high = np.percentile(known, [2.5, 50, 97.5])
    return float(value + low - middle), float(value + high - middle)


def _rate_scores(name: str, trials: Trials, parts: Parts, simulators) -> dict[str, list[float]]:
    """single_trial_r and FEVE of the expected counts of each held-out trial, in bins of 50 ms."""
    held = parts.held_out
    join = max(1, round(WIDTH_S / held.dt))
    recorded = held.counts(join)
    if name in simulators:
        one = simulators[name]
        fine = [one.rates(int(s), int(n)) for s, n in zip(held.stimulus, held.num_ticks, strict=True)]
        wide = [x[: len(y) * join].reshape(len(y), join, x.shape[1]).sum(1) for x, y in zip(fine, recorded, strict=True)]  # fmt: skip
        predicted = [expected_counts(np.log(x), readout=True) for x in wide]
    else:
        samples = _samples_of_each(name, trials, parts, join)
        if any(len(x) == 0 for x in samples):
            return {}
        predicted = [expected_counts(x[:, : len(y)]) for x, y in zip(samples, recorded, strict=True)]
        recorded = [y[: len(p.expected_BU)] for y, p in zip(recorded, predicted, strict=True)]
    r = single_trial_r(recorded, predicted)
    nan = float("nan")
    out = {"single_trial_r": [float(np.nanmean(r)) if np.isfinite(r).any() else nan, nan, nan]}
    value, units = feve(recorded, predicted, held.stimulus)
    if units:
        out |= {"feve": [value, nan, nan], "feve_units": [units, nan, nan]}
    return out


def _samples_of_each(name: str, trials: Trials, parts: Parts, join: int) -> list[np.ndarray]:
    """(K, B, U) samples of every held-out trial: its imitations, or all other repeats of its stimulus."""
    wide = trials.counts(join)
    if name != "ceiling":
        return [np.stack([wide[t] for t in np.flatnonzero(trials.source == s)]) for s in parts.held_out.source]  # fmt: skip
    recorded = [(parts.train, parts.train.counts(join)), (parts.held_out, parts.held_out.counts(join))]
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


def since_closed(simulated: Trials, held_out: Trials, **others: Trials | None) -> dict[str, list[float]]:
    """How far the closed loop drifts: scores in stretches of 4 s since it closed.

    Returns
    -------
    dict of equal lists
        ``start_s``; ``rate_ratio``: population rate over the recorded one; ``rate_r``: r over units of log rates;
        ``psth_r`` where stimuli repeat; each also for the
        ``others``, as ``NAME_...``. A stretch of few trials varies on its own: ``ceiling``, training trials in place of the
        simulation, shows by how much.
    """
    step = round(STRETCH_S / held_out.dt)
    starts = np.arange(0, int(held_out.num_ticks.max(initial=0)) - step + 1, step)
    out: dict[str, list[float]] = {"start_s": [float(s * held_out.dt) for s in starts]}
    sides = {"": simulated} | {f"{name}_": side for name, side in others.items() if side is not None}
    for prefix, side in sides.items():
        for start in starts.tolist():
            part, true = (t.stretch(start, start + step) for t in (side, held_out))
            for k, v in _stretch_scores(part, true).items():
                out.setdefault(prefix + k, []).append(v)
    return out


def _stretch_scores(a: Trials, b: Trials) -> dict[str, float]:
    count = lambda t: np.bincount(t.unit, minlength=t.num_units) / max(t.seconds_T.sum(), 1e-9)
    rate_a, rate_b = count(a), count(b)
    half = 0.5 / max(b.seconds_T.sum(), 1e-9)
    out = {
        "rate_ratio": float(rate_a.sum() / rate_b.sum()) if rate_b.sum() > 0 else float("nan"),
        "rate_r": correlation(np.log(rate_a + half), np.log(rate_b + half)),
    }
    if (b.stimulus >= 0).any():
        none = np.zeros(0, np.int64)
        sides = _Side(a, none), _Side(b, none)
        out["psth_r"] = _psth_r(*(s.psths(np.arange(len(s.trials))) for s in sides))
    return out


def flat_scores(scores: dict[str, Any]) -> dict[str, float]:
    """The scores for a flat summary: ``simulation_SCORE``, its interval, and each other candidate's value.

    ``simulation_rate_ratio_late`` is the population rate over the recorded one from 32 s of closed loop on, or in
    the last stretch of shorter trials (``simulation_late_s`` says where that begins).
    """
    out: dict[str, float] = {}
    for name, values in scores["candidates"].items():
        for key, (value, low, high) in values.items():
            full = f"simulation_{key}" if name == "model" else f"simulation_{key}_{name}"
            out[full] = value
            if name == "model" and np.isfinite(low):
                out |= {f"{full}_low": low, f"{full}_high": high}
    out |= {f"bits_per_spike_{k}": v for k, v in scores["bits_per_spike"].items()}
    drift = scores["since_closed"]
    late = [i for i, s in enumerate(drift["start_s"]) if s >= LATE_S - 1e-9] or [len(drift["start_s"]) - 1]
    if drift["start_s"]:
        out["simulation_late_s"] = drift["start_s"][late[0]]
        for key in [k for k in drift if k != "start_s"]:
            out[f"simulation_{key}_late"] = float(np.mean([drift[key][i] for i in late]))
    return {k: v for k, v in out.items() if np.isfinite(v)}

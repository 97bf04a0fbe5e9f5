"""How far a closed loop drifts: scores against the seconds since it closed.

A loop often drifts over longer times than a trial lasts. So it runs on from one held-out trial into the next
one of the same stimulus, keeping its own past, and is compared with the recorded trials joined in the same
order.

Shape suffixes: L legs, C chains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neuroformer.simulation_scores.recorded import RecordedTrials
from neuroformer.simulation_scores.sides import Side, scores_of_all, with_intervals
from neuroformer.simulation_scores.trials import Trials

INTERVAL_S = 8.0  # seconds per stretch of the scores against time
LATE_S = 32.0  # seconds of closed loop after which drift is measured
CHAIN_S = 64.0  # seconds that a loop runs
MAX_LEGS, MIN_CHAINS = 16, 8
SCORES = ("rate_ratio", "rate_r", "pair_r", "psth_r")


def chain_order(held_out: Trials) -> np.ndarray:
    """(L, C) the held-out trials of every chain: each trial, then the following ones of its stimulus, in a
    circle.

    A chain lasts 64 s or 16 trials. All chains together last at most twice as long as the trials, but there are
    up to 8 of them in any case.
    """
    following = np.arange(len(held_out))
    for s in np.unique(held_out.stimulus):
        rows = np.flatnonzero(held_out.stimulus == s)
        following[rows] = np.roll(rows, -1)
    legs, lasted = [np.arange(len(held_out))], held_out.seconds_T.copy()
    while lasted.min(initial=CHAIN_S) < CHAIN_S - 1e-9 and len(legs) < MAX_LEGS:
        legs.append(following[legs[-1]])
        lasted += held_out.seconds_T[legs[-1]]
    most = max(MIN_CHAINS, int(2 * held_out.seconds_T.sum() / max(lasted.max(initial=0), 1e-9)))
    chosen = np.linspace(0, len(held_out) - 1, min(most, len(held_out))).astype(int)
    return np.stack(legs)[:, chosen]


@dataclass(frozen=True, eq=False)
class Chains:
    """Trials joined one after another, as long as the loop ran; ``source`` and ``stimulus`` are those of the
    first leg.
    """

    simulated: Trials
    held_out: Trials
    true_past: Trials | None
    ceiling: Trials


def chained(
    order_LC: np.ndarray, legs: list[Trials], parts: RecordedTrials, true_past: Trials | None, seed: int = 0
) -> Chains:
    """The legs of a simulation joined, with the recorded trials (and those simulated after the true past)
    joined likewise.

    Parameters
    ----------
    order_LC : from :func:`chain_order`
    legs : of each leg, imitations of the trials that its chains pass, as many samples of each
    true_past : imitations of the held-out trials, as many samples of each
    """
    rng = np.random.default_rng(seed)
    made, true, after, ceiling = [], [], [], []
    for rows_C, leg in zip(order_LC, legs, strict=True):
        source_C = parts.held_out.source[rows_C]
        made.append(leg.rows(imitations(leg, source_C)))
        samples = len(made[-1]) // len(rows_C)
        true.append(parts.held_out.rows(rows_C).first(made[-1].num_ticks[::samples]))
        if true_past is not None:
            after.append(true_past.rows(imitations(true_past, source_C)).first(made[-1].num_ticks))
        ceiling.append(_of_training(parts.train, made[-1], rng))
    return Chains(joined(made), joined(true), joined(after) if after else None, joined(ceiling))


def imitations(trials: Trials, source_C: np.ndarray) -> np.ndarray:
    """Rows of all trials that imitate each source, source after source."""
    return np.concatenate([np.flatnonzero(trials.source == s) for s in source_C])


def _of_training(train: Trials, like: Trials, rng: np.random.Generator) -> Trials:
    """Training trials of the same stimuli in the same order; none is used twice while others are left."""
    rows = np.zeros(len(like), np.int64)
    for s in np.unique(like.stimulus):
        there, wanted = (
            rng.permutation(np.flatnonzero(train.stimulus == s)),
            np.flatnonzero(like.stimulus == s),
        )
        if len(there) == 0:
            there = rng.permutation(len(train))
        rows[wanted] = np.resize(there, len(wanted))
    return replace(train.rows(rows).first(like.num_ticks), stimulus=like.stimulus)


def joined(legs: list[Trials]) -> Trials:
    """Row by row, the trials of all legs one after another."""
    before = np.zeros(len(legs[0]), np.int64)
    parts = []
    for leg in legs:
        parts.append(np.stack([leg.trial, leg.tick + before[leg.trial], leg.unit]))
        before = before + leg.num_ticks
    trial, tick, unit = np.concatenate(parts, 1)
    order = np.lexsort((unit, tick, trial))
    seen = [leg.seen_TU for leg in legs if leg.seen_TU is not None]
    whole = replace(legs[0], trial=trial[order], tick=tick[order], unit=unit[order], num_ticks=before, seen_TU=None)
    return whole.seen_as(np.logical_and.reduce(seen) if seen else None)


def since_closed(chains: Chains) -> dict[str, list[float]]:
    """Scores in stretches of 8 s since the loop closed.

    Returns
    -------
    dict of equal lists
        ``start_s``; ``rate_ratio``, ``rate_r``, ``pair_r`` (see :func:`neuroformer.simulation_scores.statistics.compare`) and,
        where stimuli are known, ``psth_r``; each also as ``true_past_...`` and ``ceiling_...``. A stretch of few
        trials varies on its own: ``ceiling``, training trials in place of the simulation, shows by how much.
    """
    held_out = chains.held_out
    step = round(INTERVAL_S / held_out.dt)
    starts = np.arange(0, int(min(held_out.num_ticks, default=0)) - step + 1, step)
    out: dict[str, list[float]] = {"start_s": [float(s * held_out.dt) for s in starts]}
    for start in starts.tolist():
        true, units = Side.of_active(held_out.between(start, start + step))
        for prefix, trials in _candidates(chains).items():
            side = Side(trials.between(start, start + step), units)
            values = scores_of_all(side, true)
            for key in SCORES:
                if key in values:
                    out.setdefault(("" if prefix == "model" else f"{prefix}_") + key, []).append(values[key])
    return out


def late_scores(chains: Chains) -> dict[str, Any]:
    """The same scores after 32 s of closed loop, with 95 % intervals over chains; of the second half if chains
    are shorter than 40 s.

    Returns
    -------
    dict
        ``since_s``, ``until_s``, and by candidate and score ``[value, low, high]``.
    """
    held_out = chains.held_out
    stop = int(min(held_out.num_ticks, default=0))
    start = round(LATE_S / held_out.dt)
    if stop < start + round(INTERVAL_S / held_out.dt):
        start = stop // 2
    true, units = Side.of_active(held_out.between(start, stop))
    out: dict[str, Any] = {"since_s": start * held_out.dt, "until_s": stop * held_out.dt}
    for name, trials in _candidates(chains).items():
        side = Side(trials.between(start, stop), units)
        values = with_intervals(side, true, paired=name != "ceiling")
        out[name] = {k: values[k] for k in SCORES if k in values}
    return out


def _candidates(chains: Chains) -> dict[str, Trials]:
    found = {"model": chains.simulated, "true_past": chains.true_past, "ceiling": chains.ceiling}
    return {name: trials for name, trials in found.items() if trials is not None}

"""Whether 95 % intervals hold the truth: of every kind that is printed, on data whose truth is known.

Shape suffixes: N values in time order, T trials, B bins, U units.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.signal import lfilter

from neuroformer.config import TargetConfig
from neuroformer.decoding.decode import Decoded, paired_difference, score_decoded
from neuroformer.intervals import FewBlocksWarning, mean_interval, over_time, pearson_terms, ratio_terms, target_terms
from neuroformer.simulation_scores.sides import Side, with_intervals
from neuroformer.simulation_scores.trials import Trials

SECONDS, TIME_CONSTANTS_S, DT = (60, 120, 300), (0.5, 2.0, 8.0), 0.1
TRIALS = (6, 9, 15)
R2 = 0.68
UNITS, BINS, SAMPLES = 10, 60, 3
TRIAL_SCORES = ("psth_r", "rate_ratio", "rate_r", "pair_r", "fano", "isi_distance")

Draw = Callable[[np.random.Generator, int, float], tuple[float, float, float]]


def autoregression(rng: np.random.Generator, size: int, time_constant_s: float, columns: int = 1) -> np.ndarray:
    """(N, columns) stationary first-order autoregressions of variance 1, in steps of 0.1 s."""
    keep = np.exp(-DT / time_constant_s)
    noise = rng.standard_normal((size, columns))
    noise[1:] *= np.sqrt(1 - keep**2)
    return np.asarray(lfilter([1.0], [1.0, -keep], noise, axis=0))


def decoded(rng: np.random.Generator, size: int, time_constant_s: float) -> Decoded:
    """A label and two decoders with autoregressive errors, both of R2 0.68 in an endless recording."""
    y, first, second, fast = autoregression(rng, size, time_constant_s, 4).T[:, :, None]
    fast = autoregression(rng, size, 0.3)
    noise = np.sqrt(1 - R2)
    predicted = {"model": y + noise * first, "ridge": y + noise * (0.8 * second + 0.6 * fast)}
    return Decoded("y", np.arange(size) * DT, np.zeros(size, int), y, predicted)


def draw_r2(rng, size: int, time_constant_s: float):
    one = decoded(rng, size, time_constant_s)
    one.predicted.pop("ridge")
    found = score_decoded(one, TargetConfig("y"), ["y"])
    return found["decode_y_r2_low"], found["decode_y_r2_high"], R2


def draw_paired(rng, size: int, time_constant_s: float):
    _, low, high = paired_difference(decoded(rng, size, time_constant_s), TargetConfig("y"), "model", "ridge")
    return low, high, 0.0


def draw_better(rng, size: int, time_constant_s: float):
    """A decoder that is better by 0.13 than the other."""
    one = decoded(rng, size, time_constant_s)
    one.predicted["ridge"] = one.predicted["ridge"] + np.sqrt(0.13) * autoregression(rng, size, 0.3)
    _, low, high = paired_difference(one, TargetConfig("y"), "model", "ridge")
    return low, high, 0.13


def draw_pearson(rng, size: int, time_constant_s: float):
    one = decoded(rng, size, time_constant_s)
    found = over_time(pearson_terms(one.true_VC[:, 0], one.predicted["model"][:, 0]), "r")
    return *found.ends()[:, 0], 1 / np.sqrt(2 - R2)


def draw_seeds(rng, size: int, time_constant_s: float):
    """The mean R2 of three seeds whose errors share half their variance."""
    y, shared, *own = autoregression(rng, size, time_constant_s, 5).T[:, :, None]
    predicted = np.stack([y + np.sqrt((1 - R2) / 2) * (shared + one) for one in own], 1)
    return *over_time(target_terms("regression", y, predicted), "R2").ends()[:, 0], R2


def draw_bits(rng, size: int, time_constant_s: float):
    """The difference of two models in bits per spike, where busy windows are better predicted: 0.1 + 0.1 in truth."""
    slow, other = autoregression(rng, size, time_constant_s, 2).T
    rate = np.exp(0.5 * slow - 0.125)
    spikes = rng.poisson(10 * rate)
    bits = spikes * (0.1 + 0.1 * rate / np.exp(0.25)) + 2 * other
    return *over_time(ratio_terms(bits, spikes), "bits").ends()[:, 0], 0.2


def draw_accuracy(rng, size: int, time_constant_s: float):
    """Balanced accuracy of three classes, of which one is rarer, with slow errors."""
    slow, wrong = autoregression(rng, size, time_constant_s, 2).T
    true = np.digitize(slow, [-0.5, 1.0]).astype(float)
    predicted = np.where(wrong > 0.6745, (true + 1) % 3, true)  # a quarter of the values
    found = over_time(target_terms("classification", true[:, None], predicted[:, None]), "accuracy")
    return *found.ends()[:, 0], 0.75


def draw_circular(rng, size: int, time_constant_s: float):
    """Circular R2 of a direction whose errors have a standard deviation of 0.8."""
    a, b, error = autoregression(rng, size, time_constant_s, 3).T
    angle = np.arctan2(b, a)
    found = over_time(target_terms("circular", angle[:, None], (angle + 0.8 * error)[:, None]), "circular R2")
    return *found.ends()[:, 0], np.exp(-0.32)


KINDS: dict[str, Draw] = {
    "R2": draw_r2,
    "R2, difference of equals": draw_paired,
    "R2, a better decoder": draw_better,
    "R2, mean of three seeds": draw_seeds,
    "Pearson r": draw_pearson,
    "bits/spike, difference": draw_bits,
    "balanced accuracy": draw_accuracy,
    "circular R2": draw_circular,
}


def cell(draw: Draw, seconds: float, time_constant_s: float, draws: int, seed: int = 0) -> list[float]:
    """Share of draws with an interval, and of these the share whose interval holds the truth (NaN without one)."""
    rng = np.random.default_rng([seed, round(seconds), round(10 * time_constant_s)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewBlocksWarning)
        found = np.array([draw(rng, round(seconds / DT), time_constant_s) for _ in range(draws)])
    return _shares(found[:, :2], found[:, 2])


def _shares(ends: np.ndarray, truth: np.ndarray | float) -> list[float]:
    given = np.isfinite(ends).all(1)
    held = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    return [float(given.mean()), float(held[given].mean()) if given.any() else float("nan")]


# -- trials ----------------------------------------------------------------------------------------------------


def trial_cell(trials: int, draws: int, seed: int = 0) -> dict[str, list[float]]:
    """By score of a simulation, as :func:`cell`: three samples of every held-out trial, whose gains vary.

    The truth is the mean over draws: what is to be expected of so many trials and samples.
    """
    rng = np.random.default_rng([seed, trials])
    smooth = lambda: np.asarray(lfilter([0.3], [1, -0.7], rng.standard_normal((BINS, UNITS)), axis=0))
    rate_BU = 0.4 * np.exp(1.5 * smooth())
    simulated_BU = rate_BU * np.exp(0.5 * smooth())
    found = [_simulated(rng, rate_BU, simulated_BU, trials) for _ in range(draws)]
    out = {}
    for name in TRIAL_SCORES:
        values = np.array([one[name] for one in found])
        out[name] = _shares(values[:, 1:], float(values[:, 0].mean()))
    return out


def _simulated(rng: np.random.Generator, rate_BU, simulated_BU, trials: int) -> dict[str, list[float]]:
    def side(rate_BU: np.ndarray, source: np.ndarray) -> Side:
        gain_T = np.exp(0.3 * rng.standard_normal(len(source)))
        counts = [rng.poisson(g * rate_BU) for g in gain_T]
        return Side(Trials.from_counts(counts, source, np.zeros(len(source)), 0.05), np.arange(UNITS))

    held_out = side(rate_BU, np.arange(trials))
    with np.errstate(all="ignore"):
        return with_intervals(side(simulated_BU, np.repeat(np.arange(trials), SAMPLES)), held_out, paired=True)


def seeds_cell(seeds: int, draws: int) -> list[float]:
    """As :func:`cell`, of the mean over seeds."""
    rng = np.random.default_rng(seeds)
    return _shares(np.array([mean_interval(rng.normal(1.0, 0.1, seeds).tolist())[1:] for _ in range(draws)]), 1.0)


# -- command ---------------------------------------------------------------------------------------------------


def run(draws: int, trial_draws: int) -> dict[str, Any]:
    """Every kind over nine cells, 60 to 300 s and time constants of 0.5 to 8 s; scores of simulations over 6 to 15 trials.

    Returns
    -------
    dict
        ``time``: by kind, cells in the order of time constants, then seconds, each ``[share with an interval, coverage]``.
        ``trials``: by number of trials and score. ``seeds``: by number of seeds.
    """
    cells = [(s, t) for t in TIME_CONSTANTS_S for s in SECONDS]
    return {
        "bench": "coverage",
        "checked": True,
        "draws": draws,
        "cells": cells,
        "time": {name: [cell(draw, s, t, draws) for s, t in cells] for name, draw in KINDS.items()},
        "trials": {n: trial_cell(n, trial_draws) for n in TRIALS if trial_draws},
        "seeds": {n: seeds_cell(n, 5 * draws) for n in (3, 5)},
    }


def table(result: dict[str, Any]) -> str:
    """The result as text: coverage in per cent, behind it the share of draws that have an interval where not all do."""
    width = max(len(name) for name in result["time"]) + 2
    lines = [
        f"{'coverage of nominal 95 %':<{width}}" + "".join(f"{f'{s:g} s/{t:g} s':>14}" for s, t in result["cells"])
    ]
    lines += [f"{name:<{width}}" + "".join(map(_cell, row)) for name, row in result["time"].items()]
    for n, scores in result["trials"].items():
        lines.append(f"{n} trials: " + ", ".join(f"{name} {_cell(c).strip()}" for name, c in scores.items()))
    lines += [f"mean of {n} seeds: {_cell(c).strip()}" for n, c in result["seeds"].items()]
    return "\n".join(lines)


def _cell(shares: list[float]) -> str:
    given, held = shares
    text = "none" if given == 0 else f"{100 * held:.0f}" + (f" ({100 * given:.0f})" if given < 0.995 else "")
    return f"{text:>14}"

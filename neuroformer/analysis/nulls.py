"""Null hypotheses for maps (what a map would look like without coupling), and how well a map repeats.

Shape suffixes: R rows, C columns.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from neuroformer.analysis.maps import Map
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import SpikeIndex, Windows

MIN_COLUMNS = 200  # the spread of a shorter row is too uncertain to name one pair in thousands


def shuffled_identities(found: Map) -> Map:
    """The null in which it does not matter which unit a column is.

    Shuffling the identities of the units that act gives a pair the value of another pair of its row, so the null
    is the row's own distribution: its median, and 1.4826 times its median absolute deviation, which the few
    coupled pairs do not move (the empirical null of Efron, JASA 2004). A square map's diagonal is left out; rows
    of fewer than 200 columns share one spread.
    """
    pairs = found.pairs().astype(np.float64).copy()
    if found.square:
        np.fill_diagonal(pairs, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the row of a silent unit
        center = np.nanmedian(pairs, 1, keepdims=True)
        away = np.abs(pairs - center)
        if pairs.shape[1] < MIN_COLUMNS:
            spread = np.full_like(center, np.nanmedian(away))
        else:
            spread = np.nanmedian(away, 1, keepdims=True)
    return found.with_null(center, np.maximum(1.4826 * spread, 1e-12))


def rate_matched(
    make: Callable[[Prepared], Sequence[Map]],
    prepared: Prepared,
    *,
    surrogates: int = 10,
    seed: int = 0,
) -> list[Map]:
    """The null in which units keep their rates and rhythms but lose their relations.

    ``make`` is run on the recording and on surrogates in which each unit's spikes are shifted around their segment
    by a time of their own. Of a model's maps this null says whether a value depends on when the two units fire in
    these windows; a model that learnt a coupling applies it to surrogates too, so whether the coupling itself is more
    than chance is a question for :func:`shuffled_identities`. The spread is widened by what a mean over few surrogates is uncertain by, and for
    Student's t.
    """
    found = list(make(prepared))
    nulls = []
    for k in range(surrogates):
        nulls.append([m.pairs() for m in make(prepared.with_spikes(shifted(prepared.index, seed + k)))])
    out = []
    # a Gaussian with this spread has the tails of t at the 5 % level
    widen = np.sqrt(1 + 1 / surrogates) * stats.t.ppf(0.975, surrogates - 1) / stats.norm.ppf(0.975)
    for i, m in enumerate(found):
        values = np.stack([n[i] for n in nulls])
        out.append(m.with_null(values.mean(0), np.maximum(values.std(0, ddof=1) * widen, 1e-12)))
    return out


def shifted(index: SpikeIndex, seed: int) -> SpikeIndex:
    """Every unit's spikes moved around each segment by a random number of bins."""
    rng = np.random.default_rng(seed)
    segment = np.searchsorted(index.base, index.keys, side="right") - 1
    move = rng.integers(0, index.num_ticks[:, None], (len(index.base), index.num_units))
    tick = (index.keys - index.base[segment] + move[segment, index.unit]) % index.num_ticks[segment]
    return SpikeIndex.from_ticks(segment, tick, index.unit, index.origins, index.num_ticks, index.num_units, index.dt)


def split_half(make: Callable[[Windows], Sequence[Map]], windows: Windows, seed: int = 0) -> dict[str, float]:
    """Reliability of maps, by name: rank correlation of their pairs between two random halves of the windows, stepped
    up to the whole length (Spearman-Brown); NaN where a half knows fewer than three pairs."""
    order = np.random.default_rng(seed).permutation(len(windows))
    halves = [np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])]
    return {a.name: _agree(a, b) for a, b in zip(*(make(windows[h]) for h in halves), strict=True)}


def _agree(one: Map, other: Map) -> float:
    a, b = one.pairs().copy(), other.pairs().copy()
    if one.square:
        np.fill_diagonal(a, np.nan)
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3:
        return float("nan")
    r = float(np.corrcoef(stats.rankdata(a[both]), stats.rankdata(b[both]))[0, 1])
    return 2 * r / (1 + r)


def average(maps: Sequence[Map]) -> Map:
    """The mean map over several seeds; its null has mean 0 and the spread over seeds, widened for Student's t."""
    first = maps[0]
    values = np.stack([m.values for m in maps])
    known = np.isfinite(values).sum(0)
    mean = np.where(known > 0, np.nansum(values, 0) / np.maximum(known, 1), np.nan)
    with_mean = dataclasses.replace(first, values=mean, null_mean=None, null_std=None)
    if len(maps) < 2:
        return with_mean
    spread = np.stack([m.pairs() for m in maps]).std(0, ddof=1) / np.sqrt(len(maps))
    spread = spread * stats.t.ppf(0.975, len(maps) - 1) / stats.norm.ppf(0.975)  # as in rate_matched
    return with_mean.with_null(np.zeros_like(spread), np.maximum(spread, 1e-12))

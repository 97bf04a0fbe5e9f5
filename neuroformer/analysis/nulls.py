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

CENTRAL = (0.5, 0.75, 0.9)  # quantiles that tell the tails: the few coupled pairs lie beyond
LIGHTEST = 30.0  # degrees of freedom; few pairs cannot show that tails are lighter
OWN_SPREAD = (
    "beside the map's own spread, which is that of chance only where units share nothing that the model does not see"
)
HEAVIEST = 2.5  # with heavier tails nothing can be said of single pairs


def shuffled_identities(found: Map) -> Map:
    """The null in which it does not matter which unit a column is, but for how strong it acts on all.

    Shuffling the identities of the units that act gives a pair the value of another pair, so the null is the map's own
    distribution: each pair about the median of its row and of its column (a unit that acts alike on all couples to none
    of them), in a spread that is the product of both (median absolute deviations). Its tails are those of Student's t
    whose central nine tenths spread as the map's do: the few coupled pairs do not move it (the empirical null of Efron,
    JASA 2004). Where these are heavier than t with 2.5 degrees of freedom, no pair is separated from chance. A square map's
    diagonal is left out.
    """
    if found.p_values is not None:
        return found
    pairs = found.pairs().astype(np.float64).copy()
    if found.square:
        np.fill_diagonal(pairs, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the row of a silent unit
        center = np.nanmedian(pairs) + np.zeros_like(pairs)
        for _ in range(3):
            center = center + np.nanmedian(pairs - center, 1, keepdims=True)
            center = center + np.nanmedian(pairs - center, 0, keepdims=True)
        away = np.abs(pairs - center)
        usual = np.nanmedian(away)
        spread = _shrunk(away, 1, usual) * _shrunk(away, 0, usual) / max(usual, 1e-300)
        x = away[np.isfinite(away)] / np.broadcast_to(spread, away.shape)[np.isfinite(away)]
    if len(x) == 0:
        return found.with_null(np.nan_to_num(center), np.full_like(center, np.nan))
    degrees, scale = _student(x)
    spread = np.maximum(spread * scale, 1e-12)
    p = 2 * stats.t.sf(away / spread, degrees) if degrees >= HEAVIEST else np.where(np.isfinite(away), 1.0, np.nan)
    return dataclasses.replace(found.with_null(center, spread), p_values=p, null=OWN_SPREAD)


def _shrunk(away: np.ndarray, axis: int, usual: float) -> np.ndarray:
    """Median distance along an axis; that of few pairs is uncertain, and half of it is the whole map's."""
    known = np.isfinite(away).sum(axis, keepdims=True)
    own = np.maximum(np.nanmedian(away, axis, keepdims=True), 1e-3 * usual)
    share = known / (known + 20)
    return np.where(known > 0, own**share * usual ** (1 - share), np.nan)


def _student(x: np.ndarray) -> tuple[float, float]:
    """Degrees of freedom and scale of the Student's t whose absolute value has the central quantiles of ``x``."""
    have = np.quantile(x, CENTRAL)
    grid = np.geomspace(1.0, LIGHTEST, 60)
    want = np.stack([stats.t.ppf((1 + q) / 2, grid) for q in CENTRAL])
    beyond = lambda k: np.interp(-have[k] / max(have[0], 1e-300), -want[k] / want[0], 1 / grid)
    degrees = 2 / float(beyond(1) + beyond(2))  # from both quantiles beyond the median alike
    return degrees, float(have[0] / stats.t.ppf((1 + CENTRAL[0]) / 2, degrees))


def against_surrogates(found: Map, null: Sequence[np.ndarray]) -> Map:
    """P values from what a map's pairs (R, C) are in surrogate recordings; unchanged where there are none.

    Each pair is seen against its own mean over surrogates, in a spread that a row and a column share as factors. Where the
    recorded map spreads more widely than the surrogates do, as bursts make it, its spread counts. P is the share of all
    pairs of all surrogates that lie as far out, with three standard errors added, as there are few of them: no shape of the
    tails is assumed.
    """
    if len(null) < 2:
        return found
    null_KRC = np.stack(null).astype(np.float64)
    apart = ~np.eye(*null_KRC.shape[1:], dtype=bool) if found.square else np.ones(null_KRC.shape[1:], bool)
    mean = null_KRC.mean(0)
    variance = np.where(apart, null_KRC.var(0, ddof=1), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a unit that never fires
        row, column = np.nanmean(variance, 1, keepdims=True), np.nanmean(variance, 0, keepdims=True)
    spread = np.sqrt(np.maximum(row * column / np.nanmean(variance), 1e-24))
    away_KRC = np.abs(null_KRC - mean) / spread * np.sqrt(len(null) / (len(null) - 1))
    away = np.abs(found.pairs() - mean) / spread / np.sqrt(1 + 1 / len(null))
    middle = lambda x, axis: np.nanmedian(np.where(apart, x, np.nan), axis, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        usual = middle(np.median(away_KRC, 0), None)
        wider = np.sqrt(np.maximum(middle(away, 1) / usual, 1) * np.maximum(middle(away, 0) / usual, 1))
    spread, away = spread * wider, away / wider
    pool = np.sort(away_KRC[:, apart], axis=None)
    beyond = len(pool) - np.searchsorted(pool, away)
    p = np.minimum((1 + beyond + 3 * np.sqrt(1 + beyond)) / (1 + len(pool)), 1.0)
    p = np.where(apart & np.isfinite(away), p, np.nan)
    return dataclasses.replace(found.with_null(mean, spread), p_values=p)


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
    with_mean = dataclasses.replace(first, values=mean, null_mean=None, null_std=None, p_values=None, null="")
    if len(maps) < 2:
        return with_mean
    spread = np.stack([m.pairs() for m in maps]).std(0, ddof=1) / np.sqrt(len(maps))
    spread = spread * stats.t.ppf(0.975, len(maps) - 1) / stats.norm.ppf(0.975)  # as in rate_matched
    return with_mean.with_null(np.zeros_like(spread), np.maximum(spread, 1e-12))

"""Tuning of units and of the units of networks, by one function: direction and orientation, speed, any column.

Shape suffixes: N moments, A values of what is tuned to, U units (of a brain or of a network).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from neuroformer.comparison.responses import ComparedMoments
from neuroformer.config import ConfigError
from neuroformer.recording import Recording

MOST_VALUES = 24  # distinct values up to which each is a point of the curve; beyond, there are BINS
BINS = 12
SHUFFLES = 200
LEAST_MOMENTS = 3  # for a point of a curve


@dataclass(frozen=True, eq=False)
class Tuning:
    """Curves, and what is read from them.

    Attributes
    ----------
    values_A : what is tuned to: distinct values, or centres of bins
    curve_AU : mean responses
    selectivity_U : around a circle, the length of the mean direction, ``|sum r exp(i a)| / sum r`` (1 - circular variance);
        along a line, ``(largest - smallest) / (largest + smallest)`` of the curve
    orientation_U : ``|sum r exp(2 i a)| / sum r``; NaN along a line
    preferred_U : direction of the mean, in the column's unit; along a line, the value of the largest response
    trend_U : Spearman's correlation with the value along a line; NaN around a circle
    p_U : share of shuffles whose selectivity (around a circle: or orientation selectivity, the larger) is as large
    """

    values_A: np.ndarray
    curve_AU: np.ndarray
    selectivity_U: np.ndarray
    orientation_U: np.ndarray
    preferred_U: np.ndarray
    trend_U: np.ndarray
    p_U: np.ndarray

    @property
    def tuned(self) -> float:
        """Share of units with P below 0.05."""
        known = self.p_U[np.isfinite(self.p_U)]
        return float((known < 0.05).mean()) if len(known) else float("nan")


def tuning(
    value_N: np.ndarray, y_NU: np.ndarray, period: float = 0.0, block_N: np.ndarray | None = None, seed: int = 0
) -> Tuning:
    """Tuning of responses to a value; moments without a value are left out.

    Spikes and features of a network go through the same sums. Responses below zero (of a network) are counted from their
    unit's lowest point of the curve, since shares of a sum need what is positive.

    Parameters
    ----------
    value_N : NaN where it is missing
    period : of a circle, in the column's unit (360: degrees); 0: a line
    block_N : stretches that are shuffled whole; by default every moment alone

    Raises
    ------
    ConfigError
        Fewer than three values.
    """
    keep = np.isfinite(value_N)
    value, y = value_N[keep], y_NU[keep].astype(np.float64)
    values_A, place_N = _points(value, period)
    number_A = np.bincount(place_N, minlength=len(values_A))
    points = np.flatnonzero(number_A >= LEAST_MOMENTS)
    if len(points) < 3:
        raise ConfigError(
            f"a tuning curve needs {LEAST_MOMENTS} moments at each of three values or more; got {len(values_A)} value(s) at "
            f"{len(value)} moments"
        )
    shares_AN = (place_N == points[:, None]) / number_A[points][:, None]
    angle_A = values_A[points] * (2 * np.pi / period) if period else None
    curve_AU = shares_AN @ y
    direction, orientation = _selectivity(curve_AU, angle_A)
    block = np.arange(len(value)) if block_N is None else block_N[keep]
    rng, beyond = np.random.default_rng(seed), np.zeros(y.shape[1])
    best = np.fmax(direction, orientation)
    for _ in range(SHUFFLES):
        moved = np.fmax(*_selectivity(shares_AN @ y[_shuffled(block, rng)], angle_A))
        beyond += moved >= best - 1e-12
    flat = np.ptp(y, axis=0) < 1e-12
    p_U = np.where(flat, np.nan, (1 + beyond) / (1 + SHUFFLES))
    trend = np.full(y.shape[1], np.nan)
    if angle_A is None:
        preferred = values_A[points][curve_AU.argmax(0)]
        trend = _trend(value, y)
    else:
        mean = (_positive(curve_AU) * np.exp(1j * angle_A)[:, None]).sum(0)
        preferred = np.angle(mean) % (2 * np.pi) * period / (2 * np.pi)
    nothing = lambda x: np.where(flat, np.nan, x)
    return Tuning(
        values_A[points], curve_AU, nothing(direction), nothing(orientation), nothing(preferred), nothing(trend), p_U
    )


def _points(value: np.ndarray, period: float) -> tuple[np.ndarray, np.ndarray]:
    value = value % period if period else value
    distinct, place = np.unique(value, return_inverse=True)
    if len(distinct) <= MOST_VALUES:
        return distinct, place
    if period:
        return (np.arange(BINS) + 0.5) * period / BINS, np.minimum((value / period * BINS).astype(int), BINS - 1)
    edges = np.unique(np.quantile(value, np.linspace(0, 1, BINS + 1)))
    place = np.clip(np.searchsorted(edges, value, side="right") - 1, 0, len(edges) - 2)
    return np.array([value[place == k].mean() for k in range(len(edges) - 1)]), place


def _positive(curve_AU: np.ndarray) -> np.ndarray:
    return curve_AU - np.minimum(curve_AU.min(0), 0)


def _selectivity(curve_AU: np.ndarray, angle_A: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(U,) for direction (or along a line), and for orientation (NaN along a line)."""
    r = _positive(curve_AU)
    with np.errstate(divide="ignore", invalid="ignore"):
        if angle_A is None:
            return np.nan_to_num((r.max(0) - r.min(0)) / (r.max(0) + r.min(0))), np.full(r.shape[1], np.nan)
        each = [np.abs((r * np.exp(k * 1j * angle_A)[:, None]).sum(0)) / r.sum(0) for k in (1, 2)]
    return np.nan_to_num(each[0]), np.nan_to_num(each[1])


def _trend(value: np.ndarray, y: np.ndarray) -> np.ndarray:
    a = rankdata(value)
    b = rankdata(y, axis=0)
    a, b = a - a.mean(), b - b.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b, axis=0))


def _shuffled(block: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = np.argsort(block, kind="stable")
    pieces = np.split(order, np.flatnonzero(np.diff(block[order])) + 1)
    return np.concatenate([pieces[k] for k in rng.permutation(len(pieces))])


def values_at(rec: Recording, name: str, moments: ComparedMoments) -> np.ndarray:
    """(N,) a behavior variable or a column of the trials in the middle of each moment, averaged over repeats; NaN where it is
    missing in one, or where a column of the trials differs between repeats."""
    variable = rec.variable(name)
    if variable.classes or variable.num_columns != 1:
        raise ConfigError(f"'{name}' is no single number, so nothing can be tuned to it; name one that is")
    at = (moments.start_RN + moments.width / 2).ravel()
    value_RN = variable.hold(at)[:, 0].reshape(moments.start_RN.shape).astype(np.float64)
    differ = (np.ptp(value_RN, axis=0) > 1e-6) if name in rec.trials else np.zeros(len(moments), bool)
    return np.where(differ, np.nan, value_RN.mean(0))


def agreement(ours: Tuning, theirs: Tuning, period: float) -> dict[str, float]:
    """Of the same units in two systems: how far preferred values lie apart (median), and r of selectivities, over units that
    are tuned in the first (P below 0.05)."""
    keep = (ours.p_U < 0.05) & np.isfinite(theirs.selectivity_U)
    if keep.sum() < 3:
        return {"units": int(keep.sum())}
    apart = np.abs(ours.preferred_U - theirs.preferred_U)[keep]
    apart = np.minimum(apart, period - apart) if period else apart
    a, b = ours.selectivity_U[keep], theirs.selectivity_U[keep]
    r = float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else float("nan")
    return {"units": int(keep.sum()), "preferred_apart": float(np.median(apart)), "selectivity_r": r}


@dataclass(frozen=True)
class TuningRow:
    """Tuning of the recorded units, or of a layer, in numbers.

    Attributes
    ----------
    number : units, or features (of more than :data:`MOST_FEATURES`, as many, evenly spread)
    tuned : share with P below 0.05
    selectivity, orientation : 10, 25, 50, 75 and 90 % quantiles over those that are tuned; see :class:`Tuning`
    preferred : likewise, in the column's unit
    agreement : with the recorded units, where the layer has one feature for each (:func:`agreement`)
    """

    source: str
    layer: str
    number: int
    tuned: float
    selectivity: list[float]
    orientation: list[float]
    preferred: list[float]
    agreement: dict[str, float]


MOST_FEATURES = 1000


class TuningTable:
    """Rows as layers come: the first one is that of the recorded units.

    Parameters
    ----------
    asked : NAME (a line) or NAME:PERIOD (a circle) of a behavior variable or a column of the trials
    """

    def __init__(self, asked: str, rec: Recording, moments: ComparedMoments, y_NU: np.ndarray):
        name, _, period = asked.partition(":")
        try:
            self.period = float(period or 0)
        except ValueError:
            raise ConfigError(
                f"'{asked}' is not understood; expected NAME or NAME:PERIOD, e.g. direction:360"
            ) from None
        self.value_N, self.block_N = values_at(rec, name, moments), moments.block_N
        self.units = tuning(self.value_N, y_NU, self.period, self.block_N)
        self.rows = [self._row("recorded", "units", self.units, {})]

    def add(self, source: str, layer: str, x_ND: np.ndarray) -> None:
        """``source`` "model" with as many features as there are units: features are those of the units."""
        own = source == "model" and x_ND.shape[1] == len(self.units.p_U)
        few = np.unique(np.linspace(0, x_ND.shape[1] - 1, MOST_FEATURES).astype(int))
        found = tuning(self.value_N, x_ND if own else x_ND[:, few], self.period, self.block_N)
        self.rows.append(self._row(source, layer, found, agreement(self.units, found, self.period) if own else {}))

    @staticmethod
    def _row(source: str, layer: str, found: Tuning, both: dict[str, float]) -> TuningRow:
        tuned = found.p_U < 0.05
        quantiles = lambda x: (
            np.quantile(x[tuned], [0.1, 0.25, 0.5, 0.75, 0.9]).tolist() if tuned.any() else [np.nan] * 5
        )
        return TuningRow(
            source,
            layer,
            len(found.p_U),
            found.tuned,
            quantiles(found.selectivity_U),
            quantiles(found.orientation_U),
            quantiles(found.preferred_U),
            both,
        )

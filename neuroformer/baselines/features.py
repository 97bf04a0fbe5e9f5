"""What every baseline sees: square-root spike counts in bins before each decoded moment.

Shape suffixes: V decoded values, B count bins, U units (or patterns of them), C columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import poisson

from neuroformer.baselines.glm.spikes import spikes_around
from neuroformer.baselines.patterns import unit_patterns
from neuroformer.config import Config
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape

MOST_FEATURES = 2400  # bins x units; with more, the population enters through its patterns
MOST_CELLS = 40_000_000  # moments x bins x units that a fit sees; of more moments, evenly spaced ones
_GROWTH = 1.6  # of each bin's width over that of the bin after it, where lags have several resolutions
_MOST_BINS = 10  # that a binning is expected to have
_CHUNK = 4_000_000  # cells that are counted at once


@dataclass(frozen=True)
class Binning:
    """Widths in ticks of the bins before a moment, the latest first; those after it, with lookahead, are about as wide
    as that one."""

    widths: tuple[int, ...]

    @classmethod
    def even(cls, lag: int, number: int) -> Binning:
        return cls((max(1, round(lag / number)),) * number)

    @classmethod
    def graded(cls, lag: int, finest: int) -> Binning:
        """Fine near the moment, coarse far away."""
        widths: list[int] = []
        while sum(widths) < lag:
            widths.append(max(1, round(finest * _GROWTH ** len(widths))))
        widths[-1] -= sum(widths) - lag
        if len(widths) > 1 and widths[-1] < widths[-2] / 2:
            widths[-2:] = [widths[-2] + widths[-1]]
        return cls(tuple(widths))

    @property
    def lag(self) -> int:
        return sum(self.widths)

    def describe(self, dt: float) -> str:
        """In words, such as "1 s in 5 bins of 0.2 s"."""
        text, first, last = f"{self.lag * dt:g} s", self.widths[0] * dt, self.widths[-1] * dt
        if len(self.widths) == 1:
            return f"{text} in 1 bin"
        return f"{text} in {len(self.widths)} bins of {first:g}{'' if first == last else f' to {last:g}'} s"


class SpikeCounts:
    """Square-root spike counts around the moment at which a window ends.

    Parameters
    ----------
    index : SpikeIndex
    shape : WindowShape
        The label belongs to a window's end; no spike at or after it plus ``shape.ahead`` bins is counted.
    pattern_UQ : patterns over units, strongest first, which stand for the units where ``bins x units`` would be more than
        :data:`MOST_FEATURES`
    rate_U : spikes a tick of each unit, from the moments that are learnt from: what stands for the counts of bins in which
        a unit was not observed
    """

    def __init__(
        self,
        index: SpikeIndex,
        shape: WindowShape,
        pattern_UQ: np.ndarray | None = None,
        rate_U: np.ndarray | None = None,
    ):
        self.index, self.shape, self.pattern_UQ, self.rate_U = index, shape, pattern_UQ, rate_U

    @classmethod
    def for_windows(cls, index: SpikeIndex, shape: WindowShape, windows: Windows) -> SpikeCounts:
        """With the patterns of a large population around some moments, and where units were not always observed, their
        rates in the windows that end at these moments."""
        rate_U = None if index.observed is None else _rates(index, windows, shape.current)
        if _MOST_BINS * index.num_units <= MOST_FEATURES:
            return cls(index, shape, rate_U=rate_U)
        stretch = max(shape.current, round(0.25 / shape.dt))
        end = windows.tick + shape.current
        start = np.maximum(end - stretch, 0)
        first = np.concatenate([[True], (np.diff(windows.segment) != 0) | (np.diff(start) < 0)])
        later, keep = start[0] - stretch, []
        for row in range(len(windows)):  # stretches that do not overlap
            if first[row] or start[row] >= later:
                keep.append(row)
                later = start[row] + stretch
        blocks = np.stack([windows.segment[keep], start[keep], start[keep] + stretch], 1)
        patterns = unit_patterns(index, blocks, stretch, MOST_FEATURES // 8).astype(np.float32)
        return cls(index, shape, patterns, rate_U)

    def of(self, index: SpikeIndex) -> SpikeCounts:
        """The same of other spikes on the same segments."""
        return SpikeCounts(index, self.shape, self.pattern_UQ, self.rate_U)

    def __call__(self, windows: Windows, binning: Binning, whole: bool = False) -> np.ndarray:
        """(V, B, U) float32, the latest bin last; 0 outside the segment. In bins in which a unit was not always observed,
        what a Poisson unit of its rate has on average. ``whole`` keeps the units in any case, with NaN there.
        """
        edges, units = self.edges(binning), self.index.num_units
        bins = len(edges) - 1
        project = None
        if not whole and self.pattern_UQ is not None and bins * units > MOST_FEATURES:
            project = self.pattern_UQ[:, : max(1, MOST_FEATURES // bins)]
        out = np.empty((len(windows), bins, units if project is None else project.shape[1]), np.float32)
        size = max(1, _CHUNK // (bins * units))
        for i in range(0, len(windows), size):
            part = windows[i : i + size]
            x = np.sqrt(self._counted(part, edges), dtype=np.float32)
            self._fill(x, part, edges, np.nan if whole else None)
            out[i : i + size] = x if project is None else x @ project
        return out

    def _counted(self, windows: Windows, edges: np.ndarray) -> np.ndarray:
        """(V, B, U) counts between edges: spikes are counted up once, however many windows see them."""
        index, units = self.index, self.index.num_units
        origin_V = index.base[windows.segment]
        at_VE = (origin_V + windows.tick + self.shape.current)[:, None] + edges
        at_VE = np.clip(at_VE, origin_V[:, None], (origin_V + index.num_ticks[windows.segment])[:, None])
        border_N, place = np.unique(at_VE, return_inverse=True)
        place_VE, cells = place.reshape(at_VE.shape), max(1, len(border_N) - 1) * units
        first, last = (int(x) for x in index.find(border_N[[0, -1]]))
        between = np.zeros(cells, np.int64)
        for i in range(first, last, _CHUNK):
            piece = slice(i, min(i + _CHUNK, last))
            gap = np.searchsorted(border_N, index.keys[piece], side="right") - 1
            between += np.bincount(gap * units + index.unit[piece], minlength=cells)
        upto_NU = np.zeros((len(border_N), units), np.int32)
        upto_NU[1:] = between.reshape(-1, units)[: len(border_N) - 1].cumsum(0)
        return upto_NU[place_VE[:, 1:]] - upto_NU[place_VE[:, :-1]]

    def _fill(self, x_VBU: np.ndarray, windows: Windows, edges: np.ndarray, fill: float | None) -> None:
        """Put what stands for unobserved counts in their place."""
        if self.index.observed is None:
            return
        assert self.rate_U is not None
        moment = windows.bins(self.index) + self.shape.current
        origin = self.index.base[windows.segment]
        end = origin + self.index.num_ticks[windows.segment]
        for b, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            start, stop = np.maximum(moment + low, origin), np.minimum(moment + high, end)
            hidden = ~self.index.observed.throughout(start, stop)
            value_U = _mean_root((high - low) * self.rate_U) if fill is None else fill
            np.copyto(x_VBU[:, b], np.broadcast_to(np.asarray(value_U, np.float32), hidden.shape), where=hidden)

    def edges(self, binning: Binning) -> np.ndarray:
        """(B + 1,) ticks from the moment to the borders of its bins; those before it are negative."""
        ahead = self.shape.ahead
        after = np.linspace(0, ahead, max(1, round(ahead / binning.widths[0])) + 1)[1:] if ahead else np.zeros(0)
        before = -np.cumsum((0, *binning.widths))[::-1]
        return np.concatenate([before, np.rint(after)]).astype(np.int64)


def _rates(index: SpikeIndex, windows: Windows, width: int) -> np.ndarray:
    """(U,) spikes a tick of each unit in windows, where it was observed."""
    _, _, unit = spikes_around(index, windows, 0, width)
    assert index.observed is not None
    first = windows.bins(index)
    number = np.zeros(index.num_units, np.int64)
    for i in range(0, len(first), size := max(1, _CHUNK // (width * index.num_units))):
        number += index.observed.at(first[i : i + size, None] + np.arange(width)).sum((0, 1))
    return (np.bincount(unit, minlength=index.num_units) + 0.5) / np.maximum(number, 1)


def _mean_root(mean_U: np.ndarray) -> np.ndarray:
    """(U,) mean of the square root of a Poisson count."""
    most = int(mean_U.max(initial=0) + 10 * np.sqrt(mean_U.max(initial=0)) + 20)
    k = np.arange(most)
    return poisson.pmf(k, mean_U[:, None]) @ np.sqrt(k)


def binnings(config: Config, dt: float, finest: int, even: tuple[int, ...]) -> list[Binning]:
    """Distinct binnings of each of ``decode.lags``: one of several resolutions, and some even ones."""
    out = []
    for lag in (max(1, round(seconds / dt)) for seconds in config.decode.lags):
        out += [Binning.graded(lag, finest), *(Binning.even(lag, number) for number in even)]
    return list(dict.fromkeys(out))


@dataclass(frozen=True, eq=False)
class Samples:
    """Labelled (or, without ``y``, unlabelled) moments in time order.

    Attributes
    ----------
    x_VBU : square-root counts; for a Bayesian decoder NaN where a unit was not observed
    windows : where they lie, in time order
    y_VC : float64 labels, or one column of whole-number classes
    edges : (B + 1,) ticks from the moment to the borders of its bins; None where nobody asks which lie before it
    """

    x_VBU: np.ndarray
    windows: Windows
    y_VC: np.ndarray
    edges: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, which) -> Samples:
        return Samples(self.x_VBU[which], self.windows[which], self.y_VC[which], self.edges)

    @property
    def flat(self) -> np.ndarray:
        """(V, B * U)."""
        return self.x_VBU.reshape(len(self), -1)


def contiguous_folds(
    windows: Windows, index: SpikeIndex, gap: int, num_folds: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training rows, held-out rows) of contiguous stretches of moments in time order.

    Training rows nearer than ``gap`` bins to the held-out stretch are left out, so that no spike is read on both
    sides; where that would leave less than half of the others (a few labelled seconds), the gap is waived.
    """
    at = index.base[windows.segment] + windows.tick
    rows = np.arange(len(windows))
    out = []
    for held in np.array_split(rows, max(2, min(num_folds, len(windows)))):
        if not len(held):
            continue
        others = np.setdiff1d(rows, held)
        clear = others[(at[others] < at[held].min() - gap) | (at[others] > at[held].max() + gap)]
        out.append((clear if 2 * len(clear) >= len(others) else others, held))
    return out

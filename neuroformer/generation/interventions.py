"""What-if: units silenced, clamped or driven; frames replaced, shifted, frozen or blanked; behavior set.

Frames and behavior are changed in the recording before anything reads it. Units are changed during the rollout, as
competing point processes: tokens come in the order of (bin, unit), so each draw is a position in a scan over the
cells of a window. If a forced spike lies before the drawn position, it comes first, and the draw is repeated after
it. A drawn spike of a silenced unit is discarded before anything sees it, and the scan continues after it. Other
units keep their own rates; setting a unit's probability to zero instead would hand its spikes to them.

Shape suffixes: Q sequences, B bins of a window, U units, F forced spikes of a window.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import poisson

from neuroformer.config import ConfigError, InterventionConfig
from neuroformer.data.splits import Split
from neuroformer.data.windows import SpikeIndex, Windows
from neuroformer.generation.sampling import FORCED, uniforms
from neuroformer.recording import BehaviorVariable, FrameSeries, Recording
from neuroformer.recording.frames import JoinedFrames

ON_UNITS = ("silence", "clamp", "drive")
MOST_IN_BIN = 10_000  # spikes that a unit may be driven or clamped to
RECORDED = -1.0  # the value of a clamp to the recorded spikes


def changed_recording(
    rec: Recording, spans: np.ndarray, interventions: Sequence[InterventionConfig], gray: float
) -> Recording:
    """The recording with its frames and behavior changed, in each span, as the interventions say.

    Parameters
    ----------
    spans : (n, 2) start and stop seconds of what is simulated
    gray : brightness of a blank frame

    Raises
    ------
    ConfigError
        Frames or a variable that the recording lacks, or nothing to show.
    """
    frames, behavior = rec.frames, dict(rec.behavior)
    for one in interventions:
        if one.do in ON_UNITS:
            continue
        if one.do == "set_behavior":
            behavior[one.behavior] = _set(rec, behavior, one, spans)
        elif frames is None:
            raise ConfigError(f"generate.interventions: '{one.do}' needs frames, but recording '{rec.name}' has none")
        else:
            for start, stop in _span(one, spans):
                frames = _CHANGES[one.do](frames, start, stop, one.value, gray)
    return dataclasses.replace(rec, frames=frames, behavior=behavior)


def _span(one: InterventionConfig, spans: np.ndarray) -> list[tuple[float, float]]:
    """Start and stop in the recording's time within each span; spans that start alike are one."""
    out = {}
    for start, stop in spans.tolist():
        end = stop if one.stop == 0 else min(stop, start + one.stop)
        if end > start + one.start:
            out[start + one.start] = max(end, out.get(start + one.start, end))
    return sorted(out.items())


def _set(
    rec: Recording, behavior: dict[str, BehaviorVariable], one: InterventionConfig, spans: np.ndarray
) -> BehaviorVariable:
    v = behavior.get(one.behavior) or rec.variable(one.behavior)
    times, values = v.times, v.values
    for start, stop in _span(one, spans):
        after = BehaviorVariable(times, values).hold(np.array([stop]))
        outside = (times < start) | (times >= stop)
        inside = np.union1d(times[~outside], [start])
        back = np.array([stop]) if np.isfinite(after).all() and not (times == stop).any() else np.zeros(0)
        new = np.concatenate([times[outside], inside, back])
        held = np.full((len(inside), values.shape[1]), one.value, np.float32)
        order = np.argsort(new)
        times = new[order]
        values = np.concatenate([values[outside], held, after[: len(back)]])[order]
    return dataclasses.replace(v, times=times, values=values)


def _replace(frames: FrameSeries, start: float, stop: float, source: float, gray: float) -> FrameSeries:
    lo, hi = np.searchsorted(frames.times, [source, source + stop - start])
    if hi <= lo:
        raise ConfigError(
            f"generate.interventions: no frame was shown between {source:g} s and {source + stop - start:g} s"
        )
    keep = (frames.times < start) | (frames.times >= stop)
    times = np.concatenate([frames.times[keep], frames.times[lo:hi] + (start - source)])
    index = np.concatenate([frames.index[keep], frames.index[lo:hi]])
    times, first = np.unique(times, return_index=True)
    return dataclasses.replace(frames, times=times, index=index[first])


def _shift(frames: FrameSeries, start: float, stop: float, by: float, gray: float) -> FrameSeries:
    return _replace(frames, start, stop, start - by, gray)


def _freeze(frames: FrameSeries, start: float, stop: float, value: float, gray: float) -> FrameSeries:
    last = max(int(np.searchsorted(frames.times, start, side="right")) - 1, 0)
    inside = (frames.times >= start) & (frames.times < stop)
    return dataclasses.replace(frames, index=np.where(inside, frames.index[last], frames.index))


def _blank(frames: FrameSeries, start: float, stop: float, value: float, gray: float) -> FrameSeries:
    dtype, shape = np.dtype(frames.images.dtype), tuple(frames.images.shape)
    brightness = round(gray) if dtype.kind in "iu" else gray
    images = JoinedFrames([frames.images, np.full((1, *shape[1:]), brightness, dtype)])
    inside = (frames.times >= start) & (frames.times < stop)
    return dataclasses.replace(frames, images=images, index=np.where(inside, shape[0], frames.index))


_CHANGES = {
    "replace_frames": _replace,
    "shift_frames": _shift,
    "freeze_frames": _freeze,
    "blank_frames": _blank,
}


# -- units ---------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class UnitChanges:
    """What is done to units in one window of every sequence.

    Attributes
    ----------
    silent_BU : bool, cells in which the model's own spikes are thrown away
    forced_QF : int64 cells (``bin * units + unit``) of forced spikes, ascending; padded with ``bins * units``
    """

    silent_BU: np.ndarray
    forced_QF: np.ndarray


def on_units(interventions: Sequence[InterventionConfig], num_units: int) -> list[InterventionConfig]:
    """The interventions that act on units.

    Raises
    ------
    ConfigError
        A unit that is not there.
    """
    chosen = [i for i in interventions if i.do in ON_UNITS]
    for one in chosen:
        wrong = [u for u in one.units if not 0 <= u < num_units]
        if wrong:
            raise ConfigError(f"generate.interventions: there is no unit {wrong[0]}; expected 0 to {num_units - 1}")
    return chosen


def acting_bins(one: InterventionConfig, number: int, num_bins: int, dt: float) -> np.ndarray:
    """(B,) whether an intervention acts in each bin of window ``number`` since the loop closed."""
    since = (number * num_bins + np.arange(num_bins)) * dt
    return (since > one.start - 1e-9) & ((one.stop == 0) | (since < one.stop - 1e-9))


class UnitInterventions:
    """The interventions on units of a simulation; :meth:`window` gives what they do in one window.

    Raises
    ------
    ConfigError
        A unit that is not there, or a rate beyond ``MOST_IN_BIN`` spikes per bin.
    """

    def __init__(self, interventions: Sequence[InterventionConfig], num_units: int, dt: float, seed: int):
        self.interventions = on_units(interventions, num_units)
        self.num_units, self.dt, self.seed = num_units, dt, seed
        for one in self.interventions:
            if one.value * dt > MOST_IN_BIN:
                raise ConfigError(
                    f"generate.interventions: {one.do} at {one.value:g} Hz is {one.value * dt:,.0f} spikes of a unit in "
                    f"each bin of {dt:g} s; expected {MOST_IN_BIN:,} at most"
                )

    def __bool__(self) -> bool:
        return bool(self.interventions)

    def window(
        self, number: int, num_bins: int, ident_Q: np.ndarray, index: SpikeIndex, windows: Windows
    ) -> UnitChanges:
        """The changes in window ``number`` since the loop closed; ``index`` holds the recorded spikes."""
        silent = np.zeros((num_bins, self.num_units), bool)
        forced = np.zeros((len(ident_Q), num_bins, self.num_units), np.int64)
        for place, one in enumerate(self.interventions):
            acting = acting_bins(one, number, num_bins, self.dt)
            units = np.array(one.units, np.int64)
            if one.do != "drive":
                silent[np.ix_(acting, units)] = True
            if not acting.any():
                continue
            if one.value == RECORDED:
                counts = _recorded(index, windows, num_bins)[:, :, units]
            else:
                counts = self._drawn(place, one, number, num_bins, ident_Q)
            forced[:, :, units] += counts * acting[:, None]
        return UnitChanges(silent, _cells(forced))

    def _drawn(
        self, place: int, one: InterventionConfig, number: int, num_bins: int, ident_Q: np.ndarray
    ) -> np.ndarray:
        """(Q, B, units) Poisson counts at the given rate, from separate random streams."""
        bins, units = np.arange(num_bins)[:, None], np.array(one.units, np.int64)
        cell_C = torch.from_numpy(((place * num_bins + bins) * self.num_units + units).ravel())
        ident_QC = torch.from_numpy(np.asarray(ident_Q, np.int64))[:, None].expand(-1, len(cell_C))
        u = uniforms(self.seed, ident_QC, number, cell_C, FORCED).numpy()
        mean = one.value * self.dt
        most = int(mean + 12 * mean**0.5) + 64  # no draw lies beyond
        up_to = poisson.cdf(np.arange(most), mean)
        return np.searchsorted(up_to, u, side="right").reshape(len(u), num_bins, -1)


def _recorded(index: SpikeIndex, windows: Windows, num_bins: int) -> np.ndarray:
    """(Q, B, U) recorded counts of the windows."""
    out = np.zeros((len(windows), num_bins, index.num_units), np.int64)
    first = windows.bins(index)
    lo, hi = np.searchsorted(index.keys, [first, first + num_bins])
    for q in range(len(first)):
        np.add.at(out[q], (index.keys[lo[q] : hi[q]] - first[q], index.unit[lo[q] : hi[q]]), 1)
    return out


def _cells(forced_QBU: np.ndarray) -> np.ndarray:
    counts = forced_QBU.reshape(len(forced_QBU), -1)
    total = counts.sum(1)
    row, cell = np.nonzero(counts)
    repeat = counts[row, cell]
    row, cell = np.repeat(row, repeat), np.repeat(cell, repeat)
    out = np.full((len(counts), int(total.max(initial=0)) + 1), counts.shape[1], np.int64)
    out[row, np.arange(len(row)) - (np.cumsum(total) - total)[row]] = cell
    return out


def simulated_spans(split: Split, segment: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """(Q, 2) seconds in the recording of each sequence."""
    origin = split.segments[segment, 0]
    return np.stack([origin + start * split.dt, origin + stop * split.dt], 1)

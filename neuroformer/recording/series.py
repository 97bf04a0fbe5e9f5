"""What a recording holds beside its spikes: behavior, frames, continuous activity, when units were observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from neuroformer.recording.clock import NANOSECONDS, nanoseconds
from neuroformer.recording.frames import in_native_order
from neuroformer.recording.names import printable
from neuroformer.recording.validation import RecordingError, numbers
from neuroformer.shown import labelled

MOST_DECODED = 16  # pixels along the longer side of frames that are decoded from spikes
MOST_PIXELS = 2**28  # of all shown frames


@dataclass(frozen=True, eq=False)
class BehaviorVariable:
    """One behavior variable with its own sample times.

    Parameters
    ----------
    times : (samples,) float64 seconds, strictly ascending
    values : (samples, columns) float32; NaN where it is missing (masked in the loss, counted in reports);
        infinity becomes NaN
    unit : str
        Unit of measure of the values, free text ("cm/s").
    columns : tuple of str
        One name per column; empty when there is one column only.
    classes : tuple of str
        What the values 0, 1, ... stand for, where the variable was recorded as words; else empty.
    starts : (N,) float64 seconds, ascending
        Starts of trials and other borders that labels do not reach across; :meth:`Recording.variable` fills it.
    """

    times: np.ndarray
    values: np.ndarray
    unit: str = ""
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0), repr=False)

    def __post_init__(self):
        object.__setattr__(self, "times", numbers("behavior times", self.times, np.float64))
        object.__setattr__(self, "unit", printable(self.unit))
        object.__setattr__(self, "columns", tuple(map(printable, self.columns)))
        values = numbers("a behavior variable", self.values, np.float32)
        infinite = np.isinf(values)
        values = np.where(infinite, np.float32(np.nan), values) if infinite.any() else values
        object.__setattr__(self, "values", values[:, None] if values.ndim == 1 else values)

    def to_xarray(self, name: str = "") -> Any:
        """The samples as an ``xarray.DataArray`` (time, column) with their unit; needs the extra ``xarray``."""
        columns = self.columns or [str(c) for c in range(self.num_columns)]
        coords = {"time": self.times, "column": list(columns)}
        attributes = {"unit": self.unit} | ({"classes": list(self.classes)} if self.classes else {})
        return labelled(self.values, coords, name, attributes)

    @property
    def num_columns(self) -> int:
        return self.values.shape[1]

    @property
    def num_missing(self) -> int:
        """Samples with NaN in any column."""
        return int((~np.isfinite(self.values).all(1)).sum())

    @cached_property
    def _clock(self) -> np.ndarray:
        return nanoseconds(self.times)

    @cached_property
    def period(self) -> float:
        """Seconds between samples, the median; infinity where there is only one."""
        steps = np.diff(self.times)
        return float(np.median(steps)) if len(steps) else np.inf

    def hold(self, at: np.ndarray) -> np.ndarray:
        """(N, columns) last sample at or before each time of ``at`` (N,): what a causal reader knows.

        NaN before the first sample, and if the last sample is older than five sampling periods.
        """
        at_ns = nanoseconds(at)
        k = np.searchsorted(self._clock, at_ns, side="right") - 1
        return self._held(k, at_ns, k < 0)

    def hold_label(self, at: np.ndarray) -> np.ndarray:
        """(N, columns) as :meth:`hold`, for labels: the sample lies in the stretch that each time ends or lies in."""
        at_ns = nanoseconds(at)
        first, stop = self._stretch(at_ns)
        k = np.minimum(np.searchsorted(self._clock, at_ns, side="right"), stop) - 1
        return self._held(k, at_ns, k < first)

    def _held(self, k: np.ndarray, at_ns: np.ndarray, missing: np.ndarray) -> np.ndarray:
        out = self.values[np.clip(k, 0, len(self.times) - 1)].astype(np.float32)
        age = (at_ns - self._clock[np.clip(k, 0, None)]) / NANOSECONDS
        out[missing | (age > 5 * self.period)] = np.nan
        return out

    def _stretch(self, at_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Samples (first, one past the last) between the two ``starts`` around each time.

        A window's label is that of its last instant, so a time on a border belongs to what ends there, and a sample on
        it to what begins there.
        """
        starts = nanoseconds(self.starts)
        edges = np.r_[0, np.searchsorted(self._clock, starts, side="left"), len(self._clock)]
        k = np.searchsorted(starts, at_ns, side="left")
        return edges[k], edges[k + 1]

    def interpolate(self, at: np.ndarray) -> np.ndarray:
        """(N, columns) linear interpolation at each time of ``at`` (N,): labels, never inputs.

        NaN outside the samples and in gaps longer than five sampling periods. Nothing is interpolated across a start of
        ``starts``: there the nearest sample on the same side holds, for one sampling period and a half.
        """
        if len(self.times) < 2:
            return self.hold_label(at)
        at_ns = nanoseconds(at)
        first, stop = self._stretch(at_ns)
        num = len(self.times)
        hi = np.searchsorted(self._clock, at_ns, side="left")
        lo = hi - 1
        after, before = hi < stop, lo >= first
        # where the neighbor on one side lies beyond a border, the other one stands in for it
        left = np.where(before, lo, hi).clip(0, num - 1)
        right = np.where(after, hi, lo).clip(0, num - 1)
        exact = after & (self._clock[right] == at_ns)
        left = np.where(exact, right, left)
        span = self._clock[right] - self._clock[left]
        w = np.where(span > 0, (at_ns - self._clock[left]) / np.maximum(span, 1), 0.0)[:, None]
        # the end points exactly, so that a NaN neighbour does not spoil a sample that is there
        out = np.where(
            w <= 0,
            self.values[left],
            np.where(w >= 1, self.values[right], (1 - w) * self.values[left] + w * self.values[right]),
        )
        alone = ~exact & (before != after)
        distance = np.abs(at_ns - self._clock[left]) / NANOSECONDS
        outside = ~before & ~after | (alone & ((hi == 0) | (hi == num) | (distance > 1.5 * self.period)))
        out[(outside & ~exact) | (span / NANOSECONDS > 5 * self.period)] = np.nan
        return out.astype(np.float32)


@dataclass(frozen=True, eq=False)
class FrameSeries:
    """Frames as they were shown: a bank of images and which one came on when.

    A movie shown 30 times is stored once; ``index`` then repeats.

    Parameters
    ----------
    images : (images, height, width), uint8 or float
        An array or anything lazy with ``shape``, ``dtype`` and ``__getitem__`` by an integer array. Bytes in another
        order than this machine's are swapped as they are read.
    times : (shown,) float64 seconds, strictly ascending
        Onset of each shown frame.
    index : (shown,) int64
        Which image each onset shows.
    """

    images: Any
    times: np.ndarray
    index: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "images", in_native_order(self.images))
        object.__setattr__(self, "times", numbers("frame times", self.times, np.float64))
        object.__setattr__(self, "index", numbers("the frames' index", self.index, np.int64))

    def pixels(self, which: np.ndarray) -> np.ndarray:
        """(..., height, width) of the images that ``which`` (...,) names by their places in the bank.

        Raises
        ------
        RecordingError
            A pixel is not a finite number.
        """
        images = np.asarray(self.images[which])
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            bad = ~np.isfinite(images).reshape(-1, int(np.prod(images.shape[-2:]))).all(1)
            raise RecordingError(
                f"frames hold pixels that are NaN or infinite: {int(bad.sum())} of {bad.size} images that were looked at "
                f"(image {int(np.ravel(which)[bad.argmax()])}, for one); put numbers there, for example with "
                "np.nan_to_num, or leave out the times at which these images are shown"
            )
        return images

    @property
    def decoded_shape(self) -> tuple[int, int]:
        """Rows and columns in which frames are decoded: averaged down to :data:`MOST_DECODED` along the longer side."""
        height, width = self.images.shape[1:3]
        shrink = -(-max(height, width) // MOST_DECODED)
        return -(-height // shrink), -(-width // shrink)

    def as_variable(self) -> BehaviorVariable:
        """The pixels of every shown frame in ``decoded_shape``, row by row, as a variable with a column per pixel.

        Raises
        ------
        RecordingError
            More frames than fit into 1 GB.
        """
        height, width = self.images.shape[1:3]
        rows, columns = self.decoded_shape
        if len(self.times) * rows * columns > MOST_PIXELS:
            raise RecordingError(
                f"{len(self.times):,} frames of {rows} x {columns} pixels are too many to be decoded at once (at most "
                f"{MOST_PIXELS:,} pixels); give a part of the recording"
            )
        shrink = -(-max(height, width) // MOST_DECODED)
        bank, place = np.unique(self.index, return_inverse=True)
        small = np.empty((len(bank), rows * columns), np.float32)
        for part in np.array_split(np.arange(len(bank)), -(-len(bank) // 256)):
            x = self.pixels(bank[part]).astype(np.float32)
            for axis, size in ((1, height), (2, width)):
                edges = np.arange(0, size, shrink)
                number = np.diff(np.append(edges, size)).reshape([-1 if a == axis else 1 for a in range(3)])
                x = np.add.reduceat(x, edges, axis=axis) / number
            small[part] = x.reshape(len(part), -1)
        return BehaviorVariable(self.times, small[place])

    @classmethod
    def from_presentations(
        cls,
        clips: np.ndarray,
        rate_hz: float,
        presentation_clip: Sequence[int],
        presentation_times: Sequence[float],
    ) -> FrameSeries:
        """From a clip bank (clips, frames, height, width) and the onset time of each presented clip."""
        num_clips, num_frames = clips.shape[:2]
        which = np.asarray(presentation_clip, dtype=np.int64)
        onset = np.asarray(presentation_times, dtype=np.float64)
        if len(which) and (which.min() < 0 or which.max() >= num_clips):
            raise RecordingError(
                f"a presentation shows clip {int(which.max())}, "
                f"but the bank holds {num_clips} clips (0 to {num_clips - 1})"
            )
        k = np.arange(num_frames)
        times = (onset[:, None] + k / rate_hz).ravel()
        index = (which[:, None] * num_frames + k).ravel()
        order = np.argsort(times, kind="stable")
        return cls(clips.reshape(-1, *clips.shape[2:]), times[order], index[order])


@dataclass(frozen=True, eq=False)
class Traces:
    """Continuous activity of every unit on one clock, such as calcium fluorescence.

    Parameters
    ----------
    times : (samples,) float64 seconds, strictly ascending
    values : (samples, units) float32; one column per row of the units table; NaN where it is missing
    unit : str
        Unit of measure of the values, free text ("dF/F").
    """

    times: np.ndarray
    values: np.ndarray
    unit: str = ""

    def __post_init__(self):
        object.__setattr__(self, "times", numbers("trace times", self.times, np.float64))
        object.__setattr__(self, "unit", printable(self.unit))
        object.__setattr__(self, "values", numbers("traces", self.values, np.float32))

    @property
    def rate_hz(self) -> float:
        """Samples per second, from the median step; NaN for a single sample."""
        return 1 / float(np.median(np.diff(self.times))) if len(self.times) > 1 else float("nan")

    def before(self, time: float) -> Traces | None:
        """The samples before ``time``; None where there are none."""
        count = int(np.searchsorted(self.times, time - 0.5 / NANOSECONDS, side="left"))
        return Traces(self.times[:count], self.values[:count], self.unit) if count else None


@dataclass(frozen=True, eq=False)
class ObservedIntervals:
    """When each unit was observed, where units differ: outside, the absence of spikes says nothing.

    Parameters
    ----------
    intervals : (intervals, 2) float64 seconds, ``[start, stop)``; those of a unit ascend and do not overlap
    units : (intervals,) int32, row of the units table; rows ascend, and a row that is not there was never observed
    """

    intervals: np.ndarray
    units: np.ndarray

    def __post_init__(self):
        intervals = numbers("observed intervals", self.intervals, np.float64)
        if intervals.size and (intervals.ndim not in (1, 2) or intervals.shape[-1] != 2):
            raise RecordingError(f"observed has shape {intervals.shape}; expected (intervals, 2), start and stop")
        object.__setattr__(self, "intervals", intervals.reshape(-1, 2))
        object.__setattr__(self, "units", numbers("the observed units", self.units, np.int32))

    @classmethod
    def from_units(cls, by_unit: Sequence[np.ndarray]) -> ObservedIntervals:
        """From the intervals (k, 2) of every unit, in the order of the units table."""
        rows = np.repeat(np.arange(len(by_unit)), [len(i) for i in by_unit])
        return cls(np.concatenate([np.reshape(i, (-1, 2)) for i in by_unit]), rows)

    def of(self, unit: int) -> np.ndarray:
        """(k, 2) intervals of one unit."""
        low, high = np.searchsorted(self.units, [unit, unit + 1])
        return self.intervals[low:high]

    def seconds(self, num_units: int, within: np.ndarray) -> np.ndarray:
        """(num_units,) observed seconds of each unit that lie within disjoint intervals (n, 2)."""
        start, stop = self.intervals.T
        shared = sum(np.maximum(np.minimum(stop, b) - np.maximum(start, a), 0) for a, b in within)
        return np.bincount(self.units, np.broadcast_to(shared, len(start)), minlength=num_units)


def words_as_numbers(column: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Words as their places in the alphabet, NaN where empty, and the words; numbers as they are."""
    if column.dtype.kind not in "US":
        return column, ()
    words = column.astype(np.str_)
    classes, place = np.unique(words[words != ""], return_inverse=True)
    values = np.full(len(words), np.nan)
    values[words != ""] = place
    return values, tuple(map(str, classes))

"""Consistency checks of a recording; large arrays are read in pieces, never copied whole."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from neuroformer.recording.clock import LATEST_S, step_s
from neuroformer.recording.names import printable

COARSE_S = 1e-3  # a type of numbers that knows times no better loses them
CHUNK = 1 << 20  # array elements looked at in one go: a memory-mapped recording stays on disk


class RecordingError(ValueError):
    """A recording that contradicts itself: says what was got, what was expected and what to do."""

    def __init__(self, message: object = ""):
        super().__init__(printable(message, keep="\n\t"))  # it may quote a name of the file


class CheckedSpikes:
    """Proof that spikes passed :func:`validate_spikes` once, for a layout that was checked when it was written.

    It holds only for these two arrays and their beginnings, not for other spikes that :func:`dataclasses.replace` may
    put in their place.
    """

    def __init__(self, times: np.ndarray, units: np.ndarray, unit_spikes: np.ndarray | None = None):
        self._proof = [(a.__array_interface__["data"][0], len(a), a.dtype) for a in (times, units)]
        self._keep = (times, units)  # the addresses stay theirs as long as this object lives
        self._unit_spikes = unit_spikes

    def unit_spikes(self, times: np.ndarray, units: np.ndarray) -> np.ndarray | None:
        """(units,) spikes of each unit, where they were counted and these are all of them."""
        return self._unit_spikes if self.covers(times, units) and len(times) == self._proof[0][1] else None

    def covers(self, times: np.ndarray, units: np.ndarray) -> bool:
        """Whether these are the arrays that were checked, or a beginning of them."""
        return len(times) == len(units) and all(
            a.ndim == 1
            and a.dtype == dtype
            and (len(a) == 0 or (a.__array_interface__["data"][0] == at and a.strides == (a.itemsize,)))
            and len(a) <= count
            for a, (at, count, dtype) in zip((times, units), self._proof, strict=True)
        )


def optional(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Raises
    ------
    RecordingError
        It is not installed; the message names the extra that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise RecordingError(
            f"{purpose} needs the package '{module.split('.')[0]}' ({e}); pip install 'neuroformer[{extra}]'"
        ) from None


def numbers(what: str, values: Any, dtype: Any) -> np.ndarray:
    """``values`` as an array of ``dtype``; texts, dates, objects and lost fractions are errors."""
    values = np.asarray(values)
    whole = np.dtype(dtype).kind == "i"
    if values.size and (
        values.dtype.kind not in "fiub" or (whole and values.dtype.kind == "f" and (values % 1 != 0).any())
    ):
        raise RecordingError(f"{what} holds {values.dtype}; expected {'whole ' if whole else ''}numbers")
    if whole and values.size and not np.can_cast(values.dtype, dtype):
        limit = np.iinfo(dtype)
        if values.max() > limit.max or values.min() < limit.min:
            raise RecordingError(f"{what} runs from {values.min()} to {values.max()}, too large for {np.dtype(dtype)}")
    if values.dtype == np.float16 and np.dtype(dtype) == np.float64:
        known = values[np.isfinite(values)]
        if step_s(known) > COARSE_S:
            raise RecordingError(
                f"{what} are float16, which at {float(np.abs(known).max()):g} s knows steps of "
                f"{1e3 * step_s(known):g} ms only; store float64"
            )
    return values.astype(dtype, copy=False)


def count_spikes(units: np.ndarray, num_units: int) -> np.ndarray:
    """(units,) spikes of each unit, counted in pieces."""
    counts = np.zeros(num_units, dtype=np.int64)
    for part in chunks(len(units)):
        counts += np.bincount(units[part], minlength=num_units)
    return counts


def chunks(length: int, overlap: int = 0) -> Iterator[slice]:
    """Slices that cover ``length`` elements; each begins ``overlap`` elements before the last one's end."""
    for start in range(0, length, CHUNK):
        yield slice(max(start - overlap, 0), min(start + CHUNK, length))


def validate_units(table: Mapping[str, np.ndarray]) -> None:
    """Check the units table: one ``id`` a unit, all columns equally long."""
    if "id" not in table:
        raise RecordingError(f"the units table needs a column 'id'; it has: {', '.join(table) or 'none'}")
    ids = table["id"]
    if ids.ndim != 1:
        raise RecordingError(f"unit ids have shape {ids.shape}; expected one id a unit, (units,)")
    if len(ids) == 0:
        raise RecordingError("the recording has no units; at least one is needed")
    for column, values in table.items():
        if values.ndim == 0 or len(values) != len(ids):
            raise RecordingError(f"units column '{column}' has shape {values.shape}, but there are {len(ids)} units")
    if len(set(map(str, ids))) != len(ids):
        raise RecordingError("unit ids are not unique; give each unit its own id")


def validate_spikes(times: np.ndarray, units: np.ndarray, num_units: int) -> None:
    """Check spikes: finite ascending times (spikes,), each with the row of a unit."""
    if times.ndim != 1 or times.shape != units.shape:
        raise RecordingError(
            f"spike_times has shape {times.shape} and spike_units {units.shape}; expected one unit a spike, (spikes,)"
        )
    bad = [np.flatnonzero(~np.isfinite(times[part])) + part.start for part in chunks(len(times))]
    if any(map(len, bad)):
        raise RecordingError(
            f"{sum(map(len, bad))} of {len(times)} spike times are not finite "
            f"(first at position {int(np.concatenate(bad)[0])}); remove those spikes"
        )
    back = [np.flatnonzero(np.diff(times[part]) < 0) + part.start for part in chunks(len(times), overlap=1)]
    if any(map(len, back)):
        raise RecordingError(
            f"spike times are not sorted: {sum(map(len, back))} steps go back in time (first after position "
            f"{int(np.concatenate(back)[0])}); sort spike_times and spike_units together by time"
        )
    _validate_clock("spike times", times)
    if len(units) and (units.min() < 0 or units.max() >= num_units):
        raise RecordingError(
            f"spike_units run from {units.min()} to {units.max()}, but there are {num_units} units "
            f"(expected 0 to {num_units - 1}); units are rows of the units table, counted from 0: "
            "ids, spike_units = np.unique(spike_units, return_inverse=True), and store ids as 'unit_ids'"
        )


def validate_observed(intervals: np.ndarray, units: np.ndarray, num_units: int) -> None:
    """Check the observed intervals (n, 2) of ``units`` (n,): ascending and disjoint for each unit."""
    if units.shape != intervals.shape[:1]:
        raise RecordingError(f"observed: {len(intervals)} intervals but units of shape {units.shape}; give one each")
    if len(units) and (units.min() < 0 or units.max() >= num_units or (np.diff(units) < 0).any()):
        raise RecordingError(f"observed: units must be ascending rows of the units table, 0 to {num_units - 1}")
    validate_intervals("observed", intervals, disjoint=False)
    over = (units[1:] == units[:-1]) & (intervals[1:, 0] < intervals[:-1, 1])
    if over.any():
        raise RecordingError(
            f"observed intervals of unit {units[over.argmax()]} overlap or are unsorted; expected ascending and disjoint"
        )


def validate_table(what: str, columns: Mapping[str, np.ndarray]) -> None:
    """Check a table of intervals: columns ``start`` and ``stop`` of numbers, all columns equally long."""
    for column in ("start", "stop"):
        if column not in columns:
            raise RecordingError(f"{what} need columns 'start' and 'stop'; they have: {', '.join(columns)}")
        if columns[column].ndim != 1 or columns[column].dtype.kind not in "fiu":
            raise RecordingError(
                f"{what}: '{column}' is {columns[column].dtype} of shape {columns[column].shape}; "
                "expected seconds, one per row"
            )
        numbers(f"{what}: '{column}'", columns[column], np.float64)
    count = len(columns["start"])
    for column, values in columns.items():
        if values.ndim == 0 or len(values) != count:
            raise RecordingError(f"{what} column '{column}' has shape {values.shape} for {count} rows")


def validate_intervals(what: str, intervals: np.ndarray, disjoint: bool = True) -> None:
    """Check ``intervals`` (n, 2): finite, none empty, and with ``disjoint`` ascending without overlap."""
    if not np.isfinite(intervals).all():
        raise RecordingError(f"{what} intervals hold times that are not finite")
    _validate_clock(f"{what} intervals", intervals)
    empty = intervals[:, 1] <= intervals[:, 0]
    if empty.any():
        i = int(empty.argmax())
        raise RecordingError(
            f"{what} interval {i} is empty or runs backwards: [{intervals[i, 0]:g}, {intervals[i, 1]:g}); "
            "expected start < stop in seconds"
        )
    overlap = intervals[1:, 0] < intervals[:-1, 1]
    if disjoint and overlap.any():
        i = int(overlap.argmax())
        raise RecordingError(
            f"{what} intervals {i} and {i + 1} overlap or are unsorted: "
            f"[{intervals[i, 0]:g}, {intervals[i, 1]:g}) and "
            f"[{intervals[i + 1, 0]:g}, {intervals[i + 1, 1]:g}); expected ascending and disjoint"
        )


def validate_series(what: str, times: np.ndarray, values: np.ndarray, or_else: str) -> None:
    """Check samples: times (samples,) ascending, values (samples, columns), one at least."""
    if values.ndim != 2 or times.ndim != 1:
        raise RecordingError(
            f"{what} has values of shape {values.shape} and times of shape {times.shape}; "
            "expected (samples, columns) and (samples,)"
        )
    if len(times) != len(values):
        raise RecordingError(f"{what} has {len(values)} values but {len(times)} times; give one time per value")
    if len(times) == 0:
        raise RecordingError(f"{what} has no samples; {or_else}")
    _validate_ascending(f"{what} times", times)


def validate_traces(times: np.ndarray, values: np.ndarray, num_units: int) -> None:
    """Check traces: samples as :func:`validate_series` has them, one column per unit."""
    validate_series("traces", times, values, "leave the traces out")
    if values.shape[1] != num_units:
        raise RecordingError(
            f"traces have shape {values.shape}, but there are {num_units} units; "
            f"expected one column per unit, (samples, {num_units})"
        )


def _validate_clock(what: str, times: np.ndarray) -> None:
    ends = times[[0, -1]] if len(times) else np.zeros(1)  # they ascend
    if np.abs(ends).max() > LATEST_S:
        raise RecordingError(
            f"{what} reach {np.abs(ends).max():g}; expected seconds, {LATEST_S:g} at most: divide microseconds by 1e6, "
            "nanoseconds by 1e9"
        )


def _validate_ascending(what: str, times: np.ndarray) -> None:
    if not np.isfinite(times).all():
        raise RecordingError(f"{what}: {int((~np.isfinite(times)).sum())} are not finite")
    back = np.diff(times) <= 0
    if back.any():
        raise RecordingError(
            f"{what}: {int(back.sum())} do not ascend (first after position {int(back.argmax())}); "
            "sort, and drop repeats"
        )
    _validate_clock(what, times)


def validate_frames(shape: tuple[int, ...], dtype: Any, times: np.ndarray, index: np.ndarray) -> None:
    """Check frames: a bank of images of ``shape``, ascending onsets, an existing image for each."""
    if len(shape) != 3:
        raise RecordingError(f"frames have shape {tuple(shape)}; expected (images, height, width), grayscale")
    if np.dtype(dtype).kind not in "fiub":
        raise RecordingError(f"frames hold {dtype}; expected brightness as numbers")
    if times.ndim != 1 or times.shape != index.shape:
        raise RecordingError(
            f"frames: onset times have shape {times.shape} but the index {index.shape}; give one time a shown frame"
        )
    _validate_ascending("frame times", times)
    if len(index) and (index.min() < 0 or index.max() >= shape[0]):
        raise RecordingError(
            f"frames_index runs from {int(index.min())} to {int(index.max())}, but the bank holds {shape[0]} images"
        )

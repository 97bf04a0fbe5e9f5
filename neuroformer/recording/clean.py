"""Cleaning that all readers share: names, sample times, tables, spikes. Every change is noted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from neuroformer.recording.clock import closed_up, nanoseconds, step_s
from neuroformer.recording.names import natural
from neuroformer.recording.series import BehaviorVariable
from neuroformer.recording.validation import COARSE_S, RecordingError, numbers

# names that say nothing without the name of what holds them
MAX_UNITS = 1_000_000  # more than any probe has: the number must be damaged
_GENERIC = {
    "data",
    "values",
    "value",
    "timeseries",
    "time_series",
    "spatialseries",
    "spatial_series",
    "series",
    "behavioraltimeseries",
    "roiresponseseries",
    "pos",
    "vel",
    "acc",
    "x",
    "y",
    "z",
}


def short_names(paths: Sequence[Sequence[str]]) -> list[str]:
    """A name for each path (its parts, outermost first) that can be used in a configuration.

    The last part; a part that says nothing (``data``, ``SpatialSeries``) brings along the one before.
    Paths that would share a name all take one part more until they differ, and at last a number, in
    order. Characters other than letters, digits and ``_`` become ``_``. Except for that number, the result does not
    depend on the order of the paths.
    """
    parts = [[re.sub(r"\W+", "_", p).strip("_") or "unnamed" for p in path] for path in paths]
    depth = [2 if p[-1].lower() in _GENERIC and len(p) > 1 else 1 for p in parts]
    while True:
        names = ["_".join(p[-d:]) for p, d in zip(parts, depth, strict=True)]
        count = Counter(names)
        again = [i for i, n in enumerate(names) if count[n] > 1 and depth[i] < len(parts[i])]
        if not again:
            break
        for i in again:
            depth[i] += 1
    seen: Counter[str] = Counter()
    taken = set(names)
    for i, name in enumerate(names):
        seen[name] += 1
        if count[name] > 1 and seen[name] > 1:
            number = seen[name]
            while f"{name}_{number}" in taken:
                number += 1
            names[i] = f"{name}_{number}"
            taken.add(names[i])
    return names


def safe_name(name: str) -> str:
    """A name without the characters that HDF5 formats reserve."""
    return re.sub(r"[/:.\s]+", "_", str(name)).strip("_") or "unnamed"


def distinct_ids(ids: np.ndarray, notes: list[str]) -> np.ndarray:
    """Unit ids, those that repeat made different by a number."""
    count = Counter(str(i) for i in ids)
    again = sorted((i for i, n in count.items() if n > 1), key=natural)
    if not again:
        return ids
    taken, seen, out = set(count), set(), []
    for text in map(str, ids):
        out.append(distinct(text, taken) if text in seen else text)
        seen.add(text)
        taken.add(out[-1])
    some = ", ".join(again[:5]) + (", ..." if len(again) > 5 else "")
    notes.append(f"unit ids repeat ({some}), as those of several probes may; the second of them became {again[0]}_2")
    return np.array(out)


def note_repeated(file: str, ids: np.ndarray, notes: list[str]) -> None:
    """Say which ids have more than one row in a table of units, of which the first counts."""
    kinds, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        again = [str(i) for i in kinds[counts > 1]]
        notes.append(f"{file} has several rows for {some(again)}: the first of each counts")


def some(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def distinct(name: str, taken: Iterable[str]) -> str:
    """``name``, with a number if it is already taken."""
    taken, number, out = set(taken), 2, name
    while out in taken:
        out, number = f"{name}_{number}", number + 1
    return out


def variable(
    name: str, times: Any, values: Any, notes: list[str], unit: str = "", columns: Iterable[str] = ()
) -> BehaviorVariable | None:
    """A behavior variable from the samples of a file; None, with a note, if nothing can be kept."""
    times, values = np.asarray(times), np.asarray(values)
    if values.dtype.kind not in "fiub" or values.ndim not in (1, 2) or values.size == 0:
        what = "empty" if values.size == 0 else f"{values.dtype} of shape {values.shape}"
        notes.append(f"{name} was left out: {what}; expected numbers, (samples,) or (samples, columns)")
        return None
    if values.ndim == 2 and times.shape == values.shape[1:] != values.shape[:1]:
        notes.append(f"{name}: its values are (columns, samples) = {values.shape} in the file, and were transposed")
        values = values.T
    if times.shape != values.shape[:1] or times.dtype.kind not in "fiu":
        notes.append(f"{name} was left out: {len(values)} values but times of shape {times.shape}")
        return None
    coarse(f"{name}: times", times, notes)
    times = times.astype(np.float64)
    keep = np.isfinite(times)
    if not keep.all():
        notes.append(f"{name}: {int((~keep).sum())} samples without a time were dropped")
        times, values = times[keep], values[keep]
    if len(times) == 0:
        return None
    back = np.diff(times) < 0
    if back.any():
        notes.append(f"{name}: {int(back.sum())} samples went back in time; all were sorted by time")
        order = np.argsort(times, kind="stable")
        times, values = times[order], values[order]
    repeat = np.diff(times, prepend=-np.inf) == 0
    if repeat.any():
        notes.append(f"{name}: {int(repeat.sum())} samples with the time of the one before were dropped")
        times, values = times[~repeat], values[~repeat]
    return BehaviorVariable(times, values, unit, tuple(columns))


# a longer series is a recorder's channel if it is faster than any behavior, or simply too long to hold
_LONG, _FAST_HZ, _VERY_LONG = 1_000_000, 2000.0, 50_000_000


def channel_rate(shape: Sequence[int], rate_hz: float) -> float:
    """The rate of a series that is a recorder's channel, which nobody asked for: long, and faster than behavior; else 0."""
    count = float(np.prod(shape))
    return rate_hz if count >= _LONG and (rate_hz > _FAST_HZ or count > _VERY_LONG) else 0.0


def of_a_recorder(name: str, shape: Sequence[int], rate_hz: float, ask: str) -> str:
    """The note on such a series."""
    return (
        f"{name} was not read, since it is a recorder's channel ({tuple(shape)} at {rate_hz:,.0f} Hz); open with {ask} to "
        "have it"
    )


def coarse(what: str, times: np.ndarray, notes: list[str], scale: float = 1.0) -> None:
    """Note that the times' own type of numbers, of ``scale`` seconds each, knows them to less than a millisecond.

    So does single precision that a library has written as double, since its format says so.
    """
    single = np.asarray(times, np.float32) if was_single(times) else times
    step = scale * step_s(single)
    if step > COARSE_S:
        how = "are" if single is times else "have the digits of"
        notes.append(f"{what} {how} {single.dtype}, which knows steps of {1e3 * step:.3g} ms only: they were rounded")


def was_single(times: np.ndarray) -> bool:
    """Whether numbers of double precision are all ones of single precision, some down to the last bit of these."""
    if times.dtype != np.float64 or times.size < 20:
        return False
    some = times.ravel()[:: max(1, times.size // 10_000)]
    some = some[np.isfinite(some) & (np.abs(some) < 1e30)]
    single = some.astype(np.float32)
    return bool((single == some).all() and (some / np.spacing(np.abs(single)) % 2 == 1).any())


def table(name: str, columns: Mapping[str, Any], notes: list[str], disjoint: bool) -> dict[str, np.ndarray] | None:
    """A table of intervals with ``start`` and ``stop``, as :class:`Recording` has them.

    Rows without a start or stop, or with stop before start, are dropped. With ``disjoint``, rows are sorted, one that
    spans others or repeats another is dropped, and one that overlaps the next ends where that begins. None if no row is
    left.
    """
    out = {k: plain(v) for k, v in columns.items()}
    shapes = {out[k].shape for k in ("start", "stop")}
    if len(shapes) > 1 or len(min(shapes)) != 1 or any(out[k].dtype.kind not in "fiu" for k in ("start", "stop")):
        notes.append(f"{name} were left out: start and stop are {sorted(shapes)}; expected seconds, one per row")
        return None
    coarse(f"{name}: start and stop", out["start"], notes)
    stop = closed_up(out["start"], out["stop"]).astype(np.float64)
    start = out["start"].astype(np.float64)
    for k in [k for k, v in out.items() if v.ndim == 0 or len(v) != len(start)]:
        notes.append(f"{name}: column {k} was left out: {out.pop(k).shape}, but there are {len(start)} rows")
    keep = np.isfinite(start) & np.isfinite(stop) & (stop > start)
    if not keep.all():
        notes.append(f"{name}: {int((~keep).sum())} of {len(keep)} rows have no duration and were dropped")
    order = np.flatnonzero(keep)
    if disjoint:
        order, stop = _disjoint(name, order, start, stop, notes)
    if len(order) == 0:
        return None
    out |= {"start": start, "stop": stop}
    return {k: v[order] for k, v in out.items()}


def _disjoint(
    name: str, order: np.ndarray, start: np.ndarray, stop: np.ndarray, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order of time, less those that span others; and where each stops."""
    order = order[np.lexsort((-stop[order], start[order]))]
    a, b = nanoseconds(start[order]), nanoseconds(stop[order])
    again = np.r_[False, (a[1:] == a[:-1]) & (b[1:] == b[:-1])]
    if again.any():
        notes.append(f"{name}: {int(again.sum())} rows with the times of another were dropped")
        order, a, b = order[~again], a[~again], b[~again]
    # an interval around trials (a block, the session) is no trial: the rows within it are
    spans = _spanning(a, b)
    if spans.any():
        i = order[np.flatnonzero(spans)[0]]
        notes.append(
            f"{name}: {int(spans.sum())} of {len(spans)} rows that span others were dropped "
            f"(first: {start[i]:g} to {stop[i]:g} s)"
        )
        order = order[~spans]
    stop = stop.copy()
    stop[order] = closed_up(start[order], stop[order])
    over = stop[order][:-1] - start[order][1:]
    if (over > 0).any():
        notes.append(
            f"{name}: {int((over > 0).sum())} rows ran into the next one (by {over.max():.3g} s at most) "
            "and now end where it begins"
        )
        stop[order[:-1]] = np.minimum(stop[order[:-1]], start[order[1:]])
        order = order[stop[order] > start[order]]
    return order, stop


def _spanning(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """(N,) whether a row holds two others whole, or one that begins with it; sorted by start, the longer one first."""
    spans = np.zeros(len(start), bool)
    earliest, second = np.inf, np.inf  # stops of the rows after this one
    for i in range(len(start) - 1, -1, -1):
        twins = i + 1 < len(start) and start[i + 1] == start[i] and stop[i + 1] <= stop[i]
        spans[i] = twins or second <= stop[i]
        earliest, second = min(earliest, stop[i]), min(second, max(earliest, stop[i]))
    return spans


def plain(values: Any) -> np.ndarray:
    """An array of numbers, booleans or strings; objects (as HDF5 gives strings) become strings."""
    values = np.asarray(values)
    if values.dtype.kind in "OS":
        flat = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.ravel()]
        values = np.array(flat, dtype=np.str_).reshape(values.shape)
    return values


def spikes(times: np.ndarray, units: np.ndarray, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Spikes sorted by time, ties by unit; those without a finite time are dropped with a note."""
    coarse("spike times", np.asarray(times), notes)
    times = np.asarray(times, dtype=np.float64)
    units = numbers("the spikes' units", units, np.int32)
    finite = np.isfinite(times)
    if not finite.all():
        notes.append(f"{int((~finite).sum())} spikes without a finite time were dropped")
        times, units = times[finite], units[finite]
    order = np.argsort(units, kind="stable")
    order = order[np.argsort(times[order], kind="stable")]
    return times[order], units[order]


def count_units(index: np.ndarray) -> int:
    """The number of units that the largest unit number of the spikes implies."""
    count = int(index.max()) + 1 if len(index) else 0
    if count > MAX_UNITS:
        raise RecordingError(f"spikes of unit {count - 1}; expected units counted from 0, below {MAX_UNITS}")
    return count


def span(*times: np.ndarray) -> np.ndarray:
    """(1, 2) from the first to just after the last of some times; (0, 2) where there are none."""
    parts = [t for t in times if len(t)]
    if not parts:
        return np.zeros((0, 2))
    low, high = min(t.min() for t in parts), max(t.max() for t in parts)
    return np.array([[low, np.nextafter(high, np.inf)]])


def union(intervals: np.ndarray) -> np.ndarray:
    """Ascending disjoint intervals that cover the same times; those that touch are joined."""
    intervals = intervals[np.isfinite(intervals).all(1) & (intervals[:, 1] > intervals[:, 0])]
    out: list[list[float]] = []
    for start, stop in intervals[np.argsort(intervals[:, 0], kind="stable")]:
        if out and start <= out[-1][1]:
            out[-1][1] = max(out[-1][1], stop)
        else:
            out.append([start, stop])
    return np.array(out).reshape(-1, 2)


def without(intervals: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Disjoint ``intervals`` less the times of ``holes``."""
    out = [list(i) for i in intervals]
    for low, high in union(holes):
        cut = [[[a, min(b, low)], [max(a, high), b]] for a, b in out]
        out = [part for parts in cut for part in parts if part[1] > part[0]]
    return np.array(out).reshape(-1, 2)

"""Files with more spikes than fit into memory: sorted once, out of core, into an index beside the file.

NWB keeps spikes by unit. Beyond ``LARGE`` spikes, the reader sorts them by time into ``FILE.spikes/`` (two
memory-mapped arrays) and uses these from then on, as long as the size and date of the file do not change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from neuroformer.files import replacing, reserve
from neuroformer.recording.formats.folder import entry_of, open_array
from neuroformer.recording.recording import RecordingError
from neuroformer.recording.validation import CheckedSpikes, chunks, count_spikes

LARGE = 50_000_000  # spikes; below, sorting in memory takes seconds and 2 GB at most
BUCKET = 8_000_000  # spikes sorted in memory at a time
_BINS = 1 << 16
_MANIFEST = "spikes.json"

Pieces = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


def indexed_spikes(
    source: Path, pieces: Pieces, num_units: int, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, CheckedSpikes]:
    """Spikes of a file sorted by time (ties by unit), memory-mapped from the index beside it.

    Parameters
    ----------
    pieces : gives (times, units) of all spikes in pieces, the same ones on every call

    Returns
    -------
    times (spikes,) float64, units (spikes,) int32, and the proof that they were validated

    Raises
    ------
    RecordingError
        The index cannot be written beside the file, or the file's unit numbers are out of range.
    """
    folder = source.with_name(source.name + ".spikes")
    stat = source.stat()
    stamp = {"version": 1, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "num_units": num_units}
    found = _load(folder)
    if found is None or found.get("stamp") != stamp:
        try:
            _clear(folder)
            with replacing(folder) as part:
                found = _build(part, pieces, num_units, stamp, source.name)
        except OSError as e:
            raise RecordingError(
                f"{source} has more spikes than are sorted in memory, and their index cannot be written "
                f"beside it: {e}; copy the file to a folder with space that can be written"
            ) from None
    if found["dropped"]:
        notes.append(f"{found['dropped']} spikes without a finite time were dropped")
    times, units = (open_array(folder, k, found["arrays"][k]) for k in ("times", "units"))
    times, units = np.asarray(times), np.asarray(units)
    return times, units, CheckedSpikes(times, units, np.array(found["unit_spikes"], dtype=np.int64))


def _load(folder: Path) -> dict[str, Any] | None:
    try:
        return json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError):
        return None  # no index, or half of one: it is made anew


def _clear(folder: Path) -> None:
    """Remove an older index, but nothing that is not ours: a folder with other files stays, as an OSError."""
    if folder.exists():
        for name in (_MANIFEST, "times.npy", "units.npy"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _build(folder: Path, pieces: Pieces, num_units: int, stamp: dict[str, Any], name: str) -> dict[str, Any]:
    folder.mkdir()
    low, high, total, dropped = _survey(pieces, num_units, name)
    with tqdm(total=3 * total, unit=" spikes", desc=f"index {name}", disable=None) as bar:
        edges = np.linspace(low, high, _BINS + 1)[1:-1]
        bins = np.zeros(_BINS, dtype=np.int64)
        for times, _ in _finite(pieces):
            bins += np.bincount(np.searchsorted(edges, times, side="right"), minlength=_BINS)
            bar.update(len(times))
        # neighbouring bins share a bucket until it is full
        bucket_of = (np.cumsum(bins) - bins) // BUCKET
        starts = np.searchsorted(bucket_of, np.arange(bucket_of[-1] + 1), side="left")
        place = np.concatenate([[0], np.cumsum(bins)])[starts]
        make = lambda key, dtype: np.lib.format.open_memmap(
            folder / f"{key}.npy", mode="w+", dtype=dtype, shape=(total,)
        )
        out_times, out_units = make("times", np.float64), make("units", np.int32)
        for key in ("times", "units"):
            reserve(folder / f"{key}.npy")
        cursor = place.copy()
        for times, units in _finite(pieces):
            bucket = bucket_of[np.searchsorted(edges, times, side="right")]
            order = np.argsort(bucket, kind="stable")
            kinds, first, counts = np.unique(bucket[order], return_index=True, return_counts=True)
            for k, i, n in zip(kinds.tolist(), first.tolist(), counts.tolist(), strict=True):
                part = order[i : i + n]
                out_times[cursor[k] : cursor[k] + n] = times[part]
                out_units[cursor[k] : cursor[k] + n] = units[part]
                cursor[k] += n
            bar.update(len(times))
        for start, stop in zip(place, [*place[1:], total], strict=True):
            order = np.lexsort((out_units[start:stop], out_times[start:stop]))
            out_times[start:stop] = out_times[start:stop][order]
            out_units[start:stop] = out_units[start:stop][order]
            bar.update(int(stop - start))
    counts = count_spikes(out_units, num_units).tolist()
    arrays = {}
    for key, array in (("times", out_times), ("units", out_units)):
        array.flush()
        arrays[key] = entry_of(folder / f"{key}.npy", array.shape, array.dtype)
    found = {"stamp": stamp, "dropped": dropped, "unit_spikes": counts, "arrays": arrays}
    (folder / _MANIFEST).write_text(json.dumps(found))
    return found


def _finite(pieces: Pieces) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for times, units in pieces():
        keep = np.isfinite(times)
        yield (times, units) if keep.all() else (times[keep], units[keep])


def _survey(pieces: Pieces, num_units: int, name: str) -> tuple[float, float, int, int]:
    """First and last time, spikes with a finite time, spikes without."""
    low, high, total, dropped = np.inf, -np.inf, 0, 0
    for times, units in pieces():
        finite = times[np.isfinite(times)]
        if len(finite):
            low, high = min(low, finite.min()), max(high, finite.max())
        total, dropped = total + len(finite), dropped + len(times) - len(finite)
        if len(units) and (units.min() < 0 or units.max() >= num_units):
            raise RecordingError(f"{name}: spikes of unit {units.max()}, but there are {num_units} units")
    if total == 0:
        raise RecordingError(f"{name}: none of {dropped} spikes has a finite time")
    return float(low), float(high), total, dropped


def by_unit(times: Any, ends: np.ndarray) -> Pieces:
    """Pieces of spikes that lie unit after unit, unit u's up to ``ends[u]`` (NWB's index)."""

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in chunks(int(ends[-1])):
            at = np.arange(part.start, part.stop)
            units = np.searchsorted(ends, at, side="right").astype(np.int32)
            yield np.asarray(times[part], dtype=np.float64), units

    return pieces


def in_pairs(times: Any, units: Any) -> Pieces:
    """Pieces of spikes that lie in two arrays of the same length."""

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for part in chunks(len(times)):
            yield np.asarray(times[part], dtype=np.float64), np.asarray(units[part])

    return pieces

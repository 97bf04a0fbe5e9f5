"""SpikeInterface: its sortings and analyzers, in memory and as it saves them (``numpy_folder``, ``binary_folder``, ``.npz``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.npz import UNREADABLE, load_arrays, read_npy
from neuroformer.recording.recording import Recording, RecordingError
from neuroformer.recording.sources.text import read_text

_INFO = "numpysorting_info.json"
_PACKED = "sorting_cached.npz"  # in folders of older versions
_PACKED_NAMES = ("unit_ids", "num_segment", "sampling_frequency")
_LOCATIONS = ("x", "depth", "z")  # micrometers; the probe's long axis is its second


def is_spikeinterface(folder: Path) -> bool:
    """Whether a folder is a sorting or an analyzer of SpikeInterface."""
    return _home(folder) is not None


def is_packed(names: list[str]) -> bool:
    """Whether arrays of a ``.npz`` file are a sorting's."""
    return set(_PACKED_NAMES) <= set(names)


def read_spikeinterface(path: str | Path, segment: int | None = None) -> Recording:
    """Read a folder that ``sorting.save`` or ``create_sorting_analyzer`` wrote, or a ``.npz`` of ``NpzSortingExtractor``.

    Columns of the units are their properties and, of an analyzer, quality and template metrics and locations (``x``,
    ``depth``). The domain runs from 0 to the end of the recording where an analyzer knows it, else to the last spike.

    Parameters
    ----------
    segment : which, counted from 0, where there are several

    Raises
    ------
    RecordingError
        Files missing or contradictory, or several segments and none chosen.
    """
    path, notes = Path(path), []
    if path.is_file():
        return _recording(path.stem, *_packed(path), {}, None, segment, notes)
    home = _home(path)
    if home is None:
        raise RecordingError(f"{path} is no folder of SpikeInterface: expected spikes.npy with {_INFO}, or {_PACKED}")
    analyzer = home.parent if home != path else None
    columns = _properties(home, notes)
    facts = _packed(home / _PACKED) if (home / _PACKED).is_file() else _saved(home)
    seconds = None
    if analyzer is not None:
        columns |= _extensions(analyzer, facts[0], notes)
        seconds = _durations(analyzer)
    return _recording(path.resolve().name or "sorting", *facts, columns, seconds, segment, notes)


def from_spikeinterface(source: Any, name: str = "recording", segment: int | None = None) -> Recording:
    """A recording from a ``BaseSorting`` or a ``SortingAnalyzer``; columns and domain as :func:`read_spikeinterface` has them.

    Raises
    ------
    RecordingError
        Another object, or several segments and none chosen.
    """
    sorting = getattr(source, "sorting", source)
    if not hasattr(sorting, "to_spike_vector"):
        raise RecordingError(f"got a {type(source).__name__}; expected a sorting or an analyzer of SpikeInterface")
    columns: dict[str, np.ndarray] = {}
    for key in sorting.get_property_keys():
        columns |= _flat_column(str(key), np.asarray(sorting.get_property(key)))
    seconds = None
    if sorting is not source:
        for kind in ("quality_metrics", "template_metrics"):
            if source.has_extension(kind):
                table = source.get_extension(kind).get_data()
                columns |= {str(k): clean.plain(table[k].to_numpy()) for k in table.columns}
        if source.has_extension("unit_locations"):
            columns |= _located(np.asarray(source.get_extension("unit_locations").get_data()))
        rate = source.sampling_frequency
        seconds = [source.get_num_samples(s) / rate for s in range(source.get_num_segments())]
    vector = sorting.to_spike_vector()
    spikes = vector["sample_index"], vector["unit_index"], vector["segment_index"]
    rate = float(sorting.get_sampling_frequency())
    return _recording(name, clean.plain(sorting.unit_ids), rate, spikes, columns, seconds, segment, [])


def _recording(
    name: str,
    ids: np.ndarray,
    rate: float,
    spikes: tuple[np.ndarray, np.ndarray, np.ndarray],
    columns: Mapping[str, np.ndarray],
    seconds: list[float] | None,
    segment: int | None,
    notes: list[str],
) -> Recording:
    samples, rows, segments = spikes
    count = max(int(segments.max(initial=0)) + 1, len(seconds or ()))
    if segment is None and count > 1:
        raise RecordingError(
            f"'{name}' has {count} segments, which share no clock; give segment, 0 to {count - 1} "
            "(recording.options: {segment: 0})"
        )
    if not 0 < rate < np.inf or not 0 <= (segment or 0) < count:
        raise RecordingError(f"'{name}': {rate} samples per second, segment {segment} of {count}")
    mine = segments == (segment or 0)
    times, units = clean.spikes(samples[mine] / rate, rows[mine], notes)
    wrong = [k for k, v in columns.items() if v.shape != ids.shape]
    if wrong:
        notes.append(f"units columns left out (not one value per unit): {', '.join(wrong)}")
    domain = clean.span(np.zeros(1), times)
    if seconds is not None and seconds[segment or 0] > (times[-1] if len(times) else 0):
        domain = np.array([[0.0, seconds[segment or 0]]])
    return Recording(
        name=name,
        spike_times=times,
        spike_units=units,
        units={
            "id": clean.distinct_ids(ids, notes),
            **{k: v for k, v in columns.items() if k not in wrong and k != "id"},
        },
        domain=domain,
        meta={"format": "spikeinterface", "sample_rate_hz": rate, "notes": notes},
    )


# -- files --------------------------------------------------------------------------------------------


def _home(folder: Path) -> Path | None:
    """The folder of the sorting: itself, or that of an analyzer."""
    for home in (folder, folder / "sorting"):
        if ((home / "spikes.npy").is_file() and (home / _INFO).is_file()) or (home / _PACKED).is_file():
            return home
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise RecordingError(f"{path} cannot be read: {e}") from None
    if not isinstance(found, dict):
        raise RecordingError(f"{path} holds a {type(found).__name__}; expected an object")
    return found


def _saved(home: Path) -> tuple[np.ndarray, float, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Ids, samples per second, and sample, unit and segment of each spike."""
    info, file = _json(home / _INFO), home / "spikes.npy"
    try:
        vector = np.load(file, allow_pickle=False)
        spikes = tuple(vector[k].astype(np.int64) for k in ("sample_index", "unit_index", "segment_index"))
        ids, rate = clean.plain(info["unit_ids"]), float(info["sampling_frequency"])
    except UNREADABLE as e:
        raise RecordingError(f"{home}: spikes.npy and {_INFO} are no sorting's: {e}") from None
    return _checked(home, ids, rate, spikes)


def _packed(path: Path) -> tuple[np.ndarray, float, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    arrays = load_arrays(path)
    try:
        ids, rate = clean.plain(arrays["unit_ids"]), float(arrays["sampling_frequency"].reshape(-1)[0])
        count = int(arrays["num_segment"].reshape(-1)[0])
        if not 0 < count <= len(arrays):
            raise ValueError(f"{count} segments")
        samples = [arrays[f"spike_indexes_seg{s}"] for s in range(count)]
        rows = [_rows(ids, clean.plain(arrays[f"spike_labels_seg{s}"])) for s in range(count)]
        segments = np.repeat(np.arange(count), [len(s) for s in samples])
        spikes = np.concatenate(samples).astype(np.int64), np.concatenate(rows), segments
    except UNREADABLE as e:
        raise RecordingError(f"{path} is no sorting's: {type(e).__name__}: {e}") from None
    return _checked(path, ids, rate, spikes)


def _rows(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(spikes,) place of each label among the ids, whatever types of numbers or words the two are.

    Raises
    ------
    ValueError
        A label that is no id.
    """
    if "U" in (ids.dtype.kind, labels.dtype.kind):
        ids, labels = ids.astype(np.str_), labels.astype(np.str_)
    order = np.argsort(ids, kind="stable")
    place = order[np.searchsorted(ids[order], labels).clip(0, len(ids) - 1)]
    other = ids[place] != labels
    if other.any():
        raise ValueError(f"spikes of unit {labels[other][0]}, which is not among the ids")
    return place


def _checked(path: Path, ids: np.ndarray, rate: float, spikes: Any) -> Any:
    samples, rows, segments = spikes
    if ids.ndim != 1 or not len(samples) == len(rows) == len(segments):
        raise RecordingError(f"{path}: {len(samples)} samples, {len(rows)} units and {ids.shape} ids do not fit")
    if len(rows) and (
        not 0 <= rows.min() <= rows.max() < len(ids) or not 0 <= segments.min() <= segments.max() < 10_000
    ):
        raise RecordingError(f"{path}: spikes of unit {rows.max()} and segment {segments.max()}, but {len(ids)} units")
    return ids, rate, spikes


def _properties(home: Path, notes: list[str]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for file in sorted((home / "properties").glob("*.npy")):
        try:
            values = np.load(file, allow_pickle=False)
        except UNREADABLE as e:
            notes.append(f"property {file.stem} was left out: {e}")
            continue
        if isinstance(values, np.ndarray):
            out |= _flat_column(file.stem, values)
    return out


def _flat_column(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """A property as columns of one value per unit: those of two or three numbers per unit become two or three."""
    if values.ndim == 2 and values.shape[1] <= 3 and values.dtype.kind in "fiu":
        return {f"{name}_{axis}": values[:, i] for i, axis in zip(range(values.shape[1]), "xyz", strict=False)}
    return {name: clean.plain(values)} if values.dtype.kind in "fiubUSO" else {}


def _extensions(analyzer: Path, ids: np.ndarray, notes: list[str]) -> dict[str, np.ndarray]:
    """Metrics, whose first column is the ids, and locations that an analyzer has computed."""
    out: dict[str, np.ndarray] = {}
    for kind in ("quality_metrics", "template_metrics"):
        file = analyzer / "extensions" / kind / "metrics.csv"
        if file.is_file():
            try:
                first, *table = read_text(file).items()
                rows = _rows(first[1], ids)
            except (RecordingError, ValueError, TypeError, IndexError) as e:
                notes.append(f"{kind} were left out: {e}")
                continue
            out |= {name: values[rows] for name, values in table}
    file = analyzer / "extensions" / "unit_locations" / "unit_locations.npy"
    if file.is_file():
        try:
            out |= _located(read_npy(file))
        except RecordingError as e:
            notes.append(f"unit_locations were left out: {e}")
    return out


def _located(places: np.ndarray) -> dict[str, np.ndarray]:
    if places.ndim != 2:
        return {}
    return {name: places[:, i].astype(np.float64) for i, name in zip(range(places.shape[1]), _LOCATIONS, strict=False)}


def _durations(analyzer: Path) -> list[float] | None:
    file = analyzer / "recording_info" / "recording_attributes.json"
    if not file.is_file():
        return None
    facts = _json(file)
    try:
        return [float(n) / float(facts["sampling_frequency"]) for n in facts["num_samples"]]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None

"""Folders of Kilosort 2 to 4 and phy: ``spike_times.npy``, ``spike_clusters.npy``, ``params.py``, ``cluster_*.tsv``.

Clusters are units; their labels, and what the templates say of their place on the probe, are columns of the units table.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.npz import read_npy
from neuroformer.recording.recording import Recording, RecordingError
from neuroformer.recording.sources.text import read_text

_BESIDE = ("", "sorter_output")  # where SpikeInterface lets a sorter write
_LABELS = ("group", "KSLabel")  # the curator's, then the sorter's
_IDS = ("cluster_id", "id")
_MOST_BYTES = 1 << 16  # of params.py


def is_phy(folder: Path) -> bool:
    """Whether a folder is the output of Kilosort or was saved by phy."""
    return _home(folder) is not None


def read_phy(path: str | Path, rate_hz: float | None = None) -> Recording:
    """Read a folder of Kilosort or phy, or one with ``sorter_output/`` in it.

    All clusters that have spikes are units, also those labelled as noise; the domain runs from 0 to the last spike.
    Columns are those of ``cluster_*.tsv``, and where the files for it are there ``channel`` (the hardware channel on
    which the cluster's most frequent template is largest), its place ``x`` and ``depth`` (micrometers, as in
    ``channel_positions.npy``), and ``amplitude`` (median of the cluster's spikes).

    Parameters
    ----------
    rate_hz : samples per second; from ``params.py`` when not given, which is parsed and never run

    Raises
    ------
    RecordingError
        Files missing or of different lengths, or no sampling rate.
    """
    path, notes = Path(path), []
    folder = _home(path)
    if folder is None:
        raise RecordingError(
            f"{path} is no folder of Kilosort or phy: expected spike_times.npy with spike_clusters.npy"
        )
    rate = rate_hz if rate_hz is not None else _sample_rate(folder)
    if not 0 < rate < np.inf:
        raise RecordingError(f"{folder}: {rate} samples per second; expected a number above 0")
    samples = _flat(folder / "spike_times.npy")
    clusters = _flat(_clusters(folder), len(samples))
    if samples.dtype.kind == "f":
        notes.append("spike_times.npy holds fractions; they count as samples")
    ids, rows = np.unique(clusters, return_inverse=True)
    times, units = clean.spikes(samples / rate, rows, notes)
    columns: dict[str, np.ndarray] = {"id": ids}
    columns |= _labels(folder, ids, notes)
    for name, values in (_places(folder, rows, len(ids), notes) | _amplitudes(folder, rows, len(ids), notes)).items():
        columns.setdefault(name, values)
    _note_labels(columns, notes)
    return Recording(
        name=_name(path),
        spike_times=times,
        spike_units=units,
        units=columns,
        domain=clean.span(np.zeros(1), times),
        meta={"format": "phy", "sample_rate_hz": float(rate), "notes": notes},
    )


def _home(folder: Path) -> Path | None:
    return next((f for b in _BESIDE if (f := folder / b) and (f / "spike_times.npy").is_file() and _clusters(f)), None)


def _name(path: Path) -> str:
    """The folder's name, or that of the session where the folder is called after the sorter."""
    path = path.resolve()
    generic = (*_BESIDE, "phy", "kilosort", "kilosort2", "kilosort2_5", "kilosort3", "kilosort4")
    return path.parent.name if path.name.lower() in generic and path.parent.name else path.name or "phy"


def _clusters(folder: Path) -> Path | None:
    """The file with the cluster of each spike: as curated, else as sorted."""
    files = (folder / name for name in ("spike_clusters.npy", "spike_templates.npy"))
    return next((file for file in files if file.is_file()), None)


def _flat(path: Path | None, count: int | None = None) -> np.ndarray:
    """(spikes,) numbers, which Kilosort saves as a column."""
    assert path is not None
    values = read_npy(path)
    if values.ndim != 1 and values.size != max(values.shape, default=0):
        raise RecordingError(f"{path} has shape {values.shape}; expected one number per spike")
    if count is not None and values.size != count:
        raise RecordingError(f"{path} has {values.size} numbers for {count} spikes; expected one per spike")
    return values.reshape(-1)


def _sample_rate(folder: Path) -> float:
    rate = _parameters(folder / "params.py").get("sample_rate")
    if isinstance(rate, bool) or not isinstance(rate, (int, float)):
        raise RecordingError(
            f"{folder}: no sample_rate in params.py (found: {rate!r}); give rate_hz, samples per second "
            "(recording.options: {rate_hz: 30000})"
        )
    return float(rate)


def _parameters(path: Path) -> dict[str, Any]:
    """Names that a Python file sets to plain values; nothing of it is run, and every other line is skipped."""
    if not path.is_file():
        return {}
    try:
        text = path.read_bytes()[:_MOST_BYTES].decode("utf-8-sig")
        lines = ast.parse(text).body
    except (UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise RecordingError(f"{path} is not readable as Python's assignments: {e}; give rate_hz") from None
    found: dict[str, Any] = {}
    for line in lines:
        if isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name):
            try:
                found[line.targets[0].id] = ast.literal_eval(line.value)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
    return found


# -- columns of the units table ----------------------------------------------------------------------


def _labels(folder: Path, ids: np.ndarray, notes: list[str]) -> dict[str, np.ndarray]:
    """Columns of ``cluster_*.tsv`` (and .csv, as phy once wrote them); those of single files before cluster_info's."""
    files = sorted([*folder.glob("cluster_*.tsv"), *folder.glob("cluster_*.csv")])
    files.sort(key=lambda file: file.stem == "cluster_info")
    out: dict[str, np.ndarray] = {}
    for file in files:
        try:
            table = read_text(file)
        except RecordingError as e:
            notes.append(f"{file.name} was left out: {e}")
            continue
        key = next((k for k in _IDS if k in table), None)
        if key is None or table[key].dtype.kind not in "if":
            notes.append(f"{file.name} was left out: it has no column cluster_id of numbers")
            continue
        known = table.pop(key)
        clean.note_repeated(file.name, known, notes)
        order = np.argsort(known, kind="stable")
        place = np.searchsorted(known[order], ids).clip(0, max(len(known) - 1, 0))
        there = known[order][place] == ids if len(known) else np.zeros(len(ids), bool)
        for name, values in table.items():
            if name not in out and name not in _IDS and there.any():
                out[name] = _spread(values[order[place[there]]], there)
    return out


def _spread(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """One value per unit; nothing (NaN, an empty word, false) where the file has none."""
    if values.dtype.kind == "i" and not there.all():
        values = values.astype(np.float64)
    out = np.full(len(there), np.nan) if values.dtype.kind == "f" else np.zeros(len(there), values.dtype)
    out[there] = values
    return out


def _note_labels(columns: dict[str, np.ndarray], notes: list[str]) -> None:
    """Say which labels the units have, and how units are chosen by them."""
    for name in _LABELS:
        if name in columns and columns[name].dtype.kind == "U":
            kinds, counts = np.unique(columns[name], return_counts=True)
            told = ", ".join(f"{n} {k or 'without one'}" for k, n in zip(kinds[:6], counts, strict=False))
            notes.append(
                f"clusters by {name}: {told}; recording.units.where: \"{name} == 'good'\" keeps those alone, without it all are kept"
            )
            return
    notes.append("the clusters have no labels (cluster_group.tsv, cluster_KSLabel.tsv), and all are kept")


def _places(folder: Path, rows: np.ndarray, count: int, notes: list[str]) -> dict[str, np.ndarray]:
    """The channel of each unit's most frequent template, and where it lies."""
    needed = [folder / name for name in ("templates.npy", "spike_templates.npy")]
    if not all(file.is_file() for file in needed):
        return {}
    try:
        mine = _flat(needed[1], len(rows)).astype(np.int64)
        peaks = _peak_channels(folder)
        if len(mine) and not 0 <= mine.min() <= mine.max() < len(peaks):
            raise RecordingError(f"spikes of template {mine.max()}, but there are {len(peaks)} templates")
        pairs, spikes = np.unique(rows * len(peaks) + mine, return_counts=True)
        order = np.lexsort((-pairs, spikes, pairs // len(peaks)))  # a unit's most frequent template comes last
        last = order[np.flatnonzero(np.diff(pairs[order] // len(peaks), append=count))]
        channel = peaks[pairs[last] % len(peaks)]
        out = {"channel": channel}
        if (file := folder / "channel_positions.npy").is_file():
            positions = read_npy(file)
            out |= {"x": positions[channel, 0].astype(np.float64), "depth": positions[channel, 1].astype(np.float64)}
        if (file := folder / "channel_map.npy").is_file():
            out["channel"] = read_npy(file).reshape(-1)[channel].astype(np.int64)
    except (RecordingError, IndexError, ValueError) as e:
        notes.append(f"where units lie was left out: {e}")
        return {}
    return out


def _peak_channels(folder: Path) -> np.ndarray:
    """(templates,) channel with the largest peak-to-peak amplitude, on unwhitened templates as phy shows them."""
    templates = read_npy(folder / "templates.npy", mmap=True)
    if templates.ndim != 3:
        raise RecordingError(f"templates.npy has shape {templates.shape}; expected (templates, samples, channels)")
    unwhiten = _optional(folder / "whitening_mat_inv.npy")
    # of sparse templates: their channels, -1 for none; Kilosort's name, then SpikeInterface's
    found = (_optional(folder / name) for name in ("templates_ind.npy", "template_ind.npy"))
    places = next((p for p in found if p is not None), None)
    if places is not None and places.shape != (len(templates), templates.shape[2]):
        raise RecordingError(f"the templates' channels have shape {places.shape} for templates of {templates.shape}")
    width = templates.shape[2] if places is None else int(places.max(initial=-1)) + 1
    if unwhiten is not None:
        width = max(width, unwhiten.shape[0] if unwhiten.ndim == 2 else 0)
    if not 0 < width <= clean.MAX_UNITS or (unwhiten is not None and unwhiten.shape != (width, width)):
        raise RecordingError(f"templates of {width} channels do not fit whitening_mat_inv.npy")
    out = np.zeros(len(templates), np.int64)
    for i, template in enumerate(templates):
        full = np.zeros((template.shape[0], width))
        mine = np.arange(template.shape[1]) if places is None else places[i].astype(np.int64)
        full[:, mine[mine >= 0]] = template[:, mine >= 0]
        full = full if unwhiten is None else full @ unwhiten
        out[i] = np.argmax(np.ptp(full, axis=0)) if len(full) else 0
    return out


def _optional(path: Path) -> np.ndarray | None:
    return read_npy(path) if path.is_file() else None


def _amplitudes(folder: Path, rows: np.ndarray, count: int, notes: list[str]) -> dict[str, np.ndarray]:
    """Median amplitude of each unit's spikes, in the sorter's unit."""
    if not (folder / "amplitudes.npy").is_file():
        return {}
    try:
        values = _flat(folder / "amplitudes.npy", len(rows)).astype(np.float64)
    except RecordingError as e:
        notes.append(f"amplitudes were left out: {e}")
        return {}
    order = np.lexsort((values, rows))
    ends = np.cumsum(np.bincount(rows, minlength=count))
    starts = np.r_[0, ends[:-1]]
    low, high = order[(starts + ends - 1) // 2], order[(starts + ends) // 2]
    return {"amplitude": (values[low] + values[high]) / 2}

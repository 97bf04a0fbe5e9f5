"""ALF folders, as the International Brain Laboratory's ONE keeps sessions: ``object.attribute.extension``.

Rossant et al., "The ALF/ONE standard" (int-brain-lab.github.io/ONE/alf_intro.html). Namespaces (``_ibl_wheel``) are dropped;
of several revisions (``#2024-05-06#``) the last one counts; a third part of a name (a time scale, an id) says nothing here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.npz import read_npy
from neuroformer.recording.recording import Recording, RecordingError
from neuroformer.recording.series import BehaviorVariable
from neuroformer.recording.sources.files import read_arrays
from neuroformer.recording.sources.pose import body_parts, positions
from neuroformer.recording.wanted import Wanted

_NAME = re.compile(r"(?:_[a-z0-9]+_)?(?P<object>[A-Za-z]\w*)\.(?P<attribute>\w+)(?:\.[\w-]+)*\.(?P<extension>\w+)")
_REVISION = re.compile(r"#.*#")
_READ = ("npy", "csv", "tsv", "pqt", "parquet")
_SORTING = ("spikes", "clusters", "channels", "templates", "waveforms", "drift", "electrodeSites", "probes")
_SORTERS = ("iblsorter", "pykilosort")  # which ONE prefers over an unnamed one, the latest first
_TIMES = ("timestamps", "times")
_DEPTH = 4  # folders below the session
_AREAS = ("acronym", "acronyms", "brainLocationAcronyms_ccf_2017", "brainAcronyms")
_REGIONS = ("atlas_id", "brainLocationIds_ccf_2017")

Object = dict[str, Path]  # files by attribute


@dataclass
class _Session:
    """Objects of every collection (folder), and what is noted about them."""

    home: Path
    collections: dict[str, dict[str, Object]]
    notes: list[str] = field(default_factory=list)


def is_alf(folder: Path) -> bool:
    """Whether a folder or one below it has ``spikes.times`` and ``spikes.clusters``."""
    return bool(_sorted(_collections(_home(folder))))


def read_alf(path: str | Path, wanted: Wanted | None = None) -> Recording:
    """Read a session, its ``alf`` folder, or a folder of one probe.

    The clusters of all probes that have spikes are units, with the columns of ``clusters.*`` and their metrics, ``depth``
    and ``area`` where they are known. ``trials.*`` are the trials; other objects with intervals are intervals, those with
    times are variables called ``object_attribute``, camera positions ``leftCamera_nose_tip``.

    Parameters
    ----------
    wanted : what is not wanted is not read

    Raises
    ------
    RecordingError
        No spikes, or spikes and clusters that do not fit each other.
    """
    path = Path(path)
    home = _home(path)
    session = _Session(home, _collections(home))
    probes = _probes(session)
    if not probes:
        raise RecordingError(f"{path} is no ALF folder: expected spikes.times.npy and spikes.clusters.npy in it")
    parts = [_read_probe(session, collection) for collection in probes.values()]
    labels = list(probes)
    times, units, columns = _joined(session, labels, parts)
    trials, intervals, behavior = _others(session, wanted or Wanted())
    edges = [trials[k] for k in ("start", "stop")] if trials else []
    sources = {name: place for name, (_, place) in behavior.items()}
    return Recording(
        name=_name(path, home),
        spike_times=times,
        spike_units=units,
        units=columns,
        domain=clean.span(times, *edges),
        trials=trials,
        intervals=intervals,
        behavior={name: variable for name, (variable, _) in behavior.items()},
        meta={"format": "alf", "sources": sources, "notes": session.notes},
    )


# -- files --------------------------------------------------------------------------------------------


def _home(path: Path) -> Path:
    return path / "alf" if (path / "alf").is_dir() else path


def _name(path: Path, home: Path) -> str:
    """``subject_date_number`` of a session's folder, else the folder's name."""
    path = (home.parent if home.name == "alf" else path).resolve()
    date = path.parent
    if re.fullmatch(r"\d{4}-\d\d-\d\d", date.name):
        return f"{date.parent.name}_{date.name}_{path.name}"
    return path.name or "alf"


def _collections(home: Path) -> dict[str, dict[str, Object]]:
    """Files by collection, object and attribute; those of a later revision take the place of earlier ones."""
    out: dict[str, dict[str, Object]] = {}
    for folder, below, files in os.walk(home):
        place = Path(folder).relative_to(home)
        below[:] = sorted(b for b in below if not b.startswith(".")) if len(place.parts) < _DEPTH else []
        if place.parts and _REVISION.fullmatch(place.name):  # after the files of its parent, and in the order of names
            place = place.parent
        for file in sorted(files):
            found = _NAME.fullmatch(file)
            if found and found["extension"] in _READ:
                objects = out.setdefault(place.as_posix(), {})
                objects.setdefault(found["object"], {})[found["attribute"]] = Path(folder, file)
    return out


def _sorted(collections: dict[str, dict[str, Object]]) -> list[str]:
    return [c for c, objects in collections.items() if {"times", "clusters"} <= objects.get("spikes", {}).keys()]


def _probes(session: _Session) -> dict[str, str]:
    """The collection of each probe: the one that ONE prefers where several sorters ran."""
    out: dict[str, str] = {}
    for collection in _sorted(session.collections):
        parts = collection.split("/")
        probe = next((p for p in parts if p.startswith("probe")), "" if collection == "." else parts[0])
        before = out.get(probe)
        if before is not None:
            first, second = sorted((before, collection), key=_preference)
            session.notes.append(
                f"{probe or 'spikes'}: {second} was left out, {first} is read; open a folder by itself to read it"
            )
            collection = first
        out[probe] = collection
    return out


def _preference(collection: str) -> tuple[int, str]:
    name = collection.rsplit("/", 1)[-1]
    return (_SORTERS.index(name) if name in _SORTERS else len(_SORTERS), collection)


def _load(session: _Session, file: Path) -> dict[str, np.ndarray] | np.ndarray:
    """The array of a .npy file, or the columns of a table."""
    return read_npy(file) if file.suffix == ".npy" else read_arrays(file, session.notes).values


def _try(session: _Session, file: Path) -> Any:
    """What a file holds; None, with a note, if it cannot be read: the rest of the session is of use without it."""
    try:
        return _load(session, file)
    except RecordingError as e:
        session.notes.append(f"{file.name} was left out: {e}")
        return None


# -- units --------------------------------------------------------------------------------------------


def _read_probe(session: _Session, collection: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Times and rows of the spikes, and columns of the units, of one probe."""
    objects = session.collections[collection]
    times, clusters = (np.asarray(_load(session, objects["spikes"][k])) for k in ("times", "clusters"))
    times, clusters = np.squeeze(times), np.squeeze(clusters)
    if times.ndim != 1 or times.shape != clusters.shape or (clusters % 1 != 0).any():
        raise RecordingError(
            f"{session.home / collection}: spikes.times has shape {times.shape}, spikes.clusters {clusters.shape} of "
            f"{clusters.dtype}; expected a time and the number of a cluster for each spike"
        )
    clean.coarse("spike times", times, session.notes)  # of each probe, before they are joined
    times = times.astype(np.float64)
    ids, rows = np.unique(clusters.astype(np.int64), return_inverse=True)
    columns: dict[str, np.ndarray] = {"id": ids}
    for attribute, file in objects.get("clusters", {}).items():
        if attribute != "waveforms" and (found := _try(session, file)) is not None:
            columns |= {
                k: v for k, v in _of_clusters(file.name, attribute, found, ids, session.notes).items() if k != "id"
            }
    if "channels" in columns and columns["channels"].dtype.kind in "iuf":
        columns = _of_channels(session, objects.get("channels", {}), columns["channels"]) | columns
    if "depths" in columns:
        columns.setdefault("depth", columns.pop("depths"))
    area = next((columns[k] for k in _AREAS if k in columns and columns[k].dtype.kind == "U"), None)
    if area is not None:
        columns.setdefault("area", area)
    return times, rows, columns


def _of_clusters(file: str, attribute: str, found: Any, ids: np.ndarray, notes: list[str]) -> dict[str, np.ndarray]:
    """Columns of the units from an array whose rows are clusters, or a table, whose column cluster_id says which."""
    table = found if isinstance(found, dict) else {attribute: found}
    known, out = table.get("cluster_id"), {}
    if known is not None:
        clean.note_repeated(file, known, notes)
    for name, values in table.items():
        if name == "cluster_id" or values.ndim != 1:
            continue
        rows = np.arange(len(values)) if known is None or known.dtype.kind not in "iuf" else known
        place = {float(rows[row]): row for row in range(len(rows) - 1, -1, -1)}
        if all(float(i) in place for i in ids):
            out[name] = values[[place[float(i)] for i in ids]]
    return out


def _of_channels(session: _Session, files: Object, channels: np.ndarray) -> dict[str, np.ndarray]:
    """What is known of the channel of each unit: its region in the atlas."""
    out = {}
    for attribute in (*_AREAS, *_REGIONS):
        values = _try(session, files[attribute]) if attribute in files else None
        if isinstance(values, dict):
            values = next(iter(values.values()), None)
        if values is None or values.ndim != 1 or not np.isfinite(channels).all():
            continue
        if 0 <= channels.min() <= channels.max() < len(values):
            out[attribute] = values[channels.astype(np.int64)]
    return out


def _joined(session: _Session, labels: list[str], parts: list) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Spikes and columns of all probes; a column that one of them lacks is left out."""
    starts = np.cumsum([0, *(len(columns["id"]) for *_, columns in parts)])
    rows = np.concatenate([rows + start for (_, rows, _), start in zip(parts, starts, strict=False)])
    times, units = clean.spikes(np.concatenate([t for t, *_ in parts]), rows, session.notes)
    if len(parts) == 1:
        return times, units, parts[0][2]
    shared = [k for k in parts[0][2] if all(k in columns for *_, columns in parts)]
    left = sorted({k for *_, columns in parts for k in columns} - set(shared))
    if left:
        session.notes.append(f"units columns left out (not of every probe): {', '.join(left)}")
    columns = {k: np.concatenate([c[k] for *_, c in parts]) for k in shared}
    columns["id"] = np.array([f"{label}_{i}" for label, (*_, c) in zip(labels, parts, strict=True) for i in c["id"]])
    columns["probe"] = np.repeat(labels, np.diff(starts))
    return times, units, columns


# -- everything else ----------------------------------------------------------------------------------


def _others(
    session: _Session, wanted: Wanted
) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, tuple[BehaviorVariable, str]]]:
    """Trials, other intervals, and variables with their place in the session."""
    trials: dict[str, np.ndarray] = {}
    intervals: dict[str, dict[str, np.ndarray]] = {}
    behavior: dict[str, tuple[BehaviorVariable, str]] = {}
    for collection, objects in session.collections.items():
        for name, files in objects.items():
            if name in _SORTING:
                continue
            place = name if collection == "." else f"{collection}/{name}"
            if "intervals" in files or "table" in files:
                if name != "trials" and not wanted(name):
                    continue
                table = _table(session, name, {k: _try(session, file) for k, file in files.items()})
                if table is not None and name == "trials" and not trials:
                    trials = table
                elif table is not None:
                    intervals[clean.distinct(name, intervals)] = table
                continue
            found = {k: _try(session, file) for k, file in _asked(name, files, wanted).items()}
            for key, variable in _variables(session, name, found).items() if found else ():
                behavior[clean.distinct(key, behavior)] = (variable, place)
    return trials, intervals, behavior


def _asked(name: str, files: Object, wanted: Wanted) -> Object:
    """The files of an object with times of which a variable is wanted, and its times; of a table only names are unknown."""
    values = {k: file for k, file in files.items() if k not in _TIMES}
    known = {k: wanted(f"{name}_{k}") for k, file in values.items() if file.suffix == ".npy"}
    if not values and not wanted(name):  # events
        return {}
    asked = {k: f for k, f in values.items() if (known[k] if k in known else wanted.any_of(f"{name}_"))}
    return {**asked, **{k: f for k, f in files.items() if k in _TIMES}} if asked or not values else {}


def _table(session: _Session, name: str, found: dict[str, Any]) -> dict[str, np.ndarray] | None:
    """A table of intervals from its attributes, or from one file with all of them."""
    columns: dict[str, np.ndarray] = {}
    for attribute, values in found.items():
        if isinstance(values, dict):
            columns |= values
        elif values is not None and attribute != "intervals" and values.ndim == 1:
            columns[attribute] = values
    spans = found.get("intervals")
    if isinstance(spans, np.ndarray) and spans.ndim == 2 and spans.shape[1] == 2:
        columns |= {"start": spans[:, 0], "stop": spans[:, 1]}
    elif {"intervals_0", "intervals_1"} <= columns.keys():
        columns |= {"start": columns.pop("intervals_0"), "stop": columns.pop("intervals_1")}
    if not {"start", "stop"} <= columns.keys():
        session.notes.append(f"{name} was left out: it has no intervals of shape (rows, 2)")
        return None
    return clean.table(name, columns, session.notes, disjoint=name == "trials")


def _variables(session: _Session, name: str, found: dict[str, Any]) -> dict[str, BehaviorVariable]:
    """Variables of an object with times; events, which have nothing else, are ones at their times."""
    key = next((k for k in _TIMES if isinstance(found.get(k), np.ndarray)), None)
    if key is None:
        session.notes.append(f"{name} was left out: it has neither times nor intervals")
        return {}
    values: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {}
    for attribute, one in found.items():
        if attribute == key or one is None:
            continue
        if isinstance(one, dict):
            parts, rest = body_parts(one)
            values |= {f"{name}_{k}": v for k, v in positions(f"{name}.{attribute}", parts, session.notes).items()}
            values |= {f"{name}_{k}": (v, ()) for k, v in rest.items() if v.dtype.kind in "fiub"}
        else:
            values[f"{name}_{attribute}"] = (one, ())
    times = found[key]
    if not values and times.ndim == 1:
        values[name] = (np.ones(len(times)), ())
    out = {}
    for label, (samples, columns) in values.items():
        at = _sample_times(times, len(samples) if samples.ndim else 0)
        variable = clean.variable(label, at, samples, session.notes, columns=columns)
        if variable is not None:
            out[label] = variable
    return out


def _sample_times(times: np.ndarray, count: int) -> np.ndarray:
    """(count,) seconds; evenly sampled ones are stored as (2 or more, 2) pairs of sample and time."""
    if times.ndim == 2 and times.shape[1] == 2 and len(times) >= 2 and (np.diff(times[:, 0]) > 0).all():
        samples = np.arange(count)
        last = np.diff(times[-2:], axis=0)[0]
        beyond = times[-1, 1] + (samples - times[-1, 0]) * last[1] / last[0]
        return np.where(samples > times[-1, 0], beyond, np.interp(samples, times[:, 0], times[:, 1]))
    return times.reshape(-1) if times.ndim == 2 and 1 in times.shape else times

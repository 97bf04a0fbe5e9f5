"""Recordings that stay on disk: a run of many knows of each what fits on a page, and opens it while a batch needs it.

In the user's cache (``NEUROFORMER_CACHE``, else ``~/.cache``), a folder for each recording, named by its entry and by size and
time of its files, so that what has changed is read again::

    recordings/<digest>/
      facts.json               name, units, length, what series there are, where its arrays lie
      recording.recording/     its arrays, unless the entry names such a folder itself
      <digest of settings>/    split.json (split and normalisation) and the index of its spikes, memory-mapped
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import neuroformer
from neuroformer.config import Config, RecordingConfig, to_dict
from neuroformer.data.automatic import settled
from neuroformer.data.batch import BatchBuilder
from neuroformer.data.observed import ObservedBins
from neuroformer.data.prepared import Prepared, configured, prepare
from neuroformer.data.recordings import expanded, open_one, open_recordings, refuse_equal_names
from neuroformer.data.scales import Normalization
from neuroformer.data.splits import Split
from neuroformer.data.windows import SpikeIndex
from neuroformer.files import locked, user_cache, write_atomic
from neuroformer.recording import Recording
from neuroformer.recording.formats.folder import is_store, read_store, write_store
from neuroformer.shown import Shown

MOST_OPEN = 32  # recordings that a process holds open, those used last
VERSION = 2  # of what lies in the cache
FACTS, SPLIT, ARRAYS = "facts.json", "split.json", "recording.recording"
_SETTINGS = (
    "window",
    "inputs",
    "targets",
    "traces",
    "split",
    "decode",
)  # what split, normalisation and index follow from


class StoredRecording(Shown):
    """A recording on disk, closed.

    Attributes
    ----------
    name, unit_ids, num_spikes, duration, frame_period : as of the recording
    folder : where the cache keeps what was made of it
    """

    def __init__(self, folder: Path, one: RecordingConfig):
        facts = json.loads((folder / FACTS).read_text())
        self.folder, self.name = folder, str(one.name or facts["name"])
        self.unit_ids: list[str] = facts["unit_ids"]
        self.num_spikes, self.duration, self.frame_period = facts["spikes"], facts["seconds"], facts["frame_period"]
        self._series, self._arrays = frozenset(facts["series"]), Path(facts["arrays"])

    @property
    def num_units(self) -> int:
        return len(self.unit_ids)

    def has(self, name: str) -> bool:
        """Whether there is a behavior variable (or a column of the trials) of this name; ``frames``, ``traces``: whether there are
        any."""
        return name in self._series

    def open(self) -> Recording:
        """The recording, its arrays memory-mapped."""
        rec = read_store(self._arrays)
        return rec if rec.name == self.name else replace(rec, name=self.name)

    def __repr__(self) -> str:
        hz = self.num_spikes / max(self.num_units * self.duration, 1e-9)
        return (
            f"Recording '{self.name}' on disk: {self.duration:,.1f} s, {self.num_spikes:,} spikes from {self.num_units} units "
            f"({hz:.2f} Hz)"
        )


def recordings_to_train(config: Config) -> tuple[Config, Sequence[Recording | StoredRecording]]:
    """The recordings of a run, several of them closed and on disk, and the configuration with what follows them.

    Raises
    ------
    ConfigError, RecordingError
        As :func:`neuroformer.data.recordings.open_recordings`.
    """
    config = expanded(config)
    if len(config.recordings) < 2:
        return open_recordings(config)
    recs = [stored(one) for one in config.recordings]
    refuse_equal_names([rec.name for rec in recs])
    return settled(config, recs), recs


def stored(one: RecordingConfig) -> StoredRecording:
    """A recording, read and written into the cache if it is not there as its files are now."""
    folder = user_cache("recordings") / _identity(one)
    if not (folder / FACTS).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / FACTS):
            if not (folder / FACTS).exists():
                _store(one, folder)
    return StoredRecording(folder, one)


def _store(one: RecordingConfig, folder: Path) -> None:
    rec = open_one(one)
    kept, arrays = Path(one.path).expanduser(), folder / ARRAYS
    plain = RecordingConfig(path=one.path, name=one.name, share=one.share)
    if one == plain and kept.is_dir() and is_store(kept):
        arrays = kept.resolve()
    else:
        rec = configured(rec, Config(recording=one))
        write_store(replace(rec, truth={}), arrays, overwrite=True)
    columns = [k for k, v in rec.trials.items() if v.ndim == 1 and rec.has(k)]
    facts = {
        "name": rec.name,
        "unit_ids": rec.unit_ids,
        "spikes": rec.num_spikes,
        "seconds": rec.duration,
        "frame_period": rec.frame_period,
        "series": [*rec.behavior, *columns, *(n for n in ("trial_time", "frames", "traces") if rec.has(n))],
        "arrays": str(arrays),
    }
    write_atomic(folder / FACTS, json.dumps(facts).encode())


def _identity(one: RecordingConfig) -> str:
    """Of an entry, and of the files that it names as they are now."""
    tree = to_dict(one)
    del tree["share"], tree["name"]
    paths = {text: Path(text).expanduser() for text in _texts(tree)}
    files = {text: _state(path) for text, path in paths.items() if path.exists()}
    return _digest([VERSION, neuroformer.__version__, tree, files])


def _state(path: Path) -> list[Any]:
    inside = sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]
    return [str(path.resolve()), [(str(f), (s := f.stat()).st_size, s.st_mtime_ns) for f in inside]]


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str) and tree:
        yield tree
    elif isinstance(tree, (dict, list, tuple)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _texts(value)


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:32]


class StoredPrepared(Prepared):
    """A recording on disk, prepared for a configuration: what does not grow with its length is at hand, and the rest is opened
    when it is asked for (``rec``, ``index``, ``builder``). A process holds the :data:`MOST_OPEN` that it used last.
    """

    def __init__(self, stored: StoredRecording, config: Config, lacks: Sequence[str] = ()):
        self.stored, self.config, self.lacks = stored, config, list(lacks)
        tree = to_dict(config)
        settings = {key: tree[key] for key in _SETTINGS} | {"share": config.recording.share, "lacks": self.lacks}
        settings |= {"speeds": tree["recording"]["speeds"], "frames": tree["model"]["frame_encoder"]}
        self.folder = stored.folder / _digest(settings)
        if not (self.folder / SPLIT).exists():
            self.folder.mkdir(exist_ok=True)
            with locked(self.folder / SPLIT):
                if not (self.folder / SPLIT).exists():
                    _keep(prepare(stored.open(), config, lacks=lacks), self.folder)
        tree = json.loads((self.folder / SPLIT).read_text())
        blocks = {part: np.array(b, np.int64).reshape(-1, 3) for part, b in tree["blocks"].items()}
        self.split = Split(np.array(tree["segments"], np.float64).reshape(-1, 2), blocks, config.window.dt)
        self.normalization = Normalization.from_dict(tree["normalization"])

    @property
    def known(self) -> StoredRecording:
        return self.stored

    @property
    def opened(self) -> Prepared:
        key = id(self)
        if key not in _open:
            rec = configured(self.stored.open(), self.config)
            index = _load_index(self.folder, self.num_units, self.config.window.dt)
            builder = BatchBuilder(rec, index, self.config, self.normalization)
            opened = Prepared(rec, self.config, self.split, index, self.normalization, builder, self.lacks)
            _open[key] = self, opened  # held together, so that no other object takes over this one's id
        _open.move_to_end(key)
        while len(_open) > MOST_OPEN:
            _open.popitem(last=False)
        return _open[key][1]

    @property
    def rec(self) -> Recording:
        return self.opened.rec

    @property
    def index(self) -> SpikeIndex:
        return self.opened.index

    @property
    def builder(self) -> BatchBuilder:
        return self.opened.builder

    def asking(self, *args, **options) -> Prepared:
        return self.opened.asking(*args, **options)

    def with_spikes(self, index: SpikeIndex) -> Prepared:
        return self.opened.with_spikes(index)


_open: OrderedDict[int, tuple[StoredPrepared, Prepared]] = OrderedDict()
_INDEX = ("origins", "num_ticks", "base", "keys", "unit", "offsets")
_OBSERVED = ("first_E", "packed_EU", "all_E")


def _keep(prepared: Prepared, folder: Path) -> None:
    """Write index, split and normalisation; the last file says that all are there."""
    index, split = prepared.index, prepared.split
    for name in _INDEX:
        np.save(folder / f"{name}.npy", getattr(index, name))
    for name in _OBSERVED if index.observed is not None else ():
        np.save(folder / f"{name}.npy", getattr(index.observed, name))
    tree = {
        "segments": split.segments.tolist(),
        "blocks": {part: b.tolist() for part, b in split.blocks.items()},
        "normalization": prepared.normalization.to_dict(),
    }
    write_atomic(folder / SPLIT, json.dumps(tree).encode())


def _load_index(folder: Path, num_units: int, dt: float) -> SpikeIndex:
    a = {name: _mapped(folder / f"{name}.npy") for name in _INDEX}
    observed = None
    if (folder / f"{_OBSERVED[0]}.npy").exists():
        found = (_mapped(folder / f"{name}.npy") for name in _OBSERVED)
        observed = ObservedBins(*found, total=int(a["num_ticks"].sum()), num_units=num_units)
    return SpikeIndex(**a, num_units=num_units, dt=dt, observed=observed)


def _mapped(file: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(file, mmap_mode="r"))
    except ValueError:  # an empty array cannot be mapped
        return np.load(file)

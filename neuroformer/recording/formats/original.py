"""The original Neuroformer's data: its dictionary of arrays, and its folder of .npy files.

Dictionary: ``spikes`` (units, bins) counts, or {trial: (units, bins)}; ``stimulus`` or ``frames`` (frames, h,
w) or (clips, frames, h, w); one (samples,) array a behavior variable; ``intervals``, ``train_intervals``,
``test_intervals``, ``finetune_intervals``: the start times of its windows.

Folder: ``spikerates_dt_0.01.npy``, ``behavior_speed_dt_0.05.npy``, ``phi_dt_0.05.npy``, ``th_dt_0.05.npy``,
``stimulus.npy``; the bin width is part of the name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording.calcium import keep_events
from neuroformer.recording.formats.arrays import TRIAL_GAP_S, from_counts
from neuroformer.recording.formats.npz import UNREADABLE
from neuroformer.recording.names import natural
from neuroformer.recording.recording import BehaviorVariable, FrameSeries, Recording, RecordingError

DT = 0.01  # its bins of spikes
BEHAVIOR_DT = 0.05  # its bins of behavior and of frames
_FRAMES = ("stimulus", "frames", "video")
_SPIKES = ("spikes", "spikerates")
_NAME = re.compile(r"(?P<name>.+?)(?:_dt_(?P<dt>[0-9.]+))?$")
_EXPORT = """\
it holds pickled Python objects, which can run code when they are opened, so it is not read. In the
environment that wrote it, export it as plain arrays and open those instead:
  import pickle, numpy as np
  data = pickle.load(open("FILE.pkl", "rb"))   # or np.load("FILE.npy", allow_pickle=True).item()
  np.save("folder/spikerates_dt_0.01.npy", data["spikes"]); np.save("folder/stimulus.npy", data["stimulus"])
  np.save("folder/behavior_speed_dt_0.05.npy", data["speed"])
then open_recording("folder"); or give the dictionary itself to
neuroformer.recording.formats.original.from_original"""


def refuse_pickle(path: Path) -> None:
    """Explain why a pickle is not opened, and how to export what it holds.

    Raises
    ------
    RecordingError
        Always.
    """
    raise RecordingError(f"{path}: {_EXPORT}")


def is_original(folder: Path) -> bool:
    """Whether a folder holds the original's files: spikes with a bin width in the file name."""
    return any(_split(p)[0] in _SPIKES for p in folder.glob("*.npy"))


def read_original(path: str | Path, dt: float = DT, behavior_dt: float = BEHAVIOR_DT) -> Recording:
    """Read the original's folder of ``.npy`` files; the folder's name is the recording's.

    Parameters
    ----------
    dt, behavior_dt : bin widths in seconds of files whose name does not give them; frames have ``behavior_dt``

    Raises
    ------
    RecordingError
        No spikes in it, pickled content, or arrays of a shape that the layout does not have.
    """
    path = Path(path)
    data: dict[str, Any] = {}
    steps: dict[str, float] = {}
    for file in sorted(path.glob("*.npy")):
        name, step = _split(file)
        try:
            lazy = "r" if name in _FRAMES else None
            data[name] = np.load(file, mmap_mode=lazy, allow_pickle=False)
        except UNREADABLE as e:
            if "pickle" in str(e) or "Python objects" in str(e):
                refuse_pickle(file)
            raise RecordingError(f"{file} is not a readable .npy: {e}") from None
        if step is not None:
            steps[name] = step
    return from_original(data, name=path.name, dt=dt, behavior_dt=behavior_dt, steps=steps)


def from_original(
    data: Mapping[str, Any],
    name: str = "recording",
    dt: float = DT,
    behavior_dt: float = BEHAVIOR_DT,
    steps: Mapping[str, float] | None = None,
    trial_clip: Sequence[int] | None = None,
) -> Recording:
    """A recording from the original's data dictionary (top of this module).

    Parameters
    ----------
    dt, behavior_dt : bin widths in seconds of spikes, and of behavior and frames
    steps : bin width of single arrays by name, before the two above
    trial_clip : which clip each trial showed, where frames are (clips, frames, h, w)

    Raises
    ------
    RecordingError
        Missing spikes, or an array of a shape that the layout does not have.
    """
    steps = steps or {}
    key = next((k for k in _SPIKES if k in data), None)
    if key is None:
        raise RecordingError(f"no 'spikes' (units, bins); got: {', '.join(map(str, data)) or 'nothing'}")
    notes: list[str] = []
    width = steps.get(key, dt)
    data, trial_clip = _in_order(data, key, trial_clip)
    starts, matrices = _trials(data[key], width)
    times, units = _spikes(matrices, starts, width, notes)
    stops = starts + np.array([m.shape[1] for m in matrices]) * width
    trials = {"start": starts, "stop": stops} if isinstance(data[key], Mapping) else {}
    frames, behavior, intervals = None, {}, {}
    for k in data:
        step = steps.get(k, behavior_dt)
        if k in _FRAMES:
            frames = _frames(data[k], step, starts, trial_clip)
        elif "interval" in k:
            intervals |= _intervals(k, np.asarray(data[k]))
        elif k != key:
            var = _behavior(k, data[k], step, starts, list(data[key]) if trials else [], notes)
            if var is None:
                notes.append(f"'{k}' was left out: it is no array of numbers, (samples,) or (columns, samples)")
            else:
                behavior[k] = var
    return Recording(
        name=name,
        spike_times=times,
        spike_units=units,
        units={"id": np.arange(len(matrices[0]))},
        domain=np.stack([starts, stops], 1),
        trials=trials,
        frames=frames,
        behavior=behavior,
        intervals=intervals,
        meta={"format": "original Neuroformer", "spike_grid_s": width, **({"notes": notes} if notes else {})},
    )


def _in_order(data: Mapping[str, Any], key: str, trial_clip: Sequence[int] | None):
    """The dictionary with its trials in natural order (trial 9 before trial 10), and the clips of the trials likewise."""
    spikes = data[key]
    if not isinstance(spikes, Mapping):
        return data, trial_clip
    order = sorted(range(len(spikes)), key=lambda i: natural(list(spikes)[i]))
    if trial_clip is not None and len(trial_clip) == len(order):
        trial_clip = [trial_clip[i] for i in order]
    trials = list(spikes)
    return {**data, key: {trials[i]: spikes[trials[i]] for i in order}}, trial_clip


def _split(file: Path) -> tuple[str, float | None]:
    """Name and bin width from a file name: ``behavior_speed_dt_0.05`` is speed at 0.05 s."""
    match = _NAME.match(file.stem)
    assert match is not None
    step = match["dt"]
    name = match["name"].removeprefix("behavior_")
    try:
        return name, float(step) if step else None
    except ValueError:
        return file.stem, None


def _trials(spikes: Any, width: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Start of each trial, laid one after another with a gap, and its (units, bins)."""
    matrices = [np.asarray(m) for m in (spikes.values() if isinstance(spikes, Mapping) else [spikes])]
    if not matrices or any(m.ndim != 2 or m.shape[0] != matrices[0].shape[0] for m in matrices):
        shapes = sorted({m.shape for m in matrices})
        raise RecordingError(f"spikes have shape {shapes[:3]}; expected (units, bins), alike in every trial")
    if not 0 < width < np.inf:
        raise RecordingError(f"the bin width of spikes is {width}; expected seconds, above 0")
    lengths = np.array([m.shape[1] for m in matrices]) * width
    return np.concatenate([[0.0], np.cumsum(lengths[:-1] + TRIAL_GAP_S)]), matrices


def _spikes(matrices, starts, width: float, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Whole counts as they are; rates (calcium) as events above their unit's threshold."""
    values = np.concatenate(matrices, axis=1)
    if values.dtype.kind not in "fiub":
        raise RecordingError(f"spikes hold {values.dtype}; expected numbers")
    whole = values.dtype.kind in "iub" or bool((np.nan_to_num(values) == np.rint(values)).all())
    if not whole:
        if not np.isfinite(values).all() or (values < 0).any():
            raise RecordingError("spike rates hold NaN or values below zero; expected zero or more")
        kept = keep_events(values.T, None, 1 / width, notes, "the rates in the file, thresholded by their shape")
        ends = np.cumsum([m.shape[1] for m in matrices])[:-1]
        matrices = np.split(kept.T.astype(np.int64), ends, axis=1)
    parts = [from_counts(m, width, start) for m, start in zip(matrices, starts, strict=True)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _frames(frames: Any, step: float, starts: np.ndarray, trial_clip: Sequence[int] | None) -> FrameSeries:
    shape = tuple(np.shape(frames))
    if len(shape) == 3:
        if len(starts) > 1:
            clips, which = np.asarray(frames)[None], np.zeros(len(starts), dtype=np.int64)
            return FrameSeries.from_presentations(clips, 1 / step, which.tolist(), starts.tolist())
        return FrameSeries(frames, np.arange(shape[0]) * step, np.arange(shape[0]))
    if len(shape) != 4:
        raise RecordingError(f"frames have shape {shape}; expected (frames, h, w) or (clips, frames, h, w)")
    if trial_clip is None and shape[0] == len(starts):
        trial_clip = list(range(shape[0]))
    if trial_clip is None or len(trial_clip) != len(starts):
        raise RecordingError(
            f"{shape[0]} clips for {len(starts)} trials: give trial_clip, the clip that each trial showed "
            "(the original's callback knew it)"
        )
    return FrameSeries.from_presentations(np.asarray(frames), 1 / step, trial_clip, starts.tolist())


def _behavior(
    name: str, values: Any, step: float, starts: np.ndarray, trials: list[Any], notes: list[str]
) -> BehaviorVariable | None:
    """One array, or one per trial; (samples,) or (columns, samples)."""
    if isinstance(values, Mapping):
        unknown = [k for k in values if k not in trials]
        if unknown:
            raise RecordingError(f"'{name}' has a trial {unknown[0]!r}, but the spikes have: {trials[:5]} ...")
        which = [i for i, k in enumerate(trials) if k in values]
        parts = [np.asarray(values[trials[i]]) for i in which]
    else:
        which, parts = [0], [np.asarray(values)]
    if not parts or any(p.dtype.kind not in "fiub" or p.ndim not in (1, 2) or p.size == 0 for p in parts):
        return None
    turned = [p.T if p.ndim == 2 and p.shape[0] < p.shape[1] else p for p in parts]
    if any(p.ndim == 2 and p.shape[0] > p.shape[1] for p in parts):
        notes.append(f"'{name}' has shape {parts[0].shape}, more rows than columns, and was read as (samples, columns)")
    times = [starts[i] + np.arange(len(p)) * step for i, p in zip(which, turned, strict=True)]
    for i in range(len(turned) - 1):  # a trial's values end where the next trial's begin
        keep = times[i] < times[i + 1][0]
        times[i], turned[i] = times[i][keep], turned[i][keep]
    return BehaviorVariable(np.concatenate(times), np.concatenate(turned))


def _intervals(name: str, values: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Window starts at a regular step, joined into intervals; or (n, 2) intervals as they are."""
    if values.dtype.kind not in "fiu" or values.size == 0:
        return {}
    if values.ndim == 2 and values.shape[1] == 2:
        return {name: {"start": values[:, 0].astype(float), "stop": values[:, 1].astype(float)}}
    starts = np.unique(values.astype(np.float64).ravel())
    steps = np.diff(starts)
    step = float(np.min(steps)) if len(steps) else BEHAVIOR_DT
    first = np.concatenate([[0], np.flatnonzero(steps > 1.5 * step) + 1])
    last = np.concatenate([first[1:] - 1, [len(starts) - 1]])
    return {name: {"start": starts[first], "stop": starts[last] + step}}

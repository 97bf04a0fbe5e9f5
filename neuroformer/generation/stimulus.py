"""New stimuli for a model: frames and behavior from a file, or no stimulus for a given time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.config import Config, ConfigError
from neuroformer.generation.sequences import new_stimulus
from neuroformer.recording import Recording, open_recording
from neuroformer.recording.formats.array_names import check_dimensions
from neuroformer.recording.formats.arrays import from_arrays, positive
from neuroformer.recording.formats.npz import load_arrays, names_in


def open_stimulus(path: str | Path, unit_ids: list[str]) -> Recording:
    """Frames, behavior and trials of any recording, or of a ``.npz`` without spikes, to simulate with.

    Without trials and without ``domain``, it lasts from the first frame or sample to the last one.

    Raises
    ------
    RecordingError
        Nothing that can be read, or arrays that contradict each other.
    """
    path = Path(path)
    spikes = {"spike_times", "spikes", "events"}
    if path.suffix == ".npz" and path.is_file() and not spikes & set(names_in(path)):
        return stimulus_of(load_arrays(path), path.stem, unit_ids)
    return new_stimulus(open_recording(path), unit_ids)


def stimulus_of(arrays: dict[str, Any], name: str, unit_ids: list[str]) -> Recording:
    """Frames, behavior and trials in arrays under the names of a ``.npz``, to simulate with.

    Raises
    ------
    RecordingError
        As of :func:`open_stimulus`.
    """
    arrays = {key: np.asarray(x) for key, x in arrays.items()}
    check_dimensions(arrays)
    if not any(k in arrays for k in ("domain", "trials_start")):
        arrays["domain"] = _extent(arrays)
    arrays |= {"spike_times": np.zeros(0), "spike_units": np.zeros(0, np.int32), "unit_ids": np.array(unit_ids)}
    return new_stimulus(from_arrays(arrays, name), unit_ids)


def _extent(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(1, 2) first to last frame or sample, one median step beyond it included."""
    start, stop = np.inf, -np.inf
    for key in arrays:
        name, _, kind = key.rpartition("_")
        if kind == "times":
            times = arrays[key]
        elif kind == "rate" and name in arrays and arrays[name].ndim:
            count = len(arrays["frames_index"]) if name == "frames" and "frames_index" in arrays else len(arrays[name])
            times = np.arange(count) / positive(arrays, key, "samples per second")
        else:
            continue
        if len(times) > 1:
            start, stop = min(start, times[0]), max(stop, times[-1] + float(np.median(np.diff(times))))
    if not start < stop:
        raise ConfigError(
            "the stimulus has neither frames nor behavior with times; give 'domain' to say how long it lasts"
        )
    return np.array([[start, stop]])


def silence(seconds: float, unit_ids: list[str], config: Config) -> Recording:
    """A recording of given length without a stimulus, for models that see only spikes.

    Raises
    ------
    ConfigError
        A model that needs frames or behavior, or no time at all.
    """
    needs = ["frames"] * (config.window.frames > 0) + [v.name for v in config.inputs]
    if needs:
        raise ConfigError(f"the model reads {', '.join(needs)}; give a stimulus that has them (--stimulus FILE)")
    if seconds < config.window.current:
        raise ConfigError(f"--seconds is {seconds:g}; expected at least a window, {config.window.current:g} s")
    empty = np.zeros(0)
    rec = Recording(
        "spontaneous", empty, empty.astype(np.int32), {"id": np.array(unit_ids)}, np.array([[0.0, seconds]])
    )
    return new_stimulus(rec, unit_ids)

"""What the names of :mod:`neuroformer.recording.formats.arrays` mean."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from neuroformer.recording.validation import RecordingError
from neuroformer.recording.wanted import FRAMES, TRACES, Wanted

INTERVALS = "intervals_"
NOT_BEHAVIOR = {"spike", "spikes", "spike_trials", "frames", "events", "traces"}
PREFIXES = ("unit_", "trials_", "truth_", "intervals_", "spike_", "frames_", "traces_")
FIXED = {
    "name",
    "meta",
    "domain",
    "n_units",
    "n_trials",
    "trial_duration",
    "spikes_dt",
    "events_rate",
    "observed_intervals",
    "observed_units",
}
_DIMENSIONS = {
    "spike_times": 1,
    "spike_units": 1,
    "spike_trials": 1,
    "spikes": 2,
    "events": 2,
    "frames": 3,
    "traces": 2,
    "frames_index": 1,
    "unit_ids": 1,
    "observed_intervals": 2,
    "observed_units": 1,
}


def check_dimensions(a: Mapping[str, Any]) -> None:
    """Refuse an array of another number of dimensions, or of other than numbers, than its name says.

    Raises
    ------
    RecordingError
    """
    for key, value in a.items():
        need = 1 if key.endswith(("_times", "_columns")) else _DIMENSIONS.get(key)
        if need is not None and len(np.shape(value)) != need:
            raise RecordingError(f"'{key}' has shape {np.shape(value)}; expected {need} dimension(s)")
        if (key.endswith("_times") or key in ("spike_units", "spike_trials")) and value.dtype.kind not in "fiub":
            more = "; map names to 0, 1, ... and put them into 'unit_ids'" if key == "spike_units" else ""
            raise RecordingError(f"'{key}' holds {value.dtype}; expected numbers{more}")


_USED_WITH_OTHERS = {"spike_times", "spike_units", "spikes", "frames", "traces", "events", "spike_trials"}


def note_unread(a: Mapping[str, Any], behavior: Mapping[str, Any], notes: list[str]) -> None:
    """Note the names that nothing here reads: probably misspelt, or a variable whose times are missing."""
    used = (
        _USED_WITH_OTHERS
        | FIXED
        | {
            "frames_times",
            "frames_rate",
            "frames_index",
            "traces_times",
            "traces_rate",
            "traces_unit",
            "unit_ids",
        }
    )
    for name in behavior:
        used |= {name, *(f"{name}_{part}" for part in ("times", "rate", "unit", "columns"))}
    tables = ("unit_", "trials_", "truth_", "intervals_")
    unread = sorted(k for k in a if k not in used and not k.startswith(tables))
    if unread:
        notes.append(
            f"not read: {', '.join(unread)}; a behavior variable NAME needs NAME_times or NAME_rate, "
            "trials are trials_start and trials_stop"
        )


def behavior_names(names: Collection[str]) -> list[str]:
    """The names of behavior variables: those with times or a rate beside them."""
    known = set(names)
    timed = [k for k in names if f"{k}_times" in known or f"{k}_rate" in known]
    return [k for k in timed if k not in NOT_BEHAVIOR and not k.startswith(PREFIXES)]


def interval_names(names: Iterable[str]) -> dict[str, str | None]:
    """The table that each array of intervals belongs to; None where there is none."""
    mine = [k for k in names if k.startswith(INTERVALS)]
    tables = [k.removeprefix(INTERVALS).removesuffix("_start") for k in mine if k.endswith("_start")]
    tables.sort(key=len, reverse=True)  # the longest name that fits, so that 'run' and 'run_fast' can live side by side
    return {k: next((t for t in tables if k.startswith(f"{INTERVALS}{t}_")), None) for k in mine}


def unwanted(names: list[str], wanted: Wanted) -> set[str]:
    """The arrays of series that are not wanted."""
    known = set(names)
    left = {k for k, table in interval_names(names).items() if table is not None and not wanted(table)}
    series = [*behavior_names(names), *({FRAMES} & known), *({TRACES} & known)]
    for name in series:
        if not wanted(name):
            left |= {name, *(f"{name}_{part}" for part in ("times", "rate", "unit", "columns", "index"))} & known
    return left

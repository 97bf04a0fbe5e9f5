"""Whether each part of a split holds what the others hold: more than one stretch of time, and every condition."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroformer.audit.findings import Finding
from neuroformer.audit.stimuli import STIMULUS_COLUMNS
from neuroformer.config import Config
from neuroformer.data.splits import PARTS, Split
from neuroformer.recording import Recording
from neuroformer.recording.clock import interval_of, joined

_MOST_VALUES = 20  # of a column that names a condition


def condition_findings(rec: Recording, config: Config, split: Split) -> list[Finding | None]:
    """Findings on parts that are a single stretch, and on conditions of the trials that only one part holds."""
    return [_single_stretch(split), *_in_one_part(rec, config, split)]


def _single_stretch(split: Split) -> Finding | None:
    """Held-out parts that are one stretch of time, where training data has several."""
    seconds = {}
    for part in PARTS[1:]:
        intervals = split.intervals(part)
        if len(intervals) and len(joined(intervals[np.argsort(intervals[:, 0])])) == 1:
            seconds[part] = float(split.seconds(part))
    if not seconds:
        return None
    said = ", ".join(f"'{part}' ({s:.3g} s)" for part, s in seconds.items())
    return Finding(
        "single_stretch",
        "note",
        f"{said} {'is' if len(seconds) == 1 else 'are each'} a single stretch of time",
        "its score rests on one state of the animal and of the probe; shorter blocks (split.block) spread each part over "
        "the recording",
        {"seconds": seconds},
    )


def _in_one_part(rec: Recording, config: Config, split: Split) -> list[Finding | None]:
    if rec.num_trials < 2:
        return []
    middle = rec.trial_intervals.mean(1)
    part_of = np.full(rec.num_trials, -1)
    for i, part in enumerate(PARTS):
        intervals = split.intervals(part)
        part_of[interval_of(middle, joined(intervals[np.argsort(intervals[:, 0], kind="stable")])) >= 0] = i
    out: list[Finding | None] = []
    for name, column in rec.trials.items():
        new_stimulus = config.split.claim == "stimuli" and name.lower() in STIMULUS_COLUMNS
        if name in ("start", "stop", config.split.hold_out) or column.ndim != 1 or new_stimulus:
            continue
        out.append(_column(name, column[part_of >= 0], part_of[part_of >= 0]))
    return out


def _column(name: str, column: np.ndarray, part_of: np.ndarray) -> Finding | None:
    """Values of a column that several trials have, but those of one part only."""
    if column.dtype.kind not in "biufU" or len(column) == 0:
        return None
    values, place, count = np.unique(column, return_inverse=True, return_counts=True)
    if not 2 <= len(values) <= _MOST_VALUES or np.median(count) < 2:
        return None
    holds = np.zeros((len(values), len(PARTS)), bool)
    holds[place, part_of] = True
    alone = np.flatnonzero((holds.sum(1) == 1) & (count >= 2))
    if len(alone) == 0:
        return None
    of_part: dict[str, Any] = {str(values[v]): PARTS[int(holds[v].argmax())] for v in alone}
    said = ", ".join(f"{value} only in '{part}'" for value, part in list(of_part.items())[:5])
    return Finding(
        "condition_in_one_part",
        "note",
        f"trials' '{name}': {said}",
        "scores compare conditions as well as data; shorter blocks or split.by: trials mix them, split.hold_out: "
        f"{name} holds some out on purpose",
        {"column": name, "part_of_value": of_part},
    )

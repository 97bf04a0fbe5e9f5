"""The recorded trials that a simulation is scored with, and the simulated ones as their imitations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroformer.data.splits import Split
from neuroformer.recording import Recording
from neuroformer.simulation_scores.psth import stimulus_of_trials
from neuroformer.simulation_scores.trials import Trials


@dataclass(frozen=True, eq=False)
class RecordedTrials:
    """The recorded trials that a simulation is scored with; :func:`recorded_trials` makes it."""

    train: Trials
    valid: Trials
    held_out: Trials


def recorded_trials(rec: Recording, split: Split, part: str, max_seconds: float = 0.0) -> RecordedTrials:
    """Training, validation and held-out trials, at most ``max_seconds`` (0: all) of each.

    In a split by blocks a block is a trial without a stimulus.
    """
    by_trial = rec.num_trials > 0 and len(split.segments) == rec.num_trials
    stimulus = stimulus_of_trials(rec) if by_trial else None
    made = {}
    for name in {"train", "valid", part}:
        blocks = split.blocks[name]
        known = stimulus[blocks[:, 0]] if stimulus is not None else np.full(len(blocks), -1)
        source = blocks[:, 0] if by_trial else np.arange(len(blocks))
        made[name] = Trials.from_recording(rec, split.intervals(name), split.dt, source, known)
        if max_seconds:
            made[name] = made[name].first(round(max_seconds / split.dt))
    return RecordedTrials(made["train"], made["valid"], made[part])


def simulated_trials(simulated: Recording, held_out: Trials) -> Trials:
    """The sequences of a simulation of the held-out part, as imitations of its trials or blocks: of the units that were
    observed in these.
    """
    source = np.asarray(simulated.trials["source_block"], np.int64)
    kind = dict(zip(np.arange(len(held_out)), held_out.stimulus, strict=True))
    made = Trials.from_recording(
        simulated, simulated.trial_intervals, held_out.dt, held_out.source[source], [kind[s] for s in source]
    )
    return made.seen_as(None if held_out.seen_TU is None else held_out.seen_TU[source])

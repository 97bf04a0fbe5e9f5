"""A recording as a configuration reads it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuroformer.config import Config
from neuroformer.recording import Recording
from neuroformer.recording.derive import with_speed


def configured(rec: Recording, config: Config) -> Recording:
    """The recording with the speeds that ``recording.speeds`` asks for, and without spikes if traces are modelled in
    their place.

    Doing it twice changes nothing.

    Raises
    ------
    RecordingError
        A speed of a variable that the recording lacks, or whose name is taken.
    """
    for speed in config.recording.speeds:
        if speed.name not in rec.behavior or rec.meta.get("speeds", {}).get(speed.name) != speed.of:
            rec = with_speed(rec, speed.name, speed.of, speed.smooth)
    if config.traces.likelihood != "none":  # spikes that were made of the traces would say what comes next
        rec = replace(rec, spike_times=np.zeros(0), spike_units=np.zeros(0, np.int32))
    return rec

"""Recordings: the container, and one reader for each file format behind :func:`open_recording`."""

from neuroformer.recording.open import check_writable, open_recording, write_recording
from neuroformer.recording.recording import BehaviorVariable, FrameSeries, ObservedIntervals, Recording, RecordingError

__all__ = [
    "BehaviorVariable",
    "FrameSeries",
    "ObservedIntervals",
    "Recording",
    "RecordingError",
    "check_writable",
    "open_recording",
    "write_recording",
]

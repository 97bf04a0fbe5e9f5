"""Variables that are computed from recorded ones."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.ndimage import gaussian_filter1d

from neuroformer.recording.clock import nanoseconds
from neuroformer.recording.recording import BehaviorVariable, Recording, RecordingError


def with_speed(rec: Recording, name: str, of: str, smooth_s: float) -> Recording:
    """The recording with a variable ``name``: how fast variable ``of`` changes, in its unit a second.

    Each column is smoothed by a Gaussian of ``smooth_s`` seconds, differentiated, and the norm over columns is taken;
    the start of a trial, a gap of more than five sampling periods, or a missing sample starts a new stretch. Smoothing
    looks both ways: this is a label, not an input.

    Raises
    ------
    RecordingError
        The recording lacks the variable, or has one of the new name.
    """
    if name in rec.behavior:
        raise RecordingError(
            f"recording '{rec.name}' already has a variable '{name}', so none is made of '{of}'; leave it out of "
            "recording.speeds (recording.speeds=[]), or give it another name"
        )
    source = rec.variable(of)
    known = np.isfinite(source.values).all(1)
    period = float(np.median(np.diff(source.times)))
    speed = np.full(len(source.times), np.nan)
    missing = ~np.asarray(known)
    breaks = np.flatnonzero((np.diff(source.times) > 5 * period) | missing[1:] | missing[:-1]) + 1
    starts = np.searchsorted(nanoseconds(source.times), nanoseconds(source.starts))
    for rows in np.split(np.arange(len(source.times)), np.union1d(breaks, starts)):
        if len(rows) > 1:
            values = gaussian_filter1d(source.values[rows].astype(np.float64), smooth_s / period, axis=0)
            speed[rows] = np.linalg.norm(np.gradient(values, source.times[rows], axis=0), axis=1)
    unit = f"{source.unit}/s" if source.unit else ""
    behavior = {**rec.behavior, name: BehaviorVariable(source.times, speed, unit)}
    derived = {**rec.meta.get("speeds", {}), name: of}
    return dataclasses.replace(rec, behavior=behavior, meta={**rec.meta, "speeds": derived})

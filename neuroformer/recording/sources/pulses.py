"""Pulses of a synchronization signal, however it was stored: as times, or as samples whose rising edges they are."""

from __future__ import annotations

import numpy as np

from neuroformer.recording.recording import Recording
from neuroformer.recording.validation import RecordingError


def pulse_times(name: str, values: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    """Seconds of pulses: ``values`` (N,) themselves where they ascend, else their rising edges at ``times`` (N,).

    An edge is where a signal passes the middle between its lowest and highest value.

    Raises
    ------
    RecordingError
        Neither times nor a signal with times, or a signal that never rises.
    """
    values = np.asarray(values)
    if values.ndim == 2 and 1 in values.shape:
        values = values.reshape(-1)
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise RecordingError(f"pulses '{name}' are {values.dtype} of shape {values.shape}; expected numbers, (pulses,)")
    known = values[np.isfinite(values)].astype(np.float64)
    if (np.diff(known) > 0).all():
        return known
    if times is None or len(times) != len(values):
        count = "none" if times is None else str(len(times))
        raise RecordingError(
            f"pulses '{name}' do not ascend, so they are a signal of {len(values)} samples; expected a time for each, got {count}"
        )
    high = values > (known.min() + known.max()) / 2
    edges = np.flatnonzero(high[1:] & ~high[:-1]) + 1
    if len(edges) == 0:
        raise RecordingError(f"the signal '{name}' never rises: all of it is {known.min():g} to {known.max():g}")
    return np.asarray(times, np.float64)[edges]


def pulses_of(rec: Recording, name: str) -> np.ndarray:
    """Seconds of pulses that a recording has: starts of a table of intervals, a column of trials, or a variable.

    Raises
    ------
    RecordingError
        It has nothing of that name.
    """
    if name in rec.behavior:
        variable = rec.behavior[name]
        values = variable.values[:, 0]
        return variable.times if (values == values[0]).all() else pulse_times(name, values, variable.times)
    tables = {**rec.intervals, **({"trials": rec.trials} if rec.trials else {})}
    if name in tables:
        return np.asarray(tables[name]["start"], np.float64)
    if name in rec.trials and rec.trials[name].dtype.kind in "fiu":
        return pulse_times(name, rec.trials[name], None)
    known = [*rec.behavior, *tables, *(k for k, v in rec.trials.items() if v.dtype.kind in "fiu")]
    raise RecordingError(
        f"'{name}' is neither a file of pulses (.npy, .csv, .txt, ..., or FILE:NAME) nor in the recording, which has: "
        f"{', '.join(known) or 'none'}"
    )

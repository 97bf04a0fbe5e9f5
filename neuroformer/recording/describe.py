"""The parts of a recording, described in one line each."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from html import escape

import numpy as np

from neuroformer.recording.series import BehaviorVariable, FrameSeries

_FEW = 0.001  # of the spikes, outside of the domain
_QUIET = 0.1  # of a recording, before its first spike or behind its last


def time(seconds: float) -> str:
    """A time with six digits, or to the millisecond where a clock began long ago."""
    return f"{seconds:g}" if abs(seconds) < 1e6 else f"{seconds:.3f}"


def html(text: str) -> str:
    """The lines of a recording's text as a table, for notebooks."""
    first, *rest = text.splitlines()
    rows = (line.strip().partition(" ") for line in rest)
    body = "".join(f"<tr><td>{escape(key)}</td><td>{escape(value.strip())}</td></tr>" for key, _, value in rows)
    return f"<p>{escape(first)}</p><table>{body}</table>"


def hz(times: np.ndarray) -> str:
    """The rate of samples at ``times`` (samples,), from their median step."""
    return f"{1 / np.median(np.diff(times)):.3g} Hz" if len(times) > 1 else "one time only"


def table(columns: Mapping[str, np.ndarray]) -> str:
    """A table of intervals: rows, shortest and longest, columns."""
    spans = columns["stop"] - columns["start"]
    extra = [k + _words(v) for k, v in columns.items() if k not in ("start", "stop")]
    text = f"{len(spans)}, {spans.min():g} to {spans.max():g} s" if len(spans) else "0"
    return text + (f"; columns {', '.join(extra)}" if extra else "")


def _words(column: np.ndarray) -> str:
    """The words of a column that has two to five of them."""
    words = np.unique(column) if column.dtype.kind == "U" and column.ndim == 1 else ()
    return f" ({', '.join(word or 'empty' for word in words)})" if 2 <= len(words) <= 5 else ""


def frames(series: FrameSeries) -> str:
    """Frames: how many were shown, at which rate, from how many images of which size."""
    shape = tuple(series.images.shape)
    return (
        f"{len(series.index):,} shown at {hz(series.times)} from a bank of {shape[0]:,} "
        f"({' x '.join(str(n) for n in shape[1:])}, {series.images.dtype})"
    )


def variable(var: BehaviorVariable) -> str:
    """A behavior variable: samples, rate, columns, range, missing ones."""
    missing = f"; {var.num_missing:,} samples missing" if var.num_missing else ""
    unit = f" {var.unit}" if var.unit else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column may be missing altogether
        low, high = np.nanmin(var.values, 0), np.nanmax(var.values, 0)
        if var.num_columns > 4:
            low, high = np.nanmin(low, keepdims=True), np.nanmax(high, keepdims=True)
    span = ", ".join(f"{a:.3g} to {b:.3g}{unit}" for a, b in zip(low, high, strict=True))
    return f"{len(var.times):,} samples at {hz(var.times)}, {var.num_columns} column(s), {span}{missing}"


def ends(spike_times: np.ndarray, domain: np.ndarray) -> str:
    """When the first or the last spike is, where a tenth of the recording lies before or behind it: perhaps nothing was recorded there."""
    if not len(spike_times):
        return ""
    first, last, low, high = float(spike_times[0]), float(spike_times[-1]), float(domain.min()), float(domain.max())
    if first - low > _QUIET * (high - low):
        return f"; the first at {time(first)} s"
    return f"; the last at {time(last)} s" if high - last > _QUIET * (high - low) else ""


def spikes_outside(all: int, inside: int) -> tuple[int, str]:
    """How many spikes there are, and how many more outside of the domain, where these are worth a word: then the first number is that of
    those inside."""
    if all - inside <= _FEW * all:
        return all, ""
    return inside, f"; {all - inside:,} more outside of the intervals"

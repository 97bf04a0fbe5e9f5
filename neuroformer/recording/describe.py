"""How a recording prints itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from neuroformer.recording.recording import BehaviorVariable, FrameSeries, Recording


def describe(rec: Recording) -> str:
    """Text of several lines: what the recording holds, at which rates, and the remarks of its reader."""
    rates = rec.rates()
    lines = [
        f"Recording '{rec.name}': {rec.duration:,.1f} s in {len(rec.domain)} interval(s), "
        f"{_time(rec.domain.min())} s to {_time(rec.domain.max())} s",
        f"  spikes    {rec.num_spikes:,} from {rec.num_units} units; rate median {np.median(rates):.2f} Hz, "
        f"range {rates.min():.2f} to {rates.max():.2f} Hz; {int((rates == 0).sum())} silent",
    ]
    if rec.traces is not None:
        unit = f", {rec.traces.unit}" if rec.traces.unit else ""
        lines.append(f"  traces    {len(rec.traces.times):,} samples at {_hz(rec.traces.times)}{unit}")
    extra = [k for k in rec.units if k != "id"]
    if extra:
        lines.append(f"  units     columns {', '.join(extra)}")
    if rec.trials:
        lines.append(f"  trials    {_table(rec.trials)}")
    lines += [f"  intervals {name}: {_table(columns)}" for name, columns in rec.intervals.items()]
    if rec.frames is not None:
        lines.append(f"  frames    {_frames(rec.frames)}")
    sources = rec.meta.get("sources", {})
    for name, var in rec.behavior.items():
        place = f"  [{sources[name]}]" if name in sources else ""
        lines.append(f"  behavior  {name}: {_variable(var)}{place}")
    if rec.truth:
        lines.append(f"  truth     {', '.join(rec.truth)}")
    lines += [f"  note      {note}" for note in rec.meta.get("notes", ())]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    """Six digits, or to the millisecond where a clock began long ago."""
    return f"{seconds:g}" if abs(seconds) < 1e6 else f"{seconds:.3f}"


def describe_html(rec: Recording) -> str:
    """The same as a table, for notebooks."""
    first, *rest = describe(rec).splitlines()
    rows = (line.strip().partition(" ") for line in rest)
    body = "".join(f"<tr><td>{escape(key)}</td><td>{escape(value.strip())}</td></tr>" for key, _, value in rows)
    return f"<p>{escape(first)}</p><table>{body}</table>"


def _hz(times: np.ndarray) -> str:
    return f"{1 / np.median(np.diff(times)):.3g} Hz" if len(times) > 1 else "one time only"


def _table(columns: Mapping[str, np.ndarray]) -> str:
    spans = columns["stop"] - columns["start"]
    extra = [k + _words(v) for k, v in columns.items() if k not in ("start", "stop")]
    text = f"{len(spans)}, {spans.min():g} to {spans.max():g} s" if len(spans) else "0"
    return text + (f"; columns {', '.join(extra)}" if extra else "")


def _words(column: np.ndarray) -> str:
    """The words of a column that has two to five of them."""
    words = np.unique(column) if column.dtype.kind == "U" and column.ndim == 1 else ()
    return f" ({', '.join(word or 'empty' for word in words)})" if 2 <= len(words) <= 5 else ""


def _frames(frames: FrameSeries) -> str:
    shape = tuple(frames.images.shape)
    return (
        f"{len(frames.index):,} shown at {_hz(frames.times)} from a bank of {shape[0]:,} "
        f"({' x '.join(str(n) for n in shape[1:])}, {frames.images.dtype})"
    )


def _variable(var: BehaviorVariable) -> str:
    missing = f"; {var.num_missing:,} samples missing" if var.num_missing else ""
    unit = f" {var.unit}" if var.unit else ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column may be missing altogether
        low, high = np.nanmin(var.values, 0), np.nanmax(var.values, 0)
        if var.num_columns > 4:
            low, high = np.nanmin(low, keepdims=True), np.nanmax(high, keepdims=True)
    span = ", ".join(f"{a:.3g} to {b:.3g}{unit}" for a, b in zip(low, high, strict=True))
    return f"{len(var.times):,} samples at {_hz(var.times)}, {var.num_columns} column(s), {span}{missing}"

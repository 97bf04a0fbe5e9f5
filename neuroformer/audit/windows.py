"""Contents of windows: tokens, what a cap would drop, and missing behavior."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from neuroformer.audit.findings import Finding
from neuroformer.config import Config
from neuroformer.data.grid import grid_problem, spike_grid
from neuroformer.recording import BehaviorVariable, Recording
from neuroformer.recording.clock import interval_of, num_bins

_MOMENTS = 20_000  # of the recording at which a variable is looked for
STUCK_S = 20.0  # of equal samples, from which on a tracker is taken to have lost the animal
_MANY_STUCK = 0.05  # of the samples in such stretches, of which is warned
_CONTINUOUS = 20  # different values


def tokens_per_window(rec: Recording, config: Config, segments: np.ndarray) -> np.ndarray:
    """(windows,) spikes of the windows that tile the segments."""
    current = config.window.current
    counts = []
    for start, stop in segments:
        edges = start + current * np.arange(num_bins(np.array([[start, stop]]), current)[0] + 1)
        # half a nanosecond earlier, as spikes round to their bin
        counts.append(np.diff(np.searchsorted(rec.spike_times, edges - 0.5e-9)))
    return np.concatenate(counts) if counts else np.zeros(0, np.int64)


def grid_finding(rec: Recording, config: Config) -> Finding | None:
    """Spikes that were counted on a grid which the bins do not fit."""
    problem = grid_problem(rec, config)
    if not problem:
        return None
    measured, _, advice = problem.partition("; ")
    return Finding("bins_beside_grid", "warning", measured, advice, {"grid_s": spike_grid(rec), "dt": config.window.dt})


def token_findings(tokens: np.ndarray, config: Config, facts: dict[str, Any]) -> list[Finding | None]:
    """``facts["tokens"]``: median, 99 % and maximum per window, and what the caps would drop."""
    if len(tokens) == 0:
        return []
    facts["tokens"] = {
        "windows": len(tokens),
        "window_s": config.window.current,
        "median": float(np.median(tokens)),
        "99%": float(np.quantile(tokens, 0.99)),
        "max": int(tokens.max()),
        "empty": float((tokens == 0).mean()),
    }
    out: list[Finding | None] = []
    most = config.generate.max_tokens
    lost = int(np.maximum(tokens - most, 0).sum())
    if lost:
        over, share = int((tokens > most).sum()), lost / max(int(tokens.sum()), 1)
        out.append(
            Finding(
                "tokens_dropped",
                "warning",
                f"generate.max_tokens = {most} would stop a simulation short of {lost:,} spikes ({share:.2%}) of {over:,} windows",
                f"raise generate.max_tokens to {int(tokens.max())}",
                {"key": "generate.max_tokens", "dropped": lost, "windows": over},
            )
        )
    return out


def behavior_findings(rec: Recording, config: Config, facts: dict[str, Any]) -> list[Finding | None]:
    """``facts["missing"]``: the share of each variable's samples with NaN; ``facts["covered"]``: the share of the
    recording's moments at which it has a sample. Warnings where the run needs them.
    """
    if not rec.behavior:
        return []
    used = {v.name for v in config.inputs} | {t.name for t in config.targets}
    shares = {name: v.num_missing / len(v.times) for name, v in rec.behavior.items()}
    facts["missing"] = shares
    facts["covered"] = {name: _covered(rec, v) for name, v in rec.behavior.items()}
    out: list[Finding | None] = []
    for name, share in shares.items():
        if share > 0:
            many = name in used and share > 0.2
            out.append(
                Finding(
                    "missing_values",
                    "warning" if many else "note",
                    f"{share:.1%} of the samples of '{name}' are missing (NaN)",
                    "they leave the loss and the scores; as an input they are marked missing",
                    {"variable": name, "share": share},
                )
            )
    for name in sorted(used & set(rec.behavior)):
        out.append(_coverage(rec, name, facts["covered"][name]))
    sources = {speed.of for speed in config.recording.speeds if speed.name in used}
    return [*out, *(_stuck(rec, name) for name in sorted((used | sources) & set(rec.behavior)))]


def _covered(rec: Recording, variable: BehaviorVariable) -> float:
    """The share of the domain's moments at which a variable has a sample, be it NaN: not before its first one, and none
    older than five sampling periods."""
    ends = np.cumsum(rec.domain[:, 1] - rec.domain[:, 0])
    along = (np.arange(_MOMENTS) + 0.5) / _MOMENTS * ends[-1]
    interval = np.searchsorted(ends, along, side="right")
    moments = along - ends[interval] + rec.domain[interval, 1]
    there = replace(variable, values=np.zeros((len(variable.times), 1), np.float32))
    return float(np.isfinite(there.hold(moments)).mean())


def _stuck(rec: Recording, name: str) -> Finding | None:
    """Stretches of the domain in which a continuous variable keeps one value to the last bit, as a tracker's does that has lost
    the animal. Not those at zero: a wheel rests."""
    variable = rec.behavior[name]
    rows = interval_of(variable.times, rec.domain) >= 0
    times, values = variable.times[rows], variable.values[rows]
    if variable.classes or len(values) < 2 or len(np.unique(values[:_MOMENTS, 0])) < _CONTINUOUS:
        return None
    same = (values[1:] == values[:-1]).all(1) & (values[1:] != 0).any(1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    first, last = edges[::2], edges[1::2]  # samples of each run
    long = times[last] - times[first] > STUCK_S
    first, last = first[long], last[long]
    share = float((last - first + 1).sum() / len(values)) if len(first) else 0.0
    if share < _MANY_STUCK:
        return None
    at = int(np.argmax(last - first))
    start, stop, value = times[first[at]], times[last[at]], ", ".join(f"{x:g}" for x in values[first[at]])
    low, high = float(rec.domain.min()), float(rec.domain.max())
    cut = ""
    if high - stop < STUCK_S:
        cut = f" (here recording.interval: [{max(low, times[0]):.1f}, {start:.1f}])"
    elif start - low < STUCK_S:
        cut = f" (here recording.interval: [{stop:.1f}, {min(high, times[-1]):.1f}])"
    return Finding(
        "stuck_values",
        "warning",
        f"'{name}' has exactly the same value ({value}) for {stop - start:.0f} s from {start:.1f} s on; {share:.0%} of its samples are in "
        f"{len(first)} such stretch(es)",
        "a tracker that has lost the animal repeats its last place, and decoders are praised for a constant: leave the stretch out"
        f"{cut}, or write NaN where nothing was tracked",
        {
            "variable": name,
            "share": share,
            "stretches": len(first),
            "longest_from_s": float(start),
            "longest_s": float(stop - start),
        },
    )


def _coverage(rec: Recording, name: str, covered: float) -> Finding | None:
    """A variable that the run uses, but that does not reach over the domain, or has gaps."""
    if covered > 0.9:
        return None
    variable = rec.behavior[name]
    times = variable.times
    steps = np.diff(times)
    gaps = steps[steps > 5 * variable.period]
    short = times[-1] - times[0] < 0.01 * rec.duration
    unit = " (seconds were expected: if its times count another unit, give scale)" if short else ""
    many = f", with {len(gaps)} gap(s) of up to {gaps.max():.3g} s" if len(gaps) else ""
    rest = " Where it is sampled only while it changes, write what holds in between (a wheel at rest, speed 0)"
    return Finding(
        "behavior_does_not_cover",
        "warning",
        f"'{name}' runs from {times[0]:.1f} to {times[-1]:.1f} s{many}, and has values at {covered:.0%} of the "
        "recording's moments",
        f"elsewhere a label leaves the loss and the scores, and an input counts as missing; put it on the recording's clock{unit}, "
        f"or leave out the rest (recording.interval: [{max(times[0], rec.domain.min()):.1f}, {min(times[-1], rec.domain.max()):.1f}]).{rest if len(gaps) else ''}",
        {"variable": name, "covered": covered, "gaps": len(gaps)},
    )

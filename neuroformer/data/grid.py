"""Spikes that lie on a grid, because they were counted in bins or found in frames, and bins that do not fit it."""

from __future__ import annotations

import numpy as np

from neuroformer.config import Config, ConfigError
from neuroformer.recording import Recording
from neuroformer.recording.clock import NANOSECONDS, nanoseconds

_SAMPLE = 500_000  # spikes looked at
_FEWEST = 50  # intervals between them that tell
_FINE = 20  # grid steps per bin from which on a step more or less in it does not matter


def spike_grid(rec: Recording) -> float | None:
    """Seconds between the times at which alone spikes occur; None where they occur at any time.

    What the reader knows (``meta["spike_grid_s"]``), else what the intervals between spikes show: 99 % of the short ones
    are whole multiples of one step, within 5 % of it. Steps between all spikes are tried first, then those of each unit,
    for planes of a microscope that take turns.
    """
    known = rec.meta.get("spike_grid_s")
    if isinstance(known, (int, float)) and known > 0:
        return float(known)
    times, units = nanoseconds(rec.spike_times[:_SAMPLE]), np.asarray(rec.spike_units[:_SAMPLE])
    step = _step(np.diff(times))
    if step is None and len(times):
        order = np.lexsort((times, units))
        steps, same = np.diff(times[order]), np.diff(units[order]) == 0
        step = _step(steps[same])
    return step


def _step(gaps: np.ndarray) -> float | None:
    gaps = gaps[gaps > 0]
    if len(gaps) < _FEWEST:
        return None
    step = float(np.quantile(gaps, 0.002, method="lower"))
    step = float(np.median(gaps[gaps < 1.5 * step]))
    gaps = gaps[gaps < _FINE * step]
    multiple = np.rint(gaps / step)
    if len(gaps) < _FEWEST or (np.abs(gaps / step - multiple) < 0.05).mean() < 0.99:
        return None
    return float(gaps.sum() / multiple.sum()) / NANOSECONDS


def grid_problem(rec: Recording, config: Config) -> str:
    """What is wrong with ``window.dt`` for a recording whose spikes lie on a grid; empty where nothing is."""
    w = config.window
    grid = spike_grid(rec) if config.traces.likelihood == "none" else None
    ratio = w.dt / grid if grid else np.inf
    if ratio >= _FINE or (round(ratio) >= 1 and abs(ratio - round(ratio)) <= 0.01):
        return ""
    assert grid is not None
    dt = float(f"{grid * max(1, round(ratio)):.9g}")
    told = {"dt": dt} | {k: max(1, round(getattr(w, k) / dt)) * dt for k in ("current", "past")}
    if config.targets and w.target_past:
        told["target_past"] = max(1, round(w.target_past / dt)) * dt
    settings = " ".join(f"window.{k}={v:.9g}" for k, v in told.items())
    return (
        f"window.dt is {w.dt:g} s, but the spikes of '{rec.name}' lie on a grid of {grid:.6g} s, as counts and calcium "
        "events do: such bins hold them by the clock, and scores would measure that clock; use whole steps of the grid, "
        f"say {settings}"
    )


def check_grid(rec: Recording, config: Config) -> None:
    """Refuse bins that do not fit the grid on which spikes lie.

    Raises
    ------
    ConfigError
        ``window.dt`` is finer than the grid, or no whole number of its steps.
    """
    problem = grid_problem(rec, config)
    if problem:
        raise ConfigError(problem)

"""Findings on spikes alone: rates, clusters that are not one neuron, lost and doubled spikes."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroformer.audit.copies import duplicated_units
from neuroformer.audit.findings import Finding
from neuroformer.recording import Recording
from neuroformer.recording.clock import interval_of

REFRACTORY_S = 0.0015  # no neuron fires twice within it
SAMPLE = 2_000_000  # spikes looked at one by one, in eight stretches of the recording
_SLICES = 8
MIN_SPIKES = 100  # with fewer, the intervals of a unit say nothing


def spike_findings(rec: Recording, dt: float) -> list[Finding | None]:
    """All findings on spikes.

    Parameters
    ----------
    dt : seconds per bin, the finest time that a model would see
    """
    times, units = sample_spikes(rec)
    counts = rec.unit_spikes()
    return [
        _no_spikes(rec),
        _transposed(rec, dt),
        _dominant(rec, counts),
        _silent(rec, counts),
        _duplicated(rec, times, units),
        duplicated_units(rec, times, units, dt),
        _refractory(rec, times, units),
        _outside(rec, times),
        _unobserved(rec, times, units),
        _silence(rec, times),
        _drift(rec, times, units),
    ]


def sample_spikes(rec: Recording, most: int = SAMPLE) -> tuple[np.ndarray, np.ndarray]:
    """Times and units of all spikes, or of a few long stretches where there are too many."""
    if rec.num_spikes <= most:
        return np.asarray(rec.spike_times), np.asarray(rec.spike_units)
    starts = np.linspace(0, rec.num_spikes - most // _SLICES, _SLICES).astype(int)
    parts = [slice(s, s + most // _SLICES) for s in starts]
    return tuple(np.concatenate([a[p] for p in parts]) for a in (rec.spike_times, rec.spike_units))  # pyright: ignore


def intervals_between(times: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interspike intervals within units, and the unit of each."""
    order = np.argsort(units, kind="stable")
    t, u = times[order], units[order]
    same = u[1:] == u[:-1]
    return np.diff(t)[same], u[1:][same]


def spike_facts(rec: Recording) -> dict[str, Any]:
    rates = rec.rates()
    low, middle, high = np.quantile(rates, [0.05, 0.5, 0.95])
    return {
        "duration_s": rec.duration,
        "intervals": len(rec.domain),
        "longest_gap_s": float((rec.domain[1:, 0] - rec.domain[:-1, 1]).max(initial=0.0)),
        "units": rec.num_units,
        "spikes": rec.num_spikes,
        "rate_hz_5%": float(low),
        "rate_hz_median": float(middle),
        "rate_hz_95%": float(high),
        "rate_hz_max": float(rates.max()),
        "silent_units": int((rates == 0).sum()),
        "trials": rec.num_trials,
    }


def rate_series(rec: Recording, bins: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Bin centres and the population's rate (Hz) over the domain; NaN where there are no data."""
    edges = np.linspace(rec.domain[0, 0], rec.domain[-1, 1], bins + 1)
    counts = np.diff(np.searchsorted(rec.spike_times, edges))
    inside = sum(np.clip(np.minimum(edges[1:], b) - np.maximum(edges[:-1], a), 0, None) for a, b in rec.domain)
    width = edges[1] - edges[0]
    rate = np.where(inside > 0.2 * width, counts / np.maximum(inside, 1e-12), np.nan)
    return (edges[1:] + edges[:-1]) / 2, rate


# -- findings -------------------------------------------------------------------------------------------


def _no_spikes(rec: Recording) -> Finding | None:
    if rec.num_spikes:
        return None
    if rec.traces is not None:
        return Finding("no_spikes", "note", "no spikes are used, only traces", "traces.likelihood models those")
    return Finding("no_spikes", "warning", "the recording holds no spike", "check the reader's options")


def _transposed(rec: Recording, dt: float) -> Finding | None:
    bins = rec.duration / dt
    if rec.num_units < 200 or rec.num_units < 4 * bins or rec.duration > 10:
        return None
    return Finding(
        "transposed_counts",
        "warning",
        f"{rec.num_units:,} units in {rec.duration:.3g} s: more than four times as many units as bins",
        "counts are units x bins; if yours are bins x units, hand over their transpose",
        {"units": rec.num_units, "bins": int(bins)},
    )


def _dominant(rec: Recording, counts: np.ndarray) -> Finding | None:
    if rec.num_spikes == 0 or rec.num_units < 4:
        return None
    top = int(counts.argmax())
    share, rate = counts[top] / counts.sum(), rec.rates()[top]
    if share < 0.5:
        return None
    return Finding(
        "dominant_unit",
        "warning",
        f"unit '{rec.unit_ids[top]}' holds {share:.0%} of all spikes ({rate:.1f} Hz; the median unit "
        f"{np.median(rec.rates()):.2f} Hz)",
        "likely a multi-unit or noise cluster; leave it out, or every score is mostly about it",
        {"unit": rec.unit_ids[top], "share": float(share), "rate_hz": float(rate)},
    )


def _silent(rec: Recording, counts: np.ndarray) -> Finding | None:
    silent = int((counts == 0).sum())
    if silent == 0 or rec.num_spikes == 0:
        return None
    advice = "leave them out: nothing can be learnt of them"
    numbered = rec.unit_ids == [str(i) for i in range(rec.num_units)]
    if numbered and counts[0] == 0 and silent == 1:
        advice = "units count from 0: if yours count from 1, subtract 1; else leave that unit out"
    elif numbered and silent > rec.num_units / 2:
        advice = "units count from 0 without holes: if these are ids, map them to 0, 1, ...; else leave them out"
    return Finding(
        "silent_units",
        "warning" if silent > rec.num_units / 2 else "note",
        f"{silent} of {rec.num_units} units never fire",
        advice,
        {"silent": silent, "units": rec.num_units},
    )


def _duplicated(rec: Recording, times: np.ndarray, units: np.ndarray) -> Finding | None:
    gaps, who = intervals_between(times, units)
    again = gaps == 0
    if again.sum() < 0.01 * max(len(times), 1):
        return None
    return Finding(
        "duplicated_spikes",
        "warning",
        f"{again.sum():,} of {len(times):,} spikes ({again.sum() / len(times):.1%}) have the unit and the time of "
        f"the one before, in {len(np.unique(who[again]))} units",
        "a file read twice, or two sortings joined; drop the copies",
        {"duplicated": int(again.sum()), "looked_at": len(times)},
    )


def _refractory(rec: Recording, times: np.ndarray, units: np.ndarray) -> Finding | None:
    gaps, who = intervals_between(times, units)
    short = (gaps > 0) & (gaps < REFRACTORY_S)
    total = np.bincount(who, minlength=rec.num_units)
    share = np.bincount(who[short], minlength=rec.num_units) / np.maximum(total, 1)
    bad = np.flatnonzero((share > 0.02) & (total >= MIN_SPIKES))
    if len(bad) == 0:
        return None
    worst = bad[share[bad].argsort()[::-1]]
    return Finding(
        "refractory_violations",
        "warning" if np.median(share[total >= MIN_SPIKES]) > 0.1 else "note",
        f"{len(bad)} of {rec.num_units} units have more than 2 % of their intervals below "
        f"{REFRACTORY_S * 1e3:g} ms; worst: " + ", ".join(f"'{rec.unit_ids[u]}' {share[u]:.1%}" for u in worst[:3]),
        "likely several neurons in one cluster (or spikes that were made from counts)",
        {"units": [rec.unit_ids[u] for u in worst], "shares": [float(share[u]) for u in worst]},
    )


def _outside(rec: Recording, times: np.ndarray) -> Finding | None:
    outside = interval_of(times, rec.domain) < 0
    if len(times) == 0 or outside.mean() < 0.001:
        return None
    return Finding(
        "spikes_outside_domain",
        "warning",
        f"{outside.mean():.1%} of the spikes lie outside the intervals that are said to hold data, and are not used",
        "check the domain, or the clock of the spikes",
        {"share": float(outside.mean())},
    )


def _unobserved(rec: Recording, times: np.ndarray, units: np.ndarray) -> Finding | None:
    """Spikes of units outside of the intervals in which they are said to have been observed."""
    if rec.observed is None or len(times) == 0:
        return None
    order = np.argsort(units, kind="stable")
    edges = np.searchsorted(units[order], np.arange(rec.num_units + 1))
    lost = np.zeros(rec.num_units, np.int64)
    for unit, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        if high > low:
            lost[unit] = (interval_of(times[order[low:high]], rec.observed.of(unit)) < 0).sum()
    share = float(lost.sum() / len(times))
    if share < 0.001:
        return None
    return Finding(
        "spikes_outside_observed",
        "warning",
        f"{share:.1%} of the spikes lie outside the intervals in which their unit was observed (obs_intervals), and are not "
        f"used; most are of unit '{rec.unit_ids[int(lost.argmax())]}'",
        "check the intervals, or the clock of the spikes",
        {"share": share, "units": [rec.unit_ids[u] for u in np.flatnonzero(lost)]},
    )


def _cut(rec: Recording, start: float, stop: float) -> str:
    """The setting that leaves out a stretch at the start or end of a recording."""
    low, high = float(rec.domain.min()), float(rec.domain.max())
    kept = [stop, high] if start <= low else [low, start] if stop >= high else None
    return " of the domain" if kept is None else f" (recording.interval: [{kept[0]:.1f}, {kept[1]:.1f}])"


def _silence(rec: Recording, times: np.ndarray) -> Finding | None:
    """The longest stretch of the domain without any spike, where it is too long for the population's rate."""
    if len(times) < MIN_SPIKES or rec.num_spikes > SAMPLE:
        return None
    limit = max(10.0, 100 * rec.duration / len(times))
    marks = np.sort(np.concatenate([times, rec.domain.ravel()]))
    gaps = np.diff(marks)
    middle = (marks[1:] + marks[:-1]) / 2
    inside = interval_of(middle, rec.domain) >= 0
    long = inside & (gaps > limit)
    if not long.any():
        return None
    at = int(np.where(long, gaps, 0).argmax())
    return Finding(
        "silent_stretch",
        "warning",
        f"no unit fires for {gaps[at]:.1f} s from {marks[at]:.1f} s on; {int(long.sum())} such stretch(es), "
        f"{gaps[long].sum():.1f} s together",
        f"if the recording was interrupted or began later, leave the stretch out{_cut(rec, marks[at], marks[at + 1])}: there it is missing, not silent",
        {"stretches": int(long.sum()), "seconds": float(gaps[long].sum()), "longest_from_s": float(marks[at])},
    )


def _drift(rec: Recording, times: np.ndarray, units: np.ndarray) -> Finding | None:
    """Units whose rate, while they were observed, changes more than threefold between the first and the last quarter."""
    if len(times) < MIN_SPIKES or len(times) < rec.num_spikes:
        return None
    start, stop = rec.domain[0, 0], rec.domain[-1, 1]
    quarter = (stop - start) / 4
    counts, seconds = [], []
    for low, high in ((start, start + quarter), (stop - quarter, stop)):
        lo, hi = np.searchsorted(times, [low, high])
        counts.append(np.bincount(units[lo:hi], minlength=rec.num_units))
        inside = np.stack([np.maximum(rec.domain[:, 0], low), np.minimum(rec.domain[:, 1], high)], 1)
        inside = inside[inside[:, 1] > inside[:, 0]]
        whole = np.full(rec.num_units, (inside[:, 1] - inside[:, 0]).sum())
        seconds.append(whole if rec.observed is None else rec.observed.seconds(rec.num_units, inside))
    known = np.minimum(*seconds) > 0.1 * quarter
    if not known.any():
        return None
    seconds = [np.where(known, s, 1.0) for s in seconds]
    early, late = counts
    a, b = (early + 0.5) / seconds[0], (late + 0.5) / seconds[1]
    moved = known & (np.maximum(a, b) > 3 * np.minimum(a, b)) & (early + late >= MIN_SPIKES)
    if not moved.any():
        return None
    return Finding(
        "drift",
        "note",
        f"{int(moved.sum())} of {rec.num_units} units fire at more than three times the rate in one end of the "
        "recording than in the other",
        "the probe may have moved, or the animal's state changed; splits should hold blocks from all of it",
        {"units": [rec.unit_ids[u] for u in np.flatnonzero(moved)]},
    )

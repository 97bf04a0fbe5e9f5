"""Whether spikes, frames and behavior run on one clock, in one unit of time.

Three checks: how well shared pulses agree, where a clock was fitted to them; where each series begins and ends, overall
and in every trial; and, for frames, the lag at which spikes follow what was shown. Cells follow a picture by 0 to 0.6 s. A peak elsewhere means that
one of the clocks is off.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuroformer.audit.findings import Finding
from neuroformer.audit.spikes import MIN_SPIKES, intervals_between, sample_spikes
from neuroformer.recording import FrameSeries, Recording

LATENCY_S = (-0.025, 0.6)  # a lag from frame to spike that needs no explanation
MAX_LAG_S = 3.0
APART_S = 0.005  # between shared pulses, in the median: cameras stamp them so well; ten times that for one of them
FEW_PULSES = 5
_MOST_FRAMES = 12_000  # frames looked at for the lag
_MOST_UNITS = 64
_SURE = 8.0  # robust standard deviations; frames that nothing follows reach 3 to 4
_GRID = 4  # features of an image: means, contrasts and changes of 4 x 4 patches


def clock_findings(rec: Recording) -> list[Finding | None]:
    """All findings on clocks."""
    offsets = [_trial_offset(rec, name, t) for name, t in _series(rec).items()]
    known = any(f is not None for f in offsets)
    return [*time_findings(rec), *_pulses(rec), *offsets, None if known else _lag_finding(rec)]


def time_findings(rec: Recording) -> list[Finding | None]:
    """Findings on times that are not seconds, or that belong to another session. This is fast, however long the
    recording seems to last.
    """
    return [_too_slow(rec), _too_fast(rec), *_spans(rec)]


def _series(rec: Recording) -> dict[str, np.ndarray]:
    out = {"frames": rec.frames.times} if rec.frames is not None else {}
    out |= {f"behavior '{name}'": v.times for name, v in rec.behavior.items()}
    return {k: t for k, t in out.items() if len(t) > 2}


def _pulses(rec: Recording) -> list[Finding | None]:
    """Clocks fitted to pulses that do not lie on a line, or to few of them."""
    out: list[Finding | None] = []
    for name, facts in rec.meta.get("clocks", {}).items():
        median, most, count = facts["residual_s_median"], facts["residual_s_max"], facts["pulses"]
        if median <= APART_S and most <= 10 * APART_S and count >= FEW_PULSES:
            continue
        why = (
            "pulses were taken for others, or a clock jumped: look at both trains, and sync the parts by themselves"
            if count >= FEW_PULSES
            else "so few pulses fit a line whatever they are: record more, or compare with an event that both clocks saw"
        )
        out.append(
            Finding(
                "pulses_apart",
                "warning",
                f"{name} is on the spikes' clock by {count} shared pulses, which differ by {1e3 * median:.3g} ms in the "
                f"median and {1e3 * most:.3g} ms at most",
                why,
                {"source": name, **facts},
            )
        )
    return out


# -- seconds and milliseconds ---------------------------------------------------------------------------

_UNIT_ADVICE = "times are seconds; check the unit in which the file keeps them"


def _too_slow(rec: Recording) -> Finding | None:
    """Spike times that were milliseconds: the shortest intervals of every cell last seconds."""
    gaps, _ = intervals_between(*sample_spikes(rec))
    if len(gaps) < MIN_SPIKES:
        return None
    short, fastest = float(np.quantile(gaps, 0.02)), float(rec.rates().max())
    if short < 0.5 or fastest > 0.2:
        return None
    return Finding(
        "milliseconds_as_seconds",
        "warning",
        f"98 % of the intervals between a unit's spikes last more than {short:.2g} s, no unit fires above "
        f"{fastest:.3g} Hz, and the recording lasts {rec.duration / 3600:,.0f} h",
        f"spike times look like milliseconds; {_UNIT_ADVICE}",
        {"interval_s_2%": short, "rate_hz_max": fastest},
    )


def _too_fast(rec: Recording) -> Finding | None:
    rates = rec.rates()
    if rec.num_spikes < MIN_SPIKES or np.median(rates) < 300:
        return None
    return Finding(
        "seconds_as_milliseconds",
        "warning",
        f"the median unit fires at {np.median(rates):,.0f} Hz in {rec.duration:.3g} s",
        f"spike times look as if seconds had been divided by 1000; {_UNIT_ADVICE}",
        {"rate_hz_median": float(np.median(rates))},
    )


def _spans(rec: Recording) -> list[Finding | None]:
    """First and last time of each series against those of the spikes."""
    out: list[Finding | None] = []
    if rec.num_spikes < MIN_SPIKES:
        return out
    a, b = float(rec.spike_times[0]), float(rec.spike_times[-1])
    series = _series(rec)
    if rec.trials:
        series = series | {"trials": rec.trial_intervals.ravel()}
    for name, t in series.items():
        c, d = float(t.min()), float(t.max())
        ratio = (d - c) / max(b - a, 1e-12)
        values = {"series": name, "spikes_s": [a, b], "series_s": [c, d]}
        where = f"spikes run from {a:,.1f} to {b:,.1f} s, {name} from {c:,.1f} to {d:,.1f} s"
        if 300 < ratio < 3000 or 300 < 1 / max(ratio, 1e-12) < 3000:
            longer = name if ratio > 1 else "spike times"
            advice = f"{longer} may be in milliseconds: scale: 0.001 makes seconds of a source's; {_UNIT_ADVICE}"
            out.append(Finding("milliseconds_as_seconds", "warning", where, advice, values))
            continue
        overlap = max(0.0, min(b, d) - max(a, c))
        if overlap < 0.5 * min(b - a, d - c):
            out.append(
                Finding(
                    "clock_mismatch",
                    "warning",
                    where,
                    "they share less than half of their time; put both on one clock",
                    values,
                )
            )
            continue
        out.append(_shift(name, where, a, b, c, d, values))
    return out


def _shift(name: str, where: str, a, b, c, d, values) -> Finding | None:
    """Whether both ends are late, or early, by the same time: the same stretch on two clocks."""
    start, stop = c - a, d - b
    same = start * stop > 0 and abs(start - stop) < 0.1 * abs(start)
    if not same or abs(start) < max(1.0, 1e-3 * (b - a)):
        return None
    return Finding(
        "clock_offset",
        "warning",
        f"{where}: both ends differ by {start:+.2f} s",
        f"{name} seem to have a clock of their own; subtract the offset if they are one session",
        values | {"offset_s": start},
    )


# -- offsets that the trials show -------------------------------------------------------------------------


def _trial_offset(rec: Recording, name: str, times: np.ndarray) -> Finding | None:
    """A series that was recorded trial by trial begins and ends late (early) in all of them by the same time."""
    period = float(np.median(np.diff(times)))
    breaks = np.flatnonzero(np.diff(times) > 3 * period)
    starts, stops = times[np.r_[0, breaks + 1]], times[np.r_[breaks, len(times) - 1]] + period
    trials = rec.trial_intervals
    if len(trials) < 3 or not 0.8 * len(trials) <= len(starts) <= 1.25 * len(trials):
        return None
    lead, tail = _to_nearest(trials[:, 0], starts), _to_nearest(trials[:, 1], stops)
    offset = float(np.median(np.r_[lead, tail]))
    if abs(offset) < max(0.1, 2 * period):
        return None
    if max(np.abs(np.median(x) - offset) for x in (lead, tail)) > 0.1 * abs(offset) + period:
        return None
    if np.mean(np.abs(np.r_[lead, tail] - offset) < 2 * period) < 0.8:
        return None
    return Finding(
        "clock_offset",
        "warning",
        f"{name} begin and end {offset:+.2f} s from the start and stop of the trials, in all of them",
        "put them on the clock of the trials and spikes",
        {"series": name, "offset_s": offset},
    )


def _to_nearest(marks: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Signed distance from each mark to the nearest of ascending times."""
    k = np.clip(np.searchsorted(times, marks), 1, max(len(times) - 1, 1))
    before, after = times[k - 1] - marks, times[np.minimum(k, len(times) - 1)] - marks
    return np.where(np.abs(before) <= np.abs(after), before, after)


# -- the lag from frames to spikes ------------------------------------------------------------------------


class Lag(NamedTuple):
    """How strongly spikes go with what was shown ``lags_s`` before, and how sure the peak is."""

    lags_s: np.ndarray
    strength: np.ndarray
    peak_s: float
    z: float


def _lag_finding(rec: Recording) -> Finding | None:
    lag = frame_lag(rec)
    if lag is None or lag.z < _SURE:
        return None
    low, high = LATENCY_S
    if low <= lag.peak_s <= high:
        return None
    usual = (lag.lags_s >= low) & (lag.lags_s <= high)
    floor = np.median(lag.strength)
    if lag.strength[usual].max() - floor > 0.5 * (lag.strength.max() - floor):
        return None  # a periodic stimulus has many peaks
    return Finding(
        "clock_offset",
        "warning",
        f"spikes go best with the frames that come on {abs(lag.peak_s):.2f} s {'before' if lag.peak_s > 0 else 'after'} "
        f"them (z = {lag.z:.0f}); cells follow a picture by 0 to {high:g} s",
        "the clocks of frames and spikes differ, likely by that much",
        {"series": "frames", "offset_s": -lag.peak_s, "z": lag.z},
    )


def frame_lag(rec: Recording) -> Lag | None:
    """Squared correlation of every unit's count with every image feature, summed, by the lag between them.

    Counts and features lose their slow part (a running mean over a second) first. ``z`` is the height of the
    peak over the median of all lags, in robust standard deviations. None where there is too little to look at.
    """
    frames = rec.frames
    if frames is None or rec.num_spikes < MIN_SPIKES or len(frames.times) < 200:
        return None
    period = float(np.median(np.diff(frames.times)))
    every = max(1, round(0.04 / period))
    step = period * every
    chosen = np.arange(min(len(frames.times), _MOST_FRAMES * every))[::every]
    features = image_features(frames, chosen)
    if features is None or not np.isfinite(features).all():
        return None
    place = np.rint((frames.times[chosen] - frames.times[0]) / step).astype(np.int64)
    if place[-1] > 20 * len(place):
        return None  # single pictures, far apart
    at = frames.times[0] + np.arange(-round(MAX_LAG_S / step), place[-1] + 2 + round(MAX_LAG_S / step)) * step
    units = np.argsort(-rec.unit_spikes())[:_MOST_UNITS]
    lo, hi = np.searchsorted(rec.spike_times, [at[0], at[-1]])
    bins = np.searchsorted(at, rec.spike_times[lo:hi], side="right") - 1
    counts = np.zeros((len(at) - 1, rec.num_units), np.float32)
    np.add.at(counts, (bins, rec.spike_units[lo:hi]), 1)
    y = _fast_part(np.sqrt(counts[:, units]), round(1 / step))
    x = _fast_part(features, round(1 / step)) / len(place) ** 0.5
    lags = np.arange(2 * round(MAX_LAG_S / step) + 1)
    strength = np.array([np.square(x.T @ y[place + k]).sum() for k in lags])
    floor = np.median(strength)
    spread = 1.4826 * np.median(np.abs(strength - floor)) + 1e-12
    best = int(strength.argmax())
    lags_s = (lags - round(MAX_LAG_S / step)) * step
    return Lag(lags_s, strength, float(lags_s[best]), float((strength[best] - floor) / spread))


def image_features(frames: FrameSeries, chosen: np.ndarray) -> np.ndarray | None:
    """(frames, features) float32: mean, contrast and change since the frame before, of 4 x 4 patches."""
    height, width = frames.images.shape[1:]
    if min(height, width) < 2 * _GRID:
        return None
    bank, inverse = np.unique(frames.index[chosen], return_inverse=True)
    rows, columns = height // _GRID, width // _GRID
    means, spreads, changes = [], [], []
    last = None
    for part in np.array_split(bank, max(1, len(bank) // 256)):
        images = np.asarray(frames.images[part], np.float32)[:, : rows * _GRID, : columns * _GRID]
        patches = images.reshape(len(part), _GRID, rows, _GRID, columns)
        means.append(patches.mean((2, 4)).reshape(len(part), -1))
        spreads.append(patches.std((2, 4)).reshape(len(part), -1))
        before = np.concatenate([patches[:1] if last is None else last[None], patches[:-1]])
        changes.append(np.abs(patches - before).mean((2, 4)).reshape(len(part), -1))
        last = patches[-1]
    features = np.concatenate([np.concatenate(x) for x in (means, spreads, changes)], 1)
    return features[inverse]


def _fast_part(x: np.ndarray, width: int) -> np.ndarray:
    """Columns less their running mean, in units of their spread."""
    total = np.cumsum(np.vstack([np.zeros((1, x.shape[1]), x.dtype), x]), 0, dtype=np.float64)
    half = max(1, width // 2)
    lo = np.maximum(np.arange(len(x)) - half, 0)
    hi = np.minimum(np.arange(len(x)) + half + 1, len(x))
    fast = x - (total[hi] - total[lo]) / (hi - lo)[:, None]
    spread = fast.std(0)
    return (fast / np.where(spread > 0, spread, np.inf)).astype(np.float32)

"""One neuron under two names, and one session under two names.

Shape suffixes: U units.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from neuroformer.audit.findings import Finding
from neuroformer.data.grid import spike_grid
from neuroformer.recording import Recording

MIN_SPIKES = 100  # with fewer, coincidences of a unit say nothing
NARROW_S = 2.5e-4
WIDEST_S = 0.01
LAGS = 5  # bins within which a copy is looked for
BESIDE = (8, 9, 10)  # lags, from which coincidences by chance are counted
SHARED = 0.5  # of the spikes of the unit that has fewer
MOST_SPIKES = 300_000
MOST_UNITS = 2000
STEP_S = 0.02  # bins in which two sessions are compared
OVERLAP_S = 20.0
ALIKE = 0.9  # correlation of a unit's counts with those of its copy


def duplicated_units(rec: Recording, times: np.ndarray, units: np.ndarray, dt: float) -> Finding | None:
    """Pairs of units most of whose spikes fall into neighboring bins, at one lag: copies, shifted or jittered.

    Coincidences are counted in bins of a quarter of a millisecond, as a share of the spikes of the unit that has fewer, and
    in bins of ``dt``, of the one that has more; at lags up to five bins, of two neighboring bins together. What bins a
    little farther away have counts as chance, so that rates that rise together are none. Where times lie on a grid, no bin is
    narrower than it, and bins above 10 ms say nothing: units that the animal drives together meet in them.
    """
    if not 2 <= rec.num_units <= MOST_UNITS or len(times) < 2:
        return None
    counts = np.bincount(units, minlength=rec.num_units)
    keep = counts[units] >= MIN_SPIKES
    times, units = times[keep][:MOST_SPIKES], units[keep][:MOST_SPIKES]
    found: dict[tuple[int, int], tuple[float, float]] = {}
    finest = max(NARROW_S, spike_grid(rec) or 0.0)
    for width, of in ((finest, np.minimum), (max(dt, finest), np.maximum)):
        if width <= WIDEST_S:
            for one, other, share, lag in _copies(times, units, width, of):
                found.setdefault((min(one, other), max(one, other)), (share, lag))
    if not found:
        return None
    pairs = [[rec.unit_ids[i], rec.unit_ids[j]] for i, j in found]
    said = "; ".join(
        f"'{rec.unit_ids[i]}' and '{rec.unit_ids[j]}' ({share:.0%}{f' at {1e3 * lag:g} ms' if lag else ''})"
        for (i, j), (share, lag) in list(found.items())[:4]
    )
    return Finding(
        "duplicated_units",
        "warning",
        f"{len(pairs)} pair(s) of units share more than half of their spikes beyond chance, to within a bin: {said}",
        "one neuron sorted twice predicts itself; leave one of each pair out",
        {"pairs": pairs},
    )


def _copies(times: np.ndarray, units: np.ndarray, width: float, of: np.ufunc) -> list[tuple[int, int, float, float]]:
    """Pairs of rows, the share of spikes that they have in common, and the lag (s) at which they do."""
    if len(times) == 0:
        return []
    who, unit = np.unique(units, return_inverse=True)
    bins = np.floor((times - times[0]) / width).astype(np.int64)
    fired, rows = _occupied(bins, unit, len(who))
    # fired in the row's bin or in the next one
    either, starts = _occupied(np.concatenate([bins, bins - 1]), np.concatenate([unit, unit]), len(who))
    total = np.asarray(fired.sum(0)).ravel()

    def together(lag: int) -> np.ndarray:
        """(earlier, later) bins in which the later unit fires ``lag`` bins or one more after the earlier one."""
        place = np.minimum(np.searchsorted(starts, rows + lag), len(starts) - 1)
        there = starts[place] == rows + lag
        return np.asarray((fired[there].T @ either[place[there]]).todense())

    beside = np.mean([together(k) for k in BESIDE], 0)
    beside = (beside + beside.T) / 2
    share_LUU = (np.stack([together(k) for k in range(LAGS)]) - beside) / np.maximum(of(total[:, None], total), 1)
    best, at = share_LUU.max(0), share_LUU.argmax(0)
    np.fill_diagonal(best, 0.0)
    copied = (best > SHARED) & (np.minimum(total[:, None], total) >= MIN_SPIKES / 2)
    pairs = [(i, j) for i, j in np.argwhere(copied) if best[i, j] > best[j, i] or (i < j and best[i, j] == best[j, i])]
    return [(int(who[i]), int(who[j]), float(best[i, j]), float(at[i, j] * width)) for i, j in pairs]


def _occupied(bins: np.ndarray, unit: np.ndarray, num_units: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Which units fired in each of the bins that hold any spike, and the numbers of these bins."""
    rows, row = np.unique(bins, return_inverse=True)
    fired = sparse.csr_matrix((np.ones(len(row), np.float32), (row, unit)), (len(rows), num_units))
    fired.data[:] = 1.0
    return fired, rows


# -- sessions ---------------------------------------------------------------------------------------------


def session_findings(recs: Sequence[Recording]) -> list[Finding | None]:
    """For each recording, whether one of those before it is the same session, or a stretch of it.

    The populations' counts are compared at every shift in time, without their slow course; at the best shift, units must
    fire alike one by one, so that two animals that see the same stimulus are no copies.
    """
    out: list[Finding | None] = [None]
    for i, rec in enumerate(recs[1:], 1):
        same = [(other.name, found) for other in recs[:i] if (found := same_session(other, rec)) is not None]
        out.append(_same(same) if same else None)
    return out


def _same(found: list[tuple[str, dict[str, float]]]) -> Finding:
    name, values = found[0]
    return Finding(
        "same_session",
        "leak",
        f"{values['units']:.0f} units fire as units of '{name}' do for {values['overlap_s']:.0f} s "
        f"({values['shift_s']:+.3f} s on its clock): the same session twice, or a part of it",
        "take one of the two out: what one trains on, the other tests on",
        {"recording": name, **values},
    )


def same_session(one: Recording, other: Recording) -> dict[str, float] | None:
    """Shift (s, what is added to the second's times), overlap (s) and number of units that two recordings share; or None."""
    if min(one.num_spikes, other.num_spikes) < MIN_SPIKES:
        return None
    shift = _best_shift(one, other)
    if shift is None:
        return None
    start = max(one.spike_times[0], other.spike_times[0] + shift)
    stop = min(one.spike_times[-1], other.spike_times[-1] + shift)
    stop = min(stop, start + 600.0)
    counts = [_counts(one, start, stop, 0.0), _counts(other, start, stop, shift)]
    a, b = (x[:, x.sum(0) >= 20] for x in counts)
    if a.shape[1] == 0 or b.shape[1] == 0:
        return None
    z = [(x - x.mean(0)) / x.std(0) for x in (a, b)]
    alike = int(((z[0].T @ z[1] / len(a)).max(1) > ALIKE).sum())
    if alike < max(2, 0.1 * min(a.shape[1], b.shape[1])) and alike < min(a.shape[1], b.shape[1]):
        return None
    return {"shift_s": float(shift), "overlap_s": float(stop - start), "units": float(alike)}


def _counts(rec: Recording, start: float, stop: float, shift: float) -> np.ndarray:
    lo, hi = np.searchsorted(rec.spike_times, [start - shift, stop - shift])
    size = int((stop - start) / STEP_S)
    at = np.clip(((rec.spike_times[lo:hi] + shift - start) / STEP_S + 1e-6).astype(np.int64), 0, size - 1)
    units = rec.spike_units[lo:hi].astype(np.int64)
    return np.bincount(at * rec.num_units + units, minlength=size * rec.num_units).reshape(size, -1).astype(np.float32)


def _best_shift(one: Recording, other: Recording) -> float | None:
    """The shift at which the populations' counts correlate most, to half a millisecond; None where they do nowhere."""
    series = [_population(rec) for rec in (one, other)]
    size = 1 << int(np.ceil(np.log2(len(series[0]) + len(series[1]))))
    spectra = [np.fft.rfft(x, size) for x in series]
    there = [np.fft.rfft(np.ones(len(x)), size) for x in series]
    product = np.fft.irfft(spectra[0] * np.conj(spectra[1]), size)
    overlap = np.fft.irfft(there[0] * np.conj(there[1]), size)
    r = np.where(overlap * STEP_S >= OVERLAP_S, product / np.sqrt(np.maximum(overlap, 1.0)), -np.inf)
    at = int(r.argmax())
    if r[at] < 8.0:  # standard deviations of what unrelated series have at one shift
        return None
    lag = at if at <= size // 2 else at - size
    coarse = float(one.spike_times[0] - other.spike_times[0]) + lag * STEP_S
    return coarse + _refined(one.spike_times, other.spike_times + coarse)


def _population(rec: Recording) -> np.ndarray:
    """Counts of all units in steps, less their mean over the second around, of variance 1."""
    at = ((rec.spike_times - rec.spike_times[0]) / STEP_S).astype(np.int64)
    counts = np.bincount(at).astype(np.float64)
    wide = min(len(counts), round(1 / STEP_S))
    counts = np.sqrt(counts) - np.convolve(np.sqrt(counts), np.ones(wide) / wide, "same")
    return (counts - counts.mean()) / max(counts.std(), 1e-12)


def _refined(a: np.ndarray, b: np.ndarray) -> float:
    """What to add to ``b``, up to two steps, so that most of its times meet one of ``a``."""
    b = b[(b > a[0]) & (b < a[-1])][:20_000]
    lo, hi = np.searchsorted(a, b - 2 * STEP_S), np.searchsorted(a, b + 2 * STEP_S)
    most = int((hi - lo).max(initial=0))
    gaps = np.concatenate(
        [(a[np.minimum(lo + k, len(a) - 1)] - b)[lo + k < hi] for k in range(min(most, 500))] or [b[:0]]
    )
    if len(gaps) == 0:
        return 0.0
    width = 5e-4
    hist = np.bincount(np.rint(gaps / width).astype(int) + round(2 * STEP_S / width))
    peak = hist.argmax() * width - 2 * STEP_S
    return float(np.median(gaps[np.abs(gaps - peak) <= width]))

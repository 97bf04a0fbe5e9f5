"""Inputs that give away what is to be predicted: made of the spikes, of a target, or of what comes later.

Shape suffixes: N bins, U units, K lags, F features of an input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from neuroformer.audit.findings import Finding
from neuroformer.config import Config
from neuroformer.data.splits import Split
from neuroformer.recording import Recording

LAGS = 3  # bins on either side
MOST_BINS = 3000
LEAST_BINS = 200
MOST_UNITS = 400  # of which each gets weights of its own; their sum is always looked at
MOST_PLACES = 256  # of a frame
CLOSE = 0.25  # of the variance that independent spikes have; regular neurons under a strong stimulus come near a half
COPIED = 0.9  # of a target's variance that one column of an input explains
_STRETCHES = 6
_QUANTILES = 64

Array = NDArray[np.float64]


def input_findings(rec: Recording, config: Config, split: Split) -> list[Finding | None]:
    """What makes an input something that nobody has at the time: see the module."""
    out: list[Finding | None] = [_smoothed_both_ways(rec, config)]
    out += [_is_target(rec, config, split, name) for name in (v.name for v in config.inputs)]
    out += [_from_spikes(rec, config)]
    return out


def _smoothed_both_ways(rec: Recording, config: Config) -> Finding | None:
    """An input that was derived with a filter that looks ahead."""
    derived = {**rec.meta.get("speeds", {}), **{s.name: s.of for s in config.recording.speeds}}
    found = {v.name: derived[v.name] for v in config.inputs if v.name in derived}
    if not found:
        return None
    return Finding(
        "input_sees_ahead",
        "leak",
        "; ".join(
            f"input '{name}' is the speed of '{of}', smoothed both ways: it knows what follows the window"
            for name, of in found.items()
        ),
        "give the recorded variable as the input; what is derived this way is a label",
        {"inputs": list(found)},
    )


# -- a target under another name ----------------------------------------------------------------------------


def _is_target(rec: Recording, config: Config, split: Split, name: str) -> Finding | None:
    """A target whose value follows from that of an input at the same moment, whatever the function."""
    step = max(config.window.current, config.window.dt)
    at = {
        p: np.concatenate([np.arange(a + step, b, step) for a, b in split.intervals(p)] or [np.zeros(0)])
        for p in split.blocks
    }
    fit, test = at["train"], np.concatenate([at["valid"], at["test"]])
    if len(fit) == 0 or len(test) == 0:
        return None
    fit, test = (x[:: 1 + len(x) // 50_000] for x in (fit, test))
    source = rec.variable(name)
    x = [source.interpolate(t).astype(np.float64) for t in (fit, test)]
    for target in config.targets:
        y = [_numbers(rec, target, t) for t in (fit, test)]
        share = max(_explained([v[:, c] for v in x], y) for c in range(source.num_columns))
        if share > COPIED:
            return Finding(
                "input_is_target",
                "leak",
                f"target '{target.name}' follows from input '{name}' at the same moment (R2 {share:.2f} on held-out data)",
                "take one of the two out: what is decoded from its own copy says nothing of the spikes",
                {"input": name, "target": target.name, "r2": share},
            )
    return None


def _numbers(rec: Recording, target, at: np.ndarray) -> Array:
    """(N, C) a target as numbers whose variance can be explained: points on the circle, one column per class."""
    variable = rec.variable(target.name)
    values = (variable.interpolate if target.kind == "regression" else variable.hold_label)(at).astype(np.float64)
    if target.kind == "circular":
        angle = 2 * np.pi * values / (target.period or 2 * np.pi)
        return np.concatenate([np.cos(angle), np.sin(angle)], 1)
    if target.kind == "classification":
        known = variable.values[np.isfinite(variable.values)]
        is_class = (values == np.unique(known)[:_QUANTILES]).astype(np.float64)
        return np.where(np.isfinite(values), is_class, np.nan)
    return values


def _explained(x: list[np.ndarray], y: list[Array]) -> float:
    """Share of y's held-out variance that the mean in each of 64 classes of x explains; 0 where little is known."""
    (a, b), (ya, yb) = x, y
    known = np.isfinite(a) & np.isfinite(ya).all(1)
    also = np.isfinite(b) & np.isfinite(yb).all(1)
    if min(known.sum(), also.sum()) < LEAST_BINS:
        return 0.0
    edges = np.unique(np.quantile(a[known], np.linspace(0, 1, _QUANTILES + 1)[1:-1]))
    place = lambda v: np.searchsorted(edges, v, side="right")
    size = np.bincount(place(a[known]), minlength=len(edges) + 1)
    mean = ya[known].mean(0)
    sums = np.stack([np.bincount(place(a[known]), c, len(edges) + 1) for c in (ya[known] - mean).T], 1)
    predicted = mean + (sums / np.maximum(size, 1)[:, None])[place(b[also])]
    total = ((yb[also] - yb[also].mean(0)) ** 2).sum()
    return float(1 - ((yb[also] - predicted) ** 2).sum() / total) if total > 0 else 0.0


# -- made of the spikes ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Binned:
    """Spikes in bins of some stretches; lags never leave a stretch.

    Attributes
    ----------
    starts : (N,) seconds
    counts_NU : spikes of the busiest units
    counts_N1 : of all units
    middle : (M,) bins that have all lags within their stretch
    width : seconds
    """

    starts: np.ndarray
    counts_NU: Array
    counts_N1: Array
    middle: np.ndarray
    width: float

    @classmethod
    def of(cls, rec: Recording, width: float) -> _Binned:
        """At most ``MOST_BINS`` bins, in stretches that lie evenly over the recording."""
        busy = np.sort(np.argsort(-rec.unit_spikes(), kind="stable")[:MOST_UNITS])
        row = np.full(rec.num_units, len(busy))
        row[busy] = np.arange(len(busy))
        num = len(busy) + 1  # the last one: all others
        most = MOST_BINS // _STRETCHES
        places = []
        for a, b in rec.domain[:: 1 + len(rec.domain) // 400]:
            size = int((b - a) / width + 1e-9)
            places += [(a + k * width, min(most, size - k)) for k in range(0, size, most)]
        places = [p for p in places if p[1] > 2 * LAGS]
        total = sum(n for _, n in places)
        stride = max(1, -(-total // MOST_BINS))
        kept = places[stride // 2 :: stride] or places
        starts, counts, middle, done = [], [], [], 0
        for first, size in kept:
            edges = first + width * np.arange(size + 1)
            lo, hi = np.searchsorted(rec.spike_times, edges[[0, -1]])
            bin_of = np.searchsorted(edges, rec.spike_times[lo:hi], side="right") - 1
            flat = np.bincount(bin_of * num + row[rec.spike_units[lo:hi]], minlength=(size + 1) * num)
            counts.append(flat[: size * num].reshape(size, num))
            starts.append(edges[:-1])
            middle.append(done + np.arange(LAGS, size - LAGS))
            done += size
        join = lambda x: np.concatenate([x[0][:0], *x]) if x else np.zeros(0)
        every = join(counts).astype(np.float64).reshape(-1, num)
        return cls(join(starts), every[:, :-1], every.sum(1, keepdims=True), join(middle).astype(int), width)

    def lagged(self, x_NF: Array) -> Array:
        """(M, 2 LAGS + 1, F) values at the lags around each middle bin."""
        return np.stack([x_NF[self.middle + k] for k in range(-LAGS, LAGS + 1)], 1)


def _from_spikes(rec: Recording, config: Config) -> Finding | None:
    """Inputs or frames that were made of the window's spikes.

    Spikes are noisy, and what conditions them does not know their noise: whatever of an input can be read from the counts
    of a window and those after it, has at least about the variance of independent spikes around what the input says. In an
    input that was made of the counts the two agree. See :func:`noise_left`.
    """
    found: dict[str, float] = {}
    for width in (config.window.current, 4 * config.window.current):
        bins = _Binned.of(rec, width)
        if len(bins.middle) < LEAST_BINS or bins.counts_N1.sum() < LEAST_BINS:
            continue
        for name, series in _series(rec, config, bins).items():
            left = noise_left(bins, series)
            if left < CLOSE:
                found[name] = min(left, found.get(name, np.inf))
    if not found:
        return None
    said = ", ".join(f"{name} ({left:.0%})" for name, left in found.items())
    return Finding(
        "input_from_spikes",
        "leak",
        f"the spikes of a window follow from {said} more closely than a stimulus or a behavior could tell them: behind "
        "each, what is left of the variance that independent spikes would have",
        "take it out of the inputs, or make it from spikes before the window only: it was made of the spikes that it is to predict",
        {"inputs": list(found), "noise_left": found},
    )


def _series(rec: Recording, config: Config, bins: _Binned) -> dict[str, Array]:
    """(N, F) of every input, and of the frames, one row per bin."""
    out = {}
    within = bins.starts[:, None] + bins.width * np.array([0.2, 0.4, 0.6, 0.8])
    for v in config.inputs:
        values = rec.variable(v.name).hold(within.ravel()).astype(np.float64)
        out[f"input '{v.name}'"] = values.reshape(*within.shape, -1).mean(1)
    frames = rec.frames
    if config.window.frames > 0 and frames is not None:
        shown = np.searchsorted(frames.times, bins.starts + bins.width - 1e-9, side="right") - 1
        place = np.unique(np.asarray(frames.index)[np.maximum(shown, 0)], return_inverse=True)
        images = _small(frames.images, place[0])
        out["frames"] = np.where((shown >= 0)[:, None], images[place[1]], np.nan)
    return out


def _small(images, which: np.ndarray) -> Array:
    """(N, F) frames as means over places, at most some hundreds of them, and their first principal components."""
    parts = []
    for lo in range(0, len(which), 256):
        piece = np.asarray(images[which[lo : lo + 256]], np.float64)
        piece = piece.reshape(len(piece), *piece.shape[1:3], -1).mean(3)
        join = max(1, int(np.ceil(np.sqrt(piece.shape[1] * piece.shape[2] / MOST_PLACES))))
        high, wide = (max(1, s // join) for s in piece.shape[1:])
        piece = piece[:, : high * join, : wide * join] if join > 1 else piece
        parts.append(
            piece.reshape(len(piece), high, -1, wide, piece.shape[2] // wide).mean((2, 4)).reshape(len(piece), -1)
        )
    flat = np.concatenate(parts)
    centered = flat - flat.mean(0)
    _, vectors = np.linalg.eigh(centered.T @ centered)
    return np.concatenate([flat, centered @ vectors[:, -8:]], 1)


def noise_left(bins: _Binned, series_NF: Array) -> float:
    """The least share of independent spikes' variance that is left around what an input says, over its features.

    On half of the stretches, each feature is regressed on the counts of each unit (and on their sum) at lags around the
    bin. The part of this sum that comes from the bin itself and those after it is compared, on the other half, with the
    feature at all lags and with the part that comes from earlier bins. What this leaves of its variance is divided by
    ``sum of weight^2 * mean count``, which independent Poisson spikes leave at least, however well they are known.
    1 where nothing can be read.
    """
    x = bins.lagged(series_NF)[:, : LAGS + 1]  # what a window may look at
    known = np.isfinite(x).all((1, 2))
    x = x[known]
    first = (bins.middle[known] // max(1, MOST_BINS // _STRETCHES // 4)) % 2 == 0
    if min(first.sum(), (~first).sum()) < LEAST_BINS // 2:
        return 1.0
    best = 1.0
    for counts in (bins.counts_N1, bins.counts_NU):
        n = bins.lagged(counts)[known]
        for weights_KUF in _decoders(n[first], x[first, LAGS]):
            best = min(best, _least_left(n[~first], x[~first], weights_KUF))
    return best


def _decoders(counts: Array, feature: Array) -> list[Array]:
    """(K, U, F) ridge weights from counts at lags to features, under three penalties."""
    design = counts.reshape(len(counts), -1)
    design = design - design.mean(0)
    y = feature - feature.mean(0)
    y = y / np.maximum(y.std(0), 1e-12)
    wide = design.shape[1] > len(design)
    gram = design @ design.T if wide else design.T @ design
    scale = np.trace(gram) / max(1, min(design.shape))
    out = []
    for penalty in (1e-4, 1e-2, 1.0):
        factor = cho_factor(gram + (penalty * scale + 1e-12) * np.eye(len(gram)))
        w = design.T @ cho_solve(factor, y) if wide else cho_solve(factor, design.T @ y)
        out.append(w.reshape(*counts.shape[1:], -1))
    return out


def _least_left(counts_NKU: Array, x_NKF: Array, weights_KUF: Array) -> float:
    parts_NKF = np.einsum("nku,kuf->nkf", counts_NKU, weights_KUF, optimize=True)
    independent_F = np.einsum("ku,kuf->f", counts_NKU.mean(0)[LAGS:], weights_KUF[LAGS:] ** 2)
    read_NF = parts_NKF[:, LAGS:].sum(1)
    told_NKF = np.concatenate([x_NKF, x_NKF[:, LAGS:] ** 2, parts_NKF[:, :LAGS]], 1)
    told_NKF = told_NKF - told_NKF.mean(0)
    told_NKF /= np.maximum(told_NKF.std(0), 1e-12)
    read_NF = read_NF - read_NF.mean(0)
    gram = np.einsum("nkf,njf->fkj", told_NKF, told_NKF, optimize=True)
    gram += 1e-9 * len(told_NKF) * np.eye(gram.shape[1])
    to = np.einsum("nkf,nf->fk", told_NKF, read_NF, optimize=True)
    explained_F = (to * np.linalg.solve(gram, to[:, :, None])[:, :, 0]).sum(1)
    left_F = ((read_NF**2).sum(0) - explained_F) / (len(read_NF) - told_NKF.shape[1] - 1)
    usable_F = (independent_F > 1e-12) & (np.ptp(x_NKF[:, LAGS], axis=0) > 0)
    return float((left_F[usable_F] / independent_F[usable_F]).min(initial=1.0))

"""Bayesian decoders of one or two columns, such as a position (Zhang et al., Journal of Neurophysiology 1998).

Shape suffixes: V values, B count bins, U units, G places of a grid, C columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.special import logsumexp

from neuroformer.baselines.features import Samples
from neuroformer.baselines.linear import Predict

PLACES = {1: (120,), 2: (64, 48, 36, 28, 22, 18)}  # of the grid along each column; the first that is not too fine
MOST_PLACES = 320  # visited ones: a step of the random walk is a product with (places x places)
BANDWIDTHS = (0.04, 0.08, 0.02, 0.15, 0.01)  # of rate maps, in ranges of the variable
SHARPNESS = (1.0, 0.5, 0.25, 0.12)  # of the likelihood: counts of units that share noise say less than they seem to
SPEEDS = (2.0, 1.0, 4.0)  # of the random walk, times the root mean square step of the training labels
_JUMP = 1e-3  # of the walk's mass goes anywhere at each step: no place is lost for good
_PRIOR_MOMENTS = 1.0  # moments' worth of the mean rate in every place, so that no rate is zero
_CHUNK = 2048  # values that are decoded at once
_FARTHEST = 2  # times a bin's width: labels further apart do not tell the walk's step


class Posterior(NamedTuple):
    """Mean and maximum of posteriors, (V, C) each."""

    mean_VC: np.ndarray
    mode_VC: np.ndarray


class BayesMethod:
    """Poisson counts given the place, rates smoothed over a grid of the training places.

    With one bin before the moment, all counts enter at once and the prior is how often the animal was where. With several,
    the place walks at random from bin to bin and each bin's counts enter in turn, forwards up to the moment; where there is
    lookahead, backwards from its end, so that the value is smoothed. The posterior's mean, or as ``bayes_mode`` its maximum,
    whose choices are made by median error in place of R2.

    Parameters
    ----------
    name : "bayes" or "bayes_mode"
    kept : what a search has decoded, so that the other one, on the same moments, need not decode it again
    """

    def __init__(self, name: str = "bayes", kept: dict[tuple, list[Posterior]] | None = None):
        self.name, self.mode = name, name == "bayes_mode"
        self.kept = {} if kept is None else kept

    def candidates(self, kind: str) -> list[dict]:
        return [{"bandwidth": bandwidth} for bandwidth in BANDWIDTHS]

    def score(self, true_VC: np.ndarray, predicted_VC: np.ndarray) -> float | None:
        """What choices are made by, if not the target's own score: one minus the median error over the mean distance of labels from
        their median. The median distance is zero where the animal rests for more than half of the time."""
        if not self.mode:
            return None
        distance_V = lambda x: np.hypot.reduce(x, axis=1)
        spread = float(distance_V(true_VC - np.median(true_VC, 0)).mean())
        return 1 - float(np.median(distance_V(predicted_VC - true_VC))) / spread if spread > 0 else float("nan")

    def path(self, train: Samples, held: Samples, kind: str, params: dict) -> Iterator[tuple[Any, np.ndarray]]:
        walks = num_before(train) > 1
        settings = [(sharp, speed) for sharp in SHARPNESS for speed in SPEEDS] if walks else list(SHARPNESS)
        key = (params["bandwidth"], *_moments(train), *_moments(held))
        if key not in self.kept:
            self.kept[key] = _Grid(train, params["bandwidth"]).decode(held, settings)
        yield from ((setting, self._of(read)) for setting, read in zip(settings, self.kept[key], strict=True))

    def fit(self, train: Samples, kind: str, params: dict, setting: Any) -> Predict:
        grid = _Grid(train, params["bandwidth"])
        return lambda samples: self._of(grid.decode(samples, [setting])[0])

    def _of(self, found: Posterior) -> np.ndarray:
        return found.mode_VC if self.mode else found.mean_VC


def _moments(samples: Samples) -> tuple:
    """What tells moments and bins of one recording apart."""
    w, edges = samples.windows, samples.edges
    ends = (int(w.segment[0]), int(w.tick[0]), int(w.segment[-1]), int(w.tick[-1])) if len(w) else ()
    return (len(w), ends, None if edges is None else tuple(edges.tolist()))


def num_before(samples: Samples) -> int:
    """Bins before the moment."""
    return 1 if samples.edges is None else int((samples.edges[1:] <= 0).sum())


class _Grid:
    """Rates of all units at the visited places of a grid, and how the place moves from bin to bin."""

    def __init__(self, train: Samples, bandwidth: float):
        y, self.before = train.y_VC, num_before(train)
        low, high = y.min(0), y.max(0)
        span = np.where(high > low, high - low, 1.0)
        unit_VC = (y - low) / span
        place_GC, cell_V, self.spacing = _visited(unit_VC)
        counts_VU = _reference_counts(train, self.before)
        seen_VU = np.isfinite(counts_VU)
        of_cells = lambda x_VU: np.stack([np.bincount(cell_V, x, len(place_GC)) for x in x_VU.T], 1)
        time_G = np.bincount(cell_V, minlength=len(place_GC)).astype(np.float64)
        spikes_GU, seen_GU = of_cells(np.where(seen_VU, counts_VU, 0.0)), time_G[:, None]
        if not seen_VU.all():
            seen_GU = of_cells(seen_VU.astype(np.float64))
        self.apart_GGC = place_GC[:, None] - place_GC
        kernel = np.exp(-0.5 * (self.apart_GGC**2).sum(2) / bandwidth**2)
        few = _PRIOR_MOMENTS
        mean_U = (np.nansum(counts_VU, 0) + 0.5) / np.maximum(seen_VU.sum(0), 1)
        time_G = kernel @ time_G
        rate_GU = (kernel @ spikes_GU + few * mean_U) / (kernel @ seen_GU + few)
        self.rate_UG, self.log_rate_UG = (x.T.astype(np.float32) for x in (rate_GU, np.log(rate_GU)))
        self.total_G = rate_GU.sum(1)
        self.log_prior_G = np.log(time_G / time_G.sum())
        self.place_GC = low + place_GC * span
        self.step_C = _step(train, unit_VC, self.before)

    def decode(self, samples: Samples, settings: list[Any]) -> list[Posterior]:
        """The posteriors of each setting, read both ways."""
        find = self._walked if self.before > 1 else self._at_once
        nothing = np.zeros((0, self.place_GC.shape[1]))
        found: list[list[Posterior]] = [[Posterior(nothing, nothing)] for _ in settings]
        for i in range(0, len(samples), _CHUNK):
            evidence = self.evidence(samples[i : i + _CHUNK])
            for each, setting in zip(found, settings, strict=True):
                p_VG = find(evidence, setting)
                each.append(Posterior(p_VG @ self.place_GC, self.place_GC[p_VG.argmax(1)]))
        return [Posterior(*(np.concatenate(x) for x in zip(*each, strict=True))) for each in found]

    def evidence(self, samples: Samples) -> list[np.ndarray]:
        """(V, G) log-likelihoods of the places: of all counts together, or where the place walks of each bin."""
        if self.before == 1:
            return [self._log_likelihood(_reference_counts(samples, 1))]
        assert samples.edges is not None
        width_B = np.diff(samples.edges)
        relative_B = width_B / width_B[self.before - 1]
        return [self._log_likelihood(samples.x_VBU[:, b] ** 2, relative_B[b]) for b in range(len(width_B))]

    def _log_likelihood(self, counts_VU: np.ndarray, width: float = 1.0) -> np.ndarray:
        """(V, G) of Poisson counts, up to a constant; units that were not observed (NaN) say nothing."""
        seen_VU = np.isfinite(counts_VU)
        if seen_VU.all():
            expected = (width * self.total_G).astype(np.float32)
        else:
            expected = np.float32(width) * (seen_VU.astype(np.float32) @ self.rate_UG)
            counts_VU = np.where(seen_VU, counts_VU, 0.0)
        return counts_VU.astype(np.float32) @ self.log_rate_UG - expected

    def _at_once(self, evidence: list[np.ndarray], sharpness: float) -> np.ndarray:
        """(V, G) posterior of all counts together."""
        z = sharpness * evidence[0] + self.log_prior_G
        return np.exp(z - logsumexp(z, axis=1, keepdims=True))

    def _walked(self, evidence: list[np.ndarray], setting: tuple[float, float]) -> np.ndarray:
        """(V, G) posterior at the latest bin before the moment, of all bins before it and those after it."""
        sharpness, speed = setting
        move_GG = self.transitions(speed)
        likely = lambda z_VG: np.exp(sharpness * (z_VG - z_VG.max(1, keepdims=True)))
        p_VG = np.repeat(np.exp(self.log_prior_G).astype(np.float32)[None], len(evidence[0]), 0)
        for b in range(self.before):
            p_VG = _normal((p_VG @ move_GG if b else p_VG) * likely(evidence[b]))
        later_VG = np.ones_like(p_VG)
        for b in range(len(evidence) - 1, self.before - 1, -1):
            later_VG = _normal((later_VG * likely(evidence[b])) @ move_GG.T)
        return _normal(p_VG * later_VG).astype(np.float64)

    def transitions(self, speed: float) -> np.ndarray:
        """(G, G) from a place (row) to another in one bin: a Gaussian step, kept to visited places."""
        step_C = np.maximum(speed * self.step_C, 0.5 * self.spacing)  # a finer one would never leave its cell
        move_GG = np.exp(-0.5 * ((self.apart_GGC / step_C) ** 2).sum(2))
        move_GG /= move_GG.sum(1, keepdims=True)
        return ((1 - _JUMP) * move_GG + _JUMP / len(move_GG)).astype(np.float32)


def _visited(unit_VC: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(G, C) centers of the grid's visited cells, (V,) the cell of each value, and the grid's spacing.

    Values in [0, 1]. Of two columns the grid is as fine as leaves at most so many visited cells: finer on a track than in an
    arena.
    """
    for number in PLACES[unit_VC.shape[1]]:
        cell_VC = np.clip((unit_VC * number).astype(int), 0, number - 1)
        visited_GC, cell_V = np.unique(cell_VC, axis=0, return_inverse=True)
        found = np.asarray((visited_GC + 0.5) / number), cell_V.ravel(), 1 / number
        if len(visited_GC) <= MOST_PLACES:
            break
    return found


def _reference_counts(samples: Samples, before: int) -> np.ndarray:
    """(V, U) spikes that rate maps are of: of all bins together, or, where places walk, of the latest before the moment. NaN
    where a unit was not observed."""
    x_VBU = samples.x_VBU if before == 1 else samples.x_VBU[:, before - 1 : before]
    return np.rint((x_VBU.astype(np.float64) ** 2).sum(1))


def _step(train: Samples, unit_VC: np.ndarray, before: int) -> np.ndarray:
    """(C,) root mean square change of the labels over one bin; a tenth of their range where no two are close enough."""
    if train.edges is None or before == 1:
        return np.full(unit_VC.shape[1], 0.1)
    width, w = int(train.edges[before] - train.edges[before - 1]), train.windows
    at_V = w.segment * (int(w.tick.max(initial=0)) + _FARTHEST * width + 2) + w.tick
    later_V = np.minimum(np.searchsorted(at_V, at_V + width), len(at_V) - 1)
    apart_V = at_V[later_V] - at_V
    close_V = (apart_V > 0) & (apart_V <= _FARTHEST * width)
    if not close_V.any():
        return np.full(unit_VC.shape[1], 0.1)
    change = (unit_VC[later_V] - unit_VC)[close_V] * (width / apart_V[close_V])[:, None]
    return np.sqrt((change**2).mean(0)) + 1e-6


def _normal(p_VG: np.ndarray) -> np.ndarray:
    return p_VG / np.maximum(p_VG.sum(1, keepdims=True), 1e-30)

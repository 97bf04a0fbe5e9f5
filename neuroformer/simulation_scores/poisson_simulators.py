"""The floors of a simulation: simulators that know each unit's rate, or its PSTH, and nothing else.

Shape suffixes: T trials, B bins, U units.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d

from neuroformer.metrics import bits_per_spike, null_log_likelihood, poisson_log_likelihood
from neuroformer.simulation_scores.trials import Trials

SMOOTHING_S = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.4, 1.0)
FLOORS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True, eq=False)
class PoissonSimulator:
    """Independent Poisson counts with a rate per unit, or a rate per unit, stimulus and bin.

    Attributes
    ----------
    mean_U : expected counts per bin, ``(n_train + 0.5) / bins_train``
    psth : by stimulus, (B, U) expected counts per bin; empty for the homogeneous one
    smoothing_s, floor : what validation chose
    """

    mean_U: np.ndarray
    psth: dict[int, np.ndarray] = field(default_factory=dict)
    smoothing_s: float = 0.0
    floor: float = 1.0

    def rates(self, stimulus: int, num_bins: int) -> np.ndarray:
        """(B, U) expected counts per bin; a stimulus or bin that training never showed gets the mean rate."""
        out = np.tile(self.mean_U, (num_bins, 1))
        known = self.psth.get(stimulus)
        if known is not None:
            n = min(num_bins, len(known))
            out[:n] = known[:n]
        return out

    def sample(self, like: Trials, seed: int) -> Trials:
        """Simulated trials with the lengths, sources and stimuli of ``like``."""
        rng = np.random.default_rng(seed)
        counts = [rng.poisson(self.rates(int(s), int(n))) for s, n in zip(like.stimulus, like.num_ticks, strict=True)]
        return Trials.from_counts(counts, like.source, like.stimulus, like.dt).seen_as(like.seen_TU)

    def log_likelihood(self, trials: Trials, whole: int = 1) -> float:
        """In nats, with the factorial; of each trial only the bins that fill groups of ``whole``."""
        return self.log_likelihood_of(trials, trials.counts(), whole)

    def log_likelihood_of(self, trials: Trials, counts: list[np.ndarray], whole: int = 1) -> float:
        """The same, given the trials' counts."""
        total = 0.0
        for s, x, weight_U in zip(trials.stimulus, counts, trials.weight_TU, strict=True):
            n = len(x) - len(x) % whole
            total += poisson_log_likelihood(x[:n], self.rates(int(s), n) * weight_U)
        return total

    def bits_per_spike(self, trials: Trials, whole: int = 1) -> float:
        """Against the null of constant training rates, on the bins that windows of ``whole`` bins tile."""
        null, spikes = 0.0, 0.0
        for x, weight_U in zip(trials.counts(), trials.weight_TU, strict=True):
            x = x[: len(x) - len(x) % whole]
            null += null_log_likelihood(x, self.mean_U * weight_U)
            spikes += float(x.sum())
        return bits_per_spike(self.log_likelihood(trials, whole), null, spikes)


def homogeneous(train: Trials) -> PoissonSimulator:
    """Every unit at its constant training rate."""
    counts = np.bincount(train.unit, minlength=train.num_units)
    ticks_U = train.num_ticks @ train.weight_TU
    return PoissonSimulator((counts + 0.5) / np.where(ticks_U > 0, ticks_U, max(int(train.num_ticks.sum()), 1)))


def psth_poisson(train: Trials, valid: Trials) -> PoissonSimulator | None:
    """The PSTH of the training repeats, its smoothing and floor chosen by the likelihood of the validation ones.

    The rate is ``(1 - floor) * smoothed PSTH + floor * mean rate``, smoothed by a Gaussian along the trial.
    Without a floor, one spike in a bin without training spikes makes the likelihood minus infinity.

    Returns
    -------
    PoissonSimulator, or None where no stimulus repeats between training and validation.
    """
    shared = np.intersect1d(train.stimulus[train.stimulus >= 0], valid.stimulus)
    if len(shared) == 0:
        return None
    mean_U = homogeneous(train).mean_U
    counts, held_out = train.counts(), valid.counts()
    raw = {
        int(s): _mean_counts(counts, train.weight_TU, np.flatnonzero(train.stimulus == s), mean_U)
        for s in np.unique(train.stimulus)
    }
    best: tuple[float, PoissonSimulator] | None = None
    for sigma in SMOOTHING_S:
        smooth = {
            s: gaussian_filter1d(x, sigma / train.dt, axis=0, mode="nearest") if sigma else x for s, x in raw.items()
        }
        for floor in FLOORS:
            psth = {s: (1 - floor) * x + floor * mean_U for s, x in smooth.items()}
            one = PoissonSimulator(mean_U, psth, sigma, floor)
            value = one.log_likelihood_of(valid, held_out)
            if best is None or value > best[0]:
                best = (value, one)
    assert best is not None
    return best[1]


def _mean_counts(counts: list[np.ndarray], weight_TU: np.ndarray, rows: np.ndarray, mean_U: np.ndarray) -> np.ndarray:
    """(B, U) mean over repeats, as far as each goes; of a unit that was observed in none, its mean rate."""
    longest = max(len(counts[t]) for t in rows)
    total, number = np.zeros((2, longest, len(mean_U)))
    for t in rows:
        total[: len(counts[t])] += counts[t]
        number[: len(counts[t])] += weight_TU[t]
    return np.where(number > 0, total / np.maximum(number, 1), mean_U)

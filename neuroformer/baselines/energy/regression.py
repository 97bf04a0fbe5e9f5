"""What units see in the energies of frames: regressions on their principal components, whose shrinkage is what predicts best
the clips that they were not fitted to.

Shape suffixes: G distinct clips, K components, U units.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuroformer.baselines.energy.responses import Responses, clip_r
from neuroformer.baselines.poisson_regression import INTERCEPT_PENALTY, PoissonProblem

PENALTIES = (float("inf"), *(10.0 ** np.arange(1.0, -4.51, -0.5)).tolist())  # a presentation
MOST = 3.0  # spreads (of a log rate before: nats) beyond which values say no more
CURVE_PENALTY, MOST_CALIBRATED = 10.0, 2**23  # spikes; clips x units
_STILL = 1e-4  # a step of a curve's coefficients after which there are no more
NEVER_SEEN = 1e-6  # presentations that stand for none
FEWEST_BENT = 16  # clips by which curves are compared
FEW_CLIPS, MOST_FOLDS = 2000, 8  # up to so many distinct clips, so many folds choose the penalty


@dataclass
class EnergyRegression:
    """Log rates (or, of a ridge, answers themselves) of units, linear in the components of a clip.

    Attributes
    ----------
    weight_KU, intercept_U
    penalty : of squared weights a presentation (of a ridge: a clip)
    curve : a static nonlinearity of the values; None: there is none
    is_log : whether values are log rates
    followed : mean over units of the r with answers to clips that it was not fitted to, which chose the penalty
    level_U : mean of the values of the clips that it was fitted to
    """

    weight_KU: Tensor
    intercept_U: Tensor
    penalty: float
    curve: Curve | None = None
    is_log: bool = True
    followed: float = 0.0
    level_U: Tensor | float = 0.0

    def values(self, x_GK: Tensor) -> Tensor:
        return x_GK @ self.weight_KU + self.intercept_U

    def expected(self, x_GK: Tensor) -> np.ndarray:
        """(G, U) expected answers."""
        values_GU = self.values(x_GK)
        values_GU = values_GU if self.curve is None else self.curve(values_GU)
        return (values_GU.exp() if self.is_log else values_GU).numpy()


@dataclass
class Curve:
    """A cubic polynomial of a unit's values, in units of their spread and held still beyond three of these.

    A log link alone is expansive, and units saturate.

    Attributes
    ----------
    center_U, spread_U : of the values
    coefficient_4U : of the powers 0 to 3
    """

    center_U: Tensor
    spread_U: Tensor
    coefficient_4U: Tensor

    @classmethod
    def straight(cls, center_U: Tensor, spread_U: Tensor | None = None) -> Curve:
        """Values as they are, none of which is believed far from its mean (log rates: beyond three nats)."""
        spread_U, none = torch.ones_like(center_U) if spread_U is None else spread_U, torch.zeros_like(center_U)
        return cls(center_U, spread_U, torch.stack([center_U, spread_U, none, none]))

    def __call__(self, values_GU: Tensor) -> Tensor:
        return self.of(self.standardised(values_GU))

    def standardised(self, values_GU: Tensor) -> Tensor:
        return ((values_GU - self.center_U) / self.spread_U).clamp(-MOST, MOST)

    def of(self, s_GU: Tensor) -> Tensor:
        """At standardised values."""
        level, first, second, third = self.coefficient_4U
        return level + s_GU * (first + s_GU * (second + s_GU * third))

    @classmethod
    def fit(cls, values_GU: Tensor, total_GU: Tensor, seen_GU: Tensor, is_log: bool, bent: bool = True) -> Curve:
        """For the Poisson likelihood of counts, by Newton's method, or for least squares; all units at once, lightly
        penalised; a straight line unless ``bent``."""
        level_U = total_GU.sum(0) / seen_GU.sum(0).clamp_min(1)
        least_U = 1e-3 * (
            torch.ones_like(level_U) if is_log else (total_GU / seen_GU.clamp_min(1)).std(0, correction=0)
        )
        if is_log:
            level_U = (level_U + 0.5 / seen_GU.sum(0).clamp_min(1)).log()
        spread_U = values_GU.std(0, correction=0).maximum(least_U).clamp_min(1e-9)
        found = cls(values_GU.mean(0), spread_U, torch.zeros(4, len(level_U)))
        found.coefficient_4U[0] = level_U
        s_GU = found.standardised(values_GU)
        pull = torch.tensor([1e-3, CURVE_PENALTY, *[CURVE_PENALTY if bent else 1e9] * 2])[:, None]
        power = torch.arange(4)
        for _ in range(25 if is_log else 1):
            value_GU = found.of(s_GU)
            rate_GU = value_GU.clamp_max(level_U + 2 * MOST).exp() if is_log else value_GU
            less = torch.cat([torch.zeros(1, len(level_U)), found.coefficient_4U[1:]])
            slope_4U = _moments(s_GU, total_GU - seen_GU * rate_GU, 4) - pull * less
            bend_U7 = _moments(s_GU, seen_GU * rate_GU if is_log else seen_GU, 7).T
            bend_U44 = bend_U7[:, power[:, None] + power] + torch.diag(pull[:, 0])
            step_4U = torch.linalg.solve(bend_U44, slope_4U.T).T
            step_4U = step_4U.clamp(-1.0, 1.0) if is_log else step_4U
            found.coefficient_4U = found.coefficient_4U + step_4U
            if step_4U.abs().max() < _STILL:
                break
        return found


def _moments(s_GU: Tensor, weight_GU: Tensor, number: int) -> Tensor:
    """(number, U) sums over clips of weights times the powers of values, from 0 on."""
    out, x_GU = [], weight_GU
    for _ in range(number):
        out.append(x_GU.sum(0))
        x_GU = x_GU * s_GU
    return torch.stack(out)


def fit_poisson(train: Responses, valid: Responses) -> EnergyRegression:
    """Poisson regression with a log link on the components.

    Its penalty is chosen by :func:`_chosen`. What it says of the same held-out clips is then calibrated, unit by unit, by a
    :class:`Curve`: how far to believe it, and where a unit saturates.
    """

    def path(fitted: Responses) -> Iterator[EnergyRegression]:
        rate_U = (fitted.total_GU.sum(0) + 0.5) / fitted.seen_GU.sum(0).clamp_min(1)
        x_RF = torch.cat([fitted.x_GK, torch.ones(len(fitted.x_GK), 1)], 1)
        relative_F = torch.ones(x_RF.shape[1])
        relative_F[-1] = INTERCEPT_PENALTY
        # a clip that was never shown while a unit was observed says nothing of it
        seen_GU = fitted.seen_GU.clamp_min(NEVER_SEEN)
        problem = PoissonProblem(x_RF, x_RF.T @ fitted.total_GU, (seen_GU * rate_U).log(), relative_F)
        presentations = float(fitted.seen_GU.sum(0).mean())
        weight_FU = torch.zeros_like(problem.x_counts)
        for penalty in PENALTIES:
            if np.isfinite(penalty):
                weight_FU = problem.fit(penalty * presentations, weight_FU, 1e-4).weight_FU
            straight = Curve.straight(rate_U.log())
            intercept_U = weight_FU[-1] + rate_U.log()
            level_U = (x_RF @ weight_FU).mean(0) + rate_U.log()
            yield EnergyRegression(weight_FU[:-1], intercept_U, penalty, straight, level_U=level_U)

    return _calibrated(*_chosen(path, train, valid, bend=True))


def fit_ridge(train: Responses, valid: Responses, *, calibrate: bool = False) -> EnergyRegression:
    """Ridge regression of mean answers on the components, clips weighed alike; its penalty see :func:`_chosen`. ``calibrate``:
    with a :class:`Curve`, as :func:`fit_poisson` has."""

    def path(fitted: Responses) -> Iterator[EnergyRegression]:
        y_GU = torch.from_numpy(np.nan_to_num(fitted.mean_GU)).float()
        mean_U, x_mean = y_GU.mean(0), fitted.x_GK.mean(0)
        x_GK = fitted.x_GK - x_mean
        values, vectors = torch.linalg.eigh((x_GK.T @ x_GK).double())
        target = (vectors.T @ (x_GK.T @ (y_GU - mean_U)).double()).float()
        for penalty in PENALTIES:
            weight_KU = vectors.float() @ (target / (values.float()[:, None] + penalty * len(x_GK)))
            intercept_U = mean_U - x_mean @ weight_KU
            yield EnergyRegression(weight_KU, intercept_U, penalty, is_log=False, level_U=mean_U)

    chosen, held_out = _chosen(path, train, valid)
    return _calibrated(chosen, held_out) if calibrate else chosen


def _calibrated(chosen: EnergyRegression, held_out: list[tuple[EnergyRegression, Responses]]) -> EnergyRegression:
    """With the curve of what it says of clips that it was not fitted to: straight or bent, whichever follows better clips that the
    curve was not fitted to either, mean r over units. Where neither does better than the values as they are (clips are few, and every
    curve adds the errors of its fit), they are kept."""
    values_GU = _relative_values(held_out) + chosen.level_U
    some = slice(None, None, -(-values_GU.numel() // MOST_CALIBRATED))
    total_GU, seen_GU = _answers([held for _, held in held_out])
    part_G = torch.repeat_interleave(torch.tensor([len(held.x_GK) for _, held in held_out]))
    if len(held_out) == 1:
        part_G = (torch.arange(len(values_GU)) * 2 // len(values_GU)).long()
    data = values_GU[some], total_GU[some], seen_GU[some]
    plain = chosen.curve or Curve.straight(values_GU.mean(0), values_GU.std(0).clamp_min(1e-9))
    said_GU = plain(data[0])
    followed = [_mean_r(said_GU.exp() if chosen.is_log else said_GU, *data[1:])]
    if len(data[0]) >= FEWEST_BENT:
        followed += [_followed_by_curves(*data, part_G[some], chosen.is_log, bent) for bent in (False, True)]
    best = int(np.argmax(followed))
    curve = plain if best == 0 else Curve.fit(*data, chosen.is_log, bent=best == 2)
    return dataclasses.replace(chosen, curve=curve)


def _followed_by_curves(
    values_GU: Tensor, total_GU: Tensor, seen_GU: Tensor, part_G: Tensor, is_log: bool, bent: bool
) -> float:
    """How curves follow each part's mean answers, each fitted to the other parts and relative to what it says of these on average,
    which gives away what was held out."""
    said_GU = torch.zeros_like(values_GU)
    for part in part_G.unique():
        here, there = part_G == part, part_G != part
        curve = Curve.fit(values_GU[there], total_GU[there], seen_GU[there], is_log, bent)
        rate = lambda x: x.exp() if is_log else x
        said_GU[here] = rate(curve(values_GU[here])) - rate(curve(values_GU[there])).mean(0)
    return _mean_r(said_GU, total_GU, seen_GU)


def _mean_r(said_GU: Tensor, total_GU: Tensor, seen_GU: Tensor) -> float:
    return float(clip_r((total_GU / seen_GU).numpy(), said_GU.numpy()).mean())


def _relative_values(held_out: Iterable[tuple[EnergyRegression, Responses]]) -> Tensor:
    """(G, U) what fits say of clips that they were not fitted to, relative to those that they were fitted to.

    What a fit says on average gives away what was held out of it: where these answers were large, those of the others are
    small. Were that left in, a curve could read the held-out means from fits that have learnt nothing.
    """
    return torch.cat([one.values(held.x_GK) - one.level_U for one, held in held_out])


def _answers(held: Sequence[Responses]) -> tuple[Tensor, Tensor]:
    """(G, U) answers to the clips of all parts, added up, and how often they were seen."""
    return torch.cat([h.total_GU for h in held]), torch.cat([h.seen_GU for h in held])


def _followed(values_GU: Tensor, held: Sequence[Responses], bend: bool) -> np.ndarray:
    """(U,) r between mean answers and values; with ``bend``, after a curve that was fitted to the other half of the clips,
    so that a filter is not judged by how nonlinear its unit is."""
    total_GU, seen_GU = _answers(held)
    if bend and len(values_GU) >= FEWEST_BENT:
        bent_GU = torch.zeros_like(values_GU)
        for half in (0, 1):
            other = slice(1 - half, None, 2)
            curve = Curve.fit(values_GU[other], total_GU[other], seen_GU[other], is_log=False)
            bent_GU[half::2] = curve(values_GU[half::2])
        values_GU = bent_GU
    return clip_r((total_GU / seen_GU).numpy(), values_GU.numpy())


def _chosen(
    path: Callable[[Responses], Iterator[EnergyRegression]], train: Responses, valid: Responses, bend: bool = False
) -> tuple[EnergyRegression, list[tuple[EnergyRegression, Responses]]]:
    """The fit to training clips at the penalty whose values correlate best, mean over units (:func:`_followed`), with the
    answers to clips that it was not fitted to; and the fits at that penalty that say so, each with the clips that it was not fitted to.

    With few distinct clips, those that validate are too few to choose by: training and validation clips are then cut into
    folds, stimulus by stimulus, and every fold is predicted from the others.
    """
    fitted, held = [train], [valid]
    if len(train.x_GK) + len(valid.x_GK) <= FEW_CLIPS:
        both = Responses.join(train, valid)
        groups = np.unique(both.group_G)
        inside = [np.isin(both.group_G, fold) for fold in np.array_split(groups, min(len(groups), MOST_FOLDS))]
        if len(inside) > 1:
            fitted, held = [both.of(~i) for i in inside], [both.of(i) for i in inside]
    best, place, fits = -np.inf, 0, tuple[EnergyRegression, ...]()
    # all folds go down the penalties side by side: weights of thousands of units are too large to keep at each
    for i, each in enumerate(zip(*(path(f) for f in fitted), strict=True)):
        followed = float(_followed(_relative_values(zip(each, held, strict=True)), held, bend).mean())
        if followed > best:
            best, place, fits = followed, i, each
    chosen = fits[0] if len(fitted) == 1 else next(itertools.islice(path(train), place, None))
    return dataclasses.replace(chosen, followed=best), list(zip(fits, held, strict=True))

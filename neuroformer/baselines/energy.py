"""What units see in the energies of frames, from the training data alone: principal components of clips, a Poisson regression
on them, and the ridge regression that the field compares with.

Shape suffixes: W windows, G distinct clips, F features of a clip (all places and frames), K components, U units.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuroformer.baselines.glm.poisson_regression import INTERCEPT_PENALTY, PoissonProblem
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.metrics import pearson
from neuroformer.ops.energy import EnergyPyramid, Feature, component_count

_SAMPLE, _SAMPLE_CELLS = 2000, 2**26  # clips that components are learnt from, and features x clips
_MOST_WINDOWS, _MOST_CELLS = 65_536, 2**24  # windows that a fit looks at, and windows x units
_MOST_PIXELS = 150_000_000  # of clips that a fit looks at, where each is seen once
_SHARE = {"luminance": 0.3, "even": 0.3, "odd": 0.3}  # prior variance that features of a kind share; energies share 1
_FLOOR = 0.1  # a place where hardly anything varied is not blown up: of the feature's usual deviation
PENALTIES = (float("inf"), *(10.0 ** np.arange(1.0, -4.01, -0.5)).tolist())  # a presentation
MOST = 3.0  # spreads (of a log rate before: nats) beyond which values say no more
CURVE_PENALTY, MOST_CALIBRATED = 10.0, 5000  # spikes; clips
FEW_CLIPS, MOST_FOLDS = 2000, 8  # up to so many distinct clips, so many folds choose the penalty


class EnergyComponents:
    """Principal components of the standardised energies of training clips.

    Standardised features of a kind share a prior variance: what is signed (light, phases) counts for less than energies, as
    few images say little of it. A ridge penalty on the components is one on these features.

    Parameters
    ----------
    prepared : a recording with frames

    Attributes
    ----------
    basis_FK, shift_K : components of flattened features are ``x @ basis - shift``
    """

    def __init__(self, prepared: Prepared):
        scale = prepared.normalization.frames
        assert scale is not None
        self.mean, self.std = scale.mean, scale.std
        self.pyramid = EnergyPyramid(scale.count, scale.shape[0], scale.shape[1])
        size = int(np.prod(self.pyramid.grid)) * len(self.pyramid.features)
        most = max(32, min(_SAMPLE, _SAMPLE_CELLS // size))
        clips: dict[int, Tensor] = {}
        for batch in prepared.batches(_evenly(prepared.windows("train"), most)):
            self._add(clips, batch)
        x_GF = torch.stack(list(clips.values()))
        mean_F = x_GF.mean(0)
        scale_F = self._weights() / self._spread(x_GF)
        x_GF = (x_GF - mean_F) * scale_F
        values, vectors = torch.linalg.eigh((x_GF @ x_GF.T).double())
        few = min(component_count(size), int((values > 1e-6 * values[-1]).sum()))
        top = vectors.flip(1)[:, :few].float()
        basis_FK = x_GF.T @ top / values.flip(0)[:few].float().sqrt()
        self.basis_FK = scale_F[:, None] * basis_FK
        self.shift_K = mean_F @ self.basis_FK

    def _weights(self) -> Tensor:
        """(F,) square root of each standardised feature's prior variance."""
        shares = [_share(f) for f in self.pyramid.features]
        each = [share / shares.count(share) for share in shares]
        places = int(np.prod(self.pyramid.grid))
        return (torch.tensor(each) / places).sqrt().repeat(places)

    def _spread(self, x_GF: Tensor) -> Tensor:
        std = x_GF.std(0, correction=0).view(-1, len(self.pyramid.features))
        usual = std.square().mean(0).sqrt().clamp_min(1e-12)
        return std.maximum(_FLOOR * usual).flatten()

    def _add(self, known: dict[int, Tensor], batch: Batch, basis: bool = False) -> np.ndarray:
        """Features (or, with ``basis``, components) of the clips of a batch that are not known yet; the clip of each window."""
        clips = batch.clips
        assert clips is not None
        key_W, index_W = _keys(batch), clips.index_W.numpy()
        key_of = np.empty(len(clips.images_GFHW), np.int64)
        key_of[index_W] = key_W
        new = torch.tensor([g for g, key in enumerate(key_of.tolist()) if key not in known], dtype=torch.int64)
        if len(new):
            x = (clips.images_GFHW[new].float() - self.mean) / self.std
            shown = torch.arange(x.shape[1]) >= clips.num_missing_G[new, None]
            found = self.pyramid(x * shown[:, :, None, None]).flatten(1)
            found = found @ self.basis_FK - self.shift_K if basis else found
            known |= zip(key_of[new.numpy()].tolist(), found, strict=True)
        return key_W

    def responses(self, prepared: Prepared, part: str) -> Responses:
        """What units answered to each distinct clip of a part, in at most some ten thousand windows of it; fewer where
        nearly every window shows a clip of its own, and clips are large."""
        most = min(_MOST_WINDOWS, max(256, _MOST_CELLS // prepared.rec.num_units))
        windows = prepared.windows(part)
        few = _evenly(windows, 256)
        if len({key for b in prepared.batches(few) for key in _keys(b).tolist()}) > 0.9 * len(few):
            most = min(most, max(1000, _MOST_PIXELS // int(np.prod(self.pyramid.size))))
        windows = _evenly(windows, most)
        known: dict[int, Tensor] = {}
        keys, counts, seen = [], [], []
        for batch in prepared.batches(windows):
            keys.append(self._add(known, batch, basis=True))
            counts.append(_counts(batch, prepared.rec.num_units))
            seen.append(_observed(batch, prepared))
        order = {key: g for g, key in enumerate(known)}
        clip_W = np.array([order[k] for k in np.concatenate(keys).tolist()])
        total = lambda x_WU: torch.zeros(len(order), x_WU.shape[1]).index_add_(0, torch.from_numpy(clip_W), x_WU)
        counts_WU, x_GK = torch.cat(counts), torch.stack(list(known.values()))
        group_G = _groups(prepared, windows)[np.unique(clip_W, return_index=True)[1]]
        squares = total(counts_WU.square())
        return Responses(windows, clip_W, x_GK, total(counts_WU), total(torch.cat(seen)), squares, group_G)


@dataclass
class Responses:
    """Distinct clips, and what units answered.

    Attributes
    ----------
    windows : that were looked at; ``clip_W`` the clip that each saw
    x_GK : components of each clip
    counts_GU : spikes over all windows that saw it
    seen_GU : windows that saw it in which the unit was observed
    squares_GU : sums of squared counts
    group_G : which stimulus each clip belongs to, see :func:`_groups`
    """

    windows: Windows
    clip_W: np.ndarray
    x_GK: Tensor
    counts_GU: Tensor
    seen_GU: Tensor
    squares_GU: Tensor
    group_G: np.ndarray

    def of(self, some_G: np.ndarray) -> Responses:
        """Of some clips, without their windows."""
        few, clip_W = torch.from_numpy(some_G), self.clip_W[:0]
        x, counts, seen, squares = (x[few] for x in (self.x_GK, self.counts_GU, self.seen_GU, self.squares_GU))
        return Responses(self.windows[:0], clip_W, x, counts, seen, squares, self.group_G[some_G])

    @classmethod
    def join(cls, a: Responses, b: Responses) -> Responses:
        """Of the clips of two parts, without their windows; no group is in both."""
        x, counts, seen, squares = (
            torch.cat([getattr(part, name) for part in (a, b)])
            for name in ("x_GK", "counts_GU", "seen_GU", "squares_GU")
        )
        group_G = np.concatenate([a.group_G, b.group_G + a.group_G.max(initial=0) + 1])
        return cls(a.windows[:0], a.clip_W[:0], x, counts, seen, squares, group_G)

    @property
    def mean_GU(self) -> np.ndarray:
        """Mean counts a window; NaN where a unit was never observed."""
        return (self.counts_GU / self.seen_GU).numpy()

    def averaged(self, x_WU: np.ndarray) -> np.ndarray:
        """(G, U) means over the windows that saw each clip of any values of the windows."""
        total = np.zeros((len(self.x_GK), x_WU.shape[1]))
        np.add.at(total, self.clip_W, x_WU)
        return total / np.bincount(self.clip_W, minlength=len(total))[:, None]

    def noise_GU(self) -> np.ndarray:
        """Variance of the mean counts over repeats, from the repeats themselves; NaN where a clip was seen once."""
        number = self.seen_GU.double()
        spread = (self.squares_GU - self.counts_GU.double() ** 2 / number) / (number - 1)
        return torch.where(number > 1, spread / number, torch.nan).numpy()

    def r(self, expected_GU: np.ndarray) -> np.ndarray:
        """(U,) Pearson's r over clips between expected and mean counts, clips by how often they were seen alike."""
        return clip_r(self.mean_GU, expected_GU)


def clip_r(mean_GU: np.ndarray, expected_GU: np.ndarray) -> np.ndarray:
    """(U,) Pearson's r over distinct clips between trial-averaged counts and expected ones; 0 where either is constant."""
    out = np.zeros(mean_GU.shape[1])
    for u in range(len(out)):
        there = np.isfinite(mean_GU[:, u])
        if there.sum() > 2:
            out[u] = np.nan_to_num(pearson(mean_GU[there, u, None], expected_GU[there, u, None]))[0]
    return out


@dataclass
class EnergyRegression:
    """Log rates (or, of a ridge, counts a window) of units, linear in the components of a clip.

    Attributes
    ----------
    weight_KU, intercept_U
    penalty : of squared weights a presentation (of a ridge: a clip)
    curve : what a static nonlinearity makes of the values, so that they are log rates; None: they are counts
    """

    weight_KU: Tensor
    intercept_U: Tensor
    penalty: float
    curve: Curve | None = None

    def values(self, x_GK: Tensor) -> Tensor:
        return x_GK @ self.weight_KU + self.intercept_U

    def expected(self, x_GK: Tensor) -> np.ndarray:
        """(G, U) expected counts a window."""
        values_GU = self.values(x_GK)
        return (values_GU if self.curve is None else self.curve(values_GU).exp()).numpy()


@dataclass
class Curve:
    """Log rates as cubic polynomials of a unit's values, in units of their spread and held still beyond three of these.

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
    def straight(cls, center_U: Tensor) -> Curve:
        """Values that are log rates already, none of which is believed far from its mean."""
        one, none = torch.ones_like(center_U), torch.zeros_like(center_U)
        return cls(center_U, one, torch.stack([center_U, one, none, none]))

    def __call__(self, values_GU: Tensor) -> Tensor:
        return (self.powers(values_GU) * self.coefficient_4U).sum(1)

    def powers(self, values_GU: Tensor) -> Tensor:
        """(G, 4, U)."""
        s = ((values_GU - self.center_U) / self.spread_U).clamp(-MOST, MOST)
        return torch.stack([torch.ones_like(s), s, s**2, s**3], 1)

    @classmethod
    def fit(cls, values_GU: Tensor, counts_GU: Tensor, seen_GU: Tensor) -> Curve:
        """Newton's method for the Poisson likelihood of counts, all units at once, lightly penalised."""
        rate_U = (counts_GU.sum(0) + 0.5) / seen_GU.sum(0).clamp_min(1)
        spread_U = values_GU.std(0).clamp_min(1e-3)
        found = cls(values_GU.mean(0), spread_U, torch.zeros(4, len(rate_U)))
        found.coefficient_4U[0] = rate_U.log()
        x_G4U = found.powers(values_GU)
        pull = torch.tensor([1e-3, *[CURVE_PENALTY] * 3])[:, None]
        for _ in range(25):
            rate_GU = seen_GU * (x_G4U * found.coefficient_4U).sum(1).clamp_max(rate_U.log() + 2 * MOST).exp()
            less = torch.cat([torch.zeros(1, len(rate_U)), found.coefficient_4U[1:]])
            slope_4U = torch.einsum("gku,gu->ku", x_G4U, counts_GU - rate_GU) - pull * less
            bend_U44 = torch.einsum("gku,gu,glu->ukl", x_G4U, rate_GU, x_G4U) + torch.diag(pull[:, 0])
            step_4U = torch.linalg.solve(bend_U44, slope_4U.T).T
            found.coefficient_4U = found.coefficient_4U + step_4U.clamp(-1.0, 1.0)
        return found


def fit_poisson(train: Responses, valid: Responses) -> EnergyRegression:
    """Poisson regression with a log link on the components.

    Its penalty is chosen by :func:`_chosen`. What it says of the same held-out clips is then calibrated, unit by unit, by a
    :class:`Curve`: how far to believe it, and where a unit saturates.
    """

    def path(fitted: Responses) -> Iterator[EnergyRegression]:
        rate_U = (fitted.counts_GU.sum(0) + 0.5) / fitted.seen_GU.sum(0).clamp_min(1)
        x_RF = torch.cat([fitted.x_GK, torch.ones(len(fitted.x_GK), 1)], 1)
        relative_F = torch.ones(x_RF.shape[1])
        relative_F[-1] = INTERCEPT_PENALTY
        problem = PoissonProblem(x_RF, x_RF.T @ fitted.counts_GU, (fitted.seen_GU * rate_U).log(), relative_F)
        presentations = float(fitted.seen_GU.sum(0).mean())
        weight_FU = torch.zeros_like(problem.x_counts)
        for penalty in PENALTIES:
            if np.isfinite(penalty):
                weight_FU = problem.fit(penalty * presentations, weight_FU, 1e-4).weight_FU
            straight = Curve.straight(rate_U.log())
            yield EnergyRegression(weight_FU[:-1], weight_FU[-1] + rate_U.log(), penalty, straight)

    chosen, held_out = _chosen(path, train, valid)
    values_GU = torch.cat([one.values(held.x_GK) for one, held in held_out])
    counts_GU, seen_GU = (torch.cat([getattr(held, name) for _, held in held_out]) for name in ("counts_GU", "seen_GU"))
    some = slice(None, None, max(1, len(values_GU) // MOST_CALIBRATED))
    return dataclasses.replace(chosen, curve=Curve.fit(values_GU[some], counts_GU[some], seen_GU[some]))


def fit_ridge(train: Responses, valid: Responses) -> EnergyRegression:
    """Ridge regression of mean counts on the components, clips weighed alike; its penalty see :func:`_chosen`."""

    def path(fitted: Responses) -> Iterator[EnergyRegression]:
        y_GU = torch.from_numpy(np.nan_to_num(fitted.mean_GU)).float()
        mean_U, x_mean = y_GU.mean(0), fitted.x_GK.mean(0)
        x_GK = fitted.x_GK - x_mean
        values, vectors = torch.linalg.eigh((x_GK.T @ x_GK).double())
        target = (vectors.T @ (x_GK.T @ (y_GU - mean_U)).double()).float()
        for penalty in PENALTIES:
            weight_KU = vectors.float() @ (target / (values.float()[:, None] + penalty * len(x_GK)))
            yield EnergyRegression(weight_KU, mean_U - x_mean @ weight_KU, penalty)

    return _chosen(path, train, valid)[0]


def _chosen(
    path: Callable[[Responses], Iterator[EnergyRegression]], train: Responses, valid: Responses
) -> tuple[EnergyRegression, list[tuple[EnergyRegression, Responses]]]:
    """The fit to training clips at the penalty whose expected counts correlate best, mean over units, with those of clips that
    it was not fitted to; and the fits at that penalty that say so, each with the clips that it was not fitted to.

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
    mean_GU = np.concatenate([h.mean_GU for h in held])
    paths = [list(path(f)) for f in fitted]
    together = [
        np.concatenate([p[i].expected(h.x_GK) for p, h in zip(paths, held, strict=True)]) for i in range(len(PENALTIES))
    ]
    best = int(np.argmax([clip_r(mean_GU, x).mean() for x in together]))
    chosen = paths[0][best] if len(paths) == 1 else next(itertools.islice(path(train), best, None))
    return chosen, [(p[best], h) for p, h in zip(paths, held, strict=True)]


def _share(feature: Feature) -> float:
    """The prior variance that all features like this one have together."""
    if feature.kind == "energy" and not feature.wavelength:
        return 0.1  # flicker
    return _SHARE.get(feature.kind, 1.0)


def _keys(batch: Batch) -> np.ndarray:
    """(W,) which clip each window saw, the same in all batches."""
    assert batch.clips is not None
    return batch.clips.key_W.numpy()


def _counts(batch: Batch, num_units: int) -> Tensor:
    """(W, U) spikes of the windows."""
    place = batch.current.row_T * num_units + batch.unit_S
    out = torch.zeros(batch.num_windows * num_units)
    return out.index_add_(0, place, torch.ones(len(place))).view(-1, num_units)


def _observed(batch: Batch, prepared: Prepared) -> Tensor:
    """(W, U) share of each window in which a unit was observed."""
    seen = batch.observed_WBU
    return torch.ones(batch.num_windows, prepared.rec.num_units) if seen is None else seen.float().mean(1)


def _groups(prepared: Prepared, windows: Windows) -> np.ndarray:
    """(W,) which stimulus each window shows: by the column of the trials that ``split.hold_out`` names, else one of ten
    stretches of time. Folds cut between them."""
    split, rec = prepared.config.split, prepared.rec
    if split.by == "trials" and split.hold_out:
        trial_W = np.searchsorted(rec.trial_intervals[:, 0], windows.starts(prepared.index) + 1e-9) - 1
        return np.unique(np.asarray(rec.trials[split.hold_out])[trial_W], return_inverse=True)[1]
    return np.arange(len(windows)) * 10 // max(len(windows), 1)


def _evenly(windows: Windows, most: int) -> Windows:
    return windows[np.unique(np.linspace(0, len(windows) - 1, min(len(windows), most)).astype(np.int64))]

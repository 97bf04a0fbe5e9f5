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
from neuroformer.ops.energy import EnergyPyramid, component_count

_SAMPLE, _SAMPLE_CELLS = 2000, 2**26  # clips that components are learnt from, and features x clips
_MOST_WINDOWS, _MOST_CELLS = 40_000, 2**24  # windows that a fit looks at, and windows x units
_MOST_PIXELS = 150_000_000  # of clips that a fit looks at, where each is seen once
_SHARE = {"luminance": 0.3, "even": 0.3, "odd": 0.3}  # prior variance that features of a kind share; energies share 1
_FLOOR = 0.1  # a place where hardly anything varied is not blown up: of the feature's usual deviation
PENALTIES = (float("inf"), *(10.0 ** np.arange(1.0, -4.01, -0.5)).tolist())  # a presentation
MOST = 3.0  # above its mean, in nats, no log rate is believed
GAINS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2)
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
        kinds = [f.kind for f in self.pyramid.features]
        each = [_SHARE.get(k, 1.0) / sum(_SHARE.get(k, 1.0) == _SHARE.get(o, 1.0) for o in kinds) for k in kinds]
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
    rate_U : mean counts a window in training, where the values are log rates; None: they are the counts themselves
    gain : factor on the weights that has been applied
    """

    weight_KU: Tensor
    intercept_U: Tensor
    penalty: float
    rate_U: Tensor | None = None
    gain: float = 1.0

    def expected(self, x_GK: Tensor) -> np.ndarray:
        """(G, U) expected counts a window."""
        z_GU = x_GK @ self.weight_KU + self.intercept_U
        return (z_GU if self.rate_U is None else z_GU.minimum(self.rate_U.log() + MOST).exp()).numpy()

    def damped(self, gain: float) -> EnergyRegression:
        """With log rates drawn towards the mean rate by a factor."""
        assert self.rate_U is not None
        intercept_U = torch.lerp(self.rate_U.log(), self.intercept_U, gain)
        return dataclasses.replace(self, weight_KU=gain * self.weight_KU, intercept_U=intercept_U, gain=gain)

    def log_likelihood(self, held: Responses) -> float:
        """Nats of counts, less what does not depend on the rates."""
        expected_GU = torch.from_numpy(self.expected(held.x_GK))
        return float((held.counts_GU * expected_GU.log() - held.seen_GU * expected_GU).sum())


def fit_poisson(train: Responses, valid: Responses) -> EnergyRegression:
    """Poisson regression with a log link on the components.

    The penalty is chosen by correlation (:func:`_chosen`), which a common factor on all log rates leaves alone; the likelihood
    of the same held-out clips then chooses that factor.
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
            yield EnergyRegression(weight_FU[:-1], weight_FU[-1] + rate_U.log(), penalty, rate_U)

    chosen, held_out = _chosen(path, train, valid)
    score = [sum(one.damped(gain).log_likelihood(held) for one, held in held_out) for gain in GAINS]
    return chosen.damped(GAINS[int(np.argmax(score))])


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


def _keys(batch: Batch) -> np.ndarray:
    """(W,) which clip each window saw, the same in all batches."""
    assert batch.clips is not None
    return batch.clips.key_W.numpy()


def _counts(batch: Batch, num_units: int) -> Tensor:
    """(W, U) spikes of the windows."""
    place = batch.current.row_T * num_units + batch.unit_T
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

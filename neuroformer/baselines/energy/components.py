"""Principal components of the energies of clips, learnt from training data alone, and what units share in them.

Shape suffixes: W windows, G distinct clips, F features of a clip (all places and frames), K components, U units.
"""

from __future__ import annotations

from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from neuroformer.baselines.energy.regression import EnergyRegression, fit_poisson, fit_ridge
from neuroformer.baselines.energy.responses import Responses, answers
from neuroformer.data.batch import Batch, BatchBuilder
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.ops.energy import EnergyPyramid, Feature, component_count

_SAMPLE, _SAMPLE_CELLS = 2000, 2**26  # clips that components are learnt from, and features x clips
_MOST_WINDOWS, _MOST_CELLS = 65_536, 2**24  # windows that a fit looks at, and windows x units
_MOST_PIXELS = 150_000_000  # of clips that a fit looks at, where each is seen once
_SHARE = {"luminance": 0.3, "even": 0.3, "odd": 0.3}  # prior variance that features of a kind share; energies share 1
ROUNDS, SPREAD = 4, 0.2  # of learning what units share; the share of prior variance that lies everywhere
MOST_SHARING = 256  # units that it is learnt from
_FLOOR = 0.1  # a place where hardly anything varied is not blown up: of the feature's usual deviation


class EnergyComponents:
    """Principal components of the standardised energies of training clips, in units of what is expected of a unit's weights.

    1. Standardised features of a kind share a prior variance: what is signed (light, phases) counts for less than energies, as
       few images say little of it. A ridge penalty on the components is one on these features.
    2. What units share is learnt from them (empirical Bayes): a ridge regression says how much of all units' weights lies at
       each place of the grid, and how much in each feature and lag; the product of both, factorised as in Klindt et al.
       (NeurIPS 2017), is the prior variance of the next fit, up to ``ROUNDS`` times; held-out clips choose how often. A population looks at a part of the
       screen, at some scales: few images need no longer tell that for every unit alone. Components are turned and scaled so
       that the same penalty on all of them means that prior.

    Parameters
    ----------
    prepared : a recording with frames

    Attributes
    ----------
    basis_FK, shift_K : components of flattened features are ``x @ basis - shift``
    prior_F : prior variance of the weights of standardised features
    train, valid : what units answered to the clips of these parts
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
        self.train, self.valid = (self.responses(prepared, part) for part in ("train", "valid"))
        self._share(basis_FK)

    @cached_property
    def poisson(self) -> EnergyRegression:
        """The Poisson regression on the components, fitted to training clips."""
        return fit_poisson(self.train, self.valid)

    def _share(self, basis_FK: Tensor) -> None:
        """Turn the components to what units share, given (F, K) their directions among features of equal prior variance."""
        prior_F = self._weights().square()
        first_F, turn_KK = prior_F, torch.eye(basis_FK.shape[1])
        number = self.train.total_GU.shape[1]
        some = torch.linspace(0, number - 1, min(number, MOST_SHARING)).round().long()
        best_KK, most, self.prior_F = turn_KK, -1.0, prior_F
        for _ in range(ROUNDS + 1):
            train, valid = (x.turned(turn_KK).units(some) for x in (self.train, self.valid))
            fit = fit_ridge(train, valid)
            if fit.followed > most:  # with many clips each unit tells for itself, and the flat prior may be the best
                best_KK, most, self.prior_F = turn_KK, fit.followed, prior_F
            found_FU = (first_F.sqrt()[:, None] * (basis_FK @ (turn_KK @ fit.weight_KU))).square()
            prior_F = self._factorised(found_FU / found_FU.sum(0).clamp_min(1e-20), first_F)
            turn_KK = _root(basis_FK.T @ ((prior_F / first_F)[:, None] * basis_FK))
        self.basis_FK, self.shift_K = self.basis_FK @ best_KK, self.shift_K @ best_KK
        self.train, self.valid = (x.turned(best_KK) for x in (self.train, self.valid))

    def _factorised(self, share_FU: Tensor, first_F: Tensor) -> Tensor:
        """(F,) prior variance: the share of each place times that of each feature and lag."""
        frames, h, w = self.pyramid.grid
        used = share_FU.mean(1).view(frames, h, w, -1)
        if not used.any():  # no weight at all: nothing is learnt
            return first_F
        place, kind = ((1 - SPREAD) * x / x.sum() + SPREAD / x.numel() for x in (used.sum((0, 3)), used.sum((1, 2))))
        return (kind[:, None, None] * place[:, :, None]).flatten()

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

    def of(self, prepared: Prepared, windows: Windows, known: dict[int, Tensor] | None = None) -> Tensor:
        """(W, K) components of the clips that windows see; those of ``known`` ones, by their key, are not computed again."""
        known = {} if known is None else known
        keys = [self._add(known, batch, basis=True) for batch in prepared.batches(windows)]
        few = self.basis_FK.shape[1]
        return torch.stack([torch.zeros(few)] + [known[k] for part in keys for k in part.tolist()])[1:]

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
        keys, found = [], []
        for batch in prepared.batches(windows):
            keys.append(self._add(known, batch, basis=True))
            found.append(answers(batch, prepared.rec.num_units))
        order = {key: g for g, key in enumerate(known)}
        clip_W = np.array([order[k] for k in np.concatenate(keys).tolist()])
        total = lambda x_WU: torch.zeros(len(order), x_WU.shape[1]).index_add_(0, torch.from_numpy(clip_W), x_WU)
        (answer_WU, seen_WU), x_GK = map(torch.cat, zip(*found, strict=True)), torch.stack(list(known.values()))
        group_G = _groups(prepared, windows)[np.unique(clip_W, return_index=True)[1]]
        squares = total(answer_WU.square())
        return Responses(windows, clip_W, x_GK, total(answer_WU), total(seen_WU), squares, group_G)


_MADE: WeakKeyDictionary[BatchBuilder, tuple[list[np.ndarray], EnergyComponents]] = WeakKeyDictionary()


def energy_components(prepared: Prepared) -> EnergyComponents:
    """The components of a recording, made once for as long as it and its training and validation parts are held: training
    starts from them, scores stand beside them."""
    parts = [prepared.split.blocks[part] for part in ("train", "valid")]
    if (made := _MADE.get(prepared.builder)) is None or not all(map(np.array_equal, parts, made[0])):
        made = _MADE[prepared.builder] = parts, EnergyComponents(prepared)
    return made[1]


def _root(x_KK: Tensor) -> Tensor:
    """The symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(x_KK.double())
    return ((vectors * values.clamp_min(0).sqrt()) @ vectors.T).float()


def _share(feature: Feature) -> float:
    """The prior variance that all features like this one have together."""
    if feature.kind == "energy" and not feature.wavelength:
        return 0.1  # flicker
    return _SHARE.get(feature.kind, 1.0)


def _keys(batch: Batch) -> np.ndarray:
    """(W,) which clip each window saw, the same in all batches."""
    assert batch.clips is not None
    return batch.clips.key_W.numpy()


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

"""What units answered to distinct clips of frames.

Shape suffixes: W windows, G distinct clips, K components, U units.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuroformer.data.batch import Batch
from neuroformer.data.windows import Windows
from neuroformer.metrics import pearson

UNITS_AT_ONCE = 256  # for which correlations are computed together


@dataclass
class Responses:
    """Distinct clips, and what units answered: spikes of a window, or the mean sample of their traces in it.

    Attributes
    ----------
    windows : that were looked at; ``clip_W`` the clip that each saw
    x_GK : components of each clip
    total_GU : answers, added over all windows that saw it
    seen_GU : windows that saw it in which the unit was observed
    squares_GU : sums of squared answers
    group_G : which stimulus each clip belongs to
    """

    windows: Windows
    clip_W: np.ndarray
    x_GK: Tensor
    total_GU: Tensor
    seen_GU: Tensor
    squares_GU: Tensor
    group_G: np.ndarray

    def of(self, some_G: np.ndarray) -> Responses:
        """Of some clips, without their windows."""
        few, clip_W = torch.from_numpy(some_G), self.clip_W[:0]
        x, total, seen, squares = (x[few] for x in (self.x_GK, self.total_GU, self.seen_GU, self.squares_GU))
        return Responses(self.windows[:0], clip_W, x, total, seen, squares, self.group_G[some_G])

    @classmethod
    def join(cls, a: Responses, b: Responses) -> Responses:
        """Of the clips of two parts, without their windows; no group is in both."""
        x, total, seen, squares = (
            torch.cat([getattr(part, name) for part in (a, b)])
            for name in ("x_GK", "total_GU", "seen_GU", "squares_GU")
        )
        group_G = np.concatenate([a.group_G, b.group_G + a.group_G.max(initial=0) + 1])
        return cls(a.windows[:0], a.clip_W[:0], x, total, seen, squares, group_G)

    def turned(self, turn_KK: Tensor) -> Responses:
        """With other components, mixtures of these."""
        return dataclasses.replace(self, x_GK=self.x_GK @ turn_KK)

    def units(self, some: Tensor) -> Responses:
        """Of some units."""
        total, seen, squares = (x[:, some] for x in (self.total_GU, self.seen_GU, self.squares_GU))
        return dataclasses.replace(self, total_GU=total, seen_GU=seen, squares_GU=squares)

    @property
    def mean_GU(self) -> np.ndarray:
        """Mean answer to a clip; NaN where a unit was never observed."""
        return (self.total_GU / self.seen_GU).numpy()

    def averaged(self, x_WU: np.ndarray) -> np.ndarray:
        """(G, U) means over the windows that saw each clip of any values of the windows."""
        total = np.zeros((len(self.x_GK), x_WU.shape[1]))
        np.add.at(total, self.clip_W, x_WU)
        return total / np.bincount(self.clip_W, minlength=len(total))[:, None]

    def noise_GU(self) -> np.ndarray:
        """Variance of the mean answer over repeats, from the repeats themselves; NaN where a clip was seen once."""
        number = self.seen_GU.double()
        spread = (self.squares_GU - self.total_GU.double() ** 2 / number) / (number - 1)
        return torch.where(number > 1, spread / number, torch.nan).numpy()

    def r(self, expected_GU: np.ndarray) -> np.ndarray:
        """(U,) Pearson's r over clips between expected and mean answers, clips by how often they were seen alike."""
        return clip_r(self.mean_GU, expected_GU)


def clip_r(mean_GU: np.ndarray, expected_GU: np.ndarray) -> np.ndarray:
    """(U,) Pearson's r over distinct clips between trial-averaged answers and expected ones; 0 where either is constant."""
    some = range(0, mean_GU.shape[1], UNITS_AT_ONCE)
    each = [pearson(mean_GU[:, u : u + UNITS_AT_ONCE], expected_GU[:, u : u + UNITS_AT_ONCE]) for u in some]
    return np.where(np.isfinite(mean_GU).sum(0) > 2, np.nan_to_num(np.concatenate(each)), 0.0)


def answers(batch: Batch, num_units: int) -> tuple[Tensor, Tensor]:
    """(W, U) spikes of the windows, or mean samples of their traces; and the share of each window in which a unit was
    observed."""
    if batch.traces is not None:
        x_WBU = batch.traces.current_WBU
        seen_WU = torch.isfinite(x_WBU).float().mean(1)
        return torch.nan_to_num(x_WBU).mean(1), seen_WU
    place = batch.current.row_T * num_units + batch.unit_S
    spikes = torch.bincount(place, minlength=batch.num_windows * num_units).view(-1, num_units).float()
    seen = batch.observed_WBU
    return spikes, torch.ones_like(spikes) if seen is None else seen.float().mean(1)

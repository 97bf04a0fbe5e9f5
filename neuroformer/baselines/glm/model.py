"""A Poisson GLM: from windows to standardised features to rates.

Shape suffixes: W windows, B bins per window, R = W * B rows, F features, U units (of one group).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroformer.baselines.glm.design import Choice, Design, FeatureBlock
from neuroformer.baselines.glm.own_spikes import OwnSpikes
from neuroformer.baselines.poisson_regression import INTERCEPT_PENALTY
from neuroformer.data.windows import SpikeIndex, Windows
from neuroformer.metrics import poisson_log_likelihood

_AT_ONCE = 100_000  # numbers that stay in a core's cache


@dataclass
class Scale:
    """Means, spreads and relative penalties of some features, from training rows."""

    mean_F: Tensor
    scale_F: Tensor
    relative_F: Tensor
    allowed_FU: Tensor | None = None

    def standardise(self, x_RF: Tensor) -> Tensor:
        return x_RF.sub_(self.mean_F).div_(self.scale_F)


class Glm:
    """A fitted GLM; :func:`~neuroformer.baselines.glm.fit.fit_glm` makes it.

    Attributes
    ----------
    choice : dict
        Chosen hyperparameters (fields of :class:`Choice`); ``variant``, ``form``; ``valid_bits_per_spike`` of the
        final fit; ``tried``, a list of (option, value, bits/spike on a part of the windows), and ``tried_on_all``,
        likewise on all of them that the budget allows; ``converged``, ``iterations``, ``num_features``; ``rows``,
        the bins of training from which expected counts were estimated, and ``spikes_of_rows``, the bins whose spikes
        were used; ``own_spikes``, whether a bin's first and further spikes have lines of their own (``same_bin``).
    weights : (F, U) for each group of units; the last row is the intercept
    """

    def __init__(self, design: Design, offset_U: Tensor, ceiling_U: Tensor):
        self.design, self.offset, self.ceiling = design, offset_U, ceiling_U
        self.choice: dict[str, Any] = {}
        self.setting = Choice()
        self.weights: list[Tensor] = []
        self.shared_scale = Scale(*(torch.zeros(0) for _ in range(3)))
        self.group_scales: dict[int, Scale] = {}
        self.own_spikes: list[OwnSpikes] | None = None

    def rates(self, windows: Windows, index: SpikeIndex | None = None) -> np.ndarray:
        """(W, B, U) float64 expected counts per bin.

        Parameters
        ----------
        windows : Windows
        index : SpikeIndex, optional
            Replaces the recording's spikes, on the same segments.
        """
        out = np.zeros((len(windows), self.design.shape.current, len(self.offset)))
        for rows, (start, stop), z_RU, _ in self._each(windows, index):
            out[rows, :, start:stop] = z_RU.exp().numpy().reshape(-1, out.shape[1], stop - start)
        return out

    def log_likelihood(self, windows: Windows, groups: Sequence[int] | None = None) -> tuple[float, float, float]:
        """Nats of the windows' counts where units were observed, under the GLM and under constant rates, and their spikes.
        ``log k!`` included. Of all groups of units, or of these.
        """
        model = null = spikes = 0.0
        for rows, (start, stop), z_RU, counts_RU in self._each(windows, None, groups):
            group = self.design.groups.index((start, stop))
            hidden_RU = self.design.hidden(windows[rows], group)
            counts, rates = counts_RU.numpy(), self.offset[start:stop].double().exp()
            null += poisson_log_likelihood(counts, none_hidden(rates, hidden_RU).numpy())
            spikes += float(counts.sum())
            z_RU = z_RU if hidden_RU is None else z_RU.masked_fill_(hidden_RU, -torch.inf)
            if self.own_spikes is None:
                model += poisson_log_likelihood(counts, z_RU.double().exp().numpy())
            else:
                model += self.own_spikes[group].log_likelihood(counts_RU, z_RU)
        return model, null, spikes

    def _each(
        self, windows: Windows, index: SpikeIndex | None, groups: Sequence[int] | None = None
    ) -> Iterator[tuple[slice, tuple[int, int], Tensor, Tensor]]:
        """Windows, units, log rates and counts, piece by piece."""
        size = self.design.chunk
        for i in range(0, len(windows), size):
            part = windows[i : i + size]
            shared_RF = self.shared(part, index)
            for g in range(len(self.design.groups)) if groups is None else groups:
                x_RF = self.with_group(shared_RF, part, g, index)
                counts_RU = self.design.counts(part, g)
                yield slice(i, i + size), self.design.groups[g], self.log_rates(x_RF, self.weights[g], g), counts_RU

    def log_rates(self, x_RF: Tensor, weight_FU: Tensor, group: int, hidden_RU: Tensor | None = None) -> Tensor:
        """(R, U) log of the expected counts; none are expected where units were not observed (``hidden``)."""
        units = slice(*self.design.groups[group])
        z = torch.addmm(self.offset[units].expand(len(x_RF), -1), x_RF, weight_FU)
        # an unseen burst must not be answered by a rate beyond anything that training held
        z = torch.minimum(z, self.ceiling[units])
        return z if hidden_RU is None else z.masked_fill_(hidden_RU, -torch.inf)

    def relative(self, group: int) -> tuple[Tensor, Tensor | None]:
        """Relative penalties of a group's features, and which of its units may use them."""
        mine, shared = self.group_scales.get(group), self.shared_scale
        if mine is None:
            return shared.relative_F, None
        start, stop = self.design.groups[group]
        everywhere = torch.ones(len(shared.mean_F), stop - start)
        assert mine.allowed_FU is not None
        return torch.cat([mine.relative_F, shared.relative_F]), torch.cat([mine.allowed_FU, everywhere])

    # -- features ------------------------------------------------------------------------------------------

    def shared(self, windows: Windows, index: SpikeIndex | None = None) -> Tensor:
        """(R, F) standardised features of all units, the intercept last."""
        return self.shared_scale.standardise(self._stack(windows, lambda part: self._shared_blocks(part, index)))

    def with_group(self, shared_RF: Tensor, windows: Windows, group: int, index: SpikeIndex | None = None) -> Tensor:
        """(R, F) the features of one group of units before those of all."""
        scale = self.group_scales.get(group)
        if scale is None:
            return shared_RF
        blocks = lambda part: self.design.of_group(part, self.setting, group, index)
        return torch.cat([scale.standardise(self._stack(windows, blocks)), shared_RF], 1)

    def standardise(self, windows: Windows, setting: Choice) -> Tensor:
        """Shared features of training windows; their means and spreads are kept for later ones."""
        self.setting, self.group_scales = setting, {}
        x_RF = self._stack(windows, self._shared_blocks)
        self.shared_scale = _scale(x_RF, list(self._shared_blocks(windows[:1])))
        # the intercept stays as it is
        self.shared_scale.mean_F[-1], self.shared_scale.scale_F[-1] = 0.0, 1.0
        return self.shared_scale.standardise(x_RF)

    def standardise_group(self, shared_RF: Tensor, windows: Windows, group: int) -> Tensor:
        """The same for the features of one group, before the shared ones."""
        x_RF = self.scale_group(windows, group)
        return shared_RF if x_RF is None else torch.cat([self.group_scales[group].standardise(x_RF), shared_RF], 1)

    def scale_group(self, windows: Windows, group: int) -> Tensor | None:
        """(R, F) features of one group as they are, None if it has none of its own; their scale is kept."""
        blocks = lambda part: self.design.of_group(part, self.setting, group)
        kinds = list(blocks(windows[:1]))
        if not kinds:
            return None
        x_RF = self._stack(windows, blocks)
        scale = _scale(x_RF, kinds)
        start, stop = self.design.groups[group]
        everywhere = lambda b: torch.ones(b.x_RF.shape[1], stop - start)
        scale.allowed_FU = torch.cat([everywhere(b) if b.allowed_FU is None else b.allowed_FU for b in kinds])
        self.group_scales[group] = scale
        return x_RF

    def _shared_blocks(self, windows: Windows, index: SpikeIndex | None = None) -> Iterator[FeatureBlock]:
        yield from self.design.shared(windows, self.setting, index)
        yield FeatureBlock(INTERCEPT_PENALTY, torch.ones(len(windows) * self.design.shape.current, 1))

    def _stack(self, windows: Windows, blocks: Callable[[Windows], Iterator[FeatureBlock]]) -> Tensor:
        """(R, F) features side by side, made for some windows at a time: nothing else is as large as the result."""
        bins, size, out = self.design.shape.current, self.design.chunk, None
        for i in range(0, max(1, len(windows)), size):
            x = [b.x_RF for b in blocks(windows[i : i + size])]
            if out is None:
                out = torch.empty(len(windows) * bins, sum(b.shape[1] for b in x))
            torch.cat(x, 1, out=out[i * bins : (i + size) * bins])
        assert out is not None
        return out


def none_hidden(rates_U: Tensor, hidden_RU: Tensor | None) -> Tensor:
    """(U,) constant expected counts, or (R, U) of them and none where units were not observed."""
    return rates_U if hidden_RU is None else rates_U * ~hidden_RU


def _scale(x_RF: Tensor, kinds: list[FeatureBlock]) -> Scale:
    mean_F, spread_F = _moments(x_RF)
    spread, relative = [], []
    for own, block in zip(spread_F.split([b.x_RF.shape[1] for b in kinds]), kinds, strict=True):
        if block.together:
            own = own.view(-1, block.together)
            own = torch.where(own > 1e-6, own.median(1, keepdim=True).values, own).flatten()
        spread.append(own)
        relative.append(torch.full_like(own, block.relative))
    spread_F = torch.cat(spread)
    # a feature that training never varied says nothing: held at zero
    return Scale(mean_F, torch.where(spread_F > 1e-6, spread_F, torch.inf), torch.cat(relative))


def _moments(x_RF: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, some rows at a time, so that they stay in the cache."""
    rows = max(1, _AT_ONCE // x_RF.shape[1])
    mean, around = torch.zeros(2, x_RF.shape[1], dtype=torch.float64)
    for part in x_RF.split(rows):
        mean += part.sum(0)
    mean /= len(x_RF)
    for part in x_RF.split(rows):
        around += (part - mean.float()).square_().sum(0)
    return mean.float(), (around / max(len(x_RF) - 1, 1)).sqrt().float()

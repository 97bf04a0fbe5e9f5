"""Continuous activity as what is observed: a likelihood of every sample, given the samples before the window.

Shape suffixes: W windows, L past bins, B bins of a window, U units, D width, P parameters of a sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.config import Config
from neuroformer.data.batch import Batch
from neuroformer.data.scales import TraceScale
from neuroformer.model.layers import AtBin
from neuroformer.model.spikes import at_least_float32, bounded
from neuroformer.model.units import UnitRows
from neuroformer.ops import Ragged

LIMIT = 6.0  # no parameter moves further from the marginal, in units of its scale


class TraceScaling(nn.Module):
    """Samples in units of each unit's scale, zero where there is none."""

    def __init__(self, likelihood: str, scale: TraceScale):
        super().__init__()
        self.likelihood = likelihood
        gaussian = likelihood == "gaussian"
        self.register_buffer("mean", torch.tensor(scale.mean), persistent=False)
        self.register_buffer("level", torch.tensor(scale.std if gaussian else scale.level), persistent=False)
        self.mean: Tensor
        self.level: Tensor

    def forward(self, values_WLU: Tensor) -> Tensor:
        """(W, L, U)."""
        if self.likelihood == "gaussian":
            z = (values_WLU - self.mean) / self.level
        else:
            z = torch.log1p(values_WLU / self.level)
        return torch.nan_to_num(z.to(self.level.dtype))


@dataclass
class ObservedTraces:
    """What a network says of the samples of W windows.

    Attributes
    ----------
    parameters_WBUP : of the distribution of every sample
    """

    parameters_WBUP: Tensor


class TraceObservation(nn.Module):
    """P(samples of a window).

    Samples of a window are independent given what came before it (with one bin a window that is a full autoregression).
    Each parameter is the training marginal's, moved by the unit's own past at exact lags and by the first state, which has
    seen the past of all units, frames and behavior, and by the streams' linear terms. Without frames all start at zero, so that
    an untrained model equals the marginal, the null model of bits/sample.

    - ``gaussian``: mean and log standard deviation.
    - ``gamma``: zero-inflated gamma for deconvolved activity (Wei, Zhou, Grosenick, Paninski et al., "A
      zero-inflated gamma model for deconvolved calcium imaging traces", 2020): log mean and log shape of what is above
      zero, and the logit of the chance to be above it.

    Parameters
    ----------
    config : Config
    scale : TraceScale
        Each unit's marginal, from the normalisation.
    scaling : TraceScaling
        Which the stream of past samples uses as well.
    """

    def __init__(self, config: Config, scale: TraceScale, scaling: TraceScaling):
        super().__init__()
        width, w = config.model.width, config.window
        self.likelihood, self.scale = config.traces.likelihood, scaling
        num_bins, past_bins, num_units = round(w.current / w.dt), round(w.past / w.dt), len(scale.mean)
        of = lambda x: torch.tensor(x, dtype=torch.float32)
        if self.likelihood == "gaussian":
            marginal = [of(scale.mean), of(scale.std).log()]
        else:
            marginal = [of(scale.level).log(), of(scale.shape).log(), torch.logit(of(scale.share))]
        self.register_buffer("marginal_UP", torch.stack(marginal, 1), persistent=False)
        self.marginal_UP: Tensor
        self.own = UnitRows(num_units, len(marginal), num_bins, past_bins)
        self.state = AtBin(num_bins, width)
        self.unit = UnitRows(num_units, len(marginal), width)

    def forward(self, batch: Batch, h_TD: Tensor, layout: Ragged, terms_WBU: Tensor | float) -> ObservedTraces:
        return self.expected(batch, h_TD.index_select(0, layout.first()), terms_WBU)

    def expected(self, batch: Batch, first_WD: Tensor, terms_WBU: Tensor | float) -> ObservedTraces:
        """The distributions, from the first states."""
        assert batch.traces is not None
        own = torch.einsum("wlu,upbl->wbup", self.scale(batch.traces.past_WLU), self.own.weight)
        moved = own + torch.einsum("wbd,upd->wbup", self.state.every(first_WD), self.unit.weight)
        level = torch.zeros_like(self.marginal_UP[0])
        level[0] = 1.0
        moved = bounded(at_least_float32(moved) + torch.as_tensor(terms_WBU)[..., None] * level, LIMIT, LIMIT)
        if self.likelihood == "gaussian":  # the mean moves by standard deviations
            moved = moved * torch.stack([self.scale.level, torch.ones_like(self.scale.level)], 1)
        return ObservedTraces(self.marginal_UP + moved)

    def each_nll(self, parameters_WBUP: Tensor, values_WBU: Tensor) -> Tensor:
        """(known samples,) nats of every existing sample.

        Of the gamma's part, a density: its nats count against the marginal's, never alone.
        """
        known = torch.isfinite(values_WBU)
        x = values_WBU[known].to(parameters_WBUP.dtype)
        p = parameters_WBUP[known]
        if self.likelihood == "gaussian":
            mean, log_std = p.unbind(1)
            return 0.5 * ((x - mean) * (-log_std).exp()).square() + log_std + 0.5 * math.log(2 * math.pi)
        log_mean, log_shape, logit = p.unbind(1)
        above = x > 0
        shape, log_x = log_shape.exp(), torch.where(above, x, 1.0).log()
        log_rate = log_shape - log_mean
        density = shape * log_rate - torch.lgamma(shape) + (shape - 1) * log_x - log_rate.exp() * x
        return torch.where(above, F.softplus(-logit) - density, F.softplus(logit))

    def mean(self, parameters_WBUP: Tensor) -> Tensor:
        """(W, B, U) expected samples."""
        if self.likelihood == "gaussian":
            return parameters_WBUP[..., 0]
        return parameters_WBUP[..., 0].exp() * torch.sigmoid(parameters_WBUP[..., 2])

    def draw(self, parameters_WBUP: Tensor, uniform_WBU: Tensor) -> Tensor:
        """(W, B, U) float32 samples, by inverting the cumulative distribution."""
        from scipy.special import gammaincinv, ndtri

        p, u = parameters_WBUP.double(), uniform_WBU.double().clamp(1e-12, 1 - 1e-12)
        if self.likelihood == "gaussian":
            mean, log_std = p.unbind(-1)
            return (mean + log_std.exp() * torch.from_numpy(ndtri(u.cpu().numpy())).to(u.device)).float()
        log_mean, log_shape, logit = p.unbind(-1)
        zero = torch.sigmoid(-logit)
        within = ((u - zero) / (1 - zero)).clamp(1e-12, 1 - 1e-12)
        shape = log_shape.exp()
        unit = torch.from_numpy(gammaincinv(shape.cpu().numpy(), within.cpu().numpy())).to(u.device)
        return torch.where(u > zero, unit * (log_mean - log_shape).exp(), 0.0).float()

    # -- what losses and scores ask of any observation -----------------------------------------------------------

    def number(self, batch: Batch) -> Tensor:
        """(W,) known samples of each window, by which nats are divided."""
        return torch.isfinite(_values(batch)).sum((1, 2))

    def losses(self, batch: Batch, observed: ObservedTraces) -> dict[str, Tensor]:
        """Summed nats."""
        return {"traces": self.each_nll(observed.parameters_WBUP, _values(batch)).sum()}

    def nll(self, batch: Batch, observed: ObservedTraces) -> Tensor:
        """(W,) nats of each window's samples."""
        return self._by_window(batch, observed.parameters_WBUP)

    def null_nll(self, batch: Batch) -> Tensor:
        """(W,) nats under each unit's training marginal."""
        return self._by_window(batch, self.marginal_UP.expand(*_values(batch).shape, -1))

    def _by_window(self, batch: Batch, parameters_WBUP: Tensor) -> Tensor:
        values = _values(batch)
        row = torch.nonzero(torch.isfinite(values))[:, 0]
        nll = self.each_nll(parameters_WBUP, values).double()
        return nll.new_zeros(batch.num_windows).index_add(0, row, nll)


def _values(batch: Batch) -> Tensor:
    assert batch.traces is not None
    return batch.traces.current_WBU

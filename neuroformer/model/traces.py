"""Continuous activity as the target: a likelihood of every sample, given the samples before the window.

Shape suffixes: W windows, L past bins, B bins of a window, U units, D width, P parameters of a sample, K filters.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.config import Config
from neuroformer.model.intensity import bounded
from neuroformer.model.layers import Linear

_SHARED = 4  # filters under which all units' past is summed for each other
_LIMIT = 6.0  # no parameter moves further from the marginal, in units of its scale


class TraceHead(nn.Module):
    """The distribution of every sample of a window.

    Samples of a window are independent given what came before it (with one bin a window that is a full
    autoregression). Each parameter is the training marginal's, plus the unit's own past at exact lags, the
    filtered past of all units through a low rank, and the state that has seen frames and behavior. All three start at
    zero, so an untrained head equals the marginal, the null model of bits/sample.

    - ``gaussian``: mean and log standard deviation.
    - ``gamma``: zero-inflated gamma for deconvolved activity (Wei, Zhou, Grosenick, Paninski et al., "A
      zero-inflated gamma model for deconvolved calcium imaging traces", 2020): logit of the chance to be above
      zero, log mean and log shape of what is above it.
    """

    def __init__(self, config: Config, num_units: int, scale: dict[str, Any]):
        super().__init__()
        m, w = config.model, config.window
        self.likelihood = config.traces.likelihood
        self.num_bins, self.past_bins = round(w.current / w.dt), round(w.past / w.dt)
        of = lambda name: torch.tensor(scale[name], dtype=torch.float32)
        if self.likelihood == "gaussian":
            marginal = [of("mean"), of("std").log()]
            self.register_buffer("unit_scale", of("std"))
        else:
            marginal = [torch.logit(of("share")), of("level").log(), of("shape").log()]
            self.register_buffer("unit_scale", of("level"))
        self.register_buffer("marginal_UP", torch.stack(marginal, 1))
        self.register_buffer("mean", of("mean"))
        self.unit_scale: Tensor
        self.marginal_UP: Tensor
        self.mean: Tensor
        size = len(marginal)
        self.own = nn.Parameter(torch.zeros(size, self.num_bins, self.past_bins, num_units))
        self.filters = nn.Parameter(torch.randn(self.past_bins, _SHARED) / max(self.past_bins, 1) ** 0.5)
        self.source = Linear(_SHARED * num_units, m.history_rank, bias=False)
        self.shared = nn.Parameter(torch.zeros(m.history_rank, size, self.num_bins, num_units))
        self.summary_weight = Linear(_SHARED * num_units, m.width, bias=False)
        self.bin = nn.Parameter(torch.randn(self.num_bins, m.width) * 0.1)
        self.hidden = Linear(m.width, m.width)
        self.unit = nn.Parameter(torch.zeros(size, num_units, m.width))

    def _seen(self, past_WLU: Tensor) -> Tensor:
        """(W, L, U) past in units of each unit's scale, zero where there is none."""
        if self.likelihood == "gaussian":
            z = (past_WLU - self.mean) / self.unit_scale
        else:
            z = torch.log1p(past_WLU / self.unit_scale)
        return torch.nan_to_num(z.to(self.own.dtype))

    def _filtered(self, past_WLU: Tensor) -> Tensor:
        return torch.einsum("wlu,lk->wku", self._seen(past_WLU), self.filters).flatten(1)

    def summary(self, past_WLU: Tensor) -> Tensor:
        """(W, D) summary of the past, for the state that attends to frames and behavior."""
        return self.summary_weight(self._filtered(past_WLU))

    def forward(self, past_WLU: Tensor, state_WD: Tensor) -> Tensor:
        """(W, B, U, P) parameters of every sample."""
        own = torch.einsum("wlu,pblu->wbup", self._seen(past_WLU), self.own)
        shared = torch.einsum("wr,rpbu->wbup", self.source(self._filtered(past_WLU)), self.shared)
        hidden = F.gelu(self.hidden(state_WD)[:, None] + self.bin)
        moved = bounded(own + shared + torch.einsum("wbd,pud->wbup", hidden, self.unit), _LIMIT)
        if self.likelihood == "gaussian":  # the mean moves by standard deviations
            moved = moved * torch.stack([self.unit_scale, torch.ones_like(self.unit_scale)], 1)
        return self.marginal_UP + moved

    def nll(self, parameters_WBUP: Tensor, values_WBU: Tensor) -> Tensor:
        """(known samples,) nats of every existing sample.

        Of the gamma's part, a density: its nats count against the marginal's, never alone.
        """
        known = torch.isfinite(values_WBU)
        x = values_WBU[known].to(parameters_WBUP.dtype)
        p = parameters_WBUP[known]
        if self.likelihood == "gaussian":
            mean, log_std = p.unbind(1)
            return 0.5 * ((x - mean) * (-log_std).exp()).square() + log_std + 0.5 * math.log(2 * math.pi)
        logit, log_mean, log_shape = p.unbind(1)
        above = x > 0
        shape, log_x = log_shape.exp(), torch.where(above, x, 1.0).log()
        log_rate = log_shape - log_mean
        density = shape * log_rate - torch.lgamma(shape) + (shape - 1) * log_x - log_rate.exp() * x
        return torch.where(above, F.softplus(-logit) - density, F.softplus(logit))

    def null_nll(self, values_WBU: Tensor) -> Tensor:
        """(known samples,) nats under each unit's training marginal."""
        return self.nll(self.marginal_UP.expand(*values_WBU.shape, -1), values_WBU)

    def draw(self, parameters_WBUP: Tensor, uniform_WBU: Tensor) -> Tensor:
        """(W, B, U) float32 samples, by inverting the cumulative distribution."""
        from scipy.special import gammaincinv, ndtri

        p, u = parameters_WBUP.double(), uniform_WBU.double().clamp(1e-12, 1 - 1e-12)
        if self.likelihood == "gaussian":
            mean, log_std = p.unbind(-1)
            return (mean + log_std.exp() * torch.from_numpy(ndtri(u.cpu().numpy())).to(u.device)).float()
        logit, log_mean, log_shape = p.unbind(-1)
        zero = torch.sigmoid(-logit)
        within = ((u - zero) / (1 - zero)).clamp(1e-12, 1 - 1e-12)
        shape = log_shape.exp()
        unit = torch.from_numpy(gammaincinv(shape.cpu().numpy(), within.cpu().numpy())).to(u.device)
        return torch.where(u > zero, unit * (log_mean - log_shape).exp(), 0.0).float()

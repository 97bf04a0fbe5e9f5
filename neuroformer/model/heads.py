"""Readouts of the fused states: the next dt, the id given that dt, and rates.

Shape suffixes: W windows, T tokens (SOS included), S spikes, B bins of a window, U units, D width, F features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.model.intensity import bounded
from neuroformer.model.layers import Linear
from neuroformer.ops import marked_cross_entropy

MIN_LOG_RATE = -16.0


def at_least_float32(x: Tensor) -> Tensor:
    """At least float32: likelihoods are never summed in 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class RateReadout(nn.Module):
    """Expected counts (units x bins of the window) from the SOS state, which sees past, frames and behavior but no
    current spike.
    """

    def __init__(self, num_units: int, num_bins: int, width: int, unit_rate: list[float], unit_peak: list[float]):
        super().__init__()
        self.bin = nn.Parameter(torch.randn(num_bins, width) * 0.1)
        self.hidden = Linear(width, width)
        self.out = Linear(width, width)
        self.unit = nn.Parameter(torch.zeros(num_units, width))
        nn.init.normal_(self.unit, std=0.02)
        self.bias = nn.Parameter(torch.tensor(unit_rate).log())
        # no unit is expected to fire more than it was ever seen to: closed loops would grow beyond all data
        self.register_buffer("log_peak", torch.tensor(unit_peak).log())
        self.log_peak: Tensor

    def forward(self, sos_WD: Tensor, linear_WBU: Tensor | float = 0.0) -> Tensor:
        """(W, B, U) log of the expected count; ``linear_WBU`` is added to it."""
        state = self.out(F.gelu(self.hidden(sos_WD)[:, None] + self.bin)) + sos_WD[:, None]
        log_rate = at_least_float32(state @ self.unit.T + self.bias)
        return self.capped(log_rate + linear_WBU)

    def capped(self, log_rate: Tensor) -> Tensor:
        return log_rate.clamp(min=MIN_LOG_RATE).minimum(self.log_peak)


class LinearReadout(nn.Module):
    """The terms of a Poisson GLM, added to the log rates: filtered counts of the past, and the inputs.

    A network learns these terms late and imprecisely. Here they have their own path, and the network learns the rest.
    The history term has a low rank, since otherwise it overfits.
    """

    def __init__(self, num_units: int, num_bins: int, rank: int, history_size: int, input_sizes: dict[str, int]):
        super().__init__()
        self.num_bins = num_bins
        self.source = Linear(history_size, rank, bias=False) if history_size else None
        self.history = nn.Parameter(torch.zeros(num_bins, rank, num_units))
        self.inputs = nn.ModuleDict({name: Linear(size, num_units, bias=False) for name, size in input_sizes.items()})
        for layer in self.inputs.values():
            nn.init.zeros_(layer.weight)  # pyright: ignore[reportArgumentType]

    def past(self, history_WF: Tensor) -> Tensor:
        """(W, B, U) log rates from the filtered counts."""
        assert self.source is not None
        return torch.einsum("wd,bdu->wbu", self.source(history_WF), self.history)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor | float:
        """(W, B, U) log rates from the inputs; an input with several samples per window gives each bin the nearest
        sample.
        """
        total: Tensor | float = 0.0
        for name, x_WNF in inputs.items():
            y_WNU = self.inputs[name](x_WNF)
            num_samples = y_WNU.shape[1]
            place = torch.arange(self.num_bins, device=y_WNU.device) * num_samples // self.num_bins
            total = total + y_WNU.index_select(1, place)
        return total


class SpikeHeads(nn.Module):
    """Logits of dt, then of the id given dt (or, ``independent``, of the id without it)."""

    def __init__(self, num_units: int, num_bins: int, width: int, *, independent: bool):
        super().__init__()
        self.num_bins, self.independent = num_bins, independent
        self.dt = Linear(width, num_bins + 1)
        nn.init.zeros_(self.dt.weight)
        nn.init.zeros_(self.dt.bias)
        self.given = nn.Parameter(torch.randn(num_bins, width) * 0.1)
        self.hidden = Linear(width, width)
        self.out = Linear(width, width)
        self.unit = nn.Parameter(torch.zeros(num_units, width))
        self.bias = nn.Parameter(torch.zeros(num_units))

    def dt_logits(self, h_TD: Tensor, base_TB: Tensor | None, low_T: Tensor) -> Tensor:
        """(T, B + 1) logits of the next bin (last: none); bins before ``low`` have probability zero. What is learnt
        on top of the Poisson process is bounded, so that a closed loop does not run away where there were no data.
        """
        logits = at_least_float32(self.dt(h_TD))
        if base_TB is not None:
            logits = base_TB + bounded(logits)
        bins = torch.arange(logits.shape[1], device=logits.device)
        return logits.masked_fill(bins < low_T[:, None], float("-inf"))

    def id_state(self, h_SD: Tensor, dt_S: Tensor) -> Tensor:
        """(S, D) features whose product with ``unit`` gives the logits of the id."""
        hidden = self.hidden(h_SD)
        if not self.independent:
            hidden = hidden + self.given.index_select(0, dt_S)
        return self.out(F.gelu(hidden)) + h_SD

    def dt_nll(self, h_TD: Tensor, base_TB: Tensor | None, low_T: Tensor, target_T: Tensor) -> Tensor:
        """(T,) nats of the bin that comes next."""
        return F.cross_entropy(self.dt_logits(h_TD, base_TB, low_T), target_T, reduction="none")

    def id_nll(self, h_SD: Tensor, base_SU: Tensor | None, low_S: Tensor, dt_S: Tensor, unit_S: Tensor) -> Tensor:
        """(S,) nats of each spike's unit; units before ``low`` have probability zero."""
        high_S = torch.full_like(low_S, len(self.unit))
        state_SD = self.id_state(h_SD, dt_S)
        return marked_cross_entropy(state_SD, self.unit, self.bias, unit_S, low_S, high_S, base_SU)

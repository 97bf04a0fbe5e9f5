"""What is read from the fused states: the next dt, the id at that dt, rates, alignment.

Shape suffixes: W windows, T tokens (SOS included), S spikes, B bins of a window, U units, D width,
M = W * B * U cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.ops import Ragged

MIN_LOG_RATE = -16.0


def at_least_float32(x: Tensor) -> Tensor:
    """Likelihoods are never summed in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class RateReadout(nn.Module):
    """Expected counts, units x bins of the window, from the SOS state: past, frames, behavior, no current spike."""

    def __init__(
        self, num_units: int, num_bins: int, width: int, unit_rate: list[float], unit_peak: list[float]
    ):
        super().__init__()
        self.bin = nn.Parameter(torch.randn(num_bins, width) * 0.1)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
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
        return (log_rate + linear_WBU).clamp(min=MIN_LOG_RATE).minimum(self.log_peak)


class LinearReadout(nn.Module):
    """The terms of a Poisson GLM, added to the log rates: filtered counts of the past, and the inputs.

    A network finds these late and imprecisely; here they have a path of their own, and the network learns what
    they lack. The history term has a low rank, or it overfits.
    """

    def __init__(
        self, num_units: int, num_bins: int, rank: int, history_size: int, input_sizes: dict[str, int]
    ):
        super().__init__()
        self.num_bins = num_bins
        self.source = nn.Linear(history_size, rank, bias=False) if history_size else None
        self.history = nn.Parameter(torch.zeros(num_bins, rank, num_units))
        self.inputs = nn.ModuleDict(
            {name: nn.Linear(size, num_units, bias=False) for name, size in input_sizes.items()}
        )
        for layer in self.inputs.values():
            nn.init.zeros_(layer.weight)  # pyright: ignore[reportArgumentType]

    def forward(self, history_WF: Tensor | None, inputs: dict[str, Tensor]) -> Tensor | float:
        """(W, B, U); an input with several samples a window gives each bin the sample nearest to it."""
        total: Tensor | float = 0.0
        if self.source is not None and history_WF is not None:
            total = total + bounded(torch.einsum("wd,bdu->wbu", self.source(history_WF), self.history))
        for name, x_WNF in inputs.items():
            y_WNU = self.inputs[name](x_WNF)
            num_samples = y_WNU.shape[1]
            place = torch.arange(self.num_bins, device=y_WNU.device) * num_samples // self.num_bins
            total = total + y_WNU.index_select(1, place)
        return total


def bounded(x: Tensor, limit: float = 3.0) -> Tensor:
    """x near zero, never beyond the limit: a sum over spikes must not run away when its spikes are simulated."""
    return limit * torch.tanh(x / limit)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x > 0."""
    return torch.log(-torch.expm1(-x.clamp_min(1e-30)))


@dataclass
class Anchor:
    """The Poisson process of the rate readout, scanned cell by cell in the order of the tokens.

    Spikes come ordered by (bin, unit). If counts were Poisson with these rates, the next spike's bin would
    follow from the expected count that remains, and its unit from the rates in that bin. Both heads start
    from these logits and learn what a Poisson process lacks: refractoriness, bursts, shared fluctuations.

    Attributes
    ----------
    cell_WBU : expected counts
    done_WM : expected count up to and with each cell, in scanning order
    bin_WB : expected count of each bin
    id_base_WBU : log of the chance that a cell is the first with a spike in its bin, up to a constant
    """

    cell_WBU: Tensor
    done_WM: Tensor
    bin_WB: Tensor
    id_base_WBU: Tensor

    @classmethod
    def from_log_rates(cls, log_rate_WBU: Tensor) -> Anchor:
        cell = log_rate_WBU.exp()
        within = cell.cumsum(2)
        done = cell.flatten(1).cumsum(1)
        return cls(cell, done, within[..., -1], log1mexp(cell) - (within - cell))

    def select(self, rows: Tensor) -> Anchor:
        return Anchor(
            *(x.index_select(0, rows) for x in (self.cell_WBU, self.done_WM, self.bin_WB, self.id_base_WBU))
        )

    def dt_base(self, row_T: Tensor, tick_T: Tensor, unit_T: Tensor, count_T: Tensor) -> Tensor:
        """(T, B + 1) log-probabilities of the next spike's bin (last: none), after spike (tick, unit) of window ``row``,
        the ``count``-th one in its cell.

        ``unit`` -1 means that no spike came before. Bins before ``tick`` hold numbers without meaning.
        """
        num_bins, num_units = self.cell_WBU.shape[1:]
        place = (tick_T * num_units + unit_T).clamp_min(0)
        started = unit_T >= 0
        flat = row_T * (num_bins * num_units)
        # one more spike in a cell of k: for small rates P(k + 1 or more | k or more) is rate / (k + 1)
        again = torch.where(started, self.cell_WBU.flatten()[flat + place] / (count_T + 1), 0.0)
        done = torch.where(started, self.done_WM.flatten()[flat + place], 0.0)
        ends_WB = self.bin_WB.cumsum(1)
        ends_TB = ends_WB[row_T]
        rest = (again + ends_TB.gather(1, tick_T[:, None]).squeeze(1) - done).clamp_min(1e-7)
        before_TB = ends_TB - ends_TB.gather(1, tick_T[:, None]) + rest[:, None]  # up to the end of each bin
        mass_TB = self.bin_WB[row_T].scatter(1, tick_T[:, None], rest[:, None])
        skipped = before_TB - mass_TB
        return torch.cat([log1mexp(mass_TB) - skipped, -before_TB[:, -1:]], 1)


class SpikeHeads(nn.Module):
    """Logits of dt, then of the id given dt (or, ``independent``, of the id without it)."""

    def __init__(self, num_units: int, num_bins: int, width: int, *, independent: bool):
        super().__init__()
        self.num_bins, self.independent = num_bins, independent
        self.dt = nn.Linear(width, num_bins + 1)
        nn.init.zeros_(self.dt.weight)
        nn.init.zeros_(self.dt.bias)
        self.given = nn.Parameter(torch.randn(num_bins, width) * 0.1)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.unit = nn.Parameter(torch.zeros(num_units, width))
        self.bias = nn.Parameter(torch.zeros(num_units))

    def id_state(self, h_SD: Tensor, dt_S: Tensor) -> Tensor:
        """(S, D) features whose product with ``unit`` are the id's logits."""
        hidden = self.hidden(h_SD)
        if not self.independent:
            hidden = hidden + self.given.index_select(0, dt_S)
        return self.out(F.gelu(hidden)) + h_SD


class Coupling(nn.Module):
    """What a spike does to the bins after it: the coupling terms of a GLM, at exact lags.

    A spike adds a row, by its unit and the lag, to each later bin within ``num_lags``. Rows of spikes before the
    window shift the log rates; rows of the window's own spikes shift the dt logits and, through the same map to
    units, those of the ids. Attention can express this, but finds it late.
    """

    def __init__(self, num_units: int, num_bins: int, num_lags: int, width: int):
        super().__init__()
        self.num_bins, self.num_lags = num_bins, max(num_lags, num_bins)
        self.dt = nn.Parameter(torch.zeros(num_units, self.num_lags))
        self.id = nn.Parameter(0.1 * torch.randn(num_units, self.num_lags, width))
        self.unit = nn.Parameter(torch.zeros(num_units, width))

    def rows(self, tick_S: Tensor, unit_S: Tensor) -> Tensor:
        """(S, B, 1 + D): what each spike adds to every bin of the window, nothing to those before it."""
        lag_SB = torch.arange(self.num_bins, device=tick_S.device) - tick_S[:, None]
        place = unit_S[:, None] * self.num_lags + lag_SB.clamp(0, self.num_lags - 1)
        both = torch.cat([self.dt[..., None], self.id], 2).flatten(0, 1)
        rows = both.index_select(0, place.flatten()).unflatten(0, place.shape)
        return rows * ((lag_SB >= 0) & (lag_SB < self.num_lags))[..., None]

    def log_rates(
        self, past: Ragged, tick_P: Tensor, unit_P: Tensor, weight_P: Tensor | None = None
    ) -> Tensor:
        """(W, B, U) what the spikes before the window add to the log rates."""
        near = torch.nonzero(tick_P > -self.num_lags).squeeze(1)
        rows = self.rows(tick_P.index_select(0, near), unit_P.index_select(0, near))[..., 1:]
        if weight_P is not None:
            rows = rows * weight_P.index_select(0, near)[:, None, None]
        total = rows.new_zeros(len(past), *rows.shape[1:]).index_add(
            0, past.row_T.index_select(0, near), rows
        )
        return bounded(total @ self.unit.T)

    def summed(self, layout: Ragged, tick_S: Tensor, unit_S: Tensor) -> Tensor:
        """(T, B, 1 + D): the sum before the first spike (zero) and after each, in the order of the tokens."""
        rows_WLBE = layout.pad(self.rows(tick_S, unit_S))
        none = rows_WLBE.new_zeros(len(layout), 1, *rows_WLBE.shape[2:])
        total = torch.cat([none, rows_WLBE], 1).cumsum(1)
        count = torch.arange(len(layout) + 1, device=tick_S.device)
        longer = Ragged(layout.offsets + count, layout.max_length + 1, layout.total + len(layout))
        return longer.unpad(total)


class Projection(nn.Module):
    """A pooled feature into the shared, normalised space of an alignment."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.net(x).float(), dim=-1)

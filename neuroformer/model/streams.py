"""Streams: what a window may look at. Each takes a batch and the embedding of spikes, and gives the same things, so that nobody
has to know which is which.

Shape suffixes: W windows, P past spikes, K temporal filters, N samples of a window, L bins of the past, B bins of a window,
U units, D width, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroformer.config import Config
from neuroformer.data.batch import Batch
from neuroformer.data.scales import VariableScale
from neuroformer.model.attention import Context, packed, prepend
from neuroformer.model.embed import InputEmbedding, SpikeEmbedding
from neuroformer.model.layers import Dropout
from neuroformer.model.traces import TraceScaling
from neuroformer.model.units import UnitRows

MOST_KEYS = 256  # past spikes of a window, on average, up to which each is a key of its own


@dataclass
class Encoded:
    """What a stream gives for a batch.

    Attributes
    ----------
    context : what tokens attend to
    first_WD : what it adds to the first token: what its keys cannot tell, such as how far the past reaches and how old the last
        frame is. The rest is attended to
    linear_WBU : (W, B or 1, U) what it adds to the log rates, as in a generalised linear model (of traces to their first
        parameter). The past adds nothing here: what a unit's own spikes do is part of the observation
    """

    context: Context
    first_WD: Tensor | float = 0.0
    linear_WBU: Tensor | float = 0.0

    def pooled(self) -> Tensor:
        """(W, D) mean of what tokens attend to, before any of them does."""
        x_SD, layout, index_W = self.context.x_SD, self.context.layout, self.context.index_W
        total = x_SD.new_zeros(len(layout), x_SD.shape[1]).index_add(0, layout.row_T, x_SD)
        mean = total / layout.lengths_B[:, None]
        return mean if index_W is None else mean.index_select(0, index_W)


class PastSpikes(nn.Module):
    """Spikes before the window.

    Tokens attend to each spike (unit + time), or, if windows' pasts hold more than ``MOST_KEYS`` of them on average (which is
    decided once, when the network is made), to one vector per bin: the sum of its spikes, less what the units' mean rates
    would give, in units of the spread of a Poisson process. Keys are normalised, so that a sum as it is would
    hardly change with what single units do.

    Parameters
    ----------
    unit_rate : list of float
        Expected spikes of each unit in a bin.
    """

    def __init__(self, config: Config, unit_rate: list[float]):
        super().__init__()
        width = config.model.width
        self.num_bins = round(config.window.past / config.window.dt)
        self.register_buffer("unit_rate", torch.tensor(unit_rate), persistent=False)
        self.unit_rate: Tensor
        self.by_bin = sum(unit_rate) * self.num_bins > MOST_KEYS
        self.null = nn.Parameter(torch.zeros(width))
        self.dropout = Dropout(config.model.dropout)

    def forward(self, batch: Batch, embedding: SpikeEmbedding) -> Encoded:
        table_LD = embedding.time_table()
        missing_WD = table_LD.index_select(0, self.num_bins - batch.available_W)  # where the past begins
        unit_PD = embedding.unit(batch.past_unit_P)
        if batch.past_weight_P is not None:  # not the time: keys are normalised, and one of any size would be the same
            unit_PD = unit_PD * batch.past_weight_P[:, None]
        if self.by_bin:
            place_P = batch.past.row_T * self.num_bins + batch.past_tick_P + self.num_bins
            summed = unit_PD.new_zeros(batch.num_windows * self.num_bins, unit_PD.shape[1]).index_add(
                0, place_P, unit_PD
            )
            mean_D, spread = self.unit_rate @ embedding.unit.weight, self.unit_rate.sum().sqrt().clamp_min(1.0)
            x_WLD = ((summed - mean_D) / spread).unflatten(0, (-1, self.num_bins)) + table_LD[: self.num_bins]
            x_SD, layout = packed(x_WLD, past_exists(batch, self.num_bins))
        else:
            x_SD, layout = unit_PD + table_LD.index_select(0, batch.past_tick_P + self.num_bins), batch.past
        return Encoded(Context(*prepend(self.dropout(x_SD), layout, self.null + missing_WD)), missing_WD)


class PastTraces(nn.Module):
    """Samples of continuous activity before the window: one vector per bin, of all units' samples in units of their scale."""

    def __init__(self, config: Config, scale: TraceScaling):
        super().__init__()
        width, num_units = config.model.width, len(scale.level)
        self.scale, self.num_bins = scale, round(config.window.past / config.window.dt)
        self.unit = UnitRows(num_units, width, std=num_units**-0.5)
        self.null = nn.Parameter(torch.zeros(width))
        self.dropout = Dropout(config.model.dropout)

    def forward(self, batch: Batch, embedding: SpikeEmbedding) -> Encoded:
        assert batch.traces is not None
        table_LD = embedding.time_table()
        missing_WD = table_LD.index_select(0, self.num_bins - batch.available_W)
        x_WLD = self.scale(batch.traces.past_WLU) @ self.unit.weight + table_LD[: self.num_bins]
        x_SD, layout = packed(x_WLD, past_exists(batch, self.num_bins))
        return Encoded(Context(*prepend(self.dropout(x_SD), layout, self.null + missing_WD)), missing_WD)


def past_exists(batch: Batch, num_bins: int) -> Tensor:
    """(W, L) which bins of the past lie in the segment; the oldest first."""
    return torch.arange(num_bins, device=batch.available_W.device) >= (num_bins - batch.available_W)[:, None]


class BehaviorGroup(nn.Module):
    """A group of behavior variables that condition the model: one vector per sample of each variable, and a linear term of
    the log rates; a bin takes the sample that was the last at its start."""

    def __init__(self, config: Config, group: str, num_units: int, num_bins: int, scales: dict[str, VariableScale]):
        super().__init__()
        m, variables = config.model, [v for v in config.inputs if v.group == group]
        embeds = {v.name: InputEmbedding(v, scales[v.name], m.width, config.window.current) for v in variables}
        self.variables = nn.ModuleDict(embeds)
        self.linear = nn.ModuleDict({name: UnitRows(num_units, x.size) for name, x in embeds.items()})
        self.null = nn.Parameter(torch.zeros(m.width))
        self.dropout = Dropout(m.dropout)
        self.num_bins = num_bins

    def forward(self, batch: Batch, embedding: SpikeEmbedding) -> Encoded:
        vectors, exist, linear_WBU = [], [], 0.0
        for name, embed in self.variables.items():
            x_WND, exists_WN, features_WNF = embed(batch.inputs[name].to(self.null.dtype))
            vectors.append(x_WND)
            exist.append(exists_WN)
            latest = torch.arange(self.num_bins, device=x_WND.device) * x_WND.shape[1] // self.num_bins
            linear_WBU = linear_WBU + (features_WNF @ self.linear[name].weight.T).index_select(1, latest)
        x_WND = self.dropout(torch.cat(vectors, 1))
        null_WD = self.null.expand(batch.num_windows, -1)
        return Encoded(Context(*prepend(*packed(x_WND, torch.cat(exist, 1)), null_WD)), linear_WBU=linear_WBU)

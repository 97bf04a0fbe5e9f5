"""The network.

Shape suffixes: W windows, T tokens (the first one included), S current spikes, B bins of a window, U units, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from neuroformer.config import Config, block_plan
from neuroformer.data.batch import Batch
from neuroformer.data.scales import Normalization
from neuroformer.model.alignment import Alignment
from neuroformer.model.attention import Block, prepend
from neuroformer.model.embed import SpikeEmbedding
from neuroformer.model.frames import FrameStream
from neuroformer.model.layers import Dropout
from neuroformer.model.spikes import Observed, SpikeObservation
from neuroformer.model.streams import BehaviorGroup, Encoded, PastSpikes
from neuroformer.model.targets import TargetHead
from neuroformer.ops import Ragged


@dataclass
class Output:
    """What the network gives for a batch.

    Attributes
    ----------
    observed : the likelihood of the windows, and their expected counts
    targets : by variable, (W, values, R) raw outputs of its head
    features : both sides of every alignment, (W, shared width) each
    """

    observed: Observed
    targets: dict[str, Tensor] = field(default_factory=dict)
    features: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class Neuroformer(nn.Module):
    """P(spikes of a window | past, frames, behavior), spike by spike.

    1. Streams: past spikes, frames and groups of behavior variables are encoded. Each gives what tokens attend to, what it
       adds to the first token, and what it adds to the log rates.
    2. Tokens: the first one, then the window's own spikes (unit + time).
    3. Fusion: blocks of causal self-attention over the tokens and of attention to one stream each, in the configuration's
       order. Queries are few and keys are many.
    4. Observation: expected counts from the first token, then the next spike's bin and unit from each token.
    5. Behavior: each target is decoded at moments of the window, from the tokens before the moment and the spikes around it.
    6. Alignment: features are pooled before any token has attended to anything, so that no stream leaks into another.

    Parameters
    ----------
    config : Config
    num_units : int
    normalization : from :func:`neuroformer.data.normalization.fit_normalization`
    """

    def __init__(self, config: Config, num_units: int, normalization: Normalization):
        super().__init__()
        m, w = config.model, config.window
        self.config, self.num_units = config, num_units
        self.num_bins, self.past_bins = round(w.current / w.dt), round(w.past / w.dt)
        self.embedding = SpikeEmbedding(num_units, m.width, m.time_features, w.dt, self.num_bins, self.past_bins)
        self.first = nn.Parameter(torch.randn(m.width) * 0.1)
        self.streams = nn.ModuleDict(self._streams(normalization))
        self.blocks = nn.ModuleList(Block(a, m.width, m.heads, m.mlp_ratio, m.dropout) for a in block_plan(config))
        self.norm = nn.LayerNorm(m.width)
        self.observation = SpikeObservation(config, num_units, normalization)
        self.targets = nn.ModuleDict(
            {t.name: TargetHead(config, t, normalization.targets[t.name], num_units) for t in config.targets}
        )
        self.alignment = Alignment(config, num_units)
        self.dropout = Dropout(m.dropout)

    def _streams(self, normalization: Normalization) -> dict[str, nn.Module]:
        config, num_units = self.config, self.num_units
        streams: dict[str, nn.Module] = {}
        if self.past_bins:
            spikes = sum(normalization.unit_rate) * self.past_bins
            streams["past"] = PastSpikes(config, self.embedding, spikes)
        if normalization.frames is not None:
            streams["frames"] = FrameStream(config, num_units, normalization.frames)
        for group in config.input_groups:
            streams[group] = BehaviorGroup(config, group, num_units, self.num_bins, normalization.inputs)
        return streams

    def forward(self, batch: Batch) -> Output:
        # 1 streams: what a window may look at
        encoded = self.encode(batch)
        # 2 tokens: the first one, then the window's own spikes
        x_TD, layout = self.tokens(batch, encoded)
        # 3 fusion
        h_TD = self.fuse(x_TD, layout, encoded)
        # 4 likelihood of the window
        observed = self.observation(batch, h_TD, layout, self.terms(encoded))
        # 5 behavior
        targets = {name: head(batch, h_TD, layout) for name, head in self.targets.items()}
        # 6 alignment
        return Output(observed, targets, self.alignment(batch, encoded))

    def encode(self, batch: Batch) -> dict[str, Encoded]:
        """Everything that does not depend on the window's own spikes."""
        return {name: stream(batch) for name, stream in self.streams.items()}

    def first_token(self, batch: Batch, encoded: dict[str, Encoded]) -> Tensor:
        """(W, D)."""
        return self.first.expand(batch.num_windows, -1) + sum(e.first_WD for e in encoded.values())

    def terms(self, encoded: dict[str, Encoded]) -> Tensor | float:
        """(W, B, U) what streams add to the log rates."""
        return sum(e.log_rate_WBU for e in encoded.values())

    def tokens(self, batch: Batch, encoded: dict[str, Encoded]) -> tuple[Tensor, Ragged]:
        """(T, D) the first token of each window and its spikes behind it, and their layout."""
        x_SD = self.embedding(batch.tick_T, batch.unit_T)
        x_TD, layout = prepend(x_SD, batch.current, self.first_token(batch, encoded))
        return self.dropout(x_TD), layout

    def fuse(self, x_TD: Tensor, layout: Ragged, encoded: dict[str, Encoded]) -> Tensor:
        for block in self.blocks:
            stream = encoded.get(block.attend)
            x_TD = block(x_TD, layout, stream.context if stream else None)
        return self.norm(x_TD)

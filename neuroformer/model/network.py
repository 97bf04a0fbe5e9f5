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
from neuroformer.model.streams import BehaviorGroup, Encoded, PastSpikes, PastTraces
from neuroformer.model.targets import TargetHead
from neuroformer.model.traces import ObservedTraces, TraceObservation, TraceScaling
from neuroformer.ops import Ragged


@dataclass
class Output:
    """What the network gives for a batch.

    Attributes
    ----------
    observed : the likelihood of the windows: of their spikes, or of the samples of their traces
    targets : by variable, (W, values, R) raw outputs of its head
    features : both sides of every alignment, (W, shared width) each
    """

    observed: Observed | ObservedTraces
    targets: dict[str, Tensor] = field(default_factory=dict)
    features: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class Neuroformer(nn.Module):
    """P(spikes of a window | past, frames, behavior), spike by spike; or, of traces, sample by sample.

    1. Streams: past spikes, frames and groups of behavior variables are encoded. Each gives what tokens attend to, what that
       cannot tell to the first token, and a linear term of the log rates.
    2. Tokens: the first one, then the window's own spikes (unit + time); of traces the first one only.
    3. Fusion: blocks of causal self-attention over the tokens and of attention to one stream each, in the configuration's
       order. Queries are few and keys are many.
    4. Observation: expected counts from the first token, then the next spike's bin and unit from each token.
    5. Behavior: each target is decoded at moments of the window, from the tokens before the moment and the spikes around it.
    6. Alignment: features are pooled before any token of the window has attended to a stream (frames after their own
       self-attention), so that no stream leaks into another.

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
        self.embedding = SpikeEmbedding(num_units, m.width, w.dt, self.num_bins, self.past_bins)
        self.first = nn.Parameter(torch.randn(m.width) * 0.1)
        self.streams = nn.ModuleDict()
        self.observation = self._past_frames_and_observation(normalization)
        for group in config.input_groups:
            self.streams[group] = BehaviorGroup(config, group, num_units, self.num_bins, normalization.inputs)
        self.blocks = nn.ModuleList(Block(a, m.width, m.heads, m.dropout) for a in block_plan(config))
        self.norm = nn.LayerNorm(m.width)
        self.targets = nn.ModuleDict(
            {t.name: TargetHead(config, t, normalization.targets[t.name], num_units) for t in config.targets}
        )
        self.alignment = Alignment(config, num_units)
        self.dropout = Dropout(m.dropout)

    def _past_frames_and_observation(self, normalization: Normalization) -> SpikeObservation | TraceObservation:
        """Adds the streams of the past and of frames, as far as there are any; returns what is observed."""
        config, num_units = self.config, self.num_units
        if normalization.traces is not None:
            scaling = TraceScaling(config.traces.likelihood, normalization.traces)
            if self.past_bins:
                self.streams["past"] = PastTraces(config, scaling)
            observation = TraceObservation(config, normalization.traces, scaling)
        else:
            if self.past_bins:
                self.streams["past"] = PastSpikes(config, normalization.unit_rate)
            observation = SpikeObservation(config, num_units, normalization)
        if normalization.frames is not None:
            self.streams["frames"] = FrameStream(config, num_units, normalization.frames, normalization.inputs)
        return observation

    def forward(self, batch: Batch) -> Output:
        # 1 streams, 2 tokens, 3 fusion
        encoded, h_TD, layout = self.states(batch)
        # 4 likelihood of the window
        observed = self.observation(batch, h_TD, layout, self.terms(encoded))
        # 5 behavior
        targets = {name: head(batch, h_TD, layout) for name, head in self.targets.items()}
        # 6 alignment
        return Output(observed, targets, self.alignment(batch, encoded))

    def decoded(self, batch: Batch) -> dict[str, Tensor]:
        """By variable, (W, values, R) raw outputs of its head alone."""
        _, h_TD, layout = self.states(batch)
        return {name: head(batch, h_TD, layout) for name, head in self.targets.items()}

    def states(self, batch: Batch) -> tuple[dict[str, Encoded], Tensor, Ragged]:
        """What streams give, (T, D) fused states of the first token and the spikes, and their layout."""
        # 1 streams: what a window may look at
        encoded = self.encode(batch)
        # 2 tokens: the first one, then the window's own spikes
        x_TD, layout = self.tokens(batch, encoded)
        # 3 fusion
        return encoded, self.fuse(x_TD, layout, encoded), layout

    def expected(self, batch: Batch) -> Tensor:
        """(W, B, U) log of the expected counts, without any current spike; of traces, parameters (W, B, U, P)."""
        encoded, first_WD = self.first_state(batch)
        found = self.observation.expected(batch, first_WD, self.terms(encoded))
        return found.parameters_WBUP if isinstance(found, ObservedTraces) else found

    def first_state(self, batch: Batch) -> tuple[dict[str, Encoded], Tensor]:
        """What streams give, and the (W, D) fused state of the first token, which sees no current spike."""
        encoded = self.encode(batch)
        alone = Ragged.from_lengths(torch.ones(batch.num_windows, dtype=torch.int64, device=self.device))
        return encoded, self.fuse(self.dropout(self.first_token(batch, encoded)), alone, encoded)

    @property
    def device(self) -> torch.device:
        return self.first.device

    @property
    def frames(self) -> FrameStream:
        """What a model sees frames with; ``"frames" in model.streams`` says whether it does."""
        stream = self.streams["frames"]
        assert isinstance(stream, FrameStream)
        return stream

    def encode(self, batch: Batch) -> dict[str, Encoded]:
        """Everything that does not depend on the window's own spikes."""
        return {name: stream(batch, self.embedding) for name, stream in self.streams.items()}

    def first_token(self, batch: Batch, encoded: dict[str, Encoded]) -> Tensor:
        """(W, D) a learnt vector, and what streams add to it."""
        return self.first.expand(batch.num_windows, -1) + sum(e.first_WD for e in encoded.values())

    def terms(self, encoded: dict[str, Encoded]) -> Tensor | float:
        """(W, B or 1, U) what streams add to the log rates."""
        return sum(e.linear_WBU for e in encoded.values())

    def tokens(self, batch: Batch, encoded: dict[str, Encoded]) -> tuple[Tensor, Ragged]:
        """(T, D) the first token of each window and its spikes behind it, and their layout."""
        x_SD = self.embedding(batch.tick_S, batch.unit_S)
        x_TD, layout = prepend(x_SD, batch.current, self.first_token(batch, encoded))
        return self.dropout(x_TD), layout

    def fuse(self, x_TD: Tensor, layout: Ragged, encoded: dict[str, Encoded]) -> Tensor:
        for block in self.blocks:
            context = None if block.attend == "current" else encoded[str(block.attend)].context
            x_TD = block(x_TD, layout, context)
        return self.norm(x_TD)

"""The model.

Shape suffixes: W windows, T tokens (SOS included), S current spikes, P past spikes, B bins of a window,
U units, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuroformer.config import Config, TargetConfig
from neuroformer.data.batch import Batch, Clips, Earlier, earlier_frames
from neuroformer.model.alignment import Projection, mean_of, spikes_to_the_end
from neuroformer.model.attention import Context, packed, prepend
from neuroformer.model.embed import FilteredCounts, InputEmbedding, SpikeEmbedding, past_spikes, weighted
from neuroformer.model.frames import FrameEncoder, WhatWhere
from neuroformer.model.fusion import Fusion
from neuroformer.model.heads import LinearReadout, RateReadout, SpikeHeads
from neuroformer.model.intensity import Coupling, Intensity, bounded, cell_counts, of_last_spike
from neuroformer.model.later import moved_on
from neuroformer.model.layers import Dropout, Linear
from neuroformer.model.moments import MomentCounts, Moments, Recurrent
from neuroformer.model.state import Output, State
from neuroformer.model.surprise import Expected, Surprise
from neuroformer.model.targets import TargetHead, raw_size
from neuroformer.model.traces import TraceHead
from neuroformer.ops import Ragged


class Neuroformer(nn.Module):
    """P(spikes of a window | past, frames, behavior), spike by spike.

    1. Embed past spikes (unit + time), frames (encoder + space-time position), behavior (value + time); each stream
       gets one null token, so that an absent stream can be attended to.
    2. Make the SOS token: a learnt vector, the filtered counts of the past, how much past there is, and the
       age of the last frame.
    3. Embed the current spikes; with SOS before them they are the queries.
    4. Fuse: causal self-attention over current tokens and cross-attention to each stream, in the
       configuration's order.
    5. Predict the expected counts from the SOS state, plus the terms of a GLM (filtered counts, coupling, inputs),
       each unit's own place in the frames, and what past spikes tell beyond the frames. Coupling to the window's own
       spikes turns them into the conditional intensity of a point process, from which the spike heads start.
    6. Predict the next dt from each state, then the id given dt; support is exact (dt never decreases; within
       a bin the unit never decreases), so the sum of both is a log-likelihood of the binned counts.
    7. Decode the declared behavior targets at one or several moments of the window, from an attention pool over the
       states before each moment and from the spikes counted around it.
    8. Pool features for alignment before any cross-attention, so that no stream leaks into another.

    Parameters
    ----------
    config : Config
    num_units : int
    normalization : dict
        From :func:`neuroformer.data.normalization.fit_normalization`.
    """

    def __init__(self, config: Config, num_units: int, normalization: dict[str, Any]):
        super().__init__()
        m, w = config.model, config.window
        self.config, self.num_units = config, num_units
        self.num_bins, self.past_bins = round(w.current / w.dt), round(w.past / w.dt)
        self.unit_rate = torch.tensor(normalization["unit_rate"])
        self._make_streams(normalization)
        self.fusion = Fusion(config)
        self._make_rates_and_heads(normalization)
        self._make_targets(normalization)
        sizes = {name: x.size for name, x in self.inputs.items() if isinstance(x, InputEmbedding)}
        history_size = 0 if self.history is None else self.history.size
        self.linear = LinearReadout(num_units, self.num_bins, m.history_rank, history_size, sizes)
        self._make_alignment()
        self.traces = None
        if config.traces.likelihood != "none":
            self.traces = TraceHead(config, num_units, normalization["traces"])
        self.dropout = Dropout(m.dropout)

    def _make_streams(self, normalization: dict[str, Any]) -> None:
        """Modules for past spikes, inputs, frames and the first token."""
        config, num_units = self.config, self.num_units
        m, w = config.model, config.window
        self.spikes = SpikeEmbedding(num_units, m.width, m.time_features, w.dt, self.num_bins, self.past_bins)
        self.sos = nn.Parameter(torch.randn(m.width) * 0.1)
        self.past_null = nn.Parameter(torch.zeros(m.width))
        self.history = None
        if m.history_filters and self.past_bins:
            self.history = FilteredCounts(num_units, m.history_filters, self.past_bins)
            self.history_weight = Linear(self.history.size, m.width, bias=False)
            self.history_dropout = Dropout(m.history_dropout)
        scales = normalization["inputs"]
        self.inputs = nn.ModuleDict(
            {v.name: InputEmbedding(v, scales[v.name], m.width, m.time_features, w.current) for v in config.inputs}
        )
        self.input_null = nn.ParameterDict({g: nn.Parameter(torch.zeros(m.width)) for g in config.input_groups})
        self.frames = FrameEncoder(m, normalization["frames"]) if w.frames > 0 else None
        if self.frames is not None:
            self.frame_age = Linear(2, m.width, bias=False)
            self.frame_period = normalization["frames"]["period"]
        self.what_where = None
        if self.frames is not None and m.frame_readout:
            self.what_where = WhatWhere(self.frames, num_units, m.width, m.frame_readout)

    def _make_rates_and_heads(self, normalization: dict[str, Any]) -> None:
        """Modules for the expected counts, for what past and current spikes add to them, and the spike heads."""
        config, num_units = self.config, self.num_units
        m, dt = config.model, config.window.dt
        self.rates = RateReadout(
            num_units, self.num_bins, m.width, normalization["unit_rate"], normalization["unit_peak"]
        )
        self.heads = SpikeHeads(num_units, self.num_bins, m.width, independent=m.factorization == "independent")
        self.coupling = None
        if m.coupling > 0:
            num_lags = round(m.coupling / dt) + 1
            self.coupling = Coupling(num_units, self.num_bins, num_lags, m.coupling_rank)
        self.surprise = None
        if self.what_where is not None and config.surprise > 0:
            self.surprise = Surprise(
                num_units,
                earlier_frames(config, normalization),
                m.history_rank or 1,
                normalization["unit_rate"],
                self.frame_period / dt,
                m.history_dropout,
            )

    def _make_targets(self, normalization: dict[str, Any]) -> None:
        """A head for every declared target, and the counts of spikes around its moments."""
        config, m, w = self.config, self.config.model, self.config.window
        self.moments = None
        if config.targets and m.target_filters:
            before = round((w.target_past or w.past) / w.dt) or self.num_bins
            width = self.num_bins if m.target_networks else 0
            self.moments = MomentCounts(
                self.num_units,
                m.target_filters,
                before,
                round(w.lookahead / w.dt),
                width,
                m.target_kernel > 0,
            )
        self.targets = nn.ModuleDict(
            {t.name: self.target_head(t, normalization["targets"][t.name]) for t in config.targets}
        )

    def _make_alignment(self) -> None:
        """Projections of both sides of every alignment."""
        config, m = self.config, self.config.model
        if any("neural" in c.pair for c in config.loss.contrast):
            num_filters, num_bins = max(m.history_filters, 1), self.past_bins + self.num_bins
            self.neural = FilteredCounts(self.num_units, num_filters, num_bins)
            self.neural_weight = Linear(self.neural.size, m.width, bias=False)
        self.contrast = nn.ModuleList(
            nn.ModuleList(Projection(m.width, c.width) for _ in c.pair) for c in config.loss.contrast
        )
        self.contrast_scale = nn.ParameterList(
            nn.Parameter(torch.tensor(float(c.scale)).log()) for c in config.loss.contrast
        )

    def forward(self, batch: Batch) -> Output:
        # 1 to 4: streams and SOS, current spikes, fusion
        state, h_TD, layout = self.fused(batch)
        # 5: rates
        log_rate_WBU = self.rates(h_TD.index_select(0, layout.first()), state.log_rate_terms)
        # 6: spikes
        dt_nll_T, id_nll_S = self._spike_nll(batch, state, h_TD, layout, log_rate_WBU)
        # 7: behavior
        targets = self.decode(batch, state, h_TD, layout)
        traces = None
        if self.traces is not None and batch.traces is not None:
            traces = self.traces(batch.traces.past_WLU, h_TD.index_select(0, layout.first()))
        # 8: alignment
        features = self.features(batch, state)
        return Output(dt_nll_T, id_nll_S, log_rate_WBU, layout, targets, traces, features)

    def fused(self, batch: Batch) -> tuple[State, Tensor, Ragged]:
        """The state before the spikes, (T, D) fused states of SOS and the current spikes, and their layout."""
        # 1, 2: streams and SOS
        state = self.encode(batch)
        # 3: current spikes
        x_SD = self.dropout(self.spikes(batch.tick_T, batch.unit_T))
        x_TD, layout = prepend(x_SD, batch.current, state.start_WD)
        # 4: fusion
        return state, self.fusion(x_TD, layout, state.contexts), layout

    def expected(self, batch: Batch) -> Tensor:
        """(W, B, U) log rates: steps 1, 2, 4 and 5 without any current spike."""
        state = self.encode(batch)
        return self.rates(self.first_state(state), state.log_rate_terms)

    def first_state(self, state: State) -> Tensor:
        """(W, D) fused state of SOS alone, which has seen no current spike."""
        num = len(state.start_WD)
        alone = Ragged(torch.arange(num + 1, device=state.start_WD.device), 1, num)
        return self.fusion(state.start_WD, alone, state.contexts)

    def encode(self, batch: Batch) -> State:
        """Everything that does not depend on current spikes."""
        contexts = {}
        time = self.spikes.time_table()
        missing = time.index_select(0, self.past_bins - batch.available_W)  # where the past begins
        start_WD = self.sos + missing
        hidden = self.config.model.unit_dropout if self.training else 0.0
        past, past_tick, past_unit, past_weight = past_spikes(batch, self.num_units, hidden)
        if self.past_bins:
            x_PD = self.dropout(self.spikes(past_tick, past_unit))
            x_PD = weighted(x_PD, past_weight)
            contexts["past"] = Context(*prepend(x_PD, past, self.past_null + missing))
        history_WF = None
        if self.history is not None:
            counts_WF = self.history(past, past_tick, past_unit, past_weight)
            # a sum over fewer units, made as large as the sum over all: without this, rates were 4 % too high after the
            # true past, and 40 % in closed loop
            counts_WF = counts_WF / (1 - hidden) if hidden else counts_WF
            history_WF = self.history_dropout(counts_WF)
            start_WD = start_WD + self.history_weight(history_WF)
        features: dict[str, Tensor] = {}
        for group in self.config.input_groups:
            contexts[group] = self._group_context(group, batch, features)
        linear = self.linear(features)
        expected = None
        drive = None if history_WF is None else self.linear.past(history_WF)
        if self.coupling is not None:
            first = cell_counts(batch.past, batch.past_tick_P, batch.past_unit_P) == 1
            before = self.coupling.before(batch.past, batch.past_tick_P, batch.past_unit_P, first, batch.past_weight_P)
            drive = before if drive is None else drive + before
        if self.frames is not None:
            assert batch.clips is not None
            contexts["frames"], local = self._frame_context(batch.clips)
            if self.what_where is not None:
                local = self.what_where.local(local)
                seen = self.what_where.read(local).index_select(0, batch.clips.index_W)
                linear = linear + seen[:, None]
            if self.surprise is not None and batch.earlier is not None:
                expected, unexplained = self._unexplained(batch, batch.earlier, batch.clips, local)
                drive = unexplained if drive is None else drive + unexplained
            age = batch.clips.age_W / self.frame_period
            start_WD = start_WD + self.frame_age(torch.stack([age, age.square()], 1).to(start_WD.dtype))
        if self.traces is not None and batch.traces is not None:
            start_WD = start_WD + self.traces.summary(batch.traces.past_WLU)
        most = self.config.model.most_drive
        return State(contexts, self.dropout(start_WD), linear, drive, most, expected)

    def _frame_context(self, clips: Clips) -> tuple[Context, Tensor]:
        """Tokens of every clip, and the features of every place that they were made of."""
        assert self.frames is not None
        local = self.frames.local(clips.images_GFHW, clips.num_missing_G)
        x, layout = self.frames(local, clips.num_missing_G, clips.host_missing_G)
        return Context(x, layout, clips.index_W), local

    def _unexplained(self, batch: Batch, earlier: Earlier, clips: Clips, local: Tensor) -> tuple[Expected, Tensor]:
        """What the frames let expect, and the (W, 1, U) drive of past spikes beyond it."""
        assert self.frames is not None and self.what_where is not None and self.surprise is not None
        expected = self.surprise.expected(earlier, self.frames, self.what_where, self.rates.bias.detach())
        surprise_WF = self.surprise.features(
            earlier,
            expected,
            batch.past.row_T,
            batch.past_tick_P,
            batch.past_unit_P,
            batch.past_weight_P,
            until=0,
        )
        moved = self.what_where.moved(local).index_select(0, clips.index_W)
        return expected, self.surprise.drive(surprise_WF, moved)[:, None]

    def _group_context(self, group: str, batch: Batch, features: dict[str, Tensor]) -> Context:
        """The context of a group of inputs; what its variables are made of is left in ``features``."""
        vectors, exist = [], []
        for v in self.config.inputs:
            if v.group == group:
                x, exists, features[v.name] = self.inputs[v.name](batch.inputs[v.name].to(self.sos.dtype))
                vectors.append(x)
                exist.append(exists)
        x_WND, exists_WN = self.dropout(torch.cat(vectors, 1)), torch.cat(exist, 1)
        null_WD = self.input_null[group].expand(batch.num_windows, -1)
        return Context(*prepend(*packed(x_WND, exists_WN), null_WD))

    def _spike_nll(
        self, batch: Batch, state: State, h_TD: Tensor, layout: Ragged, log_rate_WBU: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Nats of every dt (one a token, EOS included) and of every id."""
        spikes, row_T = batch.current, layout.row_T
        count = cell_counts(spikes, batch.tick_T, batch.unit_T)
        last_tick, last_unit, count_T = of_last_spike(layout, batch.tick_T, batch.unit_T, count)
        within_TBU = None
        if self.coupling is not None:
            within_TBU = self.coupling.within(spikes, batch.tick_T, batch.unit_T, count == 1)
        log_rate_TBU = log_rate_WBU.index_select(0, row_T)
        drive_TBU = None if state.drive_WBU is None else state.drive_WBU.index_select(0, row_T)
        intensity = self.intensity(log_rate_TBU, drive_TBU, within_TBU, last_tick, last_unit, count_T)
        # the token before each spike predicts it; each window's last token predicts the end
        before_S = torch.arange(spikes.total, device=h_TD.device) + spikes.row_T
        target_T = torch.full_like(row_T, self.num_bins).index_copy(0, before_S, batch.tick_T)
        base_TB = None if intensity is None else intensity.dt_base()
        dt_nll = self.heads.dt_nll(h_TD, base_TB, last_tick, target_T)
        same = last_tick.index_select(0, before_S) == batch.tick_T
        low_S = torch.where(same, last_unit.index_select(0, before_S).clamp_min(0), 0)
        base_SU = self.id_base(intensity, before_S, batch.tick_T)
        h_SD = h_TD.index_select(0, before_S)
        return dt_nll, self.heads.id_nll(h_SD, base_SU, low_S, batch.tick_T, batch.unit_T)

    def intensity(
        self,
        log_rate_TBU: Tensor,
        drive_TBU: Tensor | None,
        within_TBU: Tensor | None,
        tick_T: Tensor,
        unit_T: Tensor,
        count_T: Tensor,
    ) -> Intensity | None:
        """The process from which the spike heads start: that of the rate readout, changed by the window's own spikes."""
        if not self.config.model.rate_anchor:
            return None
        if within_TBU is not None:
            # past and current spikes drive together, and together they are bounded
            before_TBU = torch.zeros_like(within_TBU) if drive_TBU is None else drive_TBU
            most = self.config.model.most_drive
            change_TBU = bounded(before_TBU + within_TBU, most) - bounded(before_TBU, most)
            log_rate_TBU = self.rates.capped(log_rate_TBU + change_TBU)
        return Intensity(log_rate_TBU.exp(), tick_T, unit_T, count_T)

    def id_base(self, intensity: Intensity | None, token_N: Tensor, dt_N: Tensor) -> Tensor | None:
        """(N, U) what the id's logits after each ``token`` start from."""
        if intensity is None:
            return None
        if self.heads.independent:
            return intensity.cell_TBU[token_N].sum(1).log()
        return intensity.id_base(token_N, dt_N)

    def target_head(self, target: TargetConfig, scale: dict) -> TargetHead:
        """A head that fits this model, untrained."""
        m, ahead = self.config.model, round(self.config.window.lookahead / self.config.window.dt)
        size = 0 if self.moments is None else self.moments.size
        size += 0 if self.surprise is None else self.surprise.size
        outputs = raw_size(target, scale)
        rate_U = self.unit_rate * self.num_bins
        networks = [Recurrent(rate_U, m.width, outputs, ahead > 0) for _ in range(m.target_networks)]
        return TargetHead(
            target,
            scale,
            m.width,
            m.heads,
            self.num_bins,
            ahead,
            size,
            m.dropout,
            networks,
            m.target_kernel,
            0 if self.moments is None else self.moments.span_size,
        )

    def decoded(self, batch: Batch) -> dict[str, Tensor]:
        """Raw outputs of every target without what else :meth:`forward` computes; dropout as the mode says."""
        return self.decode(batch, *self.fused(batch))

    def decode(self, batch: Batch, state: State, h_TD: Tensor, layout: Ragged) -> dict[str, Tensor]:
        """Raw outputs of every target, (W, values, R); spikes around the window are counted once for equal moments."""
        counts: dict[tuple[int, ...], Moments] = {}
        out = {}
        for name, head in self.targets.items():
            assert isinstance(head, TargetHead)
            out[name] = head(h_TD, layout, batch.tick_T, self.moment_counts(batch, state, head.ends, counts))
        return out

    def moment_counts(
        self, batch: Batch, state: State, ends: list[int], known: dict[tuple[int, ...], Moments]
    ) -> Moments:
        """(V, F) counts around the moments at ``ends`` of every window, and what of them the frames do not explain;
        what was computed before is in ``known``."""
        if self.moments is None or batch.around is None:
            return Moments()
        key = tuple(ends)
        if key not in known:
            around = batch.around
            counts_VF, bins_VUB, spans_VF, _ = self.moments(around.layout, around.tick_S, around.unit_S, ends)
            if self.surprise is not None and state.expected is not None:
                unexplained_VF = self.surprise.at_moments(batch, state.expected, ends)
                counts_VF = torch.cat([counts_VF, unexplained_VF], 1)
            known[key] = Moments(counts_VF, bins_VUB, spans_VF, self._later_where_read(batch, ends))
        return known[key]

    def _later_where_read(self, batch: Batch, ends: list[int]) -> Tensor | None:
        """:meth:`later_states` if a head reads them, since they cost a second pass."""
        read = any(isinstance(head, TargetHead) and head.reads_later for head in self.targets.values())
        return self.later_states(batch, ends) if read else None

    def later_states(self, batch: Batch, ends: Sequence[int]) -> Tensor:
        """(V, D) first states of windows that would start at bins ``ends`` of each window: all that the model makes of
        the spikes before a moment. Frames and inputs are the window's own, none later."""
        each = [self.first_state(self.encode(moved_on(batch, end, self.past_bins))) for end in ends]
        return torch.stack(each, 1).flatten(0, 1)

    def features(self, batch: Batch, state: State) -> list[tuple[Tensor, Tensor]]:
        """Both sides of every alignment, (W, shared width); frames are pooled once a clip."""
        out = []
        for contrast, nets in zip(self.config.loss.contrast, self.contrast, strict=True):
            assert isinstance(nets, nn.ModuleList)
            a, b = (net(self.pooled(side, batch, state)) for side, net in zip(contrast.pair, nets, strict=True))
            out.append((a, b))
        return out

    def pooled(self, side: str, batch: Batch, state: State) -> Tensor:
        """(W, D) of one stream, before any cross-attention: neural, frames, or a group of inputs."""
        if side == "frames":
            assert self.frames is not None and batch.clips is not None
            context = state.contexts["frames"]
            return self.frames.pooled(context.x_SD, context.layout).index_select(0, batch.clips.index_W)
        if side != "neural":
            return mean_of(state.contexts[side])
        layout, tick, unit = spikes_to_the_end(batch, self.num_bins)
        return self.neural_weight(self.neural(layout, tick, unit))

"""Behavior targets: heads that read the fused states and the spikes around each decoded moment.

Shape suffixes: M readouts, W windows, N values a window, V = W * N values, T tokens (SOS included), S spikes,
F features, D width, C columns, R raw outputs of a value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.config import TargetConfig
from neuroformer.data.normalization import turn_start
from neuroformer.data.scales import VariableScale
from neuroformer.model.layers import Dropout, Linear
from neuroformer.model.moments import KernelReadout, Moments, Recurrent
from neuroformer.ops import Ragged, attention

STUDENT_DOF = 4.0  # tails heavy enough for tracking errors, light enough for a finite variance
MAX_LOG_STD = 5.0
RANGE_MARGIN = 0.1  # of the training range
NETWORK_SHARE = 3.0  # of a recurrent readout in the head's mean, against 1 of the attention pool


def value_ends(samples: int, num_bins: int) -> list[int]:
    """Bins before which the values of a window lie, evenly spaced: the last one is the window's end."""
    return [(n + 1) * num_bins // samples for n in range(samples)]


def seen_tokens(layout: Ragged, tick_S: Tensor, ends: list[int], ahead: int) -> tuple[Tensor, Ragged]:
    """Which tokens (of SOS + spikes) each value of each window may read: those before its moment plus ``ahead`` bins.

    Returns
    -------
    (K,) places in the packed tokens, and the layout of the V values' keys.
    """
    is_spike = torch.ones(layout.total, dtype=torch.bool, device=tick_S.device)
    is_spike[layout.first()] = False
    limits = torch.tensor(ends, device=tick_S.device) + ahead
    count_WN = torch.ones(len(layout), len(ends), dtype=torch.int64, device=tick_S.device)
    count_WN = count_WN.index_add(0, layout.row_T[is_spike], (tick_S[:, None] < limits).long())
    keys = Ragged.from_lengths(count_WN.flatten())
    window = keys.row_T // len(ends)
    return layout.offsets[:-1].index_select(0, window) + keys.position_T, keys


def raw_size(target: TargetConfig, scale: VariableScale) -> int:
    """Raw outputs of one value, see :class:`TargetHead`."""
    if scale.classes:
        return len(scale.classes)
    twice = target.kind == "circular" or target.noise != "squared"
    return len(scale.mean) * (2 if twice else 1)


class TargetHead(nn.Module):
    """A behavior variable at one or several moments of a window, with its own noise model.

    1. Pool the fused states that lie before the moment (plus lookahead) by attention.
    2. Beside it the first state (past, frames, behavior) and the filtered counts around the moment.
    3. A small network over the three, plus linear paths from the first state and from the counts.
    4. Recurrent networks over the count bins around the moment. Each of these readouts has its own loss, so that
       their errors differ; the head gives their mean, weighted by ``share``.

    Raw outputs, by kind: ``regression``, the mean in units of the training spread (``noise`` gaussian or student:
    then the log of its scale); ``classification``, logits; ``circular``, the natural parameters of a von Mises
    distribution, (cos, sin) times its concentration.

    Parameters
    ----------
    target : TargetConfig
    scale : dict
        Its entry in the normalisation.
    width, heads, num_bins, ahead : of the model; bins of lookahead
    counts_size : int
        Features from :class:`~neuroformer.model.moments.MomentCounts`; 0: none.
    networks : list of Recurrent
    num_centers, spans_size : int
        Labelled moments on which a kernel readout may rest, over ``spans_size`` counts over long spans, the first state
        and the state at the moment, which fine-tuning may set; 0: none.
    """

    def __init__(
        self,
        target: TargetConfig,
        scale: VariableScale,
        width: int,
        heads: int,
        num_bins: int,
        ahead: int,
        counts_size: int,
        dropout: float,
        networks: Sequence[Recurrent] = (),
        num_centers: int = 0,
        spans_size: int = 0,
    ):
        super().__init__()
        self.networks = nn.ModuleList(networks)
        share = torch.tensor([1.0] + [NETWORK_SHARE] * len(networks))
        share = share / share.sum()
        self.register_buffer("share", share, persistent=len(networks) > 0)
        self.share: Tensor
        self.kind, self.noise, self.heads, self.ahead = target.kind, target.noise, heads, ahead
        self.ends = value_ends(target.samples, num_bins)
        self.classes, self.words, self.period = scale.classes, scale.words, scale.period
        self.start = [turn_start(low, self.period) for low in scale.low or [0.0]]
        self.num_columns = 1 if self.classes else len(scale.mean)
        size = raw_size(target, scale)
        self.query = nn.Parameter(torch.randn(heads, width // heads) * 0.1)
        self.key_value = Linear(width, 2 * width, bias=False)
        streams = 3 if counts_size else 2
        self.out = nn.Sequential(
            nn.LayerNorm(streams * width),
            Linear(streams * width, width),
            nn.GELU(),
            Dropout(dropout),
            Linear(width, size),
        )
        self.skip = Linear(width, size)
        self.counts = Linear(counts_size, width) if counts_size else None
        self.linear = Linear(counts_size, size) if counts_size else None
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        self.counts_dropout = Dropout(dropout)
        self.kernel = KernelReadout(num_centers, spans_size + 2 * width, size) if num_centers else None
        self.num_centers = num_centers
        self.register_buffer("mean", torch.tensor(scale.mean or [0.0]))
        self.register_buffer("std", torch.tensor(scale.std or [1.0]))
        low, high = (torch.tensor(x or [0.0]) for x in (scale.low, scale.high))
        self.register_buffer("least", low - RANGE_MARGIN * (high - low), persistent=False)
        self.register_buffer("most", high + RANGE_MARGIN * (high - low), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.least: Tensor
        self.most: Tensor

    def forward(self, h_TD: Tensor, layout: Ragged, tick_S: Tensor, moments: Moments) -> Tensor:
        """(W, N, R) raw outputs; ``tick_S`` are the bins of the current spikes. While training, those of every readout
        apart where there are several: (M, W, N, R)."""
        raw = self.attended(h_TD, layout, tick_S, moments)
        if len(self.networks) and moments.bins_VUB is not None:
            bins_VUB = moments.bins_VUB.to(h_TD.dtype)
            every = torch.stack([raw, *(network(bins_VUB) for network in self.networks)])
            raw = every if self.training else torch.einsum("m,mvr->vr", self.share.to(every.dtype), every)
        return raw.unflatten(-2, (len(layout), len(self.ends)))

    def attended(self, h_TD: Tensor, layout: Ragged, tick_S: Tensor, moments: Moments) -> Tensor:
        """(V, R) of steps 1 to 3."""
        pooled_VD, sos_VD = self.pool(h_TD, layout, tick_S)
        parts = [pooled_VD, sos_VD]
        raw = self.skip(sos_VD)
        if self.kernel is not None and moments.spans_VF is not None and moments.later_VD is not None:
            spans_VF = moments.spans_VF.to(sos_VD.dtype)
            raw = raw + self.kernel(torch.cat([spans_VF, sos_VD, moments.later_VD], 1))
        counts_VF = moments.counts_VF
        if self.counts is not None and self.linear is not None and counts_VF is not None:
            counts_VF = self.counts_dropout(counts_VF.to(h_TD.dtype))
            parts.append(self.counts(counts_VF))
            raw = raw + self.linear(counts_VF)
        return raw + self.out(torch.cat(parts, 1))

    def pool(self, h_TD: Tensor, layout: Ragged, tick_S: Tensor) -> tuple[Tensor, Tensor]:
        """(V, D) attention pool over what each value may see, and (V, D) its window's first state."""
        num_values = len(layout) * len(self.ends)
        k, v = (x.unflatten(-1, (self.heads, -1)) for x in self.key_value(h_TD).chunk(2, -1))
        keys = layout
        if len(self.ends) > 1:
            place, keys = seen_tokens(layout, tick_S, self.ends, self.ahead)
            k, v = k.index_select(0, place), v.index_select(0, place)
        ones = Ragged(torch.arange(num_values + 1, device=h_TD.device), 1, num_values)
        query = self.query.expand(num_values, -1, -1).to(k.dtype)
        pooled = attention(query, k, v, ones, keys).flatten(1)
        return pooled, h_TD.index_select(0, layout.first()).repeat_interleave(len(self.ends), 0)

    @property
    def reads_later(self) -> bool:
        """Whether a kernel readout was set; only that reads the state at the moment."""
        return self.kernel is not None and self.kernel.is_set

    @torch.no_grad()
    def rescale(self, scale: VariableScale) -> None:
        """Set mean, standard deviation and range from another entry of a normalisation."""
        low, high = (self.least.new_tensor(x) for x in (scale.low, scale.high))
        self.mean.copy_(self.mean.new_tensor(scale.mean))
        self.std.copy_(self.std.new_tensor(scale.std))
        self.least.copy_(low - RANGE_MARGIN * (high - low))
        self.most.copy_(high + RANGE_MARGIN * (high - low))

    # -- what the raw outputs mean ---------------------------------------------------------------------------

    def values(self, raw: Tensor) -> Tensor:
        """(..., C) in the variable's own unit; for classes, their probabilities.

        A regression is limited to the training range plus a tenth on either side: for unfamiliar states (a
        recording's first second) it must not give values that no animal ever showed.
        """
        if self.classes:
            return raw.softmax(-1)
        if self.kind == "circular":
            cos, sin = raw.chunk(2, -1)
            start = raw.new_tensor(self.start)
            return start + (torch.atan2(sin, cos) / (2 * math.pi) * self.period - start).remainder(self.period)
        return (raw[..., : self.num_columns] * self.std + self.mean).clamp(self.least, self.most)

    def decoded(self, raw: Tensor) -> Tensor:
        """(..., C) values as in a recording: class labels for classes."""
        if not self.classes:
            return self.values(raw)
        return torch.tensor(self.classes, device=raw.device)[raw.argmax(-1, keepdim=True)].to(raw.dtype)

    def spread(self, raw: Tensor) -> Tensor | None:
        """(..., C) standard deviation that the head predicts, in the variable's unit, if it learns one."""
        if self.classes or self.kind == "circular" or self.noise == "squared":
            return None
        widen = math.sqrt(STUDENT_DOF / (STUDENT_DOF - 2)) if self.noise == "student" else 1.0
        return self.log_scale(raw).exp() * self.std * widen

    def log_scale(self, raw: Tensor) -> Tensor:
        return raw[..., self.num_columns :].clamp(-MAX_LOG_STD, MAX_LOG_STD)

    def normalized(self, values: Tensor) -> Tensor:
        """(..., R') what a linear readout regresses on: units of the training spread, or (cos, sin)."""
        if self.kind == "circular":
            angle = values * (2 * math.pi / self.period)
            return torch.cat([angle.cos(), angle.sin()], -1)
        return (values - self.mean) / self.std

    def known(self, values_WNC: Tensor) -> Tensor:
        """(W, N) bool: which values exist; for classes, those that occurred in training."""
        exists = torch.isfinite(values_WNC).all(-1)
        if self.classes:
            classes = torch.tensor(self.classes, device=values_WNC.device, dtype=values_WNC.dtype)
            exists = exists & (values_WNC == classes).any(-1)
        return exists

    def loss(self, raw_WNR: Tensor, values_WNC: Tensor, total: Tensor | None = None) -> Tensor:
        """Mean over the values that exist (and over readouts); zero (with a gradient of zero) where a batch has none.

        ``total`` replaces their number where the batch is a piece of a larger one.

        Squared error in units of the training variance; Gaussian or Student-t negative log-likelihood with a
        learnt scale (nats, without constants); cross-entropy; von Mises negative log-likelihood.
        """
        raw = raw_WNR.float()
        exists = self.known(values_WNC)
        values = torch.nan_to_num(values_WNC)
        if self.classes:
            hit = values == torch.tensor(self.classes, device=values.device, dtype=values.dtype)
            label = hit.long().argmax(-1).expand(raw.shape[:-1])
            each = F.cross_entropy(raw.flatten(0, -2), label.flatten(), reduction="none").view(label.shape)
        elif self.kind == "circular":
            cos, sin = raw.chunk(2, -1)
            strength = (cos.square() + sin.square() + 1e-8).sqrt()
            aligned = (raw * self.normalized(values).float()).unflatten(-1, (2, -1)).sum(-2)
            each = (torch.special.i0e(strength).log() + strength - aligned).mean(-1)
        else:
            each = self._residual_loss(raw, self.normalized(values).float()).mean(-1)
        readouts = len(each) if each.ndim > exists.ndim else 1
        return (each * exists).sum() / readouts / (exists.sum() if total is None else total).clamp_min(1)

    def _residual_loss(self, raw: Tensor, wanted: Tensor) -> Tensor:
        error = (raw[..., : self.num_columns] - wanted).square()
        if self.noise == "squared":
            return error
        log_scale = self.log_scale(raw)
        error = error * (-2 * log_scale).exp()
        if self.noise == "gaussian":
            return 0.5 * error + log_scale
        return 0.5 * (STUDENT_DOF + 1) * torch.log1p(error / STUDENT_DOF) + log_scale

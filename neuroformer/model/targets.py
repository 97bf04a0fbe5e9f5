"""Behavior targets: heads that read the fused states and the spikes around each decoded moment.

Shape suffixes: M readouts, W windows, N values per window, V = W * N values, T tokens (SOS included), S spikes,
F features, D width, C columns, R raw outputs of a value, Q units or patterns of them, K temporal filters.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.config import Config, TargetConfig
from neuroformer.data.batch import Batch
from neuroformer.data.normalization import turn_start
from neuroformer.data.scales import VariableScale
from neuroformer.model.counts import FilteredCounts
from neuroformer.model.layers import Dropout, Linear
from neuroformer.model.units import UnitRows
from neuroformer.ops import Ragged, attention

STUDENT_DOF = 4.0  # tails heavy enough for tracking errors, light enough for a finite variance
MAX_LOG_STD = 5.0
FILTERS = 8  # log-spaced raised cosines of the time around a moment
SEEN_ALONE = 256  # units up to which a head sees each by itself
PATTERNS = 64  # of a larger population
RANGE_MARGIN = 0.1  # of the training range


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
    2. Beside it the first state (past, frames, behavior) and each unit's counts around the moment, or those of ``PATTERNS`` of a
       population of more than ``SEEN_ALONE`` units.
    3. A small network over the three, plus linear paths from the first state and from the counts.

    Raw outputs, by kind: ``regression``, the mean in units of the training spread (``noise`` gaussian or student:
    then the log of its scale); ``classification``, logits; ``circular``, the natural parameters of a von Mises
    distribution, (cos, sin) times its concentration.

    Parameters
    ----------
    config : Config
    target : TargetConfig
    scale : dict
        Its entry in the normalisation.
    num_units : int
    """

    def __init__(self, config: Config, target: TargetConfig, scale: VariableScale, num_units: int):
        super().__init__()
        m, w = config.model, config.window
        num_bins, self.ahead, width = round(w.current / w.dt), round(w.lookahead / w.dt), m.width
        self.kind, self.noise, self.heads = target.kind, target.noise, m.heads
        self.ends = value_ends(target.samples, num_bins)
        self.classes: list[int] = scale.classes
        self.words: list[str] = scale.words
        self.period: float = scale.period
        self.start = [turn_start(low, self.period) for low in scale.low or [0.0]]
        self.num_columns = 1 if self.classes else len(scale.mean)
        size = raw_size(target, scale)
        self.query = nn.Parameter(torch.randn(m.heads, width // m.heads) * 0.1)
        self.key_value = Linear(width, 2 * width, bias=False)
        before = round((w.target_past or w.past) / w.dt) or num_bins
        patterns = PATTERNS if num_units > SEEN_ALONE else 0
        self.counts = FilteredCounts(num_units, FILTERS, before, self.ahead, patterns)
        channels, filters = self.counts.num_channels, self.counts.num_filters
        self.rows = UnitRows(channels, filters, width, std=(channels * filters) ** -0.5)
        self.linear = UnitRows(channels, filters, size)
        self.out = nn.Sequential(
            nn.LayerNorm(3 * width), Linear(3 * width, width), nn.GELU(), Dropout(m.dropout), Linear(width, size)
        )
        self.skip = Linear(width, size)
        self.dropout = Dropout(m.dropout)
        self.register_buffer("mean", torch.tensor(scale.mean or [0.0]))
        self.register_buffer("std", torch.tensor(scale.std or [1.0]))
        low, high = (torch.tensor(x or [0.0]) for x in (scale.low, scale.high))
        self.register_buffer("least", low - RANGE_MARGIN * (high - low), persistent=False)
        self.register_buffer("most", high + RANGE_MARGIN * (high - low), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.least: Tensor
        self.most: Tensor

    def forward(self, batch: Batch, h_TD: Tensor, layout: Ragged) -> Tensor:
        """(W, N, R) raw outputs."""
        features_VF, first_VD, counts_VF = self.features(batch, h_TD, layout)
        raw = self.out(features_VF) + self.skip(first_VD) + counts_VF @ self.linear.weight.flatten(0, 1)
        return raw.unflatten(0, (len(layout), len(self.ends)))

    def features(self, batch: Batch, h_TD: Tensor, layout: Ragged) -> tuple[Tensor, Tensor, Tensor]:
        """(V, 3 D) pooled states, the first state and counts; the latter two also apart, counts (V, Q K) as they are."""
        pooled_VD, first_VD = self.pool(h_TD, layout, batch.tick_S)
        counts_VF = self.dropout(self.counted(batch).flatten(1).to(h_TD.dtype))
        together = torch.cat([pooled_VD, first_VD, counts_VF @ self.rows.weight.flatten(0, 1)], 1)
        return together, first_VD, counts_VF

    def counted(self, batch: Batch) -> Tensor:
        """(V, Q, K) root counts around every moment."""
        around = batch.around
        assert around is not None
        return self.counts(around.layout, around.tick_S, around.unit_S, self.ends)

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

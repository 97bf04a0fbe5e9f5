"""One window of many sequences, token by token, with keys and values kept.

Shape suffixes: W windows, A sequences still active, L cached tokens, H heads, E head width, D width, B bins,
U units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.data.batch import Batch
from neuroformer.model.attention import Block, Context
from neuroformer.model.heads import at_least_float32
from neuroformer.model.intensity import Intensity
from neuroformer.model.layers import Linear
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.ops import linear


class Stepper:
    """The model's states of a window, one token at a time.

    Past, frames and behavior are encoded, and their keys and values computed, once. All active sequences have the
    same number of tokens so far, so their own keys need no mask. :meth:`keep` drops finished sequences.

    Parameters
    ----------
    model : Neuroformer, in evaluation mode
    batch : Batch of W windows; its current spikes are never read
    """

    def __init__(self, model: Neuroformer, batch: Batch):
        self.model = model
        state = model.encode(batch)
        self.rows = torch.arange(batch.num_windows, device=state.start_WD.device)
        self.blocks = [b for b in model.fusion.blocks if isinstance(b, Block)]
        self.weights = [_Weights(b) for b in self.blocks]
        self.time_table = model.spikes.time_table()
        self.own: list[Tensor | None] = [None] * len(self.blocks)  # (A, room, 2, H, E) keys and values
        self.length = 0  # so many tokens of them are filled
        self.cross = [
            None if block.attend == "current" else self._keys(i, block, state.contexts[block.attend])
            for i, block in enumerate(self.blocks)
        ]
        self.h_AD = self._advance(state.start_WD)
        self.log_rate_WBU = model.rates(self.h_AD, state.log_rate_terms)
        self.log_rate_ABU, self.drive_ABU = self.log_rate_WBU, state.drive_WBU
        # what the spikes so far do to each bin
        self.within_ABU = None if model.coupling is None else torch.zeros_like(self.log_rate_WBU)
        self.cell_A = torch.full_like(self.rows, -1)  # of the last spike

    def after(self, which: Tensor, tick: Tensor, unit: Tensor, count: Tensor) -> Next:
        """What can come next for the active sequences ``which``, whose scan has passed the ``count``-th spike of the
        cell (tick, unit); unit -1: no spike yet.
        """
        drive = None if self.drive_ABU is None else self.drive_ABU[which]
        within = None if self.within_ABU is None else self.within_ABU[which]
        intensity = self.model.intensity(self.log_rate_ABU[which], drive, within, tick, unit, count)
        return Next(self.model, self.h_AD[which], tick, unit, intensity)

    def keep(self, which: Tensor) -> None:
        """Keep only the active sequences ``which``."""
        self.rows, self.cell_A = self.rows[which], self.cell_A[which]
        self.h_AD, self.log_rate_ABU = self.h_AD[which], self.log_rate_ABU[which]
        if self.drive_ABU is not None:
            self.drive_ABU = self.drive_ABU[which]
        if self.within_ABU is not None:
            self.within_ABU = self.within_ABU[which]
        self.own = [None if c is None else c[which] for c in self.own]

    def feed(self, tick: Tensor, unit: Tensor) -> None:
        """Append one spike to every active sequence."""
        cell = tick * self.model.num_units + unit
        if self.within_ABU is not None and self.model.coupling is not None:
            first = cell != self.cell_A
            self.within_ABU = self.within_ABU + self.model.coupling.effects(tick, unit, first)
        self.cell_A = cell
        self.h_AD = self._advance(self.model.spikes(tick, unit, self.time_table))

    def _advance(self, x_AD: Tensor) -> Tensor:
        for i, (block, keys) in enumerate(zip(self.weights, self.cross, strict=True)):
            y = torch.layer_norm(x_AD, *block.norm)
            q_AHE = linear(y, block.query).unflatten(-1, (block.heads, -1))
            if keys is None:
                mixed = self._attend(i, q_AHE, linear(y, block.key_value).unflatten(-1, (2, block.heads, -1)))
            else:
                mixed = keys.read(q_AHE, self.rows)
            x_AD = x_AD + linear(mixed.flatten(-2), *block.out)
            y = torch.layer_norm(x_AD, *block.mlp_norm)
            x_AD = x_AD + linear(linear(y, *block.wide, gelu=True), *block.narrow)
        self.length += 1
        return self.model.fusion.norm(x_AD)

    def _keys(self, place: int, block: Block, context: Context) -> Keys:
        """What the block at ``place`` reads of a stream."""
        k, v = (context.layout.pad(x) for x in block.keys_values(context))
        full = context.layout.total == len(context.layout) * context.layout.max_length
        return _PaddedKeys(k, v, None if full else context.layout.mask_BL, context.index_W)

    def _attend(self, place: int, q_AHE: Tensor, new_A2HE: Tensor) -> Tensor:
        """(A, H, E) of the sequences' own tokens so far, the new one included."""
        k, v = self._remember(place, new_A2HE).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q_AHE[:, :, None], k, v)[:, :, 0]

    def _remember(self, block: int, new_A2HE: Tensor) -> Tensor:
        """(A, L, 2, H, E) keys and values of a block's tokens so far, the new ones written behind them in place."""
        own = self.own[block]
        if own is None or own.shape[1] == self.length:  # double the room
            more = new_A2HE.new_empty(len(new_A2HE), max(16, self.length), *new_A2HE.shape[1:])
            own = self.own[block] = more if own is None else torch.cat([own, more], 1)
        own[:, self.length] = new_A2HE
        return own[:, : self.length + 1]


class _Weights:
    """The weights of a :class:`~neuroformer.model.attention.Block`, looked up once.

    A module finds its parts by name, in Python: for every token anew, that took a tenth of a single sequence's time.
    """

    def __init__(self, block: Block):
        attention, (mlp_norm, wide, _, narrow) = block.attention, block.mlp
        assert isinstance(mlp_norm, nn.LayerNorm) and isinstance(wide, Linear) and isinstance(narrow, Linear)
        self.heads = attention.heads
        self.norm, self.mlp_norm = ((n.normalized_shape, n.weight, n.bias, n.eps) for n in (block.norm, mlp_norm))
        self.query, self.key_value = attention.query.weight, attention.key_value.weight
        self.out, self.wide, self.narrow = ((x.weight, x.bias) for x in (attention.out, wide, narrow))


@dataclass
class Next:
    """What follows the last spike (tick, unit) of each of n sequences."""

    model: Neuroformer
    h_nD: Tensor
    tick: Tensor
    unit: Tensor
    intensity: Intensity | None

    def dt_logits(self) -> Tensor:
        """(n, B + 1) logits of the next bin; the last class ends the window. Bins before the last spike's are
        excluded.
        """
        base = None if self.intensity is None else self.intensity.dt_base()
        return self.model.heads.dt_logits(self.h_nD, base, self.tick)

    def id_logits(self, dt: Tensor) -> Tensor:
        """(n, U) logits of the unit at bin ``dt``; in the last spike's bin, units before its own are excluded."""
        heads = self.model.heads
        state = heads.id_state(self.h_nD, dt)
        logits = at_least_float32(linear(state, heads.unit, heads.bias))
        base = self.model.id_base(self.intensity, torch.arange(len(dt), device=dt.device), dt)
        if base is not None:
            logits = logits + base
        low = torch.where(self.tick == dt, self.unit, 0)
        units = torch.arange(logits.shape[1], device=logits.device)
        return logits.masked_fill(units < low[:, None], float("-inf"))


class Keys(Protocol):
    """Keys and values of one stream, computed once per window."""

    def read(self, q_AHE: Tensor, rows: Tensor) -> Tensor:
        """(A, H, E) for the queries of the active windows ``rows``."""
        ...


class _PaddedKeys:
    """Keys and values of one stream, kept as (G, H, L, E), and which of them each window reads.

    Queries are moved to the keys, not keys to the queries: queries of windows that share a stimulus are side by side,
    (G, n, H, E), and keys are copied only when a third of them is no longer read.
    """

    def __init__(self, k: Tensor, v: Tensor, mask: Tensor | None, index_W: Tensor | None):
        # heads apart and packed: a step reads every key once, and halves its time when they lie in a row
        self.k, self.v = (x.transpose(1, 2).contiguous() for x in (k, v))
        self.mask, self.index_W = mask, index_W
        self.held = torch.arange(len(k), device=k.device)  # which key sequences these are
        self.rows: Tensor | None = None
        self.place_A, self.slots = self.held, 1  # of each query among the (G * slots)
        self.in_order = True  # each query lies where it should, and no slot is free

    def read(self, q_AHE: Tensor, rows: Tensor) -> Tensor:
        if self.rows is not rows:
            self.rows = rows
            self._arrange(rows if self.index_W is None else self.index_W[rows])
        size = (len(self.k) * self.slots, *q_AHE.shape[1:])
        q = q_AHE * q_AHE.shape[-1] ** -0.5
        if not self.in_order:
            empty = q.new_empty(size) if len(q) == size[0] else q.new_zeros(size)
            q = empty.index_copy_(0, self.place_A, q)
        q = q.unflatten(0, (-1, self.slots)).transpose(1, 2)
        scores_GHNL = q @ self.k.transpose(2, 3)
        if self.mask is not None:
            scores_GHNL = scores_GHNL.masked_fill(~self.mask[:, None, None], float("-inf"))
        mixed = (scores_GHNL.softmax(-1) @ self.v).transpose(1, 2).flatten(0, 1)
        return mixed if self.in_order else mixed.index_select(0, self.place_A)

    def _arrange(self, reads_A: Tensor) -> None:
        """Give every query a slot beside its keys; drop unread keys once there are many."""
        used, count = torch.unique(reads_A, return_counts=True)
        if 3 * len(used) < 2 * len(self.held):
            which = torch.searchsorted(self.held, used)
            self.k, self.v = self.k.index_select(0, which), self.v.index_select(0, which)
            self.mask = None if self.mask is None else self.mask.index_select(0, which)
            self.held = used
        order = torch.argsort(reads_A, stable=True)
        rank = torch.arange(len(order), device=order.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
        self.slots = int(count.max()) if len(count) else 1
        place = torch.searchsorted(self.held, reads_A[order]) * self.slots + rank
        self.place_A = torch.empty_like(place).index_copy_(0, order, place)
        self.in_order = torch.equal(self.place_A, torch.arange(len(self.held) * self.slots, device=place.device))

"""One window of many sequences, token by token, with keys and values kept (the KV cache).

Shape suffixes: W windows, A sequences still active, L cached tokens, H heads, E head width, D width, B bins,
U units.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.data.batch import Batch
from neuroformer.model.attention import Block, Context
from neuroformer.model.layers import Linear
from neuroformer.model.network import Neuroformer
from neuroformer.model.spikes import BinTable, SpikeObservation
from neuroformer.ops import linear


class Stepper:
    """The network's states of a window, one token at a time.

    Streams are encoded, and their keys and values computed, once. All active sequences have the same number of tokens so
    far, so their own keys need no mask. :meth:`keep` drops finished sequences.

    Parameters
    ----------
    model : Neuroformer, in evaluation mode
    batch : Batch of W windows; its current spikes are never read
    """

    def __init__(self, model: Neuroformer, batch: Batch):
        self.model = model
        encoded = model.encode(batch)
        first_WD = model.first_token(batch, encoded)
        self.rows = torch.arange(batch.num_windows, device=first_WD.device)
        self.blocks = [b for b in model.blocks if isinstance(b, Block)]
        self.weights = [_Weights(b) for b in self.blocks]
        self.time_table = model.embedding.time_table()
        self.kept: list[Tensor | None] = [None] * len(self.blocks)  # (A, room, 2, H, E) keys and values of own tokens
        self.length = 0  # so many tokens of them are filled
        self.cross = [
            None if block.attend == "current" else self._keys(i, block, encoded[block.attend].context)
            for i, block in enumerate(self.blocks)
        ]
        self.h_AD = self._advance(first_WD)
        assert isinstance(model.observation, SpikeObservation)
        self.observation = model.observation
        self.base_ABU, self.drive_ABU = self.observation.before(batch, self.h_AD, model.terms(encoded))
        self.base_ABU = self.base_ABU.contiguous()
        self.mass_AB = (
            self.observation.moved(self.base_ABU, self.drive_ABU).exp().sum(2)
        )  # expected spikes of each bin, given those of earlier bins
        self.cell_A = torch.full_like(self.rows, -1)  # of the last spike

    def after(self, which: Tensor, tick: Tensor, unit: Tensor, count: Tensor) -> Next:
        """What can come next for the active sequences ``which``, whose scan has passed the ``count``-th spike of the
        cell (tick, unit); unit -1: no spike yet.
        """
        return Next(self, which, tick, unit, count)

    def keep(self, which: Tensor) -> None:
        """Keep only the active sequences ``which``."""
        for name in ("rows", "cell_A", "h_AD", "base_ABU", "drive_ABU", "mass_AB"):
            setattr(self, name, getattr(self, name)[which])
        self.kept = [None if c is None else c[which] for c in self.kept]

    def feed(self, tick: Tensor, unit: Tensor) -> None:
        """Append one spike to every active sequence."""
        cell = tick * self.model.num_units + unit
        self._act(tick, unit, cell != self.cell_A)
        self.cell_A = cell
        self.h_AD = self._advance(self.model.embedding(tick, unit, self.time_table))

    def _act(self, tick: Tensor, unit: Tensor, acts_A: Tensor) -> None:
        """Change what later bins expect of the units that fired: single cells of the table, and the sums over units."""
        observation, size = self.observation, self.base_ABU.shape
        row = torch.arange(len(tick), device=tick.device)
        place_AB, effect_AB = observation.own.effects(size, row, tick, unit)
        place, effect = place_AB.flatten(), (effect_AB * acts_A[:, None]).flatten()
        base, drive = self.base_ABU.flatten().index_select(0, place), self.drive_ABU.flatten()
        before = drive.index_select(0, place)
        after = before + effect
        drive.index_copy_(0, place, after)
        rates = lambda x: observation.moved(base, x, place % size[2]).exp()
        self.mass_AB.flatten().index_add_(0, place // size[2], rates(after) - rates(before))

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
        return self.model.norm(x_AD)

    def _keys(self, place: int, block: Block, context: Context) -> Keys:
        """What a block reads of a stream."""
        k, v = (context.layout.pad(x) for x in block.keys_values(context))
        full = context.layout.total == len(context.layout) * context.layout.max_length
        return _PaddedKeys(k, v, None if full else context.layout.mask_BL, context.index_W)

    def _attend(self, place: int, q_AHE: Tensor, new_A2HE: Tensor) -> Tensor:
        """(A, H, E) of the sequences' own tokens so far, the new one included."""
        k, v = self._remember(place, new_A2HE).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q_AHE[:, :, None], k, v)[:, :, 0]

    def _remember(self, block: int, new_A2HE: Tensor) -> Tensor:
        """(A, L, 2, H, E) keys and values of a block's tokens so far, the new ones written behind them in place: here the KV
        cache is filled."""
        kept = self.kept[block]
        if kept is None or kept.shape[1] == self.length:  # double the room
            more = new_A2HE.new_empty(len(new_A2HE), max(16, self.length), *new_A2HE.shape[1:])
            kept = self.kept[block] = more if kept is None else torch.cat([kept, more], 1)
        kept[:, self.length] = new_A2HE
        return kept[:, : self.length + 1]


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


class Next:
    """What follows the last spike (tick, unit) of n sequences, the ``count``-th of its cell."""

    def __init__(self, stepper: Stepper, which: Tensor, tick: Tensor, unit: Tensor, count: Tensor):
        self.stepper, self.which, self.observation = stepper, which, stepper.observation
        self.tick, self.unit, self.count = tick, unit, count
        self.h_nD, self.mass_nB = stepper.h_AD[which], stepper.mass_AB[which]
        self.tables = stepper.base_ABU, stepper.drive_ABU
        self.each = torch.arange(len(which), device=which.device)

    def dt_log_p(self) -> Tensor:
        """(n, B + 1) log-probability of the next bin; the last class ends the window."""
        here = BinTable(self.rates(self.tick)).left(self.each, self.unit, self.count)
        left_nB = self.mass_nB.scatter(1, self.tick[:, None], here[:, None])
        return self.observation.dt_log_p(self.h_nD, left_nB, self.tick)

    def rates(self, tick: Tensor) -> Tensor:
        """(n, U) expected counts of one bin of each sequence, given the spikes of earlier bins."""
        place = self.which * self.stepper.model.num_bins + tick
        base, drive = (x.flatten(0, 1).index_select(0, place) for x in self.tables)
        return self.observation.moved(base, drive).exp()

    def id_logits(self, tick: Tensor) -> Tensor:
        """(n, U) logits of the unit at bin ``tick``; in the last spike's bin, units before its own are excluded."""
        begun = (self.tick == tick) & (self.unit >= 0)
        table = BinTable(self.rates(tick))
        units = torch.arange(self.stepper.model.num_units, device=tick.device)
        is_last_nU = begun[:, None] & (units == self.unit[:, None])
        base_nU = torch.where(
            is_last_nU, table.again_logit(self.each, self.unit, self.count)[:, None], table.unit_logits()
        )
        logits = self.observation.unit_logits(self.h_nD, tick, base_nU)
        return logits.masked_fill(begun[:, None] & (units < self.unit[:, None]), float("-inf"))


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

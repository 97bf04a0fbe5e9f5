"""One window of many sequences, token by token, with keys and values kept.

Shape suffixes: W windows, A sequences still active, L cached tokens, H heads, E head width, D width, B bins,
U units.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroformer.data.batch import Batch
from neuroformer.model.attention import Block
from neuroformer.model.heads import Anchor, at_least_float32
from neuroformer.model.neuroformer import Neuroformer


class Stepper:
    """The model's states of a window, one token at a time.

    Past, frames and behavior are encoded, and their keys and values computed, once. Every active sequence has
    the same number of tokens so far, so its own keys need no mask. :meth:`keep` drops finished sequences.

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
        self.own: list[tuple[Tensor, Tensor] | None] = [None] * len(self.blocks)
        self.cross: list[_Keys | None] = []
        for block in self.blocks:
            context = None if block.attend == "current" else state.contexts[block.attend]
            if context is None:
                self.cross.append(None)
            else:
                k, v = (context.layout.pad(x) for x in block.keys_values(context))
                full = context.layout.total == len(context.layout) * context.layout.max_length
                mask = None if full else context.layout.mask_BL
                self.cross.append(_Keys(k, v, mask, context.index_W))
        self.h_AD = self._advance(state.start_WD)
        size = (batch.num_windows, model.num_bins, model.coupling.id.shape[2] + 1)
        self.coupled_ABE = self.h_AD.new_zeros(size)  # what the spikes so far do to each bin
        self.log_rate_WBU = model.rates(self.h_AD, state.linear_WBU)
        self.anchor = Anchor.from_log_rates(self.log_rate_WBU) if model.config.model.rate_anchor else None

    def dt_logits(self, which: Tensor, last_tick: Tensor, last_unit: Tensor, count: Tensor) -> Tensor:
        """(n, B + 1) of the next bin for the active sequences ``which``; the last class ends the window.

        The scan stands behind the ``count``-th spike of the cell (last_tick, last_unit), unit -1 before any: bins
        before ``last_tick`` are excluded.
        """
        base = self.model.dt_base(
            self.anchor, self.coupled_ABE[which], self.rows[which], last_tick, last_unit, count
        )
        logits = at_least_float32(self.model.heads.dt(self.h_AD[which]) + base)
        bins = torch.arange(logits.shape[1], device=logits.device)
        return logits.masked_fill(bins < last_tick[:, None], float("-inf"))

    def id_logits(self, which: Tensor, dt: Tensor, low: Tensor) -> Tensor:
        """(n, U) of the unit at bin ``dt`` for the active sequences ``which``; units before ``low`` are excluded."""
        state, unit_UD = self.model.id_projection(self.h_AD[which], self.coupled_ABE[which], dt)
        logits = at_least_float32(state @ unit_UD.T + self.model.heads.bias)
        base, rows = self.model.id_base(self.anchor, self.rows[which], dt)
        if base is not None and rows is not None:
            logits = logits + base.index_select(0, rows)
        units = torch.arange(logits.shape[1], device=logits.device)
        return logits.masked_fill(units < low[:, None], float("-inf"))

    def keep(self, which: Tensor) -> None:
        """Go on with the active sequences ``which`` only."""
        self.rows, self.h_AD = self.rows[which], self.h_AD[which]
        self.coupled_ABE = self.coupled_ABE[which]
        self.own = [None if c is None else (c[0][which], c[1][which]) for c in self.own]

    def feed(self, tick: Tensor, unit: Tensor) -> None:
        """Append one spike to every active sequence."""
        self.coupled_ABE = self.coupled_ABE + self.model.coupling.rows(tick, unit)
        self.h_AD = self._advance(self.model.spikes(tick, unit))

    def _advance(self, x_AD: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            y = block.norm(x_AD)
            q_AHE = block.attention.queries(y)
            keys = self.cross[i]
            if keys is None:
                k, v = (x[:, None] for x in block.attention.keys_values(y))
                old = self.own[i]
                if old is not None:
                    k, v = torch.cat([old[0], k], 1), torch.cat([old[1], v], 1)
                self.own[i] = (k, v)
                mixed = _attend(q_AHE[:, None], k, v, None)[:, 0]
            else:
                mixed = keys.read(q_AHE, self.rows)
            x_AD = block.finish(x_AD, mixed)
        return self.model.fusion.norm(x_AD)


class _Keys:
    """Keys and values of one stream, (sequences, L, H, E), and which of them each window reads."""

    def __init__(self, k: Tensor, v: Tensor, mask: Tensor | None, index_W: Tensor | None):
        self.k, self.v, self.mask, self.index_W = k, v, mask, index_W
        self._rows: Tensor | None = None
        self._taken: tuple[Tensor, Tensor, Tensor | None] = (k, v, mask)

    def read(self, q_AHE: Tensor, rows: Tensor) -> Tensor:
        if (
            self.index_W is not None and len(self.k) == 1
        ):  # one stimulus for all: its keys stay where they are
            return _attend(q_AHE[None], self.k, self.v, self.mask)[0]
        if self._rows is not rows:  # copied only when sequences were dropped
            which = rows if self.index_W is None else self.index_W[rows]
            mask = None if self.mask is None else self.mask.index_select(0, which)
            self._rows = rows
            self._taken = (self.k.index_select(0, which), self.v.index_select(0, which), mask)
        k, v, mask = self._taken
        return _attend(q_AHE[:, None], k, v, mask)[:, 0]


def _attend(q_BTHE: Tensor, k_BLHE: Tensor, v_BLHE: Tensor, mask_BL: Tensor | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q_BTHE, k_BLHE, v_BLHE))
    mask = None if mask_BL is None else mask_BL[:, None, None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

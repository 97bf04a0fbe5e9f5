"""Attention weights themselves, padded: for maps on a CPU, and for mixing them across layers.

Shape suffixes: T query tokens, S key tokens, B sequences of a piece, L queries of its longest, K keys of its longest,
H heads, E head width, X and Y labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuroformer.ops.ragged import Ragged

MAX_WEIGHTS = 1 << 21  # of one piece: what a processor's cache still helps with
NUM_PIECES = 6  # at least, where there are enough sequences: fewer pad more


@dataclass
class Piece:
    """Sequences of similar length, padded to their own longest.

    Attributes
    ----------
    query_BL, key_BK : places in the packed tensors; 0 where there is no token
    has_query_BL, has_key_BK : bool
    full : no key is missing
    """

    query_BL: Tensor
    key_BK: Tensor
    has_query_BL: Tensor
    has_key_BK: Tensor
    causal: bool
    full: bool

    def weights(self, q_THE: Tensor, k_SHE: Tensor) -> Tensor:
        """(B, H, L, K); rows of padded queries hold numbers without meaning."""
        q_BHLE, k_BHKE = self._by_head(q_THE, self.query_BL), self._by_head(k_SHE, self.key_BK)
        scores = q_BHLE.mul_(q_THE.shape[-1] ** -0.5) @ k_BHKE.transpose(-1, -2)
        if self.causal:  # padding lies behind every token of its own sequence
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores.masked_fill_(future, float("-inf"))
        elif not self.full:
            scores.masked_fill_(~self.has_key_BK[:, None, None, :], float("-inf"))
        return scores.softmax(-1)

    def mix(self, p_BHLK: Tensor, v_SHE: Tensor, out_THE: Tensor) -> None:
        """Write what these weights make of the values into the packed output."""
        mixed_BLHE = (p_BHLK @ self._by_head(v_SHE, self.key_BK)).transpose(1, 2)
        out_THE.index_copy_(0, self.query_BL[self.has_query_BL], mixed_BLHE[self.has_query_BL])

    @staticmethod
    def _by_head(x_SHE: Tensor, place_BK: Tensor) -> Tensor:
        """(B, H, K, E) contiguous, as a product of matrices wants it."""
        gathered = x_SHE.index_select(0, place_BK.flatten()).unflatten(0, place_BK.shape)
        return gathered.transpose(1, 2).contiguous()

    def cells(self, q_label_T: Tensor, k_label_S: Tensor, num_labels: tuple[int, int]) -> Tensor:
        """(B, L, K) cell ``x * Y + y`` of each query and key; ``X * Y`` where either has no label or no token."""
        none, num_y = num_labels[0] * num_labels[1], num_labels[1]
        x_BL, y_BK = q_label_T[self.query_BL], k_label_S[self.key_BK]
        counts_BL, counts_BK = self.has_query_BL & (x_BL >= 0), self.has_key_BK & (y_BK >= 0)
        cell = (x_BL * num_y)[:, :, None] + y_BK[:, None, :]
        counts = counts_BL[:, :, None] & counts_BK[:, None, :]
        return cell.where(counts.tril() if self.causal else counts, none)


def pieces(
    q_layout: Ragged, k_layout: Ragged, num_heads: int, k_index: Tensor | None = None, causal: bool = False
) -> list[Piece]:
    """All sequences that have queries and keys, those with few pairs first, so that padding stays small.

    Found once a batch and kept in the queries' layout, for all blocks that attend to the same keys.
    """
    cache_key = ("pieces", id(k_layout), id(k_index), num_heads, causal)
    if cache_key not in q_layout.cache:  # the operands stay with it, so that no id is used again
        found = _pieces(q_layout, k_layout, num_heads, k_index, causal)
        q_layout.cache[cache_key] = (found, k_layout, k_index)
    return q_layout.cache[cache_key][0]


def _pieces(q_layout: Ragged, k_layout: Ragged, num_heads: int, k_index: Tensor | None, causal: bool) -> list[Piece]:
    k_row = torch.arange(len(q_layout), device=q_layout.offsets.device) if k_index is None else k_index
    size = q_layout.lengths_B * k_layout.lengths_B[k_row]
    order = torch.argsort(size, stable=True)
    order = order[size[order] > 0]
    step = max(1, MAX_WEIGHTS // max(1, q_layout.max_length * k_layout.max_length * num_heads))
    parts = order.split(min(step, max(1, -(-len(order) // NUM_PIECES))))
    return [_piece(q_layout, k_layout, rows, k_row[rows], causal) for rows in parts]


def whole(q_layout: Ragged, k_layout: Ragged, k_index: Tensor | None, causal: bool) -> Piece:
    """Every sequence of a batch in its own order, as one piece; none may be without keys."""
    rows = torch.arange(len(q_layout), device=q_layout.offsets.device)
    return _piece(q_layout, k_layout, rows, rows if k_index is None else k_index, causal)


def _piece(q_layout: Ragged, k_layout: Ragged, q_rows: Tensor, k_rows: Tensor, causal: bool) -> Piece:
    query, has_query = _places(q_layout, q_rows)
    key, has_key = _places(k_layout, k_rows)
    return Piece(query, key, has_query, has_key, causal, bool(has_key.all()))


def _places(layout: Ragged, rows: Tensor) -> tuple[Tensor, Tensor]:
    lengths = layout.lengths_B[rows]
    place = torch.arange(int(lengths.max()), device=rows.device)
    there = place < lengths[:, None]
    return (layout.offsets[rows][:, None] + place).where(there, 0), there


def reduce(p_NBLK: Tensor, cell_BLK: Tensor, num_labels: tuple[int, int]) -> Tensor:
    """(N, X, Y) float64 sums of weights by cell; see :meth:`Piece.cells`."""
    size, cell = num_labels[0] * num_labels[1], cell_BLK.flatten()
    total = [torch.bincount(cell, p.flatten(), minlength=size + 1)[:size] for p in p_NBLK]
    return torch.stack(total).double().reshape(len(p_NBLK), *num_labels)


def attention_map(
    q_THE: Tensor,
    k_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    q_label_T: Tensor,
    k_label_S: Tensor,
    num_labels: tuple[int, int],
    *,
    per_head: bool,
    v_SHE: Tensor | None = None,
    k_index: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """As :func:`neuroformer.ops.attention_map`; its own softmax makes ``lse`` unnecessary.

    With ``v_SHE`` also the attention's result, (T, H, E), of the same weights.
    """
    total = torch.zeros(q_THE.shape[1] if per_head else 1, *num_labels, dtype=torch.float64, device=q_THE.device)
    out_THE = None if v_SHE is None else torch.zeros_like(q_THE)
    for piece in pieces(q_layout, k_layout, q_THE.shape[1], k_index, causal):
        p_BHLK = piece.weights(q_THE, k_SHE)
        if v_SHE is not None and out_THE is not None:
            piece.mix(p_BHLK, v_SHE, out_THE)
        p_NBLK = p_BHLK.transpose(0, 1) if per_head else p_BHLK.mean(1)[None]
        total += reduce(p_NBLK, piece.cells(q_label_T, k_label_S, num_labels), num_labels)
    return total if per_head else total[0], out_THE

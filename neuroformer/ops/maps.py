"""Attention weights themselves, padded: for maps on a CPU, and for whoever mixes them across layers.

Shape suffixes: T query tokens, S key tokens, B sequences of a piece, L queries of its longest, K keys of its longest,
H heads, E head width, X and Y labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuroformer.ops import reference
from neuroformer.ops.ragged import Ragged

MAX_WEIGHTS = 1 << 21  # of one piece: what a processor's cache still helps with


@dataclass
class Piece:
    """Sequences of similar length, padded to their own longest.

    Attributes
    ----------
    query_BL, key_BK : places in the packed tensors; 0 where there is no token
    has_query_BL, has_key_BK : bool
    """

    query_BL: Tensor
    key_BK: Tensor
    has_query_BL: Tensor
    has_key_BK: Tensor
    causal: bool

    def weights(self, q_THE: Tensor, k_SHE: Tensor) -> Tensor:
        """(B, H, L, K); rows of padded queries hold numbers without meaning."""
        q_BLHE, k_BKHE = (
            x.index_select(0, place.flatten()).unflatten(0, place.shape)
            for x, place in ((q_THE * q_THE.shape[-1] ** -0.5, self.query_BL), (k_SHE, self.key_BK))
        )
        scores = q_BLHE.transpose(1, 2) @ k_BKHE.permute(0, 2, 3, 1)
        if self.causal:
            future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores.masked_fill_(future, float("-inf"))
        if not bool(self.has_key_BK.all()):
            scores.masked_fill_(~self.has_key_BK[:, None, None, :], float("-inf"))
        return scores.softmax(-1)

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
    """All sequences that have queries and keys, the shortest first, so that padding stays small.

    Found once a batch and kept in the queries' layout, for all blocks that attend to the same keys.
    """
    cache_key = ("pieces", id(k_layout), id(k_index), num_heads, causal)
    if cache_key not in q_layout.cache:  # the operands stay with it, so that no id is used again
        found = _pieces(q_layout, k_layout, num_heads, k_index, causal)
        q_layout.cache[cache_key] = (found, k_layout, k_index)
    return q_layout.cache[cache_key][0]


def _pieces(
    q_layout: Ragged, k_layout: Ragged, num_heads: int, k_index: Tensor | None, causal: bool
) -> list[Piece]:
    k_row = torch.arange(len(q_layout), device=q_layout.offsets.device) if k_index is None else k_index
    k_lengths = k_layout.lengths_B[k_row]
    order = torch.argsort(q_layout.lengths_B, stable=True)
    order = order[(q_layout.lengths_B[order] > 0) & (k_lengths[order] > 0)]
    step = max(1, MAX_WEIGHTS // max(1, q_layout.max_length * k_layout.max_length * num_heads))
    found = []
    for rows in order.split(min(step, max(1, len(order) // 8))):
        query, has_query = _places(q_layout, rows)
        key, has_key = _places(k_layout, k_row[rows])
        found.append(Piece(query, key, has_query, has_key, causal))
    return found


def whole(q_layout: Ragged, k_layout: Ragged, k_index: Tensor | None, causal: bool) -> Piece:
    """Every sequence of a batch in its own order, as one piece; none may be without keys."""
    rows = torch.arange(len(q_layout), device=q_layout.offsets.device)
    query, has_query = _places(q_layout, rows)
    key, has_key = _places(k_layout, rows if k_index is None else k_index)
    return Piece(query, key, has_query, has_key, causal)


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
    q_THE: Tensor, k_SHE: Tensor, q_layout: Ragged, k_layout: Ragged, q_label_T: Tensor, k_label_S: Tensor,
    num_labels: tuple[int, int], *, per_head: bool, k_index: Tensor | None = None, causal: bool = False,
    q_times: Tensor | None = None, k_times: Tensor | None = None, rotary_freqs: Tensor | None = None,
    window_s: float | None = None,
) -> Tensor:  # fmt: skip
    """As :func:`neuroformer.ops.attention_map`; its own softmax makes ``lse`` unnecessary."""
    assert window_s is None, "the dispatcher refuses it"
    if rotary_freqs is not None:
        assert q_times is not None and k_times is not None
        q_THE = reference.rotary(q_THE, q_times, rotary_freqs)
        k_SHE = reference.rotary(k_SHE, k_times, rotary_freqs)
    total = torch.zeros(q_THE.shape[1] if per_head else 1, *num_labels, dtype=torch.float64, device=q_THE.device)  # fmt: skip
    for piece in pieces(q_layout, k_layout, q_THE.shape[1], k_index, causal):
        p_BHLK = piece.weights(q_THE, k_SHE)
        p_NBLK = p_BHLK.transpose(0, 1) if per_head else p_BHLK.mean(1)[None]
        total += reduce(p_NBLK, piece.cells(q_label_T, k_label_S, num_labels), num_labels)
    return total if per_head else total[0]

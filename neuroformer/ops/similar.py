"""Grouping of sequences by length, so that a few long windows do not make all others padded.

Shape suffixes: T tokens, N places of the padded parts, S key tokens, B sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroformer.ops.ragged import Ragged

NUM_PARTS = 4
WORTH = 1.3  # padding all together must cost so many times the parts


@dataclass
class TokenPlaces:
    """Where tokens lie in all parts, one part after another.

    Attributes
    ----------
    token_N : the token of each place; any where there is none
    place_T : the place of each token; 0 where it has none
    lost_T : such tokens, if any
    """

    token_N: Tensor
    place_T: Tensor
    lost_T: Tensor | None

    def spread(self, x_T: Tensor) -> Tensor:
        """(N, ...) a token a place; where there is none, something that must be masked."""
        return _Spread.apply(x_T, self)  # pyright: ignore[reportReturnType]

    def gather(self, x_N: Tensor) -> Tensor:
        """(T, ...) the way back; zero where a token has no place."""
        return _Gather.apply(x_N, self)  # pyright: ignore[reportReturnType]

    def take(self, x_N: Tensor) -> Tensor:
        out = x_N.index_select(0, self.place_T)
        if self.lost_T is not None:
            out[self.lost_T] = 0.0
        return out

    def put(self, x_T: Tensor) -> Tensor:
        out = x_T.new_zeros(len(self.token_N), *x_T.shape[1:])
        if self.lost_T is None:
            return out.index_copy_(0, self.place_T, x_T)
        return out.index_copy_(0, self.place_T[~self.lost_T], x_T[~self.lost_T])


@dataclass
class Part:
    """``num`` sequences: the slices of their queries' and keys' places, and what may be seen (None: everything)."""

    num: int
    queries: slice
    keys: slice
    seen: Tensor | None


@dataclass
class Parts:
    queries: TokenPlaces
    keys: TokenPlaces
    parts: list[Part]


def parts(q_layout: Ragged, k_layout: Ragged, k_index: Tensor | None) -> Parts | None:
    """Sequences in a few parts, by their number of query-key pairs; None if that saves little.

    Found once a batch and kept in the queries' layout, for all layers that attend to the same keys.
    """
    key = ("similar", id(k_layout), id(k_index))
    if key not in q_layout.cache:  # the operands stay with it, so that no id is used again
        q_layout.cache[key] = (_parts(q_layout, k_layout, k_index), k_layout, k_index)
    return q_layout.cache[key][0]


def _parts(q_layout: Ragged, k_layout: Ragged, k_index: Tensor | None) -> Parts | None:
    token_T = torch.arange(q_layout.total)
    if k_index is not None:
        token_T, q_layout = regrouped(q_layout, k_index, len(k_layout))
    num_q, num_k = q_layout.lengths_B, k_layout.lengths_B
    order = torch.argsort(num_q * num_k, stable=True)
    order = order[(num_q * num_k)[order] > 0]
    if len(order) < 2 * NUM_PARTS:
        return None
    chunks = order.tensor_split(NUM_PARTS)
    sizes = [(len(c), int(num_q[c].max()), int(num_k[c].max())) for c in chunks]
    together = len(order) * max(s[1] for s in sizes) * max(s[2] for s in sizes)
    if together < WORTH * sum(n * q * k for n, q, k in sizes):
        return None
    found, q_tokens, k_tokens, q_place, k_place = [], [], [], 0, 0
    for rows, (num, longest_q, longest_k) in zip(chunks, sizes, strict=True):
        q_token, _ = _tokens(q_layout, rows, longest_q)
        k_token, there = _tokens(k_layout, rows, longest_k)
        queries, keys = slice(q_place, q_place + q_token.numel()), slice(k_place, k_place + k_token.numel())
        seen = None if bool(there.all()) else there[:, None, None]
        found.append(Part(num, queries, keys, seen))
        q_tokens.append(token_T[q_token])
        k_tokens.append(k_token)
        q_place, k_place = queries.stop, keys.stop
    return Parts(_places(q_tokens, q_layout), _places(k_tokens, k_layout), found)


def regrouped(q_layout: Ragged, k_index: Tensor, num_groups: int) -> tuple[Tensor, Ragged]:
    """Order of the query tokens by the key sequence they read, and the layout of the groups."""
    group_T = k_index.index_select(0, q_layout.row_T)
    order = torch.argsort(group_T, stable=True)
    lengths = torch.zeros(num_groups, dtype=torch.int64, device=k_index.device)
    lengths.index_add_(0, group_T, torch.ones_like(group_T))
    return order, Ragged.from_lengths(lengths)


def _tokens(layout: Ragged, rows: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """(B, longest) tokens of these sequences, the last one repeated; and which are there."""
    place = torch.arange(longest)
    length = layout.lengths_B[rows][:, None]
    return layout.offsets[rows][:, None] + torch.minimum(place, length - 1), place < length


def _places(tokens: list[Tensor], layout: Ragged) -> TokenPlaces:
    token_N = torch.cat([t.flatten() for t in tokens])
    first = torch.ones_like(token_N, dtype=torch.bool)  # of several places of a token the first is its own
    first[1:] = token_N[1:] != token_N[:-1]
    own = torch.nonzero(first).squeeze(1)
    place_T = torch.full((layout.total,), -1)
    place_T[token_N[own]] = own
    lost = place_T < 0
    return TokenPlaces(token_N, place_T.clamp_min(0), lost if bool(lost.any()) else None)


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_T: Tensor, places: TokenPlaces) -> Tensor:
        ctx.places = places
        return x_T.index_select(0, places.token_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.places.take(grad_N), None  # what was masked has no gradient


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_N: Tensor, places: TokenPlaces) -> Tensor:
        ctx.places = places
        return places.take(x_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_T: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.places.put(grad_T), None

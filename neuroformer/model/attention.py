"""Pre-norm attention blocks on packed ragged sequences, in parts that a cached rollout can call one by one.

Shape suffixes: T query tokens, S key tokens, H heads, E head width, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroformer.model.layers import Dropout, Linear, Mlp
from neuroformer.ops import Ragged, attention

Observer = Callable[[Tensor, Tensor, Tensor, Ragged, Ragged, Tensor | None], Tensor | None]


@dataclass
class Context:
    """What queries may attend to: packed vectors, their layout, and which sequence each window reads."""

    x_SD: Tensor
    layout: Ragged
    index_W: Tensor | None = None


def prepend(x_SD: Tensor, layout: Ragged, first_BD: Tensor) -> tuple[Tensor, Ragged]:
    """Put one vector before each sequence, so that there is always something to attend to."""
    count = torch.arange(len(layout) + 1, device=layout.offsets.device)
    longer = Ragged(layout.offsets + count, layout.max_length + 1, layout.total + len(layout))
    out = x_SD.new_zeros(longer.total, x_SD.shape[1])
    out = out.index_copy(0, longer.first(), first_BD.to(out.dtype))
    if layout.total:
        out = out.index_copy(0, torch.arange(layout.total, device=out.device) + layout.row_T + 1, x_SD)
    return out, longer


def packed(x_BLD: Tensor, exists_BL: Tensor) -> tuple[Tensor, Ragged]:
    """The existing vectors, one sequence after another, and their layout."""
    num, length = exists_BL.shape
    if not bool(exists_BL.all()):
        return x_BLD[exists_BL], Ragged.from_lengths(exists_BL.sum(1))
    offsets = torch.arange(num + 1, device=x_BLD.device) * length
    return x_BLD.flatten(0, 1), Ragged(offsets, length, num * length)


class Attention(nn.Module):
    """Multi-head attention of one set of tokens to another (or to itself)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width, bias=False)
        self.key_value = Linear(width, 2 * width, bias=False)
        self.out = Linear(width, width)

    def queries(self, x_TD: Tensor) -> Tensor:
        return self.query(x_TD).unflatten(-1, (self.heads, -1))

    def keys_values(self, x_SD: Tensor) -> tuple[Tensor, Tensor]:
        k, v = self.both(x_SD).unbind(-3)
        return k, v

    def both(self, x_SD: Tensor) -> Tensor:
        """(S, 2, H, E) keys and values."""
        return self.key_value(x_SD).unflatten(-1, (2, self.heads, -1))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Parameters
    ----------
    attend : str
        "current" (causal self-attention), "self" (self-attention among frame tokens), or the name of a context.
    """

    def __init__(self, attend: str, width: int, heads: int, dropout: float):
        super().__init__()
        self.attend = attend
        self.norm = nn.LayerNorm(width)
        self.context_norm = nn.Identity() if attend in ("current", "self") else nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = Mlp(width)
        self.dropout = Dropout(dropout)
        # whoever wants to see the attention: called with queries, keys, values, their layouts and which keys each
        # reads; may return the attention's result, which is then not computed again
        self.observer: Observer | None = None

    def keys_values(self, context: Context) -> tuple[Tensor, Tensor]:
        return self.attention.keys_values(self.context_norm(context.x_SD))

    def project(self, x_TD: Tensor, context_SD: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; keys and values are those of the tokens themselves or of a context."""
        y_TD = self.norm(x_TD)
        source = y_TD if context_SD is None else self.context_norm(context_SD)
        return self.attention.queries(y_TD), *self.attention.keys_values(source)

    def forward(self, x_TD: Tensor, layout: Ragged, context: Context | None = None) -> Tensor:
        """Everything except the attention itself works on each token alone."""
        q, k, v = self.project(x_TD, None if context is None else context.x_SD)
        k_layout, k_index = (layout, None) if context is None else (context.layout, context.index_W)
        mixed = None
        if self.observer is not None:
            mixed = self.observer(q, k, v, layout, k_layout, k_index)
        if mixed is None:
            mixed = attention(q, k, v, layout, k_layout, k_index=k_index, causal=self.attend == "current")
        return self.finish(x_TD, mixed)

    def finish(self, x_TD: Tensor, mixed_THE: Tensor) -> Tensor:
        """Add the attention's result to the residual stream, then the MLP."""
        drop = self.dropout if self.training else lambda x: x
        x_TD = x_TD + drop(self.attention.out(mixed_THE.flatten(-2)))
        return x_TD + drop(self.mlp(x_TD))

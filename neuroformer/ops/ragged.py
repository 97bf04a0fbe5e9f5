"""Packed ragged sequences: values of all sequences one after another, plus offsets.

Shape suffixes: T tokens of all sequences, B sequences, L longest sequence, * anything.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _once(make: Callable[[Ragged], Tensor]) -> property:
    """A property computed once per batch; unlike functools.cached_property, torch.compile traces it."""

    def get(self: Ragged) -> Tensor:
        if make.__name__ not in self.cache:
            self.cache[make.__name__] = make(self)
        return self.cache[make.__name__]

    return property(get, doc=make.__doc__)


class Ragged:
    """Where each of B sequences lies in a packed tensor of T tokens.

    Parameters
    ----------
    offsets : (B + 1,) int64
        Sequence b holds tokens ``offsets[b]:offsets[b + 1]``; ``offsets[0] == 0``.
    max_length : int
        The longest sequence. Given by whoever built the batch, so that no device is asked.
    total : int
        ``offsets[-1]``, likewise.
    """

    def __init__(self, offsets: Tensor, max_length: int, total: int):
        self.offsets, self.max_length, self.total = offsets, int(max_length), int(total)
        # What implementations derive once per batch (work lists, groups), shared by all layers.
        self.cache: dict = {}

    @classmethod
    def from_lengths(cls, lengths: Tensor) -> Ragged:
        """From (B,) lengths; reads them, so on a GPU this waits for the device."""
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64, device=lengths.device)
        torch.cumsum(lengths, 0, out=offsets[1:])
        return cls(offsets, int(lengths.max()) if len(lengths) else 0, int(offsets[-1]))

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1

    def to(self, device, non_blocking: bool = False) -> Ragged:
        return Ragged(self.offsets.to(device, non_blocking=non_blocking), self.max_length, self.total)

    @_once
    def lengths_B(self) -> Tensor:
        return self.offsets[1:] - self.offsets[:-1]

    @_once
    def row_T(self) -> Tensor:
        """Which sequence each token belongs to."""
        rows = torch.arange(len(self), device=self.offsets.device)
        return torch.repeat_interleave(rows, self.lengths_B, output_size=self.total)

    @_once
    def position_T(self) -> Tensor:
        """Place of each token within its sequence."""
        return torch.arange(self.total, device=self.offsets.device) - self.offsets[:-1][self.row_T]

    @_once
    def dense_index_T(self) -> Tensor:
        """Place of each token in a flattened (B * L) padded tensor."""
        return self.row_T * self.max_length + self.position_T

    @_once
    def mask_BL(self) -> Tensor:
        """True where a padded (B, L) tensor holds a token."""
        return torch.arange(self.max_length, device=self.offsets.device) < self.lengths_B[:, None]

    def pad(self, x_T: Tensor, fill: float = 0.0) -> Tensor:
        """(T, *) to (B, L, *), ``fill`` where there is no token."""
        if len(self) * self.max_length == self.total:  # all of one length: a view
            return x_T.reshape(len(self), self.max_length, *x_T.shape[1:])
        dense = x_T.new_full((len(self) * self.max_length, *x_T.shape[1:]), fill)
        dense = dense.index_copy(0, self.dense_index_T, x_T)
        return dense.reshape(len(self), self.max_length, *x_T.shape[1:])

    def unpad(self, x_BL: Tensor) -> Tensor:
        """(B, L, *) to (T, *)."""
        flat = x_BL.reshape(len(self) * self.max_length, *x_BL.shape[2:])
        return flat if flat.shape[0] == self.total else flat.index_select(0, self.dense_index_T)

    def first(self) -> Tensor:
        """(B,) index of each sequence's first token (sequences must not be empty)."""
        return self.offsets[:-1]

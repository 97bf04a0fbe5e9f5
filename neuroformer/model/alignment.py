"""What alignment compares: streams pooled before any cross-attention, which would leak one into another.

Shape suffixes: W windows, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuroformer.data.batch import Batch
from neuroformer.model.attention import Context
from neuroformer.model.layers import Linear
from neuroformer.ops import Ragged


class Projection(nn.Module):
    """Maps a pooled feature into the shared, normalised space of an alignment."""

    def __init__(self, size: int, width: int):
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(size), Linear(size, 2 * width), nn.GELU(), Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.net(x).float(), dim=-1)


def mean_of(context: Context) -> Tensor:
    """(W, D) mean of the vectors of each window, including its null token."""
    layout = context.layout
    total = context.x_SD.new_zeros(len(layout), context.x_SD.shape[1])
    return total.index_add(0, layout.row_T, context.x_SD) / layout.lengths_B[:, None]


def spikes_to_the_end(batch: Batch, num_bins: int) -> tuple[Ragged, Tensor, Tensor]:
    """Past and current spikes in one stretch that ends with the window: layout, bins (the last is -1) and units."""
    row, tick, unit = batch.every_spike()
    order = torch.argsort(row, stable=True)
    lengths = batch.past.lengths_B + batch.current.lengths_B
    both = Ragged(
        torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        batch.past.max_length + batch.current.max_length,
        batch.past.total + batch.current.total,
    )
    return both, tick[order] - num_bins, unit[order]

"""The batch of a later moment: a window's first state knows the spikes before the window, but not those between its start
and a decoded moment.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from neuroformer.data.batch import Batch
from neuroformer.ops import Ragged


def moved_on(batch: Batch, end: int, past_bins: int) -> Batch:
    """The batch whose past reaches up to bin ``end`` of each window."""
    before = batch.tick_T < end
    tick_P = torch.cat([batch.past_tick_P, batch.tick_T[before]]) - end
    unit_P = torch.cat([batch.past_unit_P, batch.unit_T[before]])
    row_P = torch.cat([batch.past.row_T, batch.current.row_T[before]])
    weight_P = batch.past_weight_P
    if weight_P is not None:
        weight_P = torch.cat([weight_P, weight_P.new_ones(int(before.sum()))])
    order = torch.argsort(row_P, stable=True)
    order = order[tick_P[order] >= -past_bins]
    earlier = batch.earlier
    if earlier is not None:  # frames stay where they were, and bins count from the moment now
        earlier = replace(earlier, onset_WK=earlier.onset_WK - end)
    return replace(
        batch,
        past=Ragged.from_lengths(torch.bincount(row_P[order], minlength=batch.num_windows)),
        past_tick_P=tick_P[order],
        past_unit_P=unit_P[order],
        past_weight_P=None if weight_P is None else weight_P[order],
        available_W=(batch.available_W + end).clamp(max=past_bins),
        earlier=earlier,
    )

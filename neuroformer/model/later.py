"""The state at a decoded moment. (A window's first state knows the spikes before the window, but not those between
its start and the moment.)

Shape suffixes: W windows, V values, P past spikes, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from neuroformer.data.batch import Batch
from neuroformer.model.targets import TargetHead
from neuroformer.ops import Ragged

if TYPE_CHECKING:
    from neuroformer.model.neuroformer import Neuroformer


def later_where_read(model: Neuroformer, batch: Batch, ends: Sequence[int]) -> Tensor | None:
    """:func:`later_states` if a head reads them, since they cost a second pass."""
    read = any(isinstance(head, TargetHead) and head.reads_later for head in model.targets.values())
    return later_states(model, batch, ends) if read else None


def later_states(model: Neuroformer, batch: Batch, ends: Sequence[int]) -> Tensor:
    """(V, D) first states of windows that would start at bins ``ends`` of each window: all that the model makes of the
    spikes before a moment. Frames and inputs are the window's own, none later."""
    each = [model.first_state(model.encode(moved_on(batch, end, model.past_bins))) for end in ends]
    return torch.stack(each, 1).flatten(0, 1)


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

"""Noise on the past: in its own closed loop, a model sees a past that is not quite right, and training can prepare
it.

Shape suffixes: P past spikes.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from neuroformer.data.batch import Batch
from neuroformer.ops import Ragged


def noisy_past(batch: Batch, share: float) -> Batch:
    """The batch with a share of its past spikes dropped, and as many added at random times of the same window's past.

    Each spike is dropped with chance ``share``, and, whether it was or not, its unit fires once more, with the same
    chance, in any bin of the past that exists. Rates stay; counts, times and bursts are as uncertain as a simulation's.
    What is predicted does not change. Random numbers are PyTorch's.
    """
    if share == 0 or batch.past.total == 0:
        return batch
    row_P, tick_P, unit_P = batch.past.row_T, batch.past_tick_P, batch.past_unit_P
    drawn = torch.rand(3, len(row_P), device=row_P.device)
    stays, again = drawn[0] >= share, drawn[1] < share
    available = batch.available_W.index_select(0, row_P[again])
    elsewhere = -1 - (drawn[2][again] * available).long().minimum(available - 1)
    row = torch.cat([row_P[stays], row_P[again]])
    tick = torch.cat([tick_P[stays], elsewhere])
    unit = torch.cat([unit_P[stays], unit_P[again]])
    longest, units = int(batch.available_W.max()), int(unit.max()) + 1 if len(unit) else 1
    order = torch.argsort((row * longest + tick + longest) * units + unit)  # as tokens come: by bin, then unit
    past = Ragged.from_lengths(torch.bincount(row, minlength=batch.num_windows))
    return replace(batch, past=past, past_tick_P=tick[order], past_unit_P=unit[order])

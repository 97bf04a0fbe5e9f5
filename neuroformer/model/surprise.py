"""What past spikes tell beyond what the frames explain.

A cell that fires more than its stimulus explains tells about something that was not recorded: where the eye really
looked, how awake the animal was. Counts alone hide it, since most of their variance comes from the stimulus.

Shape suffixes: W windows, G distinct stretches of frames, K frames of a stretch, P spikes, U units, F features,
N moments of a window, V moments of all windows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuroformer.data.batch import Batch, Earlier
from neuroformer.model.embed import raised_cosines
from neuroformer.model.frames import FrameEncoder, WhatWhere
from neuroformer.model.layers import Dropout, Linear

NUM_FILTERS = 4
CACHED_STRETCHES = 2  # whose features of every unit fit into a processor's cache
SHIFT_PRECISION = 10.0  # of a shift before any spike is seen, in places of the grid
MAX_LOG_COUNT = 1.0  # of what is expected of a unit in one bin: a wrong expectation must not drown the others


class Expected(NamedTuple):
    """Of every frame of a stretch: (G, K, U) log of the expected count of a bin, and (G, K, 2: down, right; U) by how
    much it changes when the image moves by one place against the units."""

    log_count_GKU: Tensor
    moved_GK2U: Tensor


class Surprise(nn.Module):
    """Counts while each earlier frame was shown, minus those that the frame readout predicts.

    1. The frame readout, without gradient, at every earlier frame: expected counts, and how they would change if the
       image were shifted.
    2. Counted minus expected, in units of the square root of the mean count; filtered over frames.
    3. The shift that would explain them, two numbers a filter: each difference times what a shift by one place of the
       grid does to its unit's drive then, summed over units (the derivative of their log-likelihood), over its Fisher
       information. Which spikes tell of a shift depends on the image, which no linear map of 2 knows.
    4. In the rates: a few patterns over units; and a shift of the image, common to all units, times what it does to
       each unit's drive.

    Parameters
    ----------
    num_frames : int
        Frames looked back at, the latest included.
    rank : int
        Number of patterns.
    frame_bins : float
        Bins a frame lasts.
    """

    def __init__(
        self,
        num_units: int,
        num_frames: int,
        rank: int,
        unit_rate: list[float],
        frame_bins: float,
        dropout: float,
    ):
        super().__init__()
        self.num_units = num_units
        filters = min(NUM_FILTERS, num_frames)
        self.register_buffer("basis", raised_cosines(filters, num_frames).flip(0), persistent=False)
        self.basis: Tensor
        spread = (torch.tensor(unit_rate) * frame_bins * num_frames / filters).sqrt()
        self.register_buffer("spread", spread, persistent=False)
        self.spread: Tensor
        self.dropout = Dropout(dropout)
        self.level = nn.Parameter(torch.zeros(num_units))
        self.source = Linear(self.size, rank, bias=False)
        self.target = nn.Parameter(torch.zeros(rank, num_units))
        self.shift = Linear(self.size, 2, bias=False)
        nn.init.normal_(self.shift.weight, std=0.01)

    @property
    def size(self) -> int:
        return (self.num_units + 2) * self.basis.shape[1]

    @torch.no_grad()
    def expected(self, earlier: Earlier, encoder: FrameEncoder, readout: WhatWhere, log_rate_U: Tensor) -> Expected:
        """The counts per bin that the frames predict, up to each unit's ``level``."""
        images_GFHW, num_missing_G = earlier.images_GFHW, earlier.num_missing_G
        few = len(images_GFHW) if images_GFHW.is_cuda else CACHED_STRETCHES
        parts = [
            readout.along(encoder.local(images, num_missing))
            for images, num_missing in zip(images_GFHW.split(few), num_missing_G.split(few), strict=True)
        ]
        drive_GKU, moved_GK2U = (torch.cat(x) for x in zip(*parts, strict=True))
        return Expected(drive_GKU + log_rate_U, moved_GK2U)

    def features(
        self,
        earlier: Earlier,
        expected: Expected,
        row_P: Tensor,
        tick_P: Tensor,
        unit_P: Tensor,
        weight_P: Tensor | None,
        until: int,
    ) -> Tensor:
        """(W, F) from the spikes (of windows ``row``) before bin ``until``, counted from the window's first."""
        onset_WK = earlier.onset_WK
        num_windows, num_frames = onset_WK.shape
        stop_WK = torch.cat([onset_WK[:, 1:], torch.full_like(onset_WK[:, :1], until)], 1).clamp_max(until)
        known_WK = torch.arange(num_frames, device=onset_WK.device) >= earlier.num_missing_W[:, None]
        dtype = expected.log_count_GKU.dtype
        bins_WK = ((stop_WK - onset_WK.clamp_max(until)) * known_WK).to(dtype)
        # the latest frame that came on before each spike
        frame_P = (tick_P[:, None] >= onset_WK.index_select(0, row_P)).sum(1) - 1
        cell_P = row_P * num_frames + frame_P.clamp_min(0)
        seen_P = (frame_P >= 0) & known_WK.flatten().index_select(0, cell_P) & (tick_P < until)
        weight_P = seen_P.to(dtype) if weight_P is None else weight_P * seen_P
        counts = expected.log_count_GKU.new_zeros(num_windows * num_frames * self.num_units)
        counts_WKU = counts.index_add(0, cell_P * self.num_units + unit_P, weight_P)
        log_count_GKU = (expected.log_count_GKU + self.level).clamp_max(MAX_LOG_COUNT)
        expected_WKU = log_count_GKU.exp().index_select(0, earlier.index_W) * bins_WK[..., None]
        more_WKU = counts_WKU.view_as(expected_WKU) - expected_WKU
        each_WUF = torch.einsum("wku,kf->wuf", more_WKU, self.basis) / self.spread[:, None]
        moved_WK2U = expected.moved_GK2U.index_select(0, earlier.index_W)
        score_W2F = torch.einsum("wku,wkdu,kf->wdf", more_WKU, moved_WK2U, self.basis)
        information_W2F = torch.einsum("wku,wkdu,kf->wdf", expected_WKU, moved_WK2U.square(), self.basis)
        # times the precision's root: of about the size of the others
        shift_W2F = score_W2F * SHIFT_PRECISION**0.5 / (information_W2F + SHIFT_PRECISION)
        return torch.cat([each_WUF, shift_W2F], 1).flatten(1)

    def at_moments(self, batch: Batch, expected: Expected, ends: list[int]) -> Tensor:
        """(V, F) from all spikes before the moments at bins ``ends`` of every window."""
        assert batch.earlier is not None
        row, tick, unit = batch.every_spike()
        each_WNF = [self.features(batch.earlier, expected, row, tick, unit, None, until=end) for end in ends]
        return torch.stack(each_WNF, 1).flatten(0, 1)

    def drive(self, features_WF: Tensor, moved_W2U: Tensor) -> Tensor:
        """(W, U) additions to the log rates; ``moved`` is what a shift of the image by one place does to them."""
        features_WF = self.dropout(features_WF)
        patterns_WU = self.source(features_WF) @ self.target
        return patterns_WU + (self.shift(features_WF)[..., None] * moved_W2U).sum(1)

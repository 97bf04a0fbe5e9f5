"""The rates that a model predicts directly, along a recording.

Shape suffixes: W windows, B bins, U units.
"""

from __future__ import annotations

import numpy as np
import torch

from neuroformer.data import tokens
from neuroformer.data.batch import BatchBuilder
from neuroformer.data.windows import SpikeIndex, Windows
from neuroformer.model.neuroformer import Neuroformer


@torch.no_grad()
def readout_rates(
    model: Neuroformer, index: SpikeIndex, builder: BatchBuilder, blocks: np.ndarray, batch_size: int = 256
) -> list[np.ndarray]:
    """(bins, units) log expected counts of each block's whole windows, each read after the recorded past.

    Parameters
    ----------
    index : the recorded spikes
    blocks : (blocks, 3) segment, first bin, one past the last bin
    """
    shape = builder.shape
    out = []
    for segment, start, stop in blocks:
        tick = np.arange(start, stop - shape.current + 1, shape.current)
        parts = []
        for first in range(0, len(tick), batch_size):
            some = tick[first : first + batch_size]
            windows = Windows(np.full(len(some), segment), some)
            batch = builder(windows, past=tokens.encode_past(index, windows, shape)).to(model.sos.device)
            parts.append(model.expected(batch).flatten(0, 1).double().cpu().numpy())
        out.append(np.concatenate([np.zeros((0, model.num_units)), *parts]))
    return out

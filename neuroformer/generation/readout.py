"""The rates that a model predicts directly, along a recording.

Shape suffixes: W windows, B bins, U units.
"""

from __future__ import annotations

import numpy as np
import torch

from neuroformer.data import tokens
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.model.network import Neuroformer


@torch.no_grad()
def readout_rates(
    model: Neuroformer, prepared: Prepared, blocks: np.ndarray, batch_size: int = 256
) -> list[np.ndarray]:
    """(bins, units) log expected counts of each block's whole windows, each read after the recorded past.

    Parameters
    ----------
    blocks : (blocks, 3) segment, first bin, one past the last bin
    """
    shape = prepared.builder.shape
    out = []
    for segment, start, stop in blocks:
        tick = np.arange(start, stop - shape.current + 1, shape.current)
        parts = []
        for windows in Windows(np.full(len(tick), segment), tick).pieces(batch_size):
            past = tokens.encode_past(prepared.index, windows, shape)
            batch = prepared.builder(windows, past=past).to(model.device)
            parts.append(model.expected(batch).flatten(0, 1).double().cpu().numpy())
        out.append(np.concatenate([np.zeros((0, model.num_units)), *parts]))
    return out

"""Features along a recording, how well they align, and how well two runs agree.

Shape suffixes: V windows, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from neuroformer.config import ConfigError
from neuroformer.data.windows import Windows
from neuroformer.losses import loss_terms
from neuroformer.metrics import r2
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.training.data import Prepared


@torch.no_grad()
def embed(
    model: Neuroformer, prepared: Prepared, windows: Windows, features: str, batch_size: int = 512
) -> np.ndarray:
    """(V, D) features of each window, "state": the fused state before any current spike; "contrast": the neural side of
    the first alignment that has one, of unit length.

    Raises
    ------
    ConfigError
        "contrast" of a run that aligns nothing with the spikes.
    """
    place = None
    if features == "contrast":
        sides = [
            (i, c.pair.index("neural"))
            for i, c in enumerate(model.config.loss.contrast)
            if "neural" in c.pair
        ]
        if not sides:
            raise ConfigError("the run aligns nothing with 'neural' (loss.contrast); use features='state'")
        place = sides[0]
    out = []
    for i in range(0, len(windows), batch_size):
        batch = prepared.builder(windows[i : i + batch_size]).to(model.sos.device)
        if place is None:
            _, h_TD, layout = model.fused(batch)
            out.append(h_TD.index_select(0, layout.first()))
        else:
            out.append(model.features(batch, model.encode(batch))[place[0]][place[1]])
    return torch.cat(out).float().cpu().numpy()


@torch.no_grad()
def alignment_bits(
    model: Neuroformer, prepared: Prepared, windows: Windows, batch_size: int = 256, seed: int = 0
) -> dict[str, float]:
    """Goodness of fit of each alignment in bits above chance: ``log2(batch) - InfoNCE / ln 2``, the mean over batches.

    0 where features tell nothing of which window goes with which, ``log2(batch_size)`` where they tell all. Windows
    are shuffled into whole batches; those that show the same clip are no negatives, which raises chance a little.
    """
    rows = np.random.default_rng(seed).permutation(len(windows))
    count = max(1, len(rows) // batch_size)
    names = [f"contrast_{'_'.join(c.pair)}" for c in model.config.loss.contrast]
    bits: dict[str, list[float]] = {name: [] for name in names}
    for part in np.array_split(rows, count):
        batch = prepared.builder(windows[np.sort(part)])
        terms = loss_terms(model, batch, model(batch))
        for name in names:
            bits[name].append(float(np.log2(len(part)) - float(terms[name]) / np.log(2)))
    return {f"{name}_bits": float(np.mean(values)) for name, values in bits.items()}


def consistency(
    train_a: np.ndarray, train_b: np.ndarray, test_a: np.ndarray, test_b: np.ndarray
) -> dict[str, Any]:
    """How well each of two runs' features is a linear function of the other's, on held-out windows.

    The map is fitted by least squares on training windows; R2 is over all features together (variance-weighted), the
    measure that CEBRA's users know as consistency (Schneider, Lee and Mathis, Nature 2023).
    """
    return {
        "a_to_b": _aligned(train_a, train_b, test_a, test_b),
        "b_to_a": _aligned(train_b, train_a, test_b, test_a),
    }


def _aligned(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    design = lambda a: np.concatenate([a, np.ones((len(a), 1))], 1)
    weights = np.linalg.lstsq(design(x), y, rcond=None)[0]
    # stacked around each feature's own mean, one R2 weighs features by their variance
    center = y_test.mean(0)
    return float(r2((y_test - center).ravel(), (design(x_test) @ weights - center).ravel())[0])

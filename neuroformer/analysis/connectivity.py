"""How well a map recovers a coupling that is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from neuroformer.analysis.maps import Map


def agreement(found: Map, coupling: np.ndarray) -> dict[str, Any]:
    """AUROC and squared Pearson correlation over all ordered pairs i != j.

    Parameters
    ----------
    found : units x units; a pair that was never seen counts as 0
    coupling : (target, source), 0 where there is none

    Returns
    -------
    dict
        ``name``; ``auroc``: chance that a coupled pair has a larger value than an uncoupled one; ``r2``: squared
        Pearson correlation of values and coupling strengths, 0 where it is negative.

    Raises
    ------
    ValueError
        Sizes that differ, or no pair or every pair coupled.
    """
    pairs = np.nan_to_num(found.pairs().astype(np.float64))
    if pairs.shape != coupling.shape:
        raise ValueError(f"map '{found.name}' is {pairs.shape}, the true coupling {coupling.shape}")
    apart = ~np.eye(len(coupling), dtype=bool)
    x, y = pairs[apart], np.asarray(coupling, np.float64)[apart]
    if not 0 < (y != 0).sum() < len(y):
        raise ValueError("the true coupling has no coupled pair, or no other; there is nothing to tell apart")
    r = float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 else 0.0
    return {
        "name": found.name,
        "auroc": float(roc_auc_score(y != 0, x)),
        "r2": max(r, 0.0) ** 2,
    }

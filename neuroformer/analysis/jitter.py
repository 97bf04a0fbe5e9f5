"""Spikes that move within short stretches of time: what is slower than these stays as it was.

Shape suffixes: S spikes, D stretches.
"""

from __future__ import annotations

import numpy as np


def stretches(length: int, size: int) -> np.ndarray:
    """(D, 2) int64 first bins, and one past the last, of stretches of ``size`` bins that tile ``length``; a shorter rest
    joins the last one."""
    starts = np.arange(0, max(length - size + 1, 1), size, dtype=np.int64)
    return np.stack([starts, np.append(starts[1:], length)], 1)


def jittered(
    row_S: np.ndarray, unit_S: np.ndarray, edges_D2: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Bins and units of spikes, each at a random bin of its stretch; a unit fires at most once in a bin.

    Parameters
    ----------
    row_S, unit_S : bin and unit of each spike, no two the same
    edges_D2 : ascending disjoint stretches that hold all spikes

    References
    ----------
    Amarasingham, Harrison, Hatsopoulos and Geman, Journal of Neurophysiology 2012.
    """
    stretch = np.searchsorted(edges_D2[:, 0], row_S, side="right") - 1
    start, size = edges_D2[stretch, 0], edges_D2[stretch, 1] - edges_D2[stretch, 0]
    unit = unit_S.astype(np.int64)
    rows = int(edges_D2[-1, 1]) + 1
    place = start + (rng.random(len(row_S)) * size).astype(np.int64)
    for _ in range(200):  # a unit that fires in nearly every bin may keep some spikes in one bin
        order = np.argsort(unit * rows + place, kind="stable")
        key = (unit * rows + place)[order]
        again = order[1:][key[1:] == key[:-1]]
        if len(again) == 0:
            break
        place[again] = start[again] + (rng.random(len(again)) * size[again]).astype(np.int64)
    return place, unit_S

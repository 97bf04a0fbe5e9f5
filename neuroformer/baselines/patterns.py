"""Patterns over units: the few directions in which a large population varies together.

Shape suffixes: T coarse bins, U units, Q patterns.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD

from neuroformer.data.windows import SpikeIndex

_MOST_SPIKES = 4_000_000  # that patterns are learnt from


def unit_patterns(index: SpikeIndex, blocks: np.ndarray, width: int, rank: int, seed: int = 0) -> np.ndarray:
    """(U, Q) weights of every unit in the leading patterns of square-root counts, strongest first.

    A randomised singular value decomposition (Halko et al., SIAM Review 2011) of counts in bins of ``width`` ticks,
    each unit over the spread that a Poisson unit of its rate has, so that busy units do not take all patterns.

    Parameters
    ----------
    blocks : (blocks, 3) segment, first tick, one past the last, as in a split
    width : ticks
    rank : patterns; fewer where there are fewer units or bins
    """
    rows, units, counts, number = _coarse_counts(index, blocks, width)
    x = csr_matrix((np.sqrt(counts), (rows, units)), (max(number, 1), index.num_units))
    mean = np.asarray(x.mean(0)).ravel()
    spread = np.sqrt(np.maximum(mean, 1.0 / max(number, 1)))
    rank = min(rank, index.num_units - 1, number - 1)
    if rank < 1:
        return np.ones((index.num_units, 1))
    found = TruncatedSVD(rank, random_state=seed)
    found.fit(x.multiply(1 / spread).tocsr())
    return np.asarray(found.components_).T / spread[:, None]


def _coarse_counts(index: SpikeIndex, blocks: np.ndarray, width: int):
    """Row, unit, count of every coarse bin with spikes, and how many bins there are; long recordings are thinned."""
    starts = np.concatenate(
        [index.base[s] + np.arange(lo, hi - width + 1, width) for s, lo, hi in blocks] or [np.zeros(0, np.int64)]
    )
    ends = lambda starts: index.find(np.minimum(starts + width, index.total_ticks))
    spikes = int((ends(starts) - index.find(starts)).sum())
    starts = starts[:: max(1, -(-spikes // _MOST_SPIKES))]
    low, high = index.find(starts), ends(starts)
    number = len(starts)
    each = high - low
    rows = np.repeat(np.arange(number), each)
    at = np.arange(len(rows)) + np.repeat(low - np.cumsum(each) + each, each)
    cells, counts = np.unique(rows * index.num_units + index.unit[at], return_counts=True)
    return cells // index.num_units, cells % index.num_units, counts, number

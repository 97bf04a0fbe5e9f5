"""Pairwise baselines of connectivity: what the spikes of two units tell about each other, at the same lags as
the model's maps.

All work on whether a unit fired in a bin. Shape suffixes: U units (rows: later, columns: earlier), L lags.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from neuroformer.analysis.maps import Map
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import SpikeIndex


def pairwise_maps(prepared: Prepared, num_lags: int, width: int) -> list[Map]:
    """Every pairwise baseline on the training blocks of a recording; ``width`` bins of the counts that are correlated."""
    return Pairs(prepared.index, prepared.split.blocks["train"], num_lags, prepared.rec.unit_ids).all(width)


class Pairs:
    """Spikes of some blocks as a sparse matrix, with ``num_lags`` empty bins before each block, so that no lag
    spans two blocks.

    Parameters
    ----------
    index : SpikeIndex
    blocks : (blocks, 3) segment, first bin, one past the last
    num_lags : lags 1 to ``num_lags`` bins
    """

    def __init__(self, index: SpikeIndex, blocks: np.ndarray, num_lags: int, unit_ids: list[str]):
        rows, units, at = [], [], num_lags
        for segment, start, stop in blocks:
            lo, hi = np.searchsorted(index.keys, index.base[segment] + np.array([start, stop]))
            rows.append(index.keys[lo:hi] - index.base[segment] - start + at)
            units.append(index.unit[lo:hi])
            at += stop - start + num_lags
        row, unit = np.concatenate(rows), np.concatenate(units)
        self.fired = sparse.csr_matrix((np.ones(len(row), np.float64), (row, unit)), (at, index.num_units))
        self.rows = at
        self.fired.data[:] = 1.0  # whether, not how often
        self.num_bins = int((blocks[:, 2] - blocks[:, 1]).sum())
        self.spikes = np.asarray(self.fired.sum(0)).ravel()
        self.num_lags, self.dt, self.unit_ids = num_lags, index.dt, unit_ids
        self.together = np.stack([self.lagged(self.fired, k) for k in range(1, num_lags + 1)], 2)
        self.expected = (self.spikes[:, None] * self.spikes / self.num_bins)[..., None]

    def lagged(self, later: sparse.csr_matrix, lag: int) -> np.ndarray:
        """(U, U) bins in which a row's unit fires ``lag`` bins after a column's."""
        return np.asarray((later[lag:].T @ self.fired[: self.rows - lag]).todense())

    def _map(self, name: str, values: np.ndarray, unit: str) -> Map:
        lags = np.round((np.arange(self.num_lags) + 1) * self.dt, 9) if values.ndim == 3 else None
        count = self.spikes[None, :, None] if values.ndim == 3 else self.spikes[None]
        return Map(name, values, unit, self.unit_ids, self.unit_ids, count, lags)

    def cross_correlogram(self) -> Map:
        """Coincidences at each lag beyond chance, in standard deviations of a Poisson count."""
        z = (self.together - self.expected) / np.sqrt(np.maximum(self.expected, 1e-12))
        return self._map("cross-correlogram", z, "standard deviations beyond chance")

    def pearson(self, width: int) -> Map:
        """Pearson correlation of counts in bins ``width`` times as wide; it has no direction."""
        join = np.arange(self.rows) // width
        sums = sparse.csr_matrix((np.ones(len(join)), (join, np.arange(len(join))))) @ self.fired
        n = self.num_bins / width
        mean = self.spikes / n
        cov = np.asarray((sums.T @ sums).todense()) / n - mean[:, None] * mean
        sd = np.sqrt(np.maximum(np.diag(cov), 1e-12))
        return self._map("Pearson of counts", cov / (sd[:, None] * sd), "correlation")

    def coupling_filter(self) -> Map:
        """The filter of a Poisson GLM with one source and one weight a lag, which has a closed form: the log of the
        target's rate at that lag over its mean rate; half a spike is added on either side."""
        return self._map("GLM coupling filter", np.log((self.together + 0.5) / (self.expected + 0.5)), "log rate")

    def transfer_entropy(self) -> Map:
        """Transfer entropy at each lag (Schreiber, PRL 2000): the information that the source's bin gives of the
        target's next one beyond the target's own last bin; in millibits a bin."""
        own = self.lagged_own()
        both = np.stack([self.lagged(own, k) for k in range(1, self.num_lags + 1)], 2)
        repeat = np.asarray(own.sum(0)).ravel()[:, None, None]
        last = np.stack([self.lagged(self.fired, k) for k in range(self.num_lags)], 2)  # of the bin before
        now, source, n = self.spikes[:, None, None], self.spikes[None, :, None], float(self.num_bins)
        # counts of (target now, target before, source): inclusion and exclusion from the ones that are known
        cell = {
            (1, 1, 1): both,
            (1, 1, 0): repeat - both,
            (1, 0, 1): self.together - both,
            (1, 0, 0): now - repeat - self.together + both,
            (0, 1, 1): last - both,
            (0, 1, 0): now - repeat - last + both,
            (0, 0, 1): source - self.together - last + both,
            (0, 0, 0): n - 2 * now + repeat - source + self.together + last - both,
        }
        cell = {k: np.maximum(v, 0.0) for k, v in cell.items()}
        total = np.zeros_like(self.together)
        for (i, j, k), c in cell.items():
            jk = cell[0, j, k] + cell[1, j, k]
            ij = cell[i, j, 0] + cell[i, j, 1]
            j_ = sum(cell[a, j, b] for a in (0, 1) for b in (0, 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                total += np.where(c > 0, c / n * np.log2(c * j_ / (jk * ij)), 0.0)
        return self._map("transfer entropy", 1000 * total, "millibits a bin")

    def lagged_own(self) -> sparse.csr_matrix:
        """1 where a unit fired in this bin and in the one before."""
        before = sparse.vstack([sparse.csr_matrix((1, len(self.unit_ids))), self.fired[:-1]]).tocsr()
        return self.fired.multiply(before).tocsr()

    def all(self, width: int) -> list[Map]:
        """Every baseline; ``width`` bins of the counts that are correlated."""
        return [
            self.cross_correlogram(),
            self.pearson(width),
            self.coupling_filter(),
            self.transfer_entropy(),
        ]

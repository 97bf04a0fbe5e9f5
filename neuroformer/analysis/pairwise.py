"""Pairwise baselines of connectivity: what the spikes of two units tell about each other, at the same lags as
the model's maps, beyond what they share because both follow something slow.

All work on whether a unit fired in a bin. Shape suffixes: U units (rows: later, columns: earlier), L lags, D stretches.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from neuroformer.analysis.jitter import jittered, stretches
from neuroformer.analysis.maps import Map
from neuroformer.analysis.nulls import against_surrogates
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import SpikeIndex

SLOW = 5  # a stretch within which rates count as constant lasts so many times the longest lag
LEAST_SLOW_S = 0.5
SURROGATES = 100
MOST_CELLS = 1 << 25  # pairs x lags x surrogates; of more units there are fewer surrogates


def pairwise_maps(
    prepared: Prepared, num_lags: int, width: int, surrogates: int = SURROGATES, units: np.ndarray | None = None
) -> list[Map]:
    """Every pairwise baseline on the training blocks of a recording, with P values.

    Parameters
    ----------
    num_lags : lags of 1 to so many bins
    width : bins of the counts that are correlated
    surrogates : recordings from which P values come, in which each spike moves within its stretch (see
        :func:`neuroformer.analysis.jitter.jittered`); 0: no P values
    units : places of those among which maps are made; None: all
    """
    index, ids = prepared.index, prepared.rec.unit_ids
    if units is not None:
        index, ids = _of_units(index, units), [ids[u] for u in units]
    pairs = Pairs(index, prepared.split.blocks["train"], num_lags, ids)
    found = pairs.all(width)
    surrogates = min(surrogates, MOST_CELLS // max(1, pairs.index.num_units**2 * num_lags))
    rng = np.random.default_rng(prepared.config.seed)
    null = [[m.pairs().astype(np.float32) for m in pairs.surrogate(rng).all(width)] for _ in range(surrogates)]
    return [against_surrogates(m, [one[k] for one in null]) for k, m in enumerate(found)]


def _of_units(index: SpikeIndex, units: np.ndarray) -> SpikeIndex:
    """The spikes of some units, which are numbered anew."""
    place_U = np.full(index.num_units, -1, np.int32)
    place_U[units] = np.arange(len(units))
    place_S = place_U[index.unit]
    keep = place_S >= 0
    return replace(index, keys=index.keys[keep], unit=place_S[keep], num_units=len(units), offsets=None, observed=None)


class Pairs:
    """Spikes of some blocks as a sparse matrix, with ``num_lags`` empty bins before each block, so that no lag
    spans two blocks.

    Blocks are cut into stretches of about five times the longest lag, at least half a second. What two units have in common because their counts
    in these stretches rise and fall together is what chance expects here: an animal that runs, or tires, couples no
    neurons. It is what is expected if each spike fell anywhere in its stretch (Amarasingham et al., J Neurophysiol 2012).

    Parameters
    ----------
    index : SpikeIndex
    blocks : (blocks, 3) segment, first bin, one past the last
    num_lags : lags 1 to ``num_lags`` bins
    """

    def __init__(self, index: SpikeIndex, blocks: np.ndarray, num_lags: int, unit_ids: list[str]):
        self.index = index
        self.num_lags, self.dt, self.unit_ids = num_lags, index.dt, unit_ids
        rows, units, starts, at = [], [], [], num_lags
        size = max(SLOW * num_lags, round(LEAST_SLOW_S / index.dt))
        for segment, start, stop in blocks:
            lo, hi = np.searchsorted(index.keys, index.base[segment] + np.array([start, stop]))
            rows.append(index.keys[lo:hi] - index.base[segment] - start + at)
            units.append(index.unit[lo:hi])
            starts.append(at + stretches(stop - start, size))
            at += stop - start + num_lags
        self.rows = at
        self.num_bins = int((blocks[:, 2] - blocks[:, 1]).sum())
        self.edges_D2 = np.concatenate(starts)
        self._count(np.concatenate(rows), np.concatenate(units))
        self.counts_DU = self.per_stretch(self.fired)
        self.slow_UUL = self.slow(self.counts_DU)
        self.expected = self.slow_UUL[..., 1:]

    def _count(self, row: np.ndarray, unit: np.ndarray) -> None:
        shape = (self.rows, self.index.num_units)
        self.fired = sparse.csr_matrix((np.ones(len(row), np.float64), (row, unit)), shape)
        self.fired.data[:] = 1.0  # whether, not how often
        self.spikes = np.asarray(self.fired.sum(0)).ravel()
        self.together = np.stack([self.lagged(self.fired, k) for k in range(1, self.num_lags + 1)], 2)

    def surrogate(self, rng: np.random.Generator) -> Pairs:
        """The same counts in every stretch, at other times within it."""
        other = object.__new__(Pairs)
        other.__dict__.update(self.__dict__)
        spikes = self.fired.tocoo()
        other._count(*jittered(spikes.row, spikes.col, self.edges_D2, rng))
        return other

    def lagged(self, later: sparse.csr_matrix, lag: int) -> np.ndarray:
        """(U, U) bins in which a row's unit fires ``lag`` bins after a column's."""
        return np.asarray((later[lag:].T @ self.fired[: self.rows - lag]).todense())

    def per_stretch(self, fired: sparse.csr_matrix) -> np.ndarray:
        """(D, U) bins with a spike in each stretch."""
        start, stop = self.edges_D2.T
        sizes = stop - start
        stretch = np.repeat(np.arange(len(start)), sizes)
        bins = np.repeat(start - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes) + np.arange(sizes.sum())
        join = sparse.csr_matrix((np.ones(len(bins)), (stretch, bins)), (len(start), self.rows))
        found = join @ fired
        return np.asarray(found.todense())  # pyright: ignore[reportAttributeAccessIssue]

    def slow(self, later_DU: np.ndarray) -> np.ndarray:
        """(U, U, L + 1) as :meth:`lagged` at lags of 0 and more, if every spike fell anywhere in its stretch."""
        start, stop = self.edges_D2.T
        size = (stop - start).astype(np.float64)[:, None]
        touch = (start[1:] == stop[:-1])[:, None]
        # of a stretch's size^2 places of two spikes, size - lag are right; of those in neighboring stretches, lag are
        now = (later_DU / size).T @ self.counts_DU
        less = (later_DU / size**2).T @ self.counts_DU
        more = (later_DU[1:] / size[1:] * touch).T @ (self.counts_DU[:-1] / size[:-1])
        return np.maximum(now[..., None] + (more - less)[..., None] * np.arange(self.num_lags + 1), 0.0)

    def beyond_slow(self, counted: np.ndarray, slow: np.ndarray, later: np.ndarray) -> np.ndarray:
        """(U, U, L) coincidences, as many as there would be with constant rates; ``later`` (U,) spikes of the rows."""
        constant = later[:, None, None] * self.spikes[:, None] / self.num_bins
        return np.maximum(counted - slow + constant, 0.0)

    def _map(self, name: str, values: np.ndarray, unit: str) -> Map:
        lags = np.round((np.arange(self.num_lags) + 1) * self.dt, 9) if values.ndim == 3 else None
        count = self.spikes[None, :, None] if values.ndim == 3 else self.spikes[None]
        return Map(name, values, unit, self.unit_ids, self.unit_ids, count, lags)

    def cross_correlogram(self) -> Map:
        """Coincidences at each lag beyond what slow changes expect, in standard deviations of a Poisson count."""
        z = (self.together - self.expected) / np.sqrt(np.maximum(self.expected, 1e-3))
        return self._map("cross-correlogram", z, "standard deviations beyond chance")

    def pearson(self, width: int) -> Map:
        """Pearson correlation, within stretches, of counts in bins ``width`` times as wide; it has no direction."""
        start, stop = self.edges_D2.T
        pieces = -(-(stop - start) // width)
        first = np.concatenate([[0], np.cumsum(pieces)])
        spikes = self.fired.tocoo()
        stretch = np.searchsorted(start, spikes.row, side="right") - 1
        piece = first[stretch] + (spikes.row - start[stretch]) // width
        sums = sparse.csr_matrix((spikes.data, (piece, spikes.col)), (first[-1], len(self.unit_ids)))
        slow = (self.counts_DU / pieces[:, None]).T @ self.counts_DU
        cov = (np.asarray((sums.T @ sums).todense()) - slow) / max(1, int((pieces - 1).sum()))
        sd = np.sqrt(np.maximum(np.diag(cov), 1e-12))
        return self._map("Pearson of counts", cov / (sd[:, None] * sd), "correlation")

    def coupling_filter(self) -> Map:
        """The filter of a Poisson GLM with one source and one weight per lag, which has a closed form: the log of the
        target's rate at that lag over what slow changes expect; half a spike is added on either side."""
        return self._map("GLM coupling filter", np.log((self.together + 0.5) / (self.expected + 0.5)), "log rate")

    def transfer_entropy(self) -> Map:
        """Transfer entropy at each lag (Schreiber, PRL 2000): the information that the source's bin gives of the
        target's next one beyond the target's own last bin, from counts less what slow changes expect; in millibits a
        bin."""
        own = self.lagged_own()
        repeat, lags = np.asarray(own.sum(0)).ravel(), range(1, self.num_lags + 1)
        both = np.stack([self.lagged(own, k) for k in lags], 2)
        both = self.beyond_slow(both, self.slow(self.per_stretch(own))[..., 1:], repeat)
        together = self.beyond_slow(self.together, self.slow_UUL[..., 1:], self.spikes)
        # of the target's bin before
        last = np.concatenate([self.lagged(self.fired, 0)[..., None], self.together[..., :-1]], 2)
        last = self.beyond_slow(last, self.slow_UUL[..., :-1], self.spikes)
        repeat = repeat[:, None, None]
        now, source, n = self.spikes[:, None, None], self.spikes[None, :, None], float(self.num_bins)
        # counts of (target now, target before, source): inclusion and exclusion from the ones that are known
        cell = {
            (1, 1, 1): both,
            (1, 1, 0): repeat - both,
            (1, 0, 1): together - both,
            (1, 0, 0): now - repeat - together + both,
            (0, 1, 1): last - both,
            (0, 1, 0): now - repeat - last + both,
            (0, 0, 1): source - together - last + both,
            (0, 0, 0): n - 2 * now + repeat - source + together + last - both,
        }
        cell = {k: np.maximum(v, 0.0) for k, v in cell.items()}
        total = np.zeros_like(together)
        for (i, j, k), c in cell.items():
            jk = cell[0, j, k] + cell[1, j, k]
            ij = cell[i, j, 0] + cell[i, j, 1]
            j_ = sum(cell[a, j, b] for a in (0, 1) for b in (0, 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                total += np.where(c > 0, c / n * np.log2(c * j_ / (jk * ij)), 0.0)
        return self._map("transfer entropy", 1000 * total, "millibits per bin")

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

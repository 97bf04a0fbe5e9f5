"""Nulls that are calibrated, baselines that find what is there, and reliability."""

import numpy as np
import pytest

from neuroformer.analysis import pairwise
from neuroformer.analysis.connectivity import agreement
from neuroformer.analysis.maps import Map
from neuroformer.analysis.nulls import against_surrogates, average, shifted, shuffled_identities, split_half
from neuroformer.analysis.pairwise import Pairs
from neuroformer.data.windows import SpikeIndex, Windows

NAMES = [f"u{i}" for i in range(40)]


def noise(seed, n=40, coupled=0):
    values = np.random.default_rng(seed).standard_normal((n, n))
    values[0, 1 : 1 + coupled] += 9
    return Map("x", values, "", NAMES[:n], NAMES[:n], np.ones((n, n)))


@pytest.mark.parametrize("n", [20, 40])
def test_the_null_of_shuffled_identities_is_calibrated(n):
    maps = [shuffled_identities(noise(s, n)) for s in range(20)]
    share = np.mean([np.nanmean(m.p()[~np.eye(n, dtype=bool)] < 0.05) for m in maps])
    assert 0.03 < share < 0.07
    assert sum(m.discoveries().any() for m in maps) <= 5


def test_coupled_pairs_pass_and_do_not_move_the_null():
    m = shuffled_identities(noise(0, coupled=4))
    assert "pairs pass beside the map's own spread" in repr(m) and "false-discovery" not in repr(m)
    found = m.discoveries()
    assert found[0, 1:5].all() and found.sum() <= 6
    truth = np.zeros((40, 40))
    truth[0, 1:5] = 1
    score = agreement(m, truth)
    assert score["auroc"] > 0.999 and 0.05 < score["r2"] < 0.6
    with pytest.raises(ValueError, match="nothing to tell apart"):
        agreement(m, np.zeros((40, 40)))


def index_of(rng, delay=3, bins=40_000):
    """Unit 0 drives unit 1 after ``delay`` bins; unit 2 is alone; two segments."""
    fired = rng.random((bins, 3)) < 0.02
    fired[delay:, 1] |= fired[:-delay, 0] & (rng.random(bins - delay) < 0.5)
    tick, unit = np.nonzero(fired)
    half = bins // 2
    return SpikeIndex.from_ticks(
        tick // half, tick % half, unit, np.array([0.0, half * 0.01 + 5]), np.array([half, half]), 3, 0.01
    )


def test_every_pairwise_baseline_finds_the_drive_and_its_delay():
    rng = np.random.default_rng(0)
    index = index_of(rng)
    pairs = Pairs(index, np.array([[0, 0, 20_000], [1, 0, 20_000]]), 6, NAMES[:3])
    for m in pairs.all(8):
        best = m.strongest(1)[0]
        if m.name == "Pearson of counts":
            assert {best[0], best[1]} == {0, 1}
            continue
        assert best[:2] == (1, 0), m.name
        assert m.values[1, 0].argmax() == 2, m.name  # lag 3
        others = np.abs(np.delete(m.pairs()[~np.eye(3, dtype=bool)], 2))
        assert best[2] > 3 * others.max(), m.name


def test_transfer_entropy_is_that_of_the_definition(monkeypatch):
    monkeypatch.setattr(pairwise, "LEAST_SLOW_S", 10.0)  # one stretch: rates are constant
    rng = np.random.default_rng(1)
    index = index_of(rng, bins=2000)
    pairs = Pairs(index, np.array([[0, 0, 1000]]), 2, NAMES[:3])
    fired = np.asarray(pairs.fired.todense())[2:]
    now, before, source = fired[2:, 1], fired[1:-1, 1], fired[:-2, 0]  # lag 2
    total = 0.0
    for i in (0, 1):
        for j in (0, 1):
            for k in (0, 1):
                p = np.mean((now == i) & (before == j) & (source == k))
                if p:
                    jk, ij = np.mean((before == j) & (source == k)), np.mean((now == i) & (before == j))
                    total += p * np.log2(p * np.mean(before == j) / (jk * ij))
    assert pairs.transfer_entropy().values[1, 0, 1] == pytest.approx(1000 * total, rel=0.05, abs=0.02)


def test_shifting_keeps_rates_and_breaks_relations():
    index = index_of(np.random.default_rng(2))
    other = shifted(index, 0)
    np.testing.assert_array_equal(np.bincount(index.unit), np.bincount(other.unit))
    block = np.array([[0, 0, 20_000], [1, 0, 20_000]])
    before, after = (Pairs(i, block, 6, NAMES[:3]).cross_correlogram().values[1, 0].max() for i in (index, other))
    assert before > 20 and after < 6


def test_reliability_is_high_for_signal_and_low_for_noise():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((20, 20))
    windows = Windows(np.zeros(100, np.int64), np.arange(100))

    def make(size):
        return lambda w: [
            Map(
                "x",
                size * signal + np.random.default_rng(int(w.tick.sum())).standard_normal((20, 20)),
                "",
                NAMES[:20],
                NAMES[:20],
                np.ones((20, 20)),
            )
        ]

    assert split_half(make(5.0), windows)["x"] > 0.9
    assert abs(split_half(make(0.0), windows)["x"]) < 0.3


def test_the_average_of_seeds_knows_its_spread():
    m = average([noise(s, 20, coupled=2) for s in range(5)])
    assert m.z()[0, 1] > 5 and abs(np.median(m.z())) < 1


def index_at(rates_NU, seed):
    """Independent units of rates (spikes per bin), one segment."""
    tick, unit = np.nonzero(np.random.default_rng(seed).random(rates_NU.shape) < rates_NU)
    return SpikeIndex.from_ticks(np.zeros_like(tick), tick, unit, np.zeros(1), np.array([len(rates_NU)]), 8, 0.01)


def with_p(index, surrogates=100):
    pairs = Pairs(index, np.array([[0, 0, index.total_ticks]]), 5, NAMES[: index.num_units])
    rng = np.random.default_rng(0)
    null = [[m.pairs() for m in pairs.surrogate(rng).all(4)] for _ in range(surrogates)]
    return [against_surrogates(m, [one[k] for one in null]) for k, m in enumerate(pairs.all(4))]


@pytest.mark.parametrize("shared", [False, True])
def test_no_pair_passes_where_units_share_nothing_or_only_something_slow(shared):
    rng = np.random.default_rng(0)
    slow = np.repeat(np.exp(0.8 * np.cumsum(rng.standard_normal(60)) / 3), 250)  # changes every 2.5 s
    rates = np.minimum(np.outer(slow if shared else np.ones(15_000), rng.uniform(0.02, 0.06, 8)), 0.4)
    for m in with_p(index_at(rates, 1)):
        share = np.nanmean(m.p()[~np.eye(8, dtype=bool)] < 0.05)
        assert not m.discoveries().any() and share < 0.13, m.name


def test_a_drive_passes_also_beside_something_slow():
    rng = np.random.default_rng(3)
    slow = np.repeat(np.exp(0.8 * rng.standard_normal(60)), 250)
    rates = np.minimum(np.outer(slow, np.full(8, 0.03)), 0.4)
    index = index_at(rates, 1)
    mine = index.unit == 0
    driven = index.keys[mine][rng.random(mine.sum()) < 0.4] + 2
    tick, unit = np.r_[index.keys, driven % 15_000], np.r_[index.unit, np.ones(len(driven), int)]
    index = SpikeIndex.from_ticks(np.zeros_like(tick), tick, unit, np.zeros(1), np.array([15_000]), 8, 0.01)
    for m in with_p(index):
        found = {(int(r), int(c)) for r, c in np.argwhere(m.discoveries())}
        assert found == ({(1, 0), (0, 1)} if m.name.startswith("Pearson") else {(1, 0)}), m.name


def test_surrogates_keep_the_counts_of_every_stretch_and_no_two_spikes_in_one_bin():
    index = index_at(np.full((3000, 8), 0.3), 0)
    pairs = Pairs(index, np.array([[0, 0, 3000]]), 5, NAMES[:8])
    other = pairs.surrogate(np.random.default_rng(0))
    np.testing.assert_array_equal(pairs.counts_DU, other.per_stretch(other.fired))
    assert (pairs.fired != other.fired).nnz > 1000

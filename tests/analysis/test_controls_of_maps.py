"""Nulls that are calibrated, baselines that find what is there, and reliability."""

import numpy as np
import pytest

from neuroformer.analysis.connectivity import agreement
from neuroformer.analysis.maps import Map
from neuroformer.analysis.nulls import average, shifted, shuffled_identities, split_half
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


def test_transfer_entropy_is_that_of_the_definition():
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

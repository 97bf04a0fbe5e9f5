"""Unobserved time is not silence: what is said of a unit rests on the time in which it was observed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import small_config, small_recording

from neuroformer.baselines.glm.own_spikes import OwnSpikes
from neuroformer.baselines.poisson_regression import PoissonProblem, offset_of
from neuroformer.data.observed import ObservedBins
from neuroformer.data.prepared import Prepared
from neuroformer.data.splits import Split
from neuroformer.data.windows import SpikeIndex
from neuroformer.model.network import Neuroformer
from neuroformer.recording import ObservedIntervals, Recording
from neuroformer.training.scoring.scores import NLL, NULL, NUMBER, RATES, Scores


def half_observed(rec: Recording, units=None) -> Recording:
    """The recording with some units (all) observed in its first half only; their later spikes are still there."""
    start, stop = rec.domain[0]
    units = range(rec.num_units) if units is None else units
    ends = [start + (stop - start) / 2 if u in units else stop for u in range(rec.num_units)]
    return replace(rec, observed=ObservedIntervals.from_units([np.array([[start, end]]) for end in ends]))


def without_frames(**sections):
    return small_config(
        window={"dt": 0.01, "current": 0.05, "past": 0.1, "target_past": 0.1, "frames": 0.0},
        inputs=[],
        targets=[],
        loss={"contrast": []},
        **sections,
    )


def scored(prepared: Prepared, model: Neuroformer) -> np.ndarray:
    scores = Scores()
    with torch.no_grad():
        for batch in prepared.batches(prepared.windows("test")):
            scores.add(model, batch, model(batch))
    return np.concatenate(scores.windows)


@pytest.mark.parametrize("seed", range(5))
def test_bins_agree_with_the_intervals(seed):
    """Brute force, bin by bin: a bin is observed if all of it lies within the unit's intervals."""
    rng = np.random.default_rng(seed)
    origins, num_ticks, dt = np.array([0.0, 2.0, 4.5]), np.array([17, 21, 9]), 0.1
    base = np.r_[0, np.cumsum(num_ticks)[:-1]]
    spans = [
        np.sort(rng.choice(np.arange(0, 60), 2 * rng.integers(0, 5), False)).reshape(-1, 2) / 10 for _ in range(11)
    ]
    rec = replace(small_recording(num_units=11, seconds=6.0), observed=ObservedIntervals.from_units(spans))
    found = ObservedBins.of(rec, origins, num_ticks, base, dt)
    expected = np.zeros((num_ticks.sum(), 11), bool)
    for n, (origin, ticks) in enumerate(zip(origins, num_ticks, strict=True)):
        for b in range(ticks):
            low, high = origin + b * dt, origin + (b + 1) * dt
            for u, span in enumerate(spans):
                joined = [s for s in span if s[0] <= low + 1e-6 and s[1] >= high - 1e-6]
                expected[base[n] + b, u] = bool(joined)
    every = np.arange(num_ticks.sum())
    assert np.array_equal(found.at(every), expected)
    bins, units = rng.integers(0, len(every), 50), rng.integers(0, 11, 50)
    assert np.array_equal(found.cells(bins, units), expected[bins, units])
    assert np.array_equal(found.of_units(3, 9).at(every), expected[:, 3:9])
    start, stop = np.array([0, 5, 30]), np.array([47, 6, 30])
    assert np.array_equal(found.number(start, stop), [expected[a:b].sum(0) for a, b in zip(start, stop, strict=True)])
    whole = [expected[a:b].all(0) for a, b in zip(start, stop, strict=True)]
    assert np.array_equal(found.throughout(start, stop), whole)
    assert np.array_equal(found.around(np.array([5, 20]), 2, 3), [expected[3:8], expected[18:23]])


def test_bins_across_the_border_of_touching_intervals_and_where_all_is_observed():
    rec = small_recording(seconds=6.0)
    clock = (np.array([0.0]), np.array([60]), np.array([0]), 0.1)
    halves = ObservedIntervals.from_units([np.array([[0, 2.05], [2.05, 6]])] * 6)
    assert ObservedBins.of(replace(rec, observed=halves), *clock) is None
    assert ObservedBins.of(rec, *clock) is None
    late = replace(rec, observed=ObservedIntervals.from_units([np.array([[0, 6.0]])] * 5 + [np.array([[0.03, 6.0]])]))
    assert np.array_equal(ObservedBins.of(late, *clock).number(np.array([0]), np.array([60]))[0], [60] * 5 + [59])


def test_unobserved_halves_score_as_if_they_were_cut_away():
    """The likelihood, its null and that of the expected counts: every unit, then one of them."""
    rec, config = small_recording(frames=False), without_frames()
    split = Split.whole(rec.domain, 0.01)
    first, second = (Split.whole(np.array([[a, a + 20.0]]), 0.01) for a in (0.0, 20.0))
    half = half_observed(rec)
    prepared = Prepared.of(half, config, split)
    assert prepared.normalization == Prepared.of(rec, config, first).normalization
    torch.manual_seed(0)
    model = Neuroformer(config, rec.num_units, prepared.normalization).eval()
    of = lambda rec, split: Prepared.of(rec, config, split, prepared.normalization)
    whole, cut = scored(prepared, model), scored(of(rec, first), model)
    for column in (NULL, NLL, RATES, NUMBER):
        np.testing.assert_allclose(whole[:, column].sum(), cut[:, column].sum(), rtol=1e-5)
    # one unit: the others go on, and what is expected of them does not change
    whole = scored(of(half_observed(rec, [2]), split), model)
    before, after = scored(of(rec, first), model), scored(of(half_observed(rec, [2]), second), model)
    np.testing.assert_allclose(whole[:, NULL].sum(), before[:, NULL].sum() + after[:, NULL].sum(), rtol=1e-9)
    assert whole[:, NUMBER].sum() < scored(of(rec, split), model)[:, NUMBER].sum()


def test_the_mass_of_all_counts_of_observed_cells_is_one():
    """With one unit and one bin hidden, the other cells' counts have all of the probability."""
    config = without_frames(train={"batch_size": 8})
    config = replace(config, window=replace(config.window, current=0.02))
    rec = small_recording(num_units=2, seconds=4.0, rate=3.0, frames=False)
    hidden = replace(
        rec, observed=ObservedIntervals.from_units([np.array([[0, 2.01], [2.02, 4]]), np.array([[0, 4.0]])])
    )
    split = Split.whole(rec.domain, 0.01)
    normalization = Prepared.of(rec, config, split).normalization
    torch.manual_seed(1)
    model = Neuroformer(config, 2, normalization).double().eval()
    total = 0.0
    for counts in np.ndindex(6, 6, 6):  # unit 1 in both bins, unit 0 in the first... of the window at 2 s
        cells = [(0, 0), (0, 1), (1, 1)]
        times = [2.0 + 0.01 * b + 0.005 for (b, _), k in zip(cells, counts, strict=True) for _ in range(k)]
        units = [u for (_, u), k in zip(cells, counts, strict=True) for _ in range(k)]
        order = np.argsort(times, kind="stable")
        spiking = replace(
            hidden,
            spike_times=np.array(times)[order],
            spike_units=np.array(units, np.int32)[order],
            checked_spikes=None,
        )
        prepared = Prepared.of(spiking, config, split, normalization)
        windows = prepared.windows("test")
        batch = prepared.builder(windows[windows.tick == 200])
        with torch.no_grad():
            total += float(torch.exp(-model.observation.nll(batch, model(batch).observed))[0])
    assert abs(total - 1) < 1e-3


def test_nothing_is_stored_where_all_is_observed():
    rec, config = small_recording(frames=False), without_frames()
    prepared = Prepared.of(rec, config, Split.whole(rec.domain, 0.01))
    windows = prepared.windows("test")
    assert prepared.observed is None and prepared.builder(windows[:4]).observed_WBU is None
    half = Prepared.of(half_observed(rec), config, Split.whole(rec.domain, 0.01))
    assert half.builder(windows[:4]).observed_WBU is None  # nor in windows of which all is
    assert not half.builder(windows[-4:]).observed_WBU.any()
    assert half.builder(windows[-4:]).num_spikes == 0
    assert half.with_spikes(prepared.index).index.keys.max() < 2000


def test_a_regression_learns_nothing_from_hidden_rows():
    """Its optimum is that of the rows in which the unit was observed."""
    rng = np.random.default_rng(0)
    x = torch.tensor(np.c_[rng.normal(size=(400, 3)), np.ones(400)], dtype=torch.float32)
    counts = torch.tensor(rng.poisson(np.exp(0.4 * x[:, :1].numpy() - 1), (400, 2)), dtype=torch.float32)
    hidden = torch.zeros(400, 2, dtype=torch.bool)
    hidden[150:, 1] = True
    counts[hidden] = 0
    offset, relative = torch.full((2,), -1.0), torch.tensor([1.0, 1, 1, 1e-4])
    masked = PoissonProblem(x, x.T @ counts, offset_of(offset, hidden), relative).fit(1.0, tolerance=1e-9).weight_FU
    alone = PoissonProblem(x[:150], x[:150].T @ counts[:150, 1:], offset[1:], relative).fit(1.0, tolerance=1e-9)
    torch.testing.assert_close(masked[:, 1:], alone.weight_FU, atol=2e-3, rtol=0)
    z = (offset + x @ masked).masked_fill(hidden, -torch.inf)
    own, cut = OwnSpikes.fit(z, counts), OwnSpikes.fit(z[:150, 1:], counts[:150, 1:])
    torch.testing.assert_close(own.first_2U[:, 1:], cut.first_2U)
    both = own.log_likelihood(counts, z)
    assert (
        abs(
            both
            - own.log_likelihood(counts[:150], z[:150])
            - OwnSpikes.fit(z, counts).log_likelihood(counts[150:], z[150:])
        )
        < 1e-6
    )
    first = OwnSpikes(own.first_2U[:, :1], own.further_2U[:, :1]).log_likelihood(counts[150:, :1], z[150:, :1])
    assert abs(own.log_likelihood(counts[150:], z[150:]) - first) < 1e-6


def test_the_index_holds_no_spike_of_a_unit_that_was_not_observed():
    rec = half_observed(small_recording(frames=False), [0, 3])
    index = SpikeIndex.from_recording(rec, rec.domain, 0.01)
    for unit in range(rec.num_units):
        last = index.keys[index.unit == unit].max()
        assert (last < 2000) == (unit in (0, 3))

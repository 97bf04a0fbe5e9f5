"""A loop that goes on into another trial brings its own past, and reads nothing that was recorded."""

import dataclasses

import numpy as np
import pytest
from helpers import small_config, small_model, small_recording

from neuroformer.data.prepared import prepare
from neuroformer.generation.chain import _last_spikes, go_on, simulate_chain
from neuroformer.generation.simulate import simulate


@pytest.fixture(scope="module")
def first():
    config = small_config(split={"by": "trials"}, generate={"samples": 2, "max_seconds": 0.0})
    net, p = small_model(small_recording(num_trials=20), config)
    result = simulate(net, p, progress=False)
    assert result is not None
    return net, p, result.recording


def more(net, p, before, rows, blocks, prepared=None):
    q = prepared or p
    return go_on(net, q, before, np.array(rows), np.array(blocks))


def test_it_goes_on_from_what_it_generated(first):
    net, p, simulated = first
    history, lasted = _last_spikes(simulated, np.array([3]), np.array([0]), 10, 0.01)
    start, stop = simulated.trial_intervals[3]
    inside = (simulated.spike_times >= stop - 0.1) & (simulated.spike_times < stop)
    assert lasted.tolist() == [200] and len(history.tick) == inside.sum() > 0
    ticks = np.floor((simulated.spike_times[inside] - stop) / 0.01 + 1e-6).astype(int)
    assert sorted(zip(history.tick, history.unit, strict=True)) == sorted(
        zip(ticks, simulated.spike_units[inside], strict=True)
    )
    on = more(net, p, simulated, [0, 3], [1, 1])
    assert on.trials["source_block"].tolist() == [1, 1] and on.trials["sample"].tolist() == [2, 3]
    # another past makes other spikes, from the same random numbers
    silent = dataclasses.replace(simulated, spike_times=np.zeros(0), spike_units=np.zeros(0, np.int32))
    assert more(net, p, silent, [0, 3], [1, 1]).sha256() != on.sha256()
    assert more(net, p, simulated, [0, 3], [1, 1]).sha256() == on.sha256()
    # alone as among others
    alone = more(net, p, simulated, [3], [1])
    begin = on.trial_intervals[1, 0]
    mine = on.spike_times >= begin
    assert np.allclose(alone.spike_times, on.spike_times[mine] - begin)


def test_the_recorded_spikes_are_out_of_reach(first):
    net, p, simulated = first
    on = more(net, p, simulated, [0, 1, 2], [2, 2, 0])
    rng = np.random.default_rng(0)
    other = dataclasses.replace(p.rec, spike_units=rng.permutation(p.rec.spike_units))
    changed = prepare(other, p.config, p.normalization)
    assert more(net, p, simulated, [0, 1, 2], [2, 2, 0], changed).sha256() == on.sha256()
    assert on.num_spikes > 0 and np.allclose(np.diff(on.trial_intervals), 2.0)


def test_a_chain_goes_through_its_blocks(first):
    net, p, simulated = first
    order = np.array([[0, 2], [1, 3], [3, 1]])
    legs = simulate_chain(net, p, simulated, order, progress=False)
    assert legs[0] is simulated
    assert [leg.trials["source_block"].tolist() for leg in legs[1:]] == [[1, 1, 3, 3], [3, 3, 1, 1]]
    assert legs[1].sha256() == more(net, p, simulated, [0, 1, 4, 5], [1, 1, 3, 3]).sha256()
    assert legs[2].trials["sample"].tolist() == [4, 5, 4, 5]

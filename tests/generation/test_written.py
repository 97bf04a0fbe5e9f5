"""A simulation comes back from every format with its trials, samples and seeds; spikes and traces alike."""

import dataclasses

import numpy as np
import pytest
from helpers import small_config, small_model, small_recording

import neuroformer
from neuroformer.generation.simulate import simulate
from neuroformer.recording import write_recording
from neuroformer.recording.recording import Traces

COLUMNS = ("source_start", "source_trial", "source_block", "sample", "stream", "seed")


@pytest.fixture(scope="module")
def simulated():
    config = small_config(split={"by": "trials"}, generate={"samples": 2, "max_seconds": 0.5})
    net, p = small_model(small_recording(num_trials=10), config)
    result = simulate(net, p, progress=False)
    assert result is not None
    return result.recording


@pytest.mark.parametrize("suffix", [".npz", ".nwb", ".recording"])
@pytest.mark.parametrize("kind", ["spikes", "traces"])
def test_a_simulation_comes_back(simulated, kind, suffix, tmp_path):
    rec = simulated
    if kind == "traces":
        times = np.concatenate([np.arange(a + 0.005, b, 0.01) for a, b in rec.trial_intervals])
        values = np.random.default_rng(0).normal(size=(len(times), rec.num_units)).astype(np.float32)
        empty = np.zeros(0)
        rec = dataclasses.replace(
            rec, spike_times=empty, spike_units=empty.astype(np.int32), traces=Traces(times, values, "dF/F")
        )
    back = neuroformer.open_recording(write_recording(rec, tmp_path / f"simulated{suffix}"))
    np.testing.assert_array_equal(back.spike_times, rec.spike_times)
    np.testing.assert_array_equal(back.spike_units, rec.spike_units)
    for column in COLUMNS:
        np.testing.assert_array_equal(back.trials[column], rec.trials[column], err_msg=column)
    np.testing.assert_allclose(back.trial_intervals, rec.trial_intervals, rtol=0, atol=1e-12)
    assert back.unit_ids == rec.unit_ids
    if kind == "traces":
        np.testing.assert_array_equal(back.traces.values, rec.traces.values)
    else:
        assert back.traces is None and back.num_spikes > 50


def test_other_readers_of_nwb_see_that_it_was_simulated(simulated, tmp_path):
    pynwb = pytest.importorskip("pynwb")
    with pynwb.NWBHDF5IO(write_recording(simulated, tmp_path / "simulated.nwb"), "r") as io:
        file = io.read()
        assert file.session_description.startswith("simulated in closed loop from 'small', test part, 2 sample(s)")
        assert file.trials["seed"][:].tolist() == simulated.trials["seed"].tolist()

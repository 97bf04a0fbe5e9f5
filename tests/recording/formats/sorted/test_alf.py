"""ALF folders as ONE keeps them: what lies in them is what is read, and against SpikeInterface's export."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import save_alf, write_alf_probe

from neuroformer.recording import RecordingError, open_recording


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), probes=st.integers(1, 3), below=st.booleans())
def test_every_spike_is_of_its_cluster(tmp_path_factory, seed, probes, below):
    rng = np.random.default_rng(seed)
    session = tmp_path_factory.mktemp("lab") / "SWC_001" / "2024-05-06" / "001"
    home = session / "alf" if below else session
    truth = {}
    for i in range(probes):
        folder = home / f"probe0{i}" / "pykilosort" if rng.random() < 0.5 else home / f"probe0{i}"
        times, rows = write_alf_probe(folder, rng, clusters=int(rng.integers(1, 6)))
        truth |= {(f"probe0{i}_{c}" if probes > 1 else str(c)): times[rows == c] for c in np.unique(rows)}
    rec = open_recording(session)
    assert rec.name == "SWC_001_2024-05-06_001" and set(rec.unit_ids) == set(truth)
    for row, unit in enumerate(rec.unit_ids):
        np.testing.assert_array_equal(rec.spike_times[rec.spike_units == row], truth[unit])


def test_columns_of_units(tmp_path):
    _, rows = write_alf_probe(tmp_path / "alf" / "probe00", np.random.default_rng(0))
    rec = open_recording(tmp_path)
    np.testing.assert_array_equal(rec.units["depth"], 20 * rec.units["id"])
    np.testing.assert_array_equal(rec.units["label"], rec.units["id"] / 4)
    np.testing.assert_array_equal(rec.units["brainLocationIds_ccf_2017"], 500 + 2 * rec.units["id"])
    assert list(rec.units["uuids"]) == [f"a-{i}" for i in rec.units["id"]]
    (tmp_path / "alf" / "probe00" / "channels.acronym.csv").write_text("acronym\n" + "CA1\n" * 6 + "VISp\n" * 6)
    assert list(open_recording(tmp_path).units["area"]) == ["CA1"] * 3 + ["VISp"] * 2


def test_namespaces_revisions_and_what_lies_beside(tmp_path):
    rng = np.random.default_rng(1)
    alf = tmp_path / "alf"
    times, _ = write_alf_probe(alf / "probe00", rng)
    save_alf(alf / "probe00" / "#2024-01-01#", spikes__times=times + 0.001)
    save_alf(alf / "probe00" / "#2025-01-01#", spikes__times=times + 0.002)
    save_alf(alf, _ibl_wheel__position=np.arange(50.0), _ibl_wheel__timestamps=10 + np.arange(50.0))
    starts = 10 + 5 * np.arange(8.0)
    save_alf(alf, _ibl_trials__intervals=np.stack([starts, starts + 4], 1), _ibl_trials__choice=rng.integers(-1, 2, 8))
    save_alf(alf, _ibl_trials__stimOn_times=starts + 1, _ibl_wheelMoves__intervals=np.array([[11, 12], [20, 23.0]]))
    save_alf(alf, _ibl_wheelMoves__peakAmplitude=np.array([0.1, 0.2]), licks__times=np.array([12.0, 13, 20]))
    save_alf(alf, **{"_ibl_leftCamera__times": 10 + np.arange(30) / 10, "leftCamera__ROIMotionEnergy": np.arange(30.0)})
    (alf / "_ibl_leftCamera.dlc.csv").write_text(
        "nose_tip_x,nose_tip_y,nose_tip_likelihood\n"
        + "".join(f"{i},{i + 1},{0.5 if i == 3 else 1}\n" for i in range(30))
    )
    rec = open_recording(alf)
    np.testing.assert_array_equal(rec.spike_times, np.sort(times + 0.002))
    np.testing.assert_array_equal(rec.trials["start"], starts)
    np.testing.assert_array_equal(rec.trials["stimOn_times"], starts + 1)
    assert set(rec.behavior) == {"wheel_position", "leftCamera_ROIMotionEnergy", "leftCamera_nose_tip", "licks"}
    np.testing.assert_array_equal(rec.behavior["wheel_position"].times, 10 + np.arange(50.0))
    nose = rec.behavior["leftCamera_nose_tip"]
    assert nose.columns == ("x", "y") and np.isnan(nose.values[3]).all() and list(nose.values[4]) == [4, 5]
    np.testing.assert_array_equal(rec.behavior["licks"].times, [12, 13, 20])
    np.testing.assert_array_equal(rec.intervals["wheelMoves"]["peakAmplitude"], [0.1, 0.2])


def test_trials_in_one_table_and_two_sorters(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rng = np.random.default_rng(2)
    write_alf_probe(tmp_path / "alf" / "probe00", rng)
    times, _ = write_alf_probe(tmp_path / "alf" / "probe00" / "pykilosort", rng, spikes=90)
    table = {"intervals_0": [10.0, 20, np.nan], "intervals_1": [15.0, 25, 30], "contrastLeft": [1.0, np.nan, 0.5]}
    pq.write_table(pa.table(table), tmp_path / "alf" / "_ibl_trials.table.pqt")
    rec = open_recording(tmp_path)
    assert rec.num_spikes == 90 and any(
        "probe00 was left out, probe00/pykilosort is read" in n for n in rec.meta["notes"]
    )
    np.testing.assert_array_equal(rec.trials["start"], [10, 20])
    assert np.isnan(rec.trials["contrastLeft"][1])


def test_evenly_sampled_times_are_pairs(tmp_path):
    write_alf_probe(tmp_path, np.random.default_rng(3))
    save_alf(tmp_path, pupil__diameter=np.arange(101.0), pupil__timestamps=np.array([[0, 10.0], [99, 19.9]]))
    at = open_recording(tmp_path).behavior["pupil_diameter"].times
    np.testing.assert_allclose(at, 10 + np.arange(101) / 10)


def test_what_does_not_fit_is_refused_or_noted(tmp_path):
    write_alf_probe(tmp_path, np.random.default_rng(4))
    save_alf(tmp_path, wheel__position=np.arange(3.0), wheel__timestamps=np.arange(4.0), lost__values=np.arange(3.0))
    (tmp_path / "clusters.amps.npy").write_bytes(b"no array")
    notes = " ".join(open_recording(tmp_path).meta["notes"])
    for part in ("wheel_position was left out", "lost was left out", "clusters.amps.npy was left out"):
        assert part in notes
    save_alf(tmp_path, spikes__clusters=np.arange(3))
    with pytest.raises(RecordingError, match="the number of a cluster for each spike"):
        open_recording(tmp_path)


@pytest.mark.slow
def test_what_spikeinterface_exports(tmp_path):
    core = pytest.importorskip("spikeinterface.core")
    exporters = pytest.importorskip("spikeinterface.exporters")
    pytest.importorskip("pyarrow")
    recording, sorting = core.generate_ground_truth_recording(durations=[4.0], num_channels=16, num_units=6, seed=1)
    analyzer = core.create_sorting_analyzer(sorting, recording, sparse=False)
    needed = ["random_spikes", "waveforms", "templates", "noise_levels", "spike_amplitudes", "spike_locations"]
    analyzer.compute([*needed, "template_metrics", "quality_metrics", "unit_locations"], verbose=False)
    exporters.export_to_ibl_gui(analyzer, tmp_path / "ibl", verbose=False)
    rec = open_recording(tmp_path / "ibl")
    rate = sorting.get_sampling_frequency()
    assert rec.num_units == 6 and "depth" in rec.units
    for row, unit in enumerate(sorting.unit_ids):
        train = sorting.get_unit_spike_train(unit) / rate
        np.testing.assert_allclose(rec.spike_times[rec.spike_units == row], train, atol=1e-9)

"""SpikeInterface's objects and folders, written by itself."""

import numpy as np
import pytest

from neuroformer.recording import RecordingError, open_recording
from neuroformer.recording.formats.sorted.spikeinterface import from_spikeinterface

core = pytest.importorskip("spikeinterface.core")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def made():
    return core.generate_ground_truth_recording(durations=[4.0], num_channels=8, num_units=5, seed=1)


def check(rec, sorting, segment=0):
    rate = sorting.get_sampling_frequency()
    assert rec.unit_ids == [str(u) for u in sorting.unit_ids]
    for row, unit in enumerate(sorting.unit_ids):
        train = sorting.get_unit_spike_train(unit, segment_index=segment) / rate
        np.testing.assert_array_equal(rec.spike_times[rec.spike_units == row], train)


def test_sortings_in_every_form(made, tmp_path):
    _, sorting = made
    sorting.set_property("quality", np.array(["good", "mua", "good", "good", "noise"]))
    sorting.save(folder=tmp_path / "saved")
    core.NpzSortingExtractor.write_sorting(sorting, tmp_path / "a.npz")
    for source in (tmp_path / "saved", tmp_path / "a.npz"):
        check(open_recording(source), sorting)
    check(from_spikeinterface(sorting), sorting)
    for rec in (open_recording(tmp_path / "saved"), from_spikeinterface(sorting)):
        assert list(rec.units["quality"]) == ["good", "mua", "good", "good", "noise"]
        assert {"gt_unit_locations_x", "gt_unit_locations_y", "main_channel_id"} <= rec.units.keys()


def test_an_analyzer_brings_its_metrics_and_the_length(made, tmp_path):
    recording, sorting = made
    analyzer = core.create_sorting_analyzer(
        sorting, recording, sparse=False, format="binary_folder", folder=tmp_path / "analyzer"
    )
    pytest.importorskip("pandas")
    analyzer.compute(["random_spikes", "templates", "noise_levels", "unit_locations"], verbose=False)
    places = np.asarray(analyzer.get_extension("unit_locations").get_data())
    for rec in (open_recording(tmp_path / "analyzer"), from_spikeinterface(analyzer)):
        check(rec, sorting)
        np.testing.assert_array_equal(rec.domain, [[0, 4.0]])
        np.testing.assert_allclose(rec.units["depth"], places[:, 1])


def test_several_segments_share_no_clock(tmp_path):
    _, sorting = core.generate_ground_truth_recording(durations=[2.0, 3.0], num_channels=4, num_units=3, seed=1)
    sorting.save(folder=tmp_path / "saved")
    with pytest.raises(RecordingError, match="2 segments, which share no clock; give segment, 0 to 1"):
        open_recording(tmp_path / "saved")
    check(open_recording(tmp_path / "saved", segment=1), sorting, 1)


def test_damaged_folders_are_errors_that_say_what(made, tmp_path):
    _, sorting = made
    sorting.save(folder=tmp_path / "saved")
    (tmp_path / "saved" / "properties" / "main_channel_id.npy").write_bytes(b"x")
    assert any("main_channel_id was left out" in n for n in open_recording(tmp_path / "saved").meta["notes"])
    np.save(tmp_path / "saved" / "spikes.npy", np.arange(5))
    with pytest.raises(RecordingError, match="are no sorting's"):
        open_recording(tmp_path / "saved")
    with pytest.raises(RecordingError, match="expected a sorting or an analyzer"):
        from_spikeinterface(3)

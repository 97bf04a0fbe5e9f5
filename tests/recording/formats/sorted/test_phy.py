"""Folders of Kilosort and phy: against what SpikeInterface exports, and as the sorters lay them out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroformer.recording import RecordingError, open_recording
from neuroformer.recording.units import choose_units

RATE = 25_000.0


def write_folder(folder, seed=0, spikes=400, curated=True):
    """A folder as Kilosort writes it and phy saves it; and what it means, (samples, clusters)."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    samples = np.sort(rng.integers(0, 60 * int(RATE), spikes)).astype(np.uint64)
    templates = rng.integers(0, 6, spikes).astype(np.int32)
    clusters = np.where(templates == 5, 17, templates)  # merged away in phy
    shapes = rng.normal(size=(6, 20, 8)).astype(np.float32) * 0.01
    for i, channel in enumerate([3, 0, 7, 2, 5, 6]):
        shapes[i, 5:15, channel] -= 1
    arrays = {"spike_times": samples[:, None], "spike_templates": templates[:, None], "templates": shapes}
    arrays["amplitudes"] = rng.uniform(5, 20, (spikes, 1))
    arrays["channel_positions"] = np.stack([np.arange(8) % 2 * 16.0, np.arange(8) * 20.0], 1)
    arrays["channel_map"] = np.arange(8)[:, None] + 100
    if curated:
        arrays["spike_clusters"] = clusters.astype(np.int32)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    (folder / "params.py").write_text(f"dat_path = r'C:\\data\\x.bin'\nn_channels_dat = 385\nsample_rate = {RATE}\n")
    labels = {0: "good", 1: "mua", 2: "noise", 3: "good", 17: "good"}
    lines = "".join(f"{k}\t{v}\n" for k, v in labels.items())
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n" + lines)
    (folder / "cluster_ContamPct.tsv").write_text("cluster_id\tContamPct\n0\t1.5\n1\t20\n99\t3\n")
    return samples, clusters if curated else templates, arrays


def assert_spikes(rec, samples, clusters):
    times = samples / RATE
    for row, cluster in enumerate(rec.units["id"]):
        np.testing.assert_array_equal(rec.spike_times[rec.spike_units == row], times[clusters == cluster])
    assert rec.num_spikes == len(samples)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), curated=st.booleans(), below=st.booleans())
def test_every_spike_is_of_its_cluster(tmp_path_factory, seed, curated, below):
    folder = tmp_path_factory.mktemp("ks")
    samples, clusters, _ = write_folder(folder / "sorter_output" if below else folder, seed, curated=curated)
    rec = open_recording(folder)
    assert_spikes(rec, samples, clusters)
    assert list(rec.units["id"]) == list(np.unique(clusters))
    assert rec.domain[0, 0] == 0 and rec.name == folder.name


def test_columns(tmp_path):
    samples, clusters, arrays = write_folder(tmp_path / "kilosort4")
    rec = open_recording(tmp_path / "kilosort4")
    assert rec.name == tmp_path.name
    assert list(rec.units["id"]) == [0, 1, 2, 3, 4, 17]
    assert list(rec.units["group"]) == ["good", "mua", "noise", "good", "", "good"]
    np.testing.assert_array_equal(rec.units["ContamPct"], [1.5, 20, *[np.nan] * 4])
    assert list(rec.units["channel"]) == [103, 100, 107, 102, 105, 106]
    np.testing.assert_array_equal(rec.units["depth"], [60, 0, 140, 40, 100, 120])
    np.testing.assert_array_equal(rec.units["x"], [16, 0, 16, 0, 16, 0])
    median = [np.median(arrays["amplitudes"][clusters == c]) for c in rec.units["id"]]
    np.testing.assert_allclose(rec.units["amplitude"], median, rtol=1e-12)
    assert any("3 good, 1 mua, 1 noise" in n and "where: \"group == 'good'\"" in n for n in rec.meta["notes"])
    assert choose_units(rec, "group == 'good' and depth > 50").unit_ids == ["0", "17"]


def test_the_channel_is_that_of_the_most_frequent_template(tmp_path):
    samples, clusters, arrays = write_folder(tmp_path)
    templates = arrays["spike_templates"][:, 0]
    merged = np.where(np.isin(templates, [0, 1]), 20, templates)
    np.save(tmp_path / "spike_clusters.npy", merged)
    more = np.bincount(templates)[:2].argmax()
    rec = open_recording(tmp_path)
    assert rec.units["channel"][list(rec.units["id"]).index(20)] == [103, 100][more]


def test_parameters_are_never_run(tmp_path):
    write_folder(tmp_path)
    marker = tmp_path / "ran"
    (tmp_path / "params.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nsample_rate = float('30000')\n"
    )
    with pytest.raises(RecordingError, match="no sample_rate in params.py .*give rate_hz"):
        open_recording(tmp_path)
    assert open_recording(tmp_path, rate_hz=RATE).num_units == 6
    assert not marker.exists()
    (tmp_path / "params.py").write_text("sample_rate = (" * 5000)
    with pytest.raises(RecordingError, match=r"params\.py is not readable"):
        open_recording(tmp_path)


def test_lengths_that_differ_are_refused_or_noted(tmp_path):
    write_folder(tmp_path)
    np.save(tmp_path / "amplitudes.npy", np.ones(3))
    rec = open_recording(tmp_path)
    assert "amplitude" not in rec.units and any("amplitudes were left out" in n for n in rec.meta["notes"])
    np.save(tmp_path / "spike_clusters.npy", np.zeros(3, np.int32))
    with pytest.raises(RecordingError, match="3 numbers for 400 spikes"):
        open_recording(tmp_path)


@pytest.mark.slow
def test_what_spikeinterface_exports(tmp_path):
    core = pytest.importorskip("spikeinterface.core")
    exporters = pytest.importorskip("spikeinterface.exporters")
    recording, sorting = core.generate_ground_truth_recording(durations=[4.0], num_channels=16, num_units=6, seed=1)
    sorting.set_property("quality", np.array(["good", "mua"] * 3))
    analyzer = core.create_sorting_analyzer(sorting, recording, sparse=True)
    analyzer.compute(["random_spikes", "waveforms", "templates", "noise_levels", "spike_amplitudes"], verbose=False)
    exporters.export_to_phy(
        analyzer, tmp_path / "phy", compute_pc_features=False, copy_binary=False, verbose=False, use_relative_path=True
    )
    rec = open_recording(tmp_path / "phy")
    rate = sorting.get_sampling_frequency()
    assert rec.num_units == 6
    for row, unit in enumerate(sorting.unit_ids):
        np.testing.assert_allclose(
            rec.spike_times[rec.spike_units == row], sorting.get_unit_spike_train(unit) / rate, atol=1e-12
        )
    shapes = analyzer.get_extension("templates").get_data()
    np.testing.assert_array_equal(rec.units["channel"], np.ptp(shapes, axis=1).argmax(1))
    positions = recording.get_channel_locations()[rec.units["channel"]]
    np.testing.assert_allclose(rec.units["depth"], positions[:, 1], atol=1e-4)

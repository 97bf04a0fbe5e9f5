"""NWB: our own files lose nothing and please other tools; files of others are read in their layouts."""

import datetime as dt
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from samples import assert_same, full_recording, shared_data
from samples import empty_nwb as empty_file
from samples import save_nwb as save

from neuroformer.recording import RecordingError, open_recording

pynwb = pytest.importorskip("pynwb")
pytestmark = pytest.mark.filterwarnings("ignore")

from neuroformer.recording.formats.nwb.writer import write_nwb  # noqa: E402


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return write_nwb(full_recording(), tmp_path_factory.mktemp("nwb") / "full.nwb")


def test_round_trip_loses_nothing(ours):
    rec = full_recording()
    back = open_recording(ours)
    assert_same(back, rec)
    again = pickle.loads(pickle.dumps(back))  # data-loader workers get a copy
    assert_same(again, rec)


def test_shown_once_frames_and_numbered_units(tmp_path):
    from neuroformer.recording import FrameSeries

    rec = full_recording()
    images = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    rec = replace(
        rec,
        units={"id": np.array([7, 3, 9, 100, 2]), "spike_times": np.arange(5)},
        frames=FrameSeries(images, np.arange(5) / 10, np.arange(5)),
    )
    assert_same(open_recording(write_nwb(rec, tmp_path / "a.nwb")), rec)


def test_opens_in_pynapple(ours):
    nap = pytest.importorskip("pynapple")
    data = nap.load_file(str(ours))
    rec = full_recording()
    assert len(data["units"]) == 5 and np.allclose(data["units"][0].t, rec.spike_times[rec.spike_units == 0])
    assert np.allclose(data["trials"].start, rec.trials["start"])
    assert np.allclose(data["gaze"].values, rec.behavior["gaze"].values)
    from neuroformer.recording.formats.pynapple import from_pynapple

    back = from_pynapple(data)
    np.testing.assert_allclose(back.spike_times, rec.spike_times, atol=1e-9)
    assert back.num_units == 5 and set(back.behavior) >= {"speed", "heart_rate", "gaze"}
    np.testing.assert_allclose(back.trial_intervals, rec.trial_intervals)


def test_nwbinspector_finds_nothing_critical(ours):
    inspector = pytest.importorskip("nwbinspector")
    bad = [
        f"{m.check_function_name}: {m.message}"
        for m in inspector.inspect_nwbfile(nwbfile_path=str(ours))
        if m.importance.name in ("CRITICAL", "ERROR", "PYNWB_VALIDATION")
    ]
    assert not bad


# -- files of others --------------------------------------------------------------------------------


def neuropixels_file(path):
    """Electrodes with areas, ragged and waveform columns, overlapping trials, modules by topic."""
    from pynwb.behavior import BehavioralEvents, EyeTracking, Position, PupilTracking, SpatialSeries

    f = empty_file()
    device = f.create_device(name="probe")
    group = f.create_electrode_group(name="probeA", description="x", location="VIS", device=device)
    for area in ("VISp", "VISp", "CA1"):
        f.add_electrode(location=area, group=group)
    f.add_unit_column(name="quality", description="label")
    f.add_unit_column(name="snr", description="signal to noise")
    f.add_unit_column(name="spike_amplitudes", description="ragged", index=True)
    for spikes, electrodes in (([0.5, 2.5], [0, 2, 1]), ([1.5, 1.0, 9.0], [2]), ([], [0])):
        f.add_unit(
            spike_times=spikes,
            electrodes=electrodes,
            quality="good",
            snr=1.0,
            spike_amplitudes=[1.0] * 2,
            waveform_mean=np.zeros((4, 2)),
            obs_intervals=[[0.0, 5.0], [5.0, 10.0]],
        )
    f.add_trial_column(name="choice", description="side")
    for start, stop, choice in ((5.0, np.nan, "left"), (0.0, 2.1, "left"), (2.0, 4.0, "right")):
        f.add_trial(start_time=start, stop_time=stop, choice=choice)
    f.add_epoch(0.0, 5.0, ["awake"])
    f.add_invalid_time_interval(start_time=3.0, stop_time=4.0)
    times = np.arange(20) / 2
    running = f.create_processing_module(name="running", description="x")
    running.add(
        pynwb.TimeSeries(name="speed", data=np.arange(20.0), rate=2.0, starting_time=1.0, unit="cm/s", conversion=0.01)
    )
    module = f.create_processing_module(name="behavior", description="x")
    xy = np.stack([times, -times], 1)
    module.add(Position(spatial_series=SpatialSeries(name="SpatialSeries", data=xy, timestamps=times, unit="meters")))
    gaze = SpatialSeries(name="pupil", data=xy, timestamps=times, unit="deg")
    module.add(EyeTracking(spatial_series=gaze))
    size = pynwb.TimeSeries(name="pupil", data=times, timestamps=np.r_[np.nan, times[1:]], unit="mm")
    module.add(PupilTracking(time_series=size))
    licks = pynwb.TimeSeries(name="licks", data=np.ones(3), timestamps=[1.0, 1.0, 3.0], unit="n.a.")
    module.add(BehavioralEvents(time_series=licks))
    f.add_acquisition(
        pynwb.ecephys.ElectricalSeries(
            name="lfp",
            data=np.zeros((20, 3)),
            timestamps=times,
            electrodes=f.create_electrode_table_region([0, 1, 2], "all"),
        )
    )
    f.add_acquisition(pynwb.misc.AnnotationSeries(name="log", data=["a"], timestamps=[1.0]))
    f.add_acquisition(pynwb.TimeSeries(name="wheel 2", data=times, timestamps=times, unit="m"))
    return save(f, path)


def test_neuropixels_layout(tmp_path):
    rec = open_recording(neuropixels_file(tmp_path / "n.nwb"))
    assert rec.num_units == 3 and rec.num_spikes == 5 and rec.rates()[2] == 0
    np.testing.assert_array_equal(rec.spike_times, [0.5, 1.0, 1.5, 2.5, 9.0])
    assert list(rec.units["area"]) == ["VISp", "CA1", "VISp"] and list(rec.units["quality"]) == ["good"] * 3
    np.testing.assert_array_equal(rec.domain, [[0, 3], [4, 10]])
    np.testing.assert_array_equal(rec.trial_intervals, [[0.0, 2.0], [2.0, 4.0]])
    assert list(rec.trials["choice"]) == ["left", "right"]
    assert set(rec.intervals) == {"epochs", "invalid_times"} and list(rec.intervals["epochs"]["tags"]) == ["awake"]
    assert set(rec.behavior) == {
        "speed",
        "Position_SpatialSeries",
        "EyeTracking_pupil",
        "PupilTracking_pupil",
        "licks",
        "wheel_2",
    }
    assert rec.behavior["Position_SpatialSeries"].columns == ("x", "y")
    np.testing.assert_allclose(rec.behavior["speed"].values[:, 0], np.arange(20) / 100)
    assert rec.behavior["speed"].times[0] == 1.0 and rec.behavior["speed"].unit == "cm/s"
    assert rec.meta["sources"]["speed"] == "processing/running/speed"
    notes = "\n".join(rec.meta["notes"])
    expected = (
        "units columns left out",
        "waveform_mean",
        "rows ran into the next",
        "have no duration",
        "licks: 1 samples with the time",
        "PupilTracking_pupil: 1 samples without a time",
    )
    for text in expected:
        assert text in notes, text
    assert "note" in repr(rec)


def test_trials_from_another_table(tmp_path):
    f = empty_file()
    f.add_unit(spike_times=[0.5])
    table = pynwb.epoch.TimeIntervals(name="movie_presentations", description="x")
    for i in range(3):
        table.add_row(start_time=float(i), stop_time=i + 0.5)
    f.add_time_intervals(table)
    path = save(f, tmp_path / "a.nwb")
    assert open_recording(path).num_trials == 0
    assert open_recording(path, trials="movie_presentations").num_trials == 3
    with pytest.raises(RecordingError, match="no intervals 'movies'.*movie_presentations"):
        open_recording(path, trials="movies")


def test_interval_series_and_group_location(tmp_path):
    f = empty_file()
    device = f.create_device(name="d")
    groups = [f.create_electrode_group(name=n, description="x", location=n, device=device) for n in ("M1", "S1")]
    for g in groups:
        f.add_unit(spike_times=[0.5, 1.0], electrode_group=g)
    series = pynwb.misc.IntervalSeries(name="licking", data=[1, -1, 1, -1], timestamps=[0.0, 1.0, 2.0, 2.5])
    module = f.create_processing_module(name="behavior", description="x")
    module.add(pynwb.behavior.BehavioralEpochs(interval_series=series))
    rec = open_recording(save(f, tmp_path / "a.nwb"))
    assert list(rec.units["area"]) == ["M1", "S1"]
    np.testing.assert_array_equal(rec.intervals["licking"]["stop"], [1.0, 2.5])


def stimulus_file(path, movie, presented):
    f = empty_file()
    f.add_unit(spike_times=[0.5, 8.0])
    for template, series in presented:
        if template is not None:
            f.add_stimulus_template(template)
        f.add_stimulus(series)
    return save(f, path)


def test_internal_frames_color_and_repeats(tmp_path):
    from pynwb.base import ImageReferences, Images
    from pynwb.image import GrayscaleImage, IndexSeries, OpticalSeries

    rng = np.random.default_rng(0)
    color = rng.integers(0, 255, (6, 5, 4, 3), dtype=np.uint8)
    movie = OpticalSeries(name="movie", data=color, timestamps=np.arange(6) + 10.0, unit="n.a.")
    pictures = [GrayscaleImage(name=f"p{i}", data=rng.integers(0, 255, (5, 4), dtype=np.uint8)) for i in range(3)]
    bank = Images(
        name="scenes", images=pictures, order_of_images=ImageReferences(name="order_of_images", data=pictures)
    )
    shown = IndexSeries(name="shown", data=[2, 0, 2, 1], timestamps=np.arange(4.0), indexed_images=bank, unit="N/A")
    path = stimulus_file(tmp_path / "a.nwb", movie, [(None, movie), (bank, shown)])
    rec = open_recording(path)
    assert rec.frames.images.shape == (9, 5, 4) and len(rec.frames.times) == 10
    luma = np.rint(color @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    bank_first = np.asarray(pictures[2].data)
    np.testing.assert_array_equal(rec.frames.images[rec.frames.index[0]], bank_first)
    np.testing.assert_array_equal(rec.frames.images[rec.frames.index[4:]], luma)
    only = open_recording(path, frames="shown")
    np.testing.assert_array_equal(only.frames.index, [2, 0, 2, 1])
    assert open_recording(path, frames="none").frames is None
    with pytest.raises(RecordingError, match="no image series 'film'; it has: movie, shown"):
        open_recording(path, frames="film")
    small = open_recording(path, frames_size=(2, 2), frame_cache_mb=1)
    assert small.frames.images.shape == (9, 2, 2)


def test_index_into_a_movie_template_as_older_files_have_it(tmp_path):
    from pynwb.image import ImageSeries, IndexSeries

    data = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    movie = ImageSeries(name="movie", data=data, timestamps=[0.0, 1.0, 2.0], unit="n.a.", format="raw")
    # pynwb no longer lets new files say so, but archives are full of them
    shown = IndexSeries.__new__(IndexSeries, in_construct_mode=True)
    shown.__init__(name="shown", data=[1, 1, 0], timestamps=[3.0, 4.0, 5.0], indexed_timeseries=movie, unit="N/A")
    rec = open_recording(stimulus_file(tmp_path / "a.nwb", movie, [(movie, shown)]))
    np.testing.assert_array_equal(rec.frames.index, [1, 1, 0])
    np.testing.assert_array_equal(rec.frames.images[1], data[1])


def test_external_frames(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    from pynwb.image import ImageSeries

    data = np.random.default_rng(0).integers(0, 255, (4, 6, 8), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "movie.tif", data)
    movie = ImageSeries(
        name="movie", external_file=["movie.tif"], timestamps=np.arange(4.0), format="external", unit="n.a."
    )
    path = stimulus_file(tmp_path / "a.nwb", movie, [(None, movie)])
    rec = open_recording(path)
    np.testing.assert_array_equal(rec.frames.images[[3, 0]], data[[3, 0]])
    (tmp_path / "movie.tif").unlink()
    rec = open_recording(path)
    assert rec.frames is None and "movie.tif is not beside the NWB file" in rec.meta["notes"][0]
    with pytest.raises(RecordingError, match="movie.tif is not beside"):
        open_recording(path, frames="movie")


def test_calcium_without_a_units_table(tmp_path):
    from pynwb.ophys import DfOverF, Fluorescence, ImageSegmentation, OpticalChannel, RoiResponseSeries

    f = empty_file()
    device = f.create_device(name="scope")
    channel = OpticalChannel(name="c", description="x", emission_lambda=500.0)
    plane = f.create_imaging_plane(
        name="plane",
        optical_channel=channel,
        description="x",
        device=device,
        excitation_lambda=900.0,
        indicator="GCaMP",
        location="VISp",
    )
    segmentation = ImageSegmentation()
    regions = segmentation.create_plane_segmentation(name="ps", description="x", imaging_plane=plane)
    regions.add_column(name="iscell", description="cell, probability")
    for i in range(3):
        regions.add_roi(pixel_mask=[(0, 0, 1.0)], iscell=np.array([float(i != 1), 0.9]))
    rng = np.random.default_rng(0)
    spikes = (rng.random((400, 3)) < 0.02).astype(float)
    dff = np.stack([np.convolve(s, 0.9 ** np.arange(60))[:400] for s in spikes.T], 1)
    module = f.create_processing_module(name="ophys", description="x")
    region = lambda: regions.create_roi_table_region("all", region=[0, 1, 2])  # noqa: E731
    series = lambda name, data: RoiResponseSeries(  # noqa: E731
        name=name, data=data, rois=region(), unit="n.a.", rate=20.0, starting_time=0.0
    )
    module.add(segmentation)
    module.add(Fluorescence(roi_response_series=[series("raw", dff + 5), series("Deconvolved", spikes)]))
    module.add(DfOverF(roi_response_series=[series("RoiResponseSeries", dff)]))
    path = save(f, tmp_path / "a.nwb")
    rec = open_recording(path)
    assert rec.num_units == 2 and list(rec.units["id"]) == [0, 2] and list(rec.units["area"]) == ["VISp"] * 2
    assert rec.num_spikes == int(spikes[:, [0, 2]].sum())
    np.testing.assert_allclose(rec.traces.values, dff[:, [0, 2]], rtol=1e-6)
    notes = "\n".join(rec.meta["notes"])
    assert "1 of 3 regions are not cells" in notes and "100%" in notes and "raw" in notes
    assert np.allclose(open_recording(path, traces="raw").traces.values, dff[:, [0, 2]] + 5)
    assert open_recording(path, events="none").num_spikes == 0


def test_a_real_recording_comes_back(tmp_path):
    rec = open_recording(shared_data() / "hippocampus_wmaze.npz")
    back = open_recording(write_nwb(rec, tmp_path / "w.nwb"))
    assert back.sha256() == rec.sha256() and back.meta == rec.meta


# -- bad input --------------------------------------------------------------------------------------


def test_damaged_and_empty_files(tmp_path, ours):
    broken = tmp_path / "broken.nwb"
    broken.write_bytes(ours.read_bytes()[:5000])
    with pytest.raises(RecordingError, match="broken.nwb cannot be read as NWB"):
        open_recording(broken)
    with pytest.raises(RecordingError, match="neither units with spike_times nor a RoiResponseSeries"):
        open_recording(save(empty_file(), tmp_path / "empty.nwb"))
    with pytest.raises(RecordingError, match="units is 'cells'; expected"):
        open_recording(ours, units="cells")


def test_without_pynwb_the_extra_is_named(ours, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(RecordingError, match=r"pip install 'neuroformer\[nwb\]'"):
        open_recording(ours)


def test_the_start_of_the_session_is_written(tmp_path):
    import pynwb

    rec = full_recording()
    started = lambda text: write_nwb(replace(rec, meta={**rec.meta, "session_start": text}), tmp_path / "a.nwb")
    with pynwb.NWBHDF5IO(str(started("2026-05-04T10:30:00+02:00")), "r") as io:
        start = io.read().session_start_time
        assert start == dt.datetime(2026, 5, 4, 8, 30, tzinfo=dt.timezone.utc)
    with pytest.raises(RecordingError, match="session_start.*expected a date and time"):
        started("last Monday")

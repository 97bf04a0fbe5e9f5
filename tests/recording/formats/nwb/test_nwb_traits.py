"""Traits of files that laboratories have: the right numbers, or one sentence, and never the spikes lost for it."""

import os
import shutil
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from samples import empty_nwb, save_nwb

from neuroformer.recording import RecordingError, open_recording

pynwb = pytest.importorskip("pynwb")
pytestmark = pytest.mark.filterwarnings("ignore")


def with_units(*spikes, **columns):
    """A file with one unit for each list of spike times; 3 units of 10 spikes without any."""
    f = empty_nwb()
    for i, times in enumerate(spikes or [np.arange(10) + i / 4 for i in range(3)]):
        f.add_unit(spike_times=np.asarray(times), **{k: v[i] for k, v in columns.items()})
    return f


def replaced(path, place, data, **options):
    """Another array under an old one's name and attributes."""
    with h5py.File(path, "a") as h:
        attributes = dict(h[place].attrs)
        del h[place]
        h.create_dataset(place, data=data, **options).attrs.update(attributes)
    return path


def notes(rec):
    return "\n".join(rec.meta.get("notes", ()))


def series(name, data, **more):
    more = more or {"rate": 10.0}
    return pynwb.TimeSeries(name=name, data=data, unit="m/s", **more)


# -- units ------------------------------------------------------------------------------------------


def test_ids_that_repeat_are_told_apart(tmp_path):
    rec = open_recording(save_nwb(with_units([0.1], [0.2, 0.3], [0.4], [1.0], id=[0, 1, 0, 0]), tmp_path / "a.nwb"))
    assert rec.unit_ids == ["0", "1", "0_2", "0_3"]
    assert rec.unit_spikes().tolist() == [1, 2, 1, 1]
    assert "unit ids repeat (0)" in notes(rec)


@pytest.mark.parametrize("times, message", [([0.1, 0.5, 0.9], None), ([0.1, 0.5, 0.7, 0.9], "no spike_times_index")])
def test_spike_times_without_an_index(tmp_path, times, message):
    path = save_nwb(with_units(), tmp_path / "a.nwb")
    with h5py.File(path, "a") as h:
        del h["units/spike_times_index"]
    replaced(path, "units/spike_times", times)
    if message:
        with pytest.raises(RecordingError, match=message):
            open_recording(path)
        return
    rec = open_recording(path)
    assert rec.spike_times.tolist() == times and rec.spike_units.tolist() == [0, 1, 2]
    assert "each unit has one spike" in notes(rec)


ALL = [[0.0, 8.0]]


@pytest.mark.parametrize(
    "observed, domain, seconds, note",
    [
        ([ALL, ALL], ALL, [8, 8], ""),
        ([[[0, 3.0], [3.0, 8]], ALL], ALL, [8, 8], ""),
        ([[[0, np.inf]], [[0, np.inf]]], [[0, 7.0]], [7, 7], ""),
        ([[[-np.inf, np.inf]], [[-np.inf, np.inf]]], [[0.5, 7.0]], [6.5, 6.5], ""),
        ([[[np.nan, np.nan]], [[np.nan, np.nan]]], [[0.5, 7.0]], [6.5, 6.5], "obs_intervals hold no times"),
        ([ALL, [[np.nan, 3.0]]], ALL, [8, 8], "1 units have no obs_intervals"),
        ([[[0, 4.0]], [[2.0, 5.0], [6.0, 8.0]]], [[0, 5.0], [6.0, 8.0]], [4, 5], "different obs_intervals"),
        ([[[0, 4.0]], [[2.0, np.inf]]], [[0, 7.0]], [4, 5], "different obs_intervals"),
    ],
)
def test_observed_intervals(tmp_path, observed, domain, seconds, note):
    f = with_units([0.5, 3.0], [2.5, 7.0], obs_intervals=[np.array(o) for o in observed])
    rec = open_recording(save_nwb(f, tmp_path / "a.nwb"))
    np.testing.assert_allclose(rec.domain, domain)
    np.testing.assert_allclose(rec.observed_seconds(), seconds)
    np.testing.assert_allclose(rec.rates(), 2 / np.array(seconds))
    assert note in notes(rec) and (note or "obs" not in notes(rec))
    assert (rec.observed is not None) == ("different" in note)
    if rec.observed is not None:
        assert "not all units at all times" in repr(rec)
        assert rec.observed.of(0).tolist() == [[0, 4.0]]


def test_unobserved_time_is_not_in_the_domain_twice(tmp_path):
    f = with_units([0.5], [6.0], obs_intervals=[np.array([[0, 5.0]]), np.array([[5.0, 10.0]])])
    f.add_invalid_time_interval(start_time=4.0, stop_time=6.0)
    rec = open_recording(save_nwb(f, tmp_path / "a.nwb"))
    assert rec.observed_seconds().tolist() == [4, 4] and rec.duration == 8


# -- one bad part -----------------------------------------------------------------------------------


def under_unknown_filter(path, place):
    """A chunk of a compression that no machine has."""
    with h5py.File(path, "a") as h:
        old, attributes = h[place], dict(h[place].attrs)
        shape, dtype = old.shape, old.dtype
        del h[place]
        new = h.create_dataset(place, shape, dtype, chunks=shape, compression=32999, allow_unknown_filter=True)
        new.id.write_direct_chunk((0,) * len(shape), b"x" * 10)
        new.attrs.update(attributes)
        if f"{place}_index" in h:
            h[f"{place}_index"].attrs["target"] = new.ref
    return path


def everything(path):
    from pynwb.image import ImageSeries

    f = with_units(obs_intervals=[np.array(ALL)] * 3)
    f.add_unit_column("depth", "x", data=[1.0, 2.0, 3.0])
    f.add_acquisition(series("speed", np.arange(90.0)))
    f.add_acquisition(series("gaze", np.arange(90.0)))
    f.add_trial_column("side", "x")
    for i in range(3):
        f.add_trial(start_time=2.0 * i, stop_time=2.0 * i + 1, side="left")
    images = np.zeros((4, 5, 6), np.uint8)
    f.add_stimulus(ImageSeries(name="movie", data=images, timestamps=np.arange(4.0), unit="n.a."))
    return save_nwb(f, path)


@pytest.mark.parametrize(
    "place, lost",
    [
        ("acquisition/speed/data", "speed"),
        ("acquisition/gaze/data", "gaze"),
        ("intervals/trials/start_time", "trials"),
        ("units/depth", "depth"),
        ("units/obs_intervals", "obs_intervals"),
    ],
)
def test_a_part_under_an_unknown_filter_costs_only_itself(tmp_path, place, lost):
    rec = open_recording(under_unknown_filter(everything(tmp_path / "a.nwb"), place))
    assert rec.num_spikes == 30 and lost in notes(rec)
    assert "pip install hdf5plugin" in notes(rec)
    there = {*rec.behavior, *rec.units, *(["trials"] if rec.trials else [])}
    assert there >= {"speed", "gaze", "depth", "trials"} - {lost} and lost not in there


def test_spikes_under_an_unknown_filter_name_the_cure(tmp_path):
    path = under_unknown_filter(everything(tmp_path / "a.nwb"), "units/spike_times")
    with pytest.raises(RecordingError, match="spike_times cannot be read.*pip install hdf5plugin") as e:
        open_recording(path)
    assert "damaged" not in str(e.value)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"nwb_version": "NWB-1.0.6"}, "older format NWB 1.0.6"),
        ({"something": "else"}, "no NWB; it has: something"),
    ],
)
def test_what_is_no_nwb_2_is_called_by_its_name(tmp_path, content, message):
    with h5py.File(tmp_path / "a.nwb", "w") as h:
        for key, value in content.items():
            h[key] = value
    with pytest.raises(RecordingError, match=message) as e:
        open_recording(tmp_path / "a.nwb")
    assert "damaged" not in str(e.value)


def test_what_is_left_out_is_named(tmp_path):
    from pynwb.ecephys import ElectricalSeries

    f = with_units()
    f.add_acquisition(series("speed", np.ones(90)))
    f.add_acquisition(series("gone", np.ones(90)))
    group = f.create_electrode_group("probe", "x", "V1", f.create_device(name="d"))
    f.add_electrode(location="V1", group=group)
    region = f.create_electrode_table_region([0], "x")
    f.add_acquisition(ElectricalSeries(name="voltage", data=np.ones((9, 1)), electrodes=region, rate=9.0))
    table = pynwb.core.DynamicTable(name="licks", description="x")
    table.add_column("timestamp", "x")
    for i in range(3):
        table.add_row(timestamp=float(i))
    f.add_acquisition(table)
    path = save_nwb(f, tmp_path / "a.nwb")
    with h5py.File(path, "a") as h:
        del h["acquisition/gone"]
        h["acquisition/gone"] = h5py.SoftLink("/acquisition/nowhere")
        h["acquisition/far"] = h5py.ExternalLink("far.nwb", "/x")
    rec = open_recording(path)
    assert list(rec.behavior) == ["speed"] and rec.num_spikes == 30
    assert "DynamicTable licks; ElectricalSeries voltage" in notes(rec)
    assert "acquisition/gone was left out: it lies in /acquisition/nowhere" in notes(rec)
    assert "acquisition/far was left out: it lies in far.nwb" in notes(rec)


def test_own_files_have_no_notes(tmp_path):
    from samples import full_recording

    from neuroformer.recording import write_recording

    rec = open_recording(write_recording(full_recording(), tmp_path / "a.nwb"))
    assert rec.meta["notes"] == ["hello"]


# -- behavior ---------------------------------------------------------------------------------------


def test_series_stored_the_other_way_round(tmp_path):
    from pynwb.behavior import SpatialSeries

    f, xy = with_units(), np.random.default_rng(0).normal(size=(2, 50))
    for name in ("gaze", "head"):
        f.add_acquisition(SpatialSeries(name=name, data=xy.T, timestamps=np.arange(50.0), reference_frame="x"))
    rec = open_recording(replaced(save_nwb(f, tmp_path / "a.nwb"), "acquisition/gaze/data", xy))
    for name in ("gaze", "head"):
        np.testing.assert_allclose(rec.behavior[name].values, xy.T, rtol=1e-6)
        assert rec.behavior[name].columns == ("x", "y")
    assert "gaze is stored as (columns, samples) (2, 50)" in notes(rec) and "head" not in notes(rec)


def test_what_an_extension_keeps_for_each_sample_is_read(tmp_path, monkeypatch):
    from pynwb import get_class, load_namespaces
    from pynwb.spec import NWBDatasetSpec, NWBGroupSpec, NWBNamespaceBuilder

    monkeypatch.chdir(tmp_path)
    builder = NWBNamespaceBuilder(doc="x", name="ndx-pose-like", version="0.1.0", author="x", contact="x@example.org")
    builder.include_type("SpatialSeries", namespace="core")
    more = [
        NWBDatasetSpec(name="confidence", doc="x", dtype="float32", shape=(None,)),
        NWBDatasetSpec(name="edges", doc="x", dtype="float32", shape=(None,)),
    ]
    kind = NWBGroupSpec(doc="x", neurodata_type_def="Pose", neurodata_type_inc="SpatialSeries", datasets=more)
    builder.add_spec("pose.extensions.yaml", kind)
    builder.export("pose.namespace.yaml")
    load_namespaces("pose.namespace.yaml")
    f, sure = with_units(), np.linspace(0, 1, 40, dtype="f4")
    f.add_acquisition(
        get_class("Pose", "ndx-pose-like")(
            name="nose",
            data=np.ones((40, 2)),
            timestamps=np.arange(40.0),
            reference_frame="x",
            confidence=sure,
            edges=np.ones(3, "f4"),
        )
    )
    rec = open_recording(save_nwb(f, tmp_path / "a.nwb"))
    np.testing.assert_array_equal(rec.behavior["nose_confidence"].values[:, 0], sure)
    assert "nose: its further data 'edges' (3,) were left out" in notes(rec)


def test_a_recorders_channels_are_read_only_when_asked_for(tmp_path):
    f = with_units()
    f.add_acquisition(series("analog", np.zeros((300_000, 4), "i2"), rate=30_000.0))
    f.add_acquisition(series("sync", np.zeros(1000, "i2"), rate=30_000.0))
    f.add_acquisition(series("wheel", np.zeros(2_000_000, "i2"), rate=1000.0))
    path = save_nwb(f, tmp_path / "a.nwb")
    rec = open_recording(path)
    assert set(rec.behavior) == {"sync", "wheel"}
    assert "analog was not read" in notes(rec) and "analog=['analog']" in notes(rec)
    assert open_recording(path, analog="analog").behavior["analog"].values.shape == (300_000, 4)
    with pytest.raises(RecordingError, match="no series 'annalog'; it has: analog"):
        open_recording(path, analog=["annalog"])


# -- frames -----------------------------------------------------------------------------------------


def bank_file(path, index, names, ordered):
    from pynwb.base import ImageReferences, Images
    from pynwb.image import GrayscaleImage, IndexSeries

    pictures = [GrayscaleImage(name=n, data=np.full((5, 4), i, np.uint8)) for i, n in enumerate(names)]
    order = ImageReferences(name="order_of_images", data=pictures) if ordered else None
    f, bank = with_units(), Images(name="scenes", images=pictures, order_of_images=order)
    f.add_stimulus_template(bank)
    shown = {"data": np.abs(index).astype(np.uint32), "timestamps": np.arange(len(index)) / 2, "unit": "N/A"}
    f.add_stimulus(IndexSeries(name="shown", indexed_images=bank, **shown))
    return replaced(save_nwb(f, path), "stimulus/presentation/shown/data", index)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("names", ["image{}", "image{:03d}", "s1_{}b"])
def test_images_are_counted_as_people_count(tmp_path, names, ordered):
    path = bank_file(tmp_path / "a.nwb", np.arange(12), [names.format(i) for i in range(12)], ordered)
    rec = open_recording(path)
    assert rec.frames.images[rec.frames.index][:, 0, 0].tolist() == list(range(12))
    assert ("order_of_images" in notes(rec)) == (not ordered)


@pytest.mark.parametrize("blank, dtype", [(-1, np.int32), (-1, np.float64), (2**32 - 1, np.uint32), (7, np.int64)])
def test_onsets_without_an_image_are_blank(tmp_path, blank, dtype):
    index = np.array([2, blank, 0, blank, 1], dtype)
    rec = open_recording(bank_file(tmp_path / "a.nwb", index, ["a", "b", "c"], ordered=True))
    assert rec.num_spikes == 30 and rec.frames.index.tolist() == [2, 0, 1]
    assert rec.frames.times.tolist() == [0, 1, 2]
    assert f"2 onsets show none of the 3 images (index {blank}" in notes(rec)


# -- files of others --------------------------------------------------------------------------------


@contextmanager
def working_in(folder):
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def movie_file(path, entry):
    from pynwb.image import ImageSeries

    f, times = with_units(), np.arange(4.0)
    f.add_stimulus(ImageSeries(name="movie", external_file=[entry], timestamps=times, format="external", unit="n.a."))
    return save_nwb(f, path)


@pytest.mark.parametrize(
    "entry, found",
    [
        ("movie.npy", True),
        ("sub\\movie.npy", True),
        (".\\sub\\..\\sub/movie.npy", True),
        ("C:\\Users\\me\\movie.npy", True),  # beside the file, wherever it once was
        ("/elsewhere/movie.npy", True),
        ("../secret.npy", False),
        ("sub\\..\\..\\secret.npy", False),
        ("TMP/secret.npy", False),
        ("https://example.org/movie.mp4", False),
    ],
)
def test_external_files_lie_in_the_folder(tmp_path, entry, found):
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    for place in (home / "movie.npy", home / "sub" / "movie.npy", tmp_path / "secret.npy"):
        np.save(place, np.zeros((4, 6, 8), np.uint8))
    rec = open_recording(movie_file(home / "a.nwb", entry.replace("TMP", str(tmp_path))))
    assert rec.num_spikes == 30 and (rec.frames is not None) == found
    assert ("'movie' are read from" in notes(rec)) == found
    assert found or "is not beside the NWB file; put it there" in notes(rec)


@pytest.mark.parametrize("kind", ["storage", "link", "relative link", "virtual"])
@pytest.mark.parametrize("inside", [False, True])
def test_no_file_of_another_folder_is_read(tmp_path, kind, inside):
    home = tmp_path / "home"
    home.mkdir()
    f = with_units()
    f.add_acquisition(series("speed", np.arange(50.0)))
    path = save_nwb(f, home / "a.nwb")
    folder = home if inside else tmp_path
    (folder / "bytes.bin").write_bytes(np.arange(50.0).tobytes())
    shutil.copy(path, folder / "other.nwb")
    name = os.path.relpath(folder / "other.nwb", home) if kind == "relative link" else str(folder / "other.nwb")
    with h5py.File(path, "a") as h:
        attributes = dict(h["acquisition/speed/data"].attrs)
        del h["acquisition/speed/data"]
        if kind == "storage":
            external = [(str(folder / "bytes.bin"), 0, 400)]
            h.create_dataset("acquisition/speed/data", (50,), "f8", external=external)
        elif kind == "virtual":
            layout = h5py.VirtualLayout((50,), "f8")
            layout[:] = h5py.VirtualSource(name, "acquisition/speed/data", (50,))
            h.create_virtual_dataset("acquisition/speed/data", layout)
        else:
            h["acquisition/speed/data"] = h5py.ExternalLink(name, "/acquisition/speed/data")
        if "link" not in kind:
            h["acquisition/speed/data"].attrs.update(attributes)
    if inside:
        rec = open_recording(path)
        np.testing.assert_array_equal(rec.behavior["speed"].values[:, 0], np.arange(50))
        assert "acquisition/speed/data is read from" in notes(rec)
    else:
        with pytest.raises(RecordingError, match="acquisition/speed/data would be read from .* outside the folder"):
            open_recording(path)


def test_a_link_is_not_followed_through_a_file_of_the_folder(tmp_path):
    (tmp_path / "home").mkdir()
    f = with_units()
    f.add_acquisition(series("speed", np.arange(50.0)))
    path = save_nwb(f, tmp_path / "home" / "a.nwb")
    with h5py.File(tmp_path / "home" / "b.h5", "w") as h:
        h.create_dataset("x", (50,), "f8", external=[(str(tmp_path / "bytes.bin"), 0, 400)])
    (tmp_path / "bytes.bin").write_bytes(bytes(400))
    with h5py.File(path, "a") as h:
        del h["acquisition/speed/data"]
        h["acquisition/speed/data"] = h5py.ExternalLink("b.h5", "/x")
    with working_in(tmp_path), pytest.raises(RecordingError, match="outside the folder"):
        open_recording(path)


def test_times_that_lost_milliseconds_are_said(tmp_path):
    """float32 seconds of a long session know steps of 8 ms."""
    from pynwb.image import ImageSeries

    late = np.float32(1e5) + np.arange(90, dtype=np.float32)
    f = with_units()
    f.add_acquisition(pynwb.TimeSeries(name="speed", data=np.arange(90.0), unit="cm/s", timestamps=late))
    images = np.zeros((90, 5, 6), np.uint8)
    f.add_stimulus(ImageSeries(name="movie", data=images, timestamps=late, unit="n.a."))
    save_nwb(f, tmp_path / "a.nwb")
    with h5py.File(tmp_path / "a.nwb", "a") as h:  # which pynwb widens to float64
        for place in ("acquisition/speed/timestamps", "stimulus/presentation/movie/timestamps"):
            about, values = dict(h[place].attrs), h[place][()].astype(np.float32)
            del h[place]
            h[place] = values
            h[place].attrs.update(about)
    said = notes(open_recording(tmp_path / "a.nwb", check=False))
    assert (
        "speed: times are float32, which knows steps of 7.81 ms" in said and "frames 'movie': times are float32" in said
    )


def test_ids_that_are_no_whole_numbers_name_the_cure(tmp_path):
    save_nwb(with_units(), tmp_path / "a.nwb")
    with h5py.File(tmp_path / "a.nwb", "a") as h:
        about, values = dict(h["units/id"].attrs), h["units/id"][()].astype(float)
        del h["units/id"]
        h["units/id"] = values
        h["units/id"].attrs.update(about)
    with pytest.raises(
        RecordingError, match=r"units/id holds float64, but ids of NWB are whole numbers.*astype\(int\)"
    ):
        open_recording(tmp_path / "a.nwb", check=False)

"""Calcium imaging in NWB files: what is deconvolved, what is not, and which way round it is stored."""

import numpy as np
import pytest
from samples import empty_nwb, save_nwb
from test_nwb_traits import notes, replaced

from neuroformer.recording import RecordingError, open_recording

pytest.importorskip("pynwb")
pytest.importorskip("oasis")
pytestmark = pytest.mark.filterwarnings("ignore")


def calcium(samples=800, regions=5, seed=0):
    rng = np.random.default_rng(seed)
    events = (rng.random((samples, regions)) < 0.03) * rng.uniform(80, 120, (samples, regions))
    traces = np.stack([np.convolve(e, 0.9 ** np.arange(60))[:samples] for e in events.T], 1)
    return events.astype("f4"), (500 + traces + rng.normal(0, 4, traces.shape)).astype("f4")


def imaging_file(path, containers, regions=5, ids=None):
    """Containers by name, each a dictionary of series (samples, regions, or a tuple with a plane); 20 Hz."""
    from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel, RoiResponseSeries

    f = empty_nwb()
    channel = OpticalChannel(name="c", description="x", emission_lambda=500.0)
    plane = f.create_imaging_plane(
        name="plane",
        optical_channel=channel,
        description="x",
        device=f.create_device(name="scope"),
        excitation_lambda=900.0,
        indicator="x",
        location="V1",
    )
    segmentation, module = ImageSegmentation(), f.create_processing_module("ophys", "x")
    module.add(segmentation)
    planes = []
    for p in range(2):
        planes.append(segmentation.create_plane_segmentation(name=f"P{p}", description="x", imaging_plane=plane))
        for i in range(regions):
            planes[p].add_roi(pixel_mask=[(i, i, 1.0)], id=i if ids is None else ids[i])
    for name, members in containers.items():
        made = []
        for member, data in members.items():
            data, p = data if isinstance(data, tuple) else (data, 0)
            rois = planes[p].create_roi_table_region(region=list(range(regions)), description="x")
            made.append(RoiResponseSeries(name=member, data=data, rois=rois, unit="x", rate=20.0))
        module.add(Fluorescence(name=name, roi_response_series=made))
    return save_nwb(f, path)


EVENTS, TRACES = calcium()


def takes(rec, events, traces):
    np.testing.assert_array_equal(rec.traces.values, traces)
    samples, units = np.nonzero(events)
    np.testing.assert_allclose(rec.spike_times, samples / 20)
    np.testing.assert_array_equal(rec.spike_units, units)


@pytest.mark.parametrize(
    "containers",
    [
        {"Fluorescence": {"plane0": TRACES}, "Neuropil": {"plane0": TRACES / 2}, "Deconvolved": {"plane0": EVENTS}},
        {"Fluorescence": {"Traces": TRACES, "Deconvolved": EVENTS, "Neuropil": TRACES / 2}},
        {"A": {"Neuropil": TRACES / 2, "RoiResponseSeries": TRACES}, "InferredSpikes": {"RoiResponseSeries": EVENTS}},
    ],
)
def test_a_series_is_known_by_its_name_and_by_what_holds_it(tmp_path, containers):
    takes(open_recording(imaging_file(tmp_path / "a.nwb", containers)), EVENTS, TRACES)


def test_deconvolved_activity_belongs_to_its_plane(tmp_path):
    events, traces = calcium(seed=1)
    containers = {
        "Deconvolved": {"plane0": (events, 1), "plane1": (EVENTS, 0)},  # names that mislead
        "Fluorescence": {"other": (TRACES, 0), "plane0": (traces, 1)},
    }
    path = imaging_file(tmp_path / "a.nwb", containers)
    takes(open_recording(path, traces="Fluorescence_plane0"), events, traces)
    takes(open_recording(path, traces="other"), EVENTS, TRACES)


@pytest.mark.parametrize("events", ["auto", "deconvolved"])
def test_deconvolved_activity_alone_is_taken_as_it_is(tmp_path, events):
    path = imaging_file(tmp_path / "a.nwb", {"Fluorescence": {"Deconvolved": EVENTS}})
    takes(open_recording(path, events=events), EVENTS, EVENTS)
    with pytest.raises(RecordingError, match="needs fluorescence, and 'Deconvolved' is deconvolved already"):
        open_recording(path, events="oasis")


def test_stored_the_other_way_round(tmp_path):
    path = imaging_file(tmp_path / "a.nwb", {"Fluorescence": {"F": TRACES, "Deconvolved": EVENTS}})
    for name, data in (("F", TRACES), ("Deconvolved", EVENTS)):
        replaced(path, f"processing/ophys/Fluorescence/{name}/data", data.T)
    rec = open_recording(path)
    takes(rec, EVENTS, TRACES)
    assert "'F' is stored as (regions, samples) (5, 800), and was turned round" in notes(rec)


def test_regions_of_one_id_are_told_apart(tmp_path):
    rec = open_recording(imaging_file(tmp_path / "a.nwb", {"F": {"F": TRACES, "Events": EVENTS}}, ids=[1, 2, 1, 3, 2]))
    assert rec.unit_ids == ["1", "2", "1_2", "3", "2_2"]

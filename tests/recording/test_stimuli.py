"""Frames from tables of presentations: images of templates, and what is drawn from columns."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import empty_nwb, save_nwb

from neuroformer.cli import main
from neuroformer.config import from_dict
from neuroformer.data.recordings import open_only
from neuroformer.recording import Recording, RecordingError, open_recording
from neuroformer.recording.stimuli import render_frames
from neuroformer.recording.stimuli.drawn import FIELDS, DrawnFrames

RNG = np.random.default_rng(0)
MOVIE = RNG.integers(0, 255, (12, 8, 10), dtype=np.uint8)
SCENES = RNG.integers(0, 255, (5, 6, 6), dtype=np.uint8)


def table(nwb, name, **columns):
    import pynwb

    out = pynwb.epoch.TimeIntervals(name=name, description="presentations")
    for column in columns:
        if column not in ("start_time", "stop_time"):
            out.add_column(column, column)
    for row in zip(*columns.values(), strict=True):
        out.add_interval(**dict(zip(columns, row, strict=True)))
    nwb.add_time_intervals(out)


def presentations(start, each, **columns):
    """Rows of ``each`` seconds, one after another, as Allen's tables have them: most columns are texts."""
    count = len(next(iter(columns.values())))
    at = start + each * np.arange(count)
    return {"start_time": at, "stop_time": at + each, **columns}


def allen(path, templates=True):
    """The layout of Allen's Visual Coding with Neuropixels, with the templates of Visual Behavior."""
    pynwb = pytest.importorskip("pynwb")
    nwb = empty_nwb()
    for _ in range(4):
        nwb.add_unit(spike_times=np.sort(RNG.uniform(0, 60, 200)))
    table(
        nwb,
        "drifting_gratings_presentations",
        **presentations(
            1,
            2.0,
            orientation=["0.0", "90.0", "null"],
            spatial_frequency=["0.04", "0.04", "null"],
            temporal_frequency=["1.0", "2.0", "null"],
            contrast=["0.8", "0.8", "null"],
            phase=["[5308.98333333, 5308.98333333]"] * 2 + ["null"],
            size=["[250.0, 250.0]"] * 3,
            stimulus_name=["drifting_gratings"] * 3,
        ),
    )
    table(
        nwb,
        "flashes_presentations",
        **presentations(8, 0.25, color=[-1.0, 1.0], contrast=[0.8, 0.8], stimulus_name=["flashes"] * 2),
    )
    table(
        nwb,
        "gabors_presentations",
        **presentations(
            10,
            0.25,
            orientation=[0.0, 45],
            spatial_frequency=[0.08] * 2,
            temporal_frequency=[4.0] * 2,
            x_position=[-30.0, 20],
            y_position=[10.0, 0],
            size=["[20.0, 20.0]"] * 2,
            stimulus_name=["gabors"] * 2,
        ),
    )
    frame = np.tile(np.arange(12.0), 5)
    movie = presentations(20, 1 / 30, frame=frame, stimulus_name=["natural_movie_one"] * 60)
    table(nwb, "natural_movie_one_presentations", **movie)
    scenes = presentations(30, 0.25, frame=[3.0, -1, 0, 4], stimulus_name=["natural_scenes"] * 4)
    table(nwb, "natural_scenes_presentations", **scenes)
    table(nwb, "spontaneous_presentations", **presentations(40, 10.0, stimulus_name=["spontaneous"]))
    if templates:
        for name, images in (("natural_movie_one", MOVIE), ("natural_scenes_template", SCENES)):
            nwb.add_stimulus_template(pynwb.image.ImageSeries(name=name, data=images, unit="n.a.", rate=30.0))
    return save_nwb(nwb, path)


def shown(rec, time):
    """The image on the screen at a time."""
    k = np.searchsorted(rec.frames.times, time + 1e-9, side="right") - 1
    return np.asarray(rec.frames.images[rec.frames.index[k : k + 1]])[0]


def test_templates_and_a_table_become_frames(tmp_path):
    path = allen(tmp_path / "a.nwb")
    rec = open_recording(path)
    np.testing.assert_allclose(rec.frames.times, 20 + np.arange(60) / 30, atol=1e-9)
    np.testing.assert_array_equal(rec.frames.images[rec.frames.index], np.tile(MOVIE, (5, 1, 1)))
    assert any("of another size than 8 x 10 were left out: natural_scenes_template" in n for n in rec.meta["notes"])
    rec = open_recording(path, frames_size=(8, 10))
    np.testing.assert_array_equal(shown(rec, 20.5), MOVIE[15 % 12])
    assert rec.frames.times.max() > 30.9 and (shown(rec, 30.3) == 128).all()
    rec = open_recording(path, frames="natural_scenes_template")
    for i, image in enumerate([3, None, 0, 4]):
        want = SCENES[image] if image is not None else np.full((6, 6), 128)
        np.testing.assert_array_equal(shown(rec, 30 + 0.25 * i), want)
        np.testing.assert_array_equal(shown(rec, 30.24 + 0.25 * i), want)
    assert np.median(np.diff(rec.frames.times)) == pytest.approx(1 / 30, rel=0.1)  # shown anew while they stay on
    only = open_recording(path, only=["frames"])
    assert not only.intervals and only.frames is not None


def test_images_by_name_as_in_visual_behavior(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    nwb = empty_nwb()
    nwb.add_unit(spike_times=np.arange(0, 20, 0.1))
    names = ["im036", "im012", "im044"]
    images = [pynwb.image.GrayscaleImage(name=n, data=SCENES[i]) for i, n in enumerate(names)]
    nwb.add_stimulus_template(pynwb.base.Images(name="Natural_Images_Lum_Matched_set_A", images=images))
    table(
        nwb,
        "Natural_Images_Lum_Matched_set_A_presentations",
        **presentations(2, 0.5, image_name=["im044", "omitted", "im036"], omitted=[False, True, False]),
    )
    rec = open_recording(save_nwb(nwb, tmp_path / "a.nwb"))
    np.testing.assert_array_equal(shown(rec, 2.1), SCENES[2])
    assert (shown(rec, 2.6) == 128).all()
    np.testing.assert_array_equal(shown(rec, 3.1), SCENES[0])


def test_the_allen_layout_is_rendered(tmp_path):
    path = allen(tmp_path / "a.nwb")
    render = {"size": [8, 10], "degrees": [95, 120]}
    _, rec = open_only(from_dict({"recording": {"path": str(path), "render": render}}))
    assert rec.frames.images.shape[1:] == (8, 10)
    assert np.diff(rec.frames.times).max() < 1.6 / 30 and np.diff(rec.frames.times).min() > 0.4 / 30
    np.testing.assert_array_equal(shown(rec, 20.5), MOVIE[15 % 12])
    for blank in (5.5, 9.5, 15, 25, 30.3, 35, 49):
        assert (shown(rec, blank) == 128).all(), blank
    for time, level in ((8.1, 0.2), (8.3, 1.8)):
        np.testing.assert_allclose(shown(rec, time), 127.5 * level, atol=0.6)
    horizontal, vertical = shown(rec, 1.0).astype(float), shown(rec, 3.0).astype(float)
    assert horizontal.std(0).max() < 1 < horizontal.std(1).min() and vertical.std(1).max() < 1 < vertical.std(0).min()
    np.testing.assert_array_equal(shown(rec, 1.0), shown(rec, 2.0))  # one cycle later
    gabor = np.abs(shown(rec, 10.0).astype(float) - 128)
    assert gabor[:, :4].max() > 5 and gabor[:, 4:].max() <= 1
    told = " ".join(rec.meta["notes"])
    assert "drifting_gratings_presentations: 2 presentations drawn, 0 of images, 1 blank" in told
    assert "natural_movie_one_presentations" not in told  # the file's own frames


def test_templates_from_other_files(tmp_path):
    path = allen(tmp_path / "a.nwb", templates=False)
    np.save(tmp_path / "movie.npy", MOVIE)
    images = {"natural_movie_one": str(tmp_path / "movie.npy")}
    _, rec = open_only(
        from_dict(
            {"recording": {"path": str(path), "render": {"size": [8, 10], "degrees": [95, 120], "images": images}}}
        )
    )
    np.testing.assert_array_equal(shown(rec, 20.5), MOVIE[15 % 12])
    assert (shown(rec, 30.1) == 128).all()


def test_the_ibl_layout_of_passive_gabors(tmp_path):
    pytest.importorskip("pynwb")
    nwb = empty_nwb()
    nwb.add_unit(spike_times=np.arange(0, 20, 0.1))
    passive = presentations(2, 0.3, position=[-35.0, 35], contrast=[1.0, 0.25], phase=[0.0, 0.0])
    table(nwb, "passive_gabor", **passive)
    rec = open_recording(save_nwb(nwb, tmp_path / "a.nwb"))
    columns = {"spatial_frequency": 0.1, "orientation": 0, "sigma": 7}
    with pytest.raises(RecordingError, match="no table of .* says what was shown"):
        render_frames(rec, (20, 30), (80, 120), columns=columns)
    rec = render_frames(rec, (20, 30), (80, 120), tables=["passive_gabor"], columns=columns)
    left, right = (np.abs(shown(rec, t).astype(float) - 127.5) for t in (2.1, 2.4))
    assert left[:, :15].max() > 60 > 2 > left[:, 20:].max() and 10 < right[:, 15:].max() < 40


def drawn(**fields):
    base = dict.fromkeys(FIELDS, 0.0) | {"contrast": 1.0} | fields
    return np.array([[base[k] for k in FIELDS]])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_pixel_is_the_mean_of_the_grating_over_it(seed):
    """Against a canvas 16 times as fine, whose pixels are averaged; whole, in a disc and in a Gaussian."""
    rng = np.random.default_rng(seed)
    aperture = [{}, {"size": rng.uniform(1, 20)}, {"sigma": rng.uniform(0.5, 9)}][rng.integers(3)]
    fields = drawn(
        orientation=rng.uniform(0, 360),
        spatial_frequency=rng.uniform(0, 0.2),
        phase=rng.uniform(),
        x=rng.normal(0, 9),
        **aperture,
    )
    coarse = DrawnFrames(fields, (6, 9), (40, 60))[[0]][0].astype(float)
    fine = DrawnFrames(fields, (96, 144), (40, 60))[[0]][0].astype(float)
    np.testing.assert_allclose(coarse, fine.reshape(6, 16, 9, 16).mean((1, 3)), atol=6 if "size" in aperture else 1.5)


def test_gratings_drift_along_their_orientation():
    for orientation, axis in ((0, 1), (90, 0), (180, 1), (270, 0)):
        a, b = (
            DrawnFrames(drawn(orientation=orientation, spatial_frequency=0.02, phase=p), (40, 40), (40, 40))[[0]][0]
            for p in (0.0, 0.1)  # a tenth of 50 degrees: five pixels
        )
        shift = 5 if orientation < 180 else -5
        moved = np.roll(a, shift, axis)
        inner = (slice(6, -6), slice(6, -6))
        np.testing.assert_allclose(moved[inner].astype(int), b[inner].astype(int), atol=1)


def trials(**columns):
    count = len(next(iter(columns.values())))
    at = 1.0 + 2 * np.arange(count)
    return Recording(
        "m", np.arange(0, 30, 0.1), np.zeros(300, int), {"id": np.arange(1)}, np.array([[0, 30.0]]),
        trials={"start": at, "stop": at + 1, **columns},
    )  # fmt: skip


def test_dots_and_columns_of_other_names():
    rec = trials(azimuth=np.array([-10.0, 10]), elevation=np.array([0.0, 0]), level=np.array([1.0, -1]))
    rec = render_frames(
        rec, (20, 20), (40, 40), tables=["trials"],
        columns={"x": "azimuth", "y": "elevation", "color": "level", "size": 8, "stop": "stop"},
    )  # fmt: skip
    white, black = shown(rec, 1.5), shown(rec, 3.5)
    assert (white[9:11, 4:6] == 255).all() and (white[:, 10:] == 128).all()
    assert (black[9:11, 14:16] == 0).all() and (black[:, :10] == 128).all()
    area = (white.astype(float) - 128).sum() / 127 * (40 / 20) ** 2
    assert area == pytest.approx(np.pi * 16, rel=0.05)


@pytest.mark.parametrize(
    "given, told",
    [
        ({}, "give recording.render.degrees"),
        ({"degrees": (40, 40), "tables": ["movies"]}, "no table 'movies' to render; it has: trials"),
        ({"degrees": (40, 40), "columns": {"phase": "fase"}}, "no table has 'fase'"),
        ({"degrees": (40, 40), "columns": {"colour": "x"}}, "expected the name of a column"),
        ({"degrees": (40, 40), "images": {"movie": "nothing.npy"}}, "no file at nothing.npy"),
    ],
)
def test_what_does_not_fit_is_said(given, told):
    rec = trials(orientation=np.array([0.0, 90]), spatial_frequency=np.array([0.1, 0.1]))
    with pytest.raises(RecordingError, match=told):
        render_frames(rec, (20, 20), **given)


def test_presentations_at_once_are_refused_and_fine_gratings_noted():
    rec = trials(orientation=np.array([0.0, 90]), spatial_frequency=np.array([3.0, 0.1]))
    later = {k: rec.trials[k] + 0.2 for k in ("start", "stop")}
    both = dataclasses.replace(rec, intervals={"more": {**rec.trials, **later}})
    with pytest.raises(RecordingError, match=r"at once, from 1 to 2 s \(trials\) and from 1.2 to 2.2 s \(more\)"):
        render_frames(both, (20, 20), (40, 40))
    one = render_frames(both, (20, 20), (40, 40), tables=["trials"])
    assert any("1 of 2 drawn images have less than two pixels a cycle at 20 x 20" in n for n in one.meta["notes"])


def test_the_allen_layout_trains_with_pixels(tmp_path):
    path = allen(tmp_path / "a.nwb")
    (tmp_path / "mine.yaml").write_text(
        "recording:\n  path: a.nwb\n  render: {size: [12, 16], degrees: [95, 120]}\n"
        "window: {frames: 0.2}\nsplit: {block: 4}\nmodel: {width: 16, heads: 2}\n"
    )
    assert path.exists()
    run = ["--config", str(tmp_path / "mine.yaml"), "--run", str(tmp_path / "run"), "--no-baselines", "train.steps=2"]
    assert main(["train", *run, "train.batch_size=8"]) == 0

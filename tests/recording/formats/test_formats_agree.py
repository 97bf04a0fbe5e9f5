"""The same random recording, written to each format and read back, is the same recording."""

import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from any_recording import random_recording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import assert_same

from neuroformer.data.windows import SpikeIndex
from neuroformer.recording import Recording, open_recording
from neuroformer.recording.formats.arrays import from_arrays
from neuroformer.recording.formats.folder import write_store
from neuroformer.recording.formats.npz import write_npz


def late(rec: Recording, by: float) -> Recording:
    """The same recording on a clock that reads ``by`` seconds more."""
    moved = lambda x: replace(x, times=x.times + by) if x is not None else None
    table = lambda t: {k: v + by if k in ("start", "stop") else v for k, v in t.items()}
    return replace(
        rec,
        spike_times=rec.spike_times + by,
        domain=rec.domain + by,
        trials=table(rec.trials),
        intervals={n: table(t) for n, t in rec.intervals.items()},
        frames=moved(rec.frames),
        traces=moved(rec.traces),
        behavior={n: moved(v) for n, v in rec.behavior.items()},
    )


def ascii_name(rec: Recording) -> Recording:
    return replace(rec, name=rec.name.replace("ß", "s"))


def through_npz(rec, folder):
    return open_recording(write_npz(rec, folder / "a.npz"))


def through_store(rec, folder):
    return open_recording(write_store(rec, folder / "a"))


def through_nwb(rec, folder):
    pytest.importorskip("pynwb")
    from neuroformer.recording.formats.nwb.writer import write_nwb

    return open_recording(write_nwb(rec, folder / "a.nwb"), check=False)


def through_torch_brain(rec, folder):
    from neuroformer.recording.formats.torch_brain_writer import write_torch_brain

    return open_recording(write_torch_brain(rec, folder / "a.h5"), check=False)


def through_pynapple(rec, folder):
    """Without what pynapple cannot hold; that is given back by hand, so that the rest can be compared."""
    pytest.importorskip("pynapple")
    from neuroformer.recording.formats.pynapple import from_pynapple, to_pynapple

    back = from_pynapple(to_pynapple(replace(rec, intervals={})), name=rec.name)
    behavior = {
        k: replace(v, unit=rec.behavior[k].unit, columns=rec.behavior[k].columns) for k, v in back.behavior.items()
    }
    traces = replace(back.traces, unit=rec.traces.unit) if back.traces is not None else None
    return replace(back, behavior=behavior, traces=traces, intervals=rec.intervals, meta=rec.meta, truth=rec.truth)


FORMATS = [through_npz, through_store, through_nwb, through_torch_brain, through_pynapple]


def check(seed, through):
    folder = Path(tempfile.mkdtemp())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rec = random_recording(seed)
            if through is not through_pynapple:  # which keeps nanoseconds: fewer than a float of 1970 can hold
                rec = late(rec, [0.0, 1234.5678, 1.7e9][seed % 3])
            back = through(rec, folder)
            assert_same(back, rec, exact=through is not through_pynapple)
            for dt in (0.01, 0.25):  # the windows cut from it, bin by bin
                got, expected = (SpikeIndex.from_recording(r, r.domain, dt) for r in (back, rec))
                np.testing.assert_array_equal(got.keys, expected.keys)
                np.testing.assert_array_equal(got.unit, expected.unit)
    finally:
        shutil.rmtree(folder)


def same_windows(got: Recording, expected: Recording) -> None:
    for dt in (0.01, 0.05, 0.25):
        a, b = (SpikeIndex.from_recording(r, expected.domain, dt) for r in (got, expected))
        np.testing.assert_array_equal(a.keys, b.keys)
        np.testing.assert_array_equal(a.unit, b.unit)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_layouts_that_are_only_read(seed):
    """The original's folder, suite2p's, and plain arrays of the same numbers give the same windows."""
    rng = np.random.default_rng(seed)
    units, bins = int(rng.integers(1, 6)), int(rng.integers(40, 200)) * 5
    counts = rng.poisson(0.2, (units, bins))
    speed, movie = rng.normal(size=bins // 5), rng.integers(0, 255, (bins // 5, 3, 4), dtype=np.uint8)
    plain = from_arrays(
        {
            "spikes": counts,
            "spikes_dt": 0.01,
            "speed": speed,
            "speed_rate": 20.0,
            "frames": movie,
            "frames_rate": 20.0,
        }
    )
    with tempfile.TemporaryDirectory() as name:
        original, suite2p = Path(name) / "original", Path(name) / "suite2p" / "plane0"
        original.mkdir()
        np.save(original / "spikerates_dt_0.01.npy", counts.astype(rng.choice([np.float64, np.int64])))
        np.save(original / "behavior_speed_dt_0.05.npy", speed)
        np.save(original / "stimulus.npy", movie)
        back = open_recording(original)
        same_windows(back, plain)
        np.testing.assert_array_equal(back.behavior["speed"].values, plain.behavior["speed"].values)
        np.testing.assert_allclose(back.behavior["speed"].times, plain.behavior["speed"].times, atol=1e-9)
        np.testing.assert_array_equal(back.frames.images[back.frames.index], movie)
        np.testing.assert_allclose(back.frames.times, plain.frames.times, atol=1e-9)

        rate, fluorescence = 7.5, rng.normal(size=counts.shape).astype(np.float32)
        events = (rng.random(counts.shape) < 0.05) * rng.gamma(2, 1, counts.shape).astype(np.float32)
        suite2p.mkdir(parents=True)
        for file, values in (("F", fluorescence), ("spks", events)):
            np.save(suite2p / f"{file}.npy", values)
        np.save(suite2p / "ops.npy", {"fs": rate}, allow_pickle=True)
        back = open_recording(Path(name) / "suite2p", events="deconvolved")
        samples, who = np.nonzero(events.T)
        plain = from_arrays(
            {
                "spike_times": samples / rate,
                "spike_units": who,
                "traces": fluorescence.T,
                "traces_rate": rate,
                "n_units": units,
                "domain": np.array([[0.0, bins / rate]]),
            }
        )
        same_windows(back, plain)
        np.testing.assert_array_equal(back.traces.values, plain.traces.values)
        np.testing.assert_array_equal(back.traces.times, plain.traces.times)


@pytest.mark.parametrize("through", FORMATS, ids=lambda f: f.__name__)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_every_format_gives_the_same_recording(through, seed):
    check(seed, through)


@pytest.mark.slow
@pytest.mark.parametrize("through", FORMATS, ids=lambda f: f.__name__)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32 - 1))
def test_every_format_gives_the_same_recording_long(through, seed):
    check(seed, through)

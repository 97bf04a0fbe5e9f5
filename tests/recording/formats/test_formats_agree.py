"""The same random recording, written to each format and read back, is the same recording."""

import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import assert_same

from neuroformer.data.windows import SpikeIndex
from neuroformer.recording import BehaviorVariable, FrameSeries, Recording, open_recording
from neuroformer.recording.formats.arrays import from_arrays
from neuroformer.recording.formats.folder import write_store
from neuroformer.recording.formats.npz import write_npz
from neuroformer.recording.recording import Traces

NAMES = ["speed", "heart_rate", "pupil area", "x", "Gaze", "left/eye", "a.b", "values", "keys", "time"]
COLUMNS = ["side", "start_time", "contrast", "id_2", "go cue", "label", "tags"]


def column(rng: np.random.Generator, count: int) -> np.ndarray:
    kinds = [
        lambda: rng.normal(size=count),
        lambda: rng.integers(-5, 5, count),
        lambda: rng.random(count) < 0.5,
        lambda: np.array(["", "left", "right turn", "x"])[rng.integers(0, 4, count)],
    ]
    values = kinds[rng.integers(len(kinds))]()
    other = {"f": ["<f8", "<f4", ">f8"], "i": ["<i8", "i1", ">i4"], "b": ["?"], "U": ["<U12"]}[values.dtype.kind]
    return values.astype(rng.choice(other))


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


def clock(rng: np.random.Generator, count: int, low=-5.0, high=20.0) -> np.ndarray:
    return np.unique(np.round(rng.uniform(low, high, count), 9))


def table(rng: np.random.Generator, disjoint: bool) -> dict[str, np.ndarray]:
    edges = clock(rng, 2 * int(rng.integers(2, 5)))
    edges = edges[: len(edges) // 2 * 2]
    if disjoint and rng.random() < 0.3:
        out = {"start": edges[:-1], "stop": edges[1:]}  # each touches the next
    elif disjoint:
        out = {"start": edges[::2], "stop": edges[1::2]}
    else:
        out = {"start": rng.permutation(edges[::2]), "stop": np.full(len(edges) // 2, 25.0)}
    names = rng.choice(COLUMNS, size=rng.integers(0, 3), replace=False)
    return out | {str(n): column(rng, len(out["start"])) for n in names}


def random_recording(seed: int) -> Recording:
    rng = np.random.default_rng(seed)
    maybe = lambda p=0.5: rng.random() < p
    num_units, num_spikes = int(rng.integers(1, 7)), int(rng.integers(0, 80))
    times = np.round(rng.uniform(-5, 20, num_spikes), int(rng.choice([1, 9])))  # one decimal: many ties
    units = rng.integers(0, num_units, num_spikes)
    order = np.lexsort((units, times))
    ids = rng.permutation(100)[:num_units] if maybe() else np.array([f"u{i}" for i in range(num_units)])
    columns = {"id": ids}
    columns |= {"area": np.array(["V1", "", "CA1"])[rng.integers(0, 3, num_units)]} if maybe() else {}
    columns |= {"depth": rng.normal(size=num_units).astype(np.float32)} if maybe() else {}
    behavior = {}
    for name in rng.choice(NAMES, size=rng.integers(0, 4), replace=False):
        at, width = clock(rng, int(rng.integers(1, 30))), int(rng.integers(1, 4))
        values = np.where(rng.random((len(at), width)) < 0.1, np.nan, rng.normal(size=(len(at), width)))
        labels = tuple("xyz"[:width]) if maybe() and width > 1 else ()
        behavior[str(name)] = BehaviorVariable(at, values, str(rng.choice(["", "cm/s", "°"])), labels)
    frames = None
    if maybe():
        bank = rng.integers(0, 255, (int(rng.integers(1, 5)), 3, 4)).astype(rng.choice([np.uint8, np.float32]))
        at = clock(rng, int(rng.integers(1, 9)))
        repeat = rng.integers(0, len(bank), len(at))
        frames = FrameSeries(bank, at[: len(bank)], np.arange(len(bank))[: len(at)]) if maybe() else None
        frames = FrameSeries(bank, at, repeat) if frames is None else frames
    at = clock(rng, 20)
    return Recording(
        name=str(rng.choice(["m1", "mouse/2 day 3", "ß: x"])),
        spike_times=times[order],
        spike_units=units[order],
        units=columns,
        domain=np.stack([t := clock(rng, 6)[:4:2], t + 0.25 * np.diff(t).min(initial=1.0)], 1),
        trials=table(rng, True) if maybe() else {},
        frames=frames,
        behavior=behavior,
        truth={"coupling": rng.normal(size=(2, 2)), "n": np.array(3)} if maybe(0.3) else {},
        meta={"notes": ["a"], "n": 1, "s": {"x": [None, 0.5]}} if maybe() else {},
        traces=Traces(at, rng.normal(size=(len(at), num_units)), "dF/F") if maybe(0.3) else None,
        intervals={n: table(rng, False) for n in rng.choice(["run", "run fast", "rest"], 2, replace=False)}
        if maybe()
        else {},
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

"""Every array of a .npz, in every kind of value: it is read as it is, or one sentence says why not."""

import warnings

import numpy as np
import pytest
from helpers import small_config

from neuroformer.audit import audit
from neuroformer.config import ConfigError
from neuroformer.data.prepared import prepare
from neuroformer.recording import Recording, RecordingError
from neuroformer.recording.formats.arrays import from_arrays

SECONDS, UNITS = 60, 4
WINDOW = {"dt": 1.0, "current": 1.0, "past": 1.0, "target_past": 1.0, "frames": 4.0}


def base() -> dict[str, np.ndarray]:
    """Whole numbers throughout, so that every type can hold them."""
    rng = np.random.default_rng(0)
    samples = np.arange(SECONDS)
    trials = np.arange(0, SECONDS, 5)
    return {
        "spike_times": np.sort(rng.integers(0, 120, 400)),
        "spike_units": rng.integers(0, UNITS, 400),
        "n_units": np.array(UNITS),
        "unit_ids": np.arange(UNITS),
        "unit_depth": np.arange(UNITS),
        "domain": np.array([[0, 120]]),
        "speed": rng.integers(0, 9, SECONDS),
        "speed_times": samples,
        "gaze": rng.integers(0, 9, (SECONDS, 2)),
        "gaze_rate": np.array(1),
        "frames": rng.integers(0, 120, (6, 8, 8)),
        "frames_times": samples,
        "frames_index": samples % 6,
        "traces": rng.integers(0, 9, (SECONDS, UNITS)),
        "traces_rate": np.array(1),
        "trials_start": trials,
        "trials_stop": trials + 5,
        "trials_choice": trials // 5 % 2,
        "intervals_rest_start": trials[:2],
        "intervals_rest_stop": trials[:2] + 3,
        "truth_seed": np.array(3),
    }


def layouts() -> dict[str, dict[str, np.ndarray]]:
    times = base()
    rng = np.random.default_rng(1)
    counts = {k: v for k, v in times.items() if not k.startswith("spike_")}
    counts |= {"spikes": rng.integers(0, 2, (UNITS, 120)), "spikes_dt": np.array(1)}
    events = {k: v for k, v in counts.items() if not k.startswith(("spikes", "traces", "n_units"))}
    events |= {"events": rng.integers(0, 2, (UNITS, 120)) * 7, "events_rate": np.array(1)}
    trials = {k: times[k] for k in ("spike_units", "n_units", "unit_ids")}
    trials |= {"spike_times": times["spike_times"] % 5, "spike_trials": times["spike_times"] // 5}
    trials |= {"n_trials": np.array(24), "trial_duration": np.array(5)}
    return {"times": times, "counts": counts, "events": events, "trials": trials}


def _put(value: float):
    def put(x):
        out = np.array(x, np.float64)
        out.flat[out.size // 2] = value
        return out

    return put


KINDS = {
    "unsigned": lambda x: x.astype(np.uint64),
    "small": lambda x: x.astype(np.uint8),
    "signed": lambda x: x.astype(np.int16),
    "big_endian": lambda x: x.astype(">f8"),
    "big_endian_whole": lambda x: x.astype(">u4"),
    "single": lambda x: x.astype(np.float32),
    "half": lambda x: x.astype(np.float16),
    "fortran": lambda x: np.asfortranarray(x).astype(np.float64),
    "boolean": lambda x: x.astype(bool),
    "negative": lambda x: -np.abs(x.astype(np.int64)) - 1,
    "nan": _put(np.nan),
    "infinite": _put(np.inf),
    "huge": _put(1e300),
    "constant": lambda x: np.ones_like(x),
    "empty": lambda x: x[..., :0] if x.ndim else np.zeros(0),
    "no_rows": lambda x: x[:0] if x.ndim else np.zeros(0),
    "text": lambda x: x.astype(str),
    "bytes": lambda x: x.astype("S8"),
    "complex": lambda x: x.astype(np.complex128),
    "dates": lambda x: x.astype("datetime64[s]"),
    "one_more_axis": lambda x: x[None],
    "scalar": lambda x: np.array(1),
    "object": lambda x: x.astype(object),
}
SAME = ("unsigned", "small", "signed", "big_endian", "big_endian_whole", "single", "half", "fortran")


def same(got: Recording, expected: Recording) -> None:
    """As the plain integers would have been read."""
    assert got.unit_ids == expected.unit_ids or set(got.unit_ids) == {f"{u}.0" for u in expected.unit_ids}
    for name in ("spike_times", "spike_units", "domain", "trial_intervals"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    for name, variable in expected.behavior.items():
        np.testing.assert_array_equal(got.behavior[name].times, variable.times)
        np.testing.assert_array_equal(got.behavior[name].values, variable.values)
    for table in ("units", "trials", "truth"):
        for key, column in getattr(expected, table).items():
            np.testing.assert_array_equal(np.asarray(getattr(got, table)[key], float), column)
    if expected.frames is not None:
        np.testing.assert_array_equal(got.frames.times, expected.frames.times)
        np.testing.assert_array_equal(got.frames.index, expected.frames.index)
        np.testing.assert_array_equal(got.frames.images, expected.frames.images)
    if expected.traces is not None:
        np.testing.assert_array_equal(got.traces.values, expected.traces.values)


def use(rec: Recording) -> None:
    """What every command does with a recording before it trains."""
    tree = {"window": WINDOW if rec.frames is not None else WINDOW | {"frames": 0}, "loss": {"contrast": []}}
    tree |= {"inputs": [], "targets": [{"name": "speed"}] if "speed" in rec.behavior else []}
    config = small_config(split={"block": 20.0, "by": "trials" if rec.num_trials else "blocks"}, **tree)
    str(rec), str(audit(rec))
    ready = prepare(rec, config)
    str(audit(rec, config, ready.split))
    for part in ("train", "test"):
        ready.builder(ready.windows(part)[:4])


@pytest.mark.parametrize("layout", layouts())
def test_every_entry_takes_every_kind_of_value(layout):
    arrays = layouts()[layout]
    expected, read, refused, wrong = from_arrays(arrays), 0, 0, []
    for key in arrays:
        for kind, change in KINDS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    rec = from_arrays(arrays | {key: change(arrays[key])})
                    if kind in SAME and np.array_equal(np.asarray(change(arrays[key]), float), arrays[key]):
                        same(rec, expected)
                    use(rec)
                    read += 1
                except (RecordingError, ConfigError) as e:
                    refused += 1
                    fractions = key == "spike_units" and np.asarray(change(arrays[key])).dtype.kind == "f"
                    if kind in SAME[:-2] and not fractions:
                        wrong.append(f"{key} {kind}: refused: {e}")
                except Exception as e:
                    wrong.append(f"{key} {kind}: {type(e).__name__}: {e}")
    assert not wrong, "\n".join(wrong)
    assert read > 100 or layout == "trials"
    assert refused > 20

"""Every array of a .npz, in every kind of value: it is read as it is, or one sentence says why not."""

import warnings

import numpy as np
import pytest
from kinds_of_values import KINDS, SAME, WHOLE, same, use

from neuroformer.config import ConfigError
from neuroformer.recording import RecordingError
from neuroformer.recording.formats.arrays import from_arrays

SECONDS, UNITS = 60, 4


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
                    if kind in (*WHOLE, "big_endian", "single") and not fractions:
                        wrong.append(f"{key} {kind}: refused: {e}")
                except Exception as e:
                    wrong.append(f"{key} {kind}: {type(e).__name__}: {e}")
    assert not wrong, "\n".join(wrong)
    assert read > 100 or layout == "trials"
    assert refused > 20

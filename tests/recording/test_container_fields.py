"""Traces, named intervals, spikes checked once, and names in .npz files."""

import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from helpers import small_recording

import neuroformer.recording.validation as validation
from neuroformer.recording import BehaviorVariable, FrameSeries, Recording, RecordingError, open_recording
from neuroformer.recording.formats.arrays import from_arrays, to_arrays
from neuroformer.recording.formats.npz import write_npz
from neuroformer.recording.recording import Traces
from neuroformer.recording.validation import CheckedSpikes


def small(**changes) -> Recording:
    base = Recording(
        name="small",
        spike_times=np.array([0.1, 0.2, 0.2, 0.9]),
        spike_units=np.array([0, 0, 1, 1]),
        units={"id": np.array(["a", "b"])},
        domain=np.array([[0.0, 1.0]]),
    )
    return replace(base, **changes)


def test_npz_keeps_traces_intervals_and_awkward_names(tmp_path):
    rec = small(
        traces=Traces(np.arange(10) / 10, np.random.default_rng(0).normal(size=(10, 2)), "dF/F"),
        intervals={
            "run": {"start": np.array([0.0, 0.2]), "stop": np.array([0.5, 0.6])},
            "run_fast": {"start": np.array([0.1]), "stop": np.array([0.2]), "tag": np.array(["x"])},
        },
        behavior={
            "heart": BehaviorVariable(np.array([0.0, 1.0]), np.array([1.0, 2.0])),
            "heart_rate": BehaviorVariable(np.array([0.0, 1.0]), np.array([70.0, np.nan]), "bpm"),
        },
        units={"id": np.array(["a", "b"]), "mean_rate": np.array([1.0, 2.0])},
        truth={"conditional_rate": np.ones((2, 3))},
    )
    back = open_recording(write_npz(rec, tmp_path / "a.npz"))
    assert back.sha256() == rec.sha256()
    assert back.traces is not None and back.traces.unit == "dF/F"
    assert set(back.intervals) == {"run", "run_fast"} and set(back.intervals["run_fast"]) == {"start", "stop", "tag"}
    assert set(back.behavior) == {"heart", "heart_rate"} and back.behavior["heart_rate"].unit == "bpm"
    assert list(back.units["mean_rate"]) == [1.0, 2.0] and set(back.truth) == {"conditional_rate"}
    text = repr(back)
    assert "traces    10 samples at 10 Hz, dF/F" in text and "intervals run: 2, 0.4 to 0.5 s" in text


def test_npz_refuses_names_that_would_come_back_as_something_else():
    with pytest.raises(RecordingError, match="'trials_speed' cannot be stored.*rename"):
        to_arrays(small(behavior={"trials_speed": BehaviorVariable(np.array([0.0]), np.array([1.0]))}))
    with pytest.raises(RecordingError, match="holds Python objects"):
        to_arrays(small(units={"id": np.array(["a", "b"]), "waveform": np.array([[1], "x"], dtype=object)}))
    with pytest.raises(RecordingError, match="'speed_times' is there but 'speed' is not"):
        from_arrays({"spike_times": [0.1], "spike_units": [0], "speed_times": [0.1]})


def test_past_only_recordings_hold_no_later_trace():
    rec = small(traces=Traces(np.arange(10) / 10, np.zeros((10, 2))))
    cut = rec.without_spikes_after(0.2)
    assert cut.num_spikes == 1
    assert cut.traces is not None and cut.traces.times.max() < 0.2
    assert rec.without_spikes().traces is None and rec.without_spikes().num_spikes == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"traces": Traces(np.arange(3), np.zeros((3, 5)))},
            "traces have shape .3, 5., but there are 2 units",
        ),
        ({"traces": Traces(np.arange(2), np.zeros((3, 2)))}, "3 values but 2 times"),
        ({"intervals": {"rest": {"start": np.array([1.0])}}}, "intervals 'rest' need columns"),
        ({"intervals": {"rest": {"start": np.array([1.0]), "stop": np.array([0.5])}}}, "runs backwards"),
        ({"trials": {"start": np.array(["a"]), "stop": np.array(["b"])}}, "expected seconds"),
        ({"domain": np.zeros((2, 3))}, "domain has shape .2, 3."),
        ({"frames": FrameSeries(np.zeros((2, 4, 4)), np.array([0.0]), np.array([-1]))}, "runs from -1"),
        ({"units": {"id": np.array([["a"], ["b"]])}}, "one id a unit"),
    ],
)
def test_contradictions(changes, message):
    with pytest.raises(RecordingError, match=message):
        small(**changes)


def test_spikes_are_checked_across_pieces(monkeypatch):
    monkeypatch.setattr(validation, "CHUNK", 4)
    times = np.arange(10) / 10
    for place in (3, 4, 5, 8):
        wrong = times.copy()
        wrong[place] = -1.0
        with pytest.raises(RecordingError, match=f"first after position {place - 1}"):
            small(spike_times=wrong, spike_units=np.zeros(10, int))
    assert np.allclose(small(spike_times=times, spike_units=np.arange(10) % 2).rates(), [5, 5])


def test_a_proof_covers_its_own_spikes_only():
    rec = small()
    proof = CheckedSpikes(rec.spike_times, rec.spike_units)
    assert proof.covers(rec.spike_times, rec.spike_units)
    assert proof.covers(rec.spike_times[:2], rec.spike_units[:2])
    assert not proof.covers(rec.spike_times[1:], rec.spike_units[1:])
    assert not proof.covers(rec.spike_times[::2], rec.spike_units[::2])
    assert not proof.covers(rec.spike_times.copy(), rec.spike_units)
    with pytest.raises(RecordingError, match="not sorted"):
        replace(rec, checked_spikes=proof, spike_times=rec.spike_times[::-1].copy())


def test_columns_of_trials_are_variables_within_their_trials():
    trials = {
        "start": np.array([0.0, 0.5]),
        "stop": np.array([0.3, 1.0]),
        "choice": np.array([1, 0]),
        "rule": np.array(["right", ""]),
        "place": np.zeros((2, 3)),
    }
    rec = small(trials=trials)
    choice = rec.variable("choice")
    at = np.array([0.0, 0.2, 0.3, 0.4, 0.5, 0.99, 1.0])
    missing = np.nan  # between trials; a trial's end still knows
    assert np.array_equal(choice.hold(at)[:, 0], [1, 1, 1, missing, 0, 0, 0], equal_nan=True)
    rule = rec.variable("rule")
    assert rule.classes == ("right",)
    assert np.array_equal(rule.hold(at)[:, 0], [0, 0, 0, *[missing] * 4], equal_nan=True)
    with pytest.raises(
        RecordingError, match="column 'place' of the trials of 'small' is float64, 2-dim.*one number or word per trial"
    ):
        rec.variable("place")
    assert "columns choice, rule (empty, right), place" in repr(rec)
    with pytest.raises(RecordingError, match="it has: choice, rule, trial_time"):
        rec.variable("start")


def test_a_file_that_unpacks_to_a_thousand_times_its_size_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z, z.open("spike_times.npy", "w", force_zip64=True) as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "<f8", "fortran_order": False, "shape": (20 << 20,)})
        for _ in range(20):
            f.write(bytes(8 << 20))
    started = time.perf_counter()
    with pytest.raises(
        RecordingError, match="array 'spike_times' takes 0.168 GB, 1,0.. times what it takes in the file"
    ):
        open_recording(path)
    assert time.perf_counter() - started < 1


def test_matrices_stored_the_other_way_round_are_turned_and_said():
    rng = np.random.default_rng(0)
    counts, speed = rng.poisson(1.0, (4, 300)), rng.normal(size=(300, 2))
    right = {"spikes": counts, "spikes_dt": 0.1, "unit_ids": np.arange(4), "speed": speed}
    right |= {"speed_times": np.arange(300) * 0.1, "traces": rng.normal(size=(300, 4)), "traces_times": np.arange(300)}
    right |= {"frames": rng.normal(size=(30, 5, 6)), "frames_times": np.arange(30)}
    expected = from_arrays(right)
    for key in ("spikes", "speed", "traces", "frames"):
        turned = np.moveaxis(right[key], 0, 2) if key == "frames" else right[key].T
        got = from_arrays(right | {key: turned})
        assert got.sha256() == expected.sha256()
        assert any(f"'{key}' has shape" in note and "transposed" in note for note in got.meta["notes"])


ESCAPE = "\x1b[2J\x07\u202e\n"


def test_control_characters_never_reach_the_terminal():
    """A name may hold what would clear the screen, or turn its text round: they are gone from whatever is shown."""
    base = small_recording(num_trials=4)
    trials = {**base.trials, ESCAPE: np.array(list("abab")), "kind": np.array([ESCAPE, "b", ESCAPE, "b"])}
    ids = np.array([f"{ESCAPE}{i}" for i in range(base.num_units)])
    rec = replace(
        base,
        name=f"mouse{ESCAPE}",
        units={"id": ids, ESCAPE: ids},
        trials=trials,
        behavior={ESCAPE: replace(base.behavior["speed"], unit=ESCAPE)},
        intervals={ESCAPE: {"start": np.zeros(1), "stop": np.ones(1)}},
        truth={ESCAPE: np.zeros(1)},
        meta={"notes": [ESCAPE], "sources": {ESCAPE: ESCAPE}},
    )
    names = [rec.name, *rec.unit_ids, *rec.units, *rec.trials, *rec.behavior, *rec.intervals]
    shown = [*names, *repr(rec).splitlines(), rec._repr_html_()]
    assert all(text.isprintable() for text in shown)
    assert len(set(rec.unit_ids)) == base.num_units and "_[2J" in rec.name
    with pytest.raises(RecordingError) as e:
        rec.variable("no such")
    assert str(e.value).isprintable()


def test_control_characters_of_a_message(capsys, tmp_path):
    from neuroformer.cli import main

    assert main(["inspect", str(tmp_path / "\x1b[2Jmouse\r.npz")]) == 2
    message = capsys.readouterr().err
    assert "_[2Jmouse_.npz" in message and all(line.isprintable() for line in message.split("\n"))

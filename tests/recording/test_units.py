"""Units chosen by a condition: what is left is what the condition says, and everything else of the recording stays."""

import contextlib
import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import full_recording

from neuroformer.cli import main
from neuroformer.config import from_dict
from neuroformer.data.recordings import open_only
from neuroformer.recording import Recording, RecordingError, write_recording
from neuroformer.recording.units import choose_units
from neuroformer.recording.units.choose import presence, refractory
from neuroformer.recording.units.conditions import Condition

TABLE = {
    "quality": np.array(["good", "mua", "good", "noise"]),
    "rate": np.array([0.2, 3.0, 7.0, np.nan]),
    "peak channel": np.array([0, 3, 5, 7]),
    "kept": np.array([True, False, True, True]),
}


@pytest.mark.parametrize(
    "text, rows",
    [
        ("quality == 'good' and rate > 0.5", [2]),
        ("quality in ['good', 'mua']", [0, 1, 2]),
        ("quality not in ('good', 'mua')", [3]),
        ("0.2 <= rate < 7", [0, 1]),
        ("not (rate > 0.5) or kept", [0, 2, 3]),
        ("`peak channel` >= 3 and kept", [2, 3]),
        ("rate != rate", [3]),
        ("rate > -1 and `peak channel` not in []", [0, 1, 2]),
    ],
)
def test_a_condition_holds_as_python_would_say(text, rows):
    assert np.flatnonzero(Condition(text).holds(TABLE).all(0)).tolist() == rows


@pytest.mark.parametrize(
    "text, told",
    [
        ("rat > 0.5", "did you mean 'rate'"),
        ("quality == good", "names 'good'"),
        ("rate == 'good'", "words in quotes beside words"),
        ("quality > 3", "words such as 'good'"),
        ("quality", "no condition; compare"),
        ("rate >", "no condition"),
        ("rate = 3", "no condition"),
        ("rate + 1 > 3", "neither a number nor a word"),
        ("__import__('os').system('true') == 0", "neither a number nor a word"),
        ("(lambda: rate)()", "is no condition"),
        ("[r for r in rate] == rate", "neither a number nor a word"),
        ("rate is rate", "no comparison"),
        ("not " * 300 + "kept", "brackets within brackets"),
        ("(" * 900 + "kept" + ")" * 900, "no condition"),
        ("kept or " * 400 + "kept", "characters"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_reason(text, told):
    with pytest.raises(RecordingError, match=told):
        Condition(text).holds(TABLE)


@given(st.text(max_size=60) | st.text("rate quality'<>=()[]andornotin,.0123`\"\\", max_size=60))
def test_any_text_is_a_condition_or_an_error_of_ours(text):
    with contextlib.suppress(RecordingError):
        assert Condition(text).holds(TABLE).dtype == bool


@given(st.sets(st.integers(0, 4), min_size=1))
def test_units_that_are_left_are_as_they_were(rows):
    rec = full_recording()
    keep = [str(rec.units["id"][r]) for r in rows]
    few = choose_units(rec, f"id in {keep}")
    kept = np.flatnonzero(np.isin(rec.units["id"], keep))
    for new, old in enumerate(kept):
        ours, theirs = (r.spike_times[r.spike_units == u] for r, u in ((few, new), (rec, old)))
        np.testing.assert_array_equal(ours, theirs)
        if rec.observed is not None and few.observed is not None:
            np.testing.assert_array_equal(few.observed.of(new), rec.observed.of(int(old)))
    for name, column in rec.units.items():
        np.testing.assert_array_equal(few.units[name], column[kept])
    if rec.traces is not None and few.traces is not None:
        np.testing.assert_array_equal(few.traces.values, rec.traces.values[:, kept])
    np.testing.assert_array_equal(few.domain, rec.domain)
    assert few.behavior.keys() == rec.behavior.keys() and few.num_units == len(rows)


def test_the_limit_keeps_those_with_the_most_spikes_and_the_notes_say_so():
    rec = full_recording()
    few = choose_units(rec, "area == 'VISp' and depth < 4", limit=1)
    count = rec.unit_spikes()
    assert few.unit_ids == [["a", "b"][int(count[1] > count[0])]]
    note = few.meta["notes"][-1] if not rec.truth else few.meta["notes"][-2]
    assert note.startswith("1 of 5 units are kept: 2 are not area == 'VISp'; 1 more are not depth < 4; 1 of the rest")


def test_no_unit_left_is_an_error_that_counts():
    with pytest.raises(RecordingError, match="2 units with depth > 2, 0 units with depth > 9"):
        choose_units(full_recording(), "depth > 2 and depth > 9")


def test_measures():
    regular = np.arange(0, 100, 0.5)
    early = np.array([0.1, 0.101, 0.2])
    times = np.concatenate([regular, early])
    units = np.repeat([0, 1], [len(regular), len(early)])
    order = np.argsort(times, kind="stable")
    rec = Recording("r", times[order], units[order], {"id": np.arange(3)}, np.array([[0, 50], [50, 100.0]]))
    np.testing.assert_allclose(presence(rec), [1, 0.01, 0])
    np.testing.assert_allclose(refractory(rec), [0, 0.5, 0])
    moved = dataclasses.replace(rec, domain=rec.domain + 1e6, spike_times=rec.spike_times + 1e6)
    np.testing.assert_allclose(presence(moved), presence(rec))


def test_the_configuration_and_inspect_choose_units(tmp_path, capsys):
    path = write_recording(dataclasses.replace(full_recording(), truth={}), tmp_path / "mouse.npz")
    tree = {"recording": {"path": str(path), "units": {"where": "area == 'VISp'", "limit": 2}}}
    assert open_only(from_dict(tree))[1].num_units == 2
    assert main(["inspect", str(path), "recording.units.where=area == 'VISp'"]) == 0
    assert "3 of 5 units are kept: 2 are not area == 'VISp'" in capsys.readouterr().out
    assert main(["inspect", str(path), "recording.units.where=are == 'VISp'"]) == 2
    assert "did you mean 'area'" in capsys.readouterr().err

"""Names of files reach neither a terminal nor a key as they are."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroformer.recording import BehaviorVariable, Recording, RecordingError
from neuroformer.recording.names import natural, printable, variable_name

EVIL = "a\x1b[2Jb\r\n\u202ec"


@given(st.text(max_size=20))
def test_a_printable_name_is_one_line_without_control_characters(text):
    out = printable(text)
    assert len(out) == len(text) and printable(out) == out
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in out)
    assert not set(variable_name(text)) & set("./\\") and variable_name(text)


def test_every_name_of_a_recording_is_cleaned():
    samples = lambda: BehaviorVariable(np.arange(4.0), np.arange(4.0), EVIL, ())
    rec = Recording(
        name=EVIL,
        spike_times=np.array([0.5]),
        spike_units=np.array([0], np.uint64),
        units={"id": np.array([EVIL, b"b\x1b"]), EVIL: np.array([EVIL, "x"])},
        domain=np.array([[0.0, 4.0]]),
        trials={"start": [0.0, 1.0], "stop": [1.0, 2.0], EVIL: [EVIL, "b"], "a.b/c": [1, 2]},
        behavior={EVIL: samples(), "eye.x": samples(), "eye/x": samples()},
        intervals={EVIL: {"start": [0.0], "stop": [1.0], EVIL: [EVIL]}},
        meta={"notes": [EVIL], "sources": {EVIL: EVIL}},
    )
    assert not set("\x1b\r\u202e") & set(repr(rec) + repr(rec.trials) + repr(rec.meta) + repr(rec.unit_ids))
    assert {"eye_x", "eye_x_2"} < set(rec.behavior) and rec.variable("a_b_c").values[0, 0] == 1
    assert "'eye.x' is called 'eye_x' here" in rec.meta["notes"]
    with pytest.raises(RecordingError) as e:
        rec.variable(EVIL + "?")
    assert "\x1b" not in str(e.value)


def test_natural_order():
    names = ["trial_10", "trial_9", "trial_1", "b", "trial_09b"]
    assert sorted(names, key=natural) == ["b", "trial_1", "trial_9", "trial_09b", "trial_10"]
    assert sorted([10, 9, 1], key=natural) == [1, 9, 10]

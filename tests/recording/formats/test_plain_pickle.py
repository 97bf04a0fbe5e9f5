"""What pickles hold is read, and nothing of them is run."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuroformer.recording.formats import plain_pickle

ARRAYS = hnp.arrays(
    st.sampled_from(["f8", "f4", "i8", "u2", "b1", "U3", "S2", ">f8"]), hnp.array_shapes(min_dims=0, max_side=4)
)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN, ARRAYS, st.integers(0, 5))
def test_plain_values_come_back(value, array, protocol):
    found = plain_pickle.loads(pickle.dumps({"v": value, "a": array, "t": [(array, 1)]}, protocol))
    assert found["v"] == value and found["t"][0][1] == 1
    np.testing.assert_array_equal(found["a"], array)


class Runs:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Runs()),
        pickle.dumps([1, {"a": Runs()}], 0),
        pickle.dumps(os.path.join),
        pickle.dumps(np.random.default_rng(0)),
        pickle.dumps(np.dtype([("a", "f8")])),
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"(S'1'\nibuiltins\neval\n.",
        b"\x80\x04r\xff\xff\xff\xff.",
        b"",
    ],
)
def test_nothing_is_run(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="not a pickle of plain values"):
        plain_pickle.loads(data)
    assert not list(tmp_path.iterdir())


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_value_or_an_error(data):
    try:
        plain_pickle.loads(data)
    except ValueError as e:
        assert str(e)

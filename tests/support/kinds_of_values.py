"""Kinds of values that any array of a recording may have, and what is done with a recording that has them."""

import numpy as np
from helpers import small_config

from neuroformer.audit import audit
from neuroformer.data.prepared import prepare
from neuroformer.recording import Recording

WINDOW = {"dt": 1.0, "current": 1.0, "past": 1.0, "target_past": 1.0, "frames": 4.0}


def _put(value: float):
    def put(x):
        out = np.array(x, np.float64)
        if out.size:
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
WHOLE = ("unsigned", "small", "signed", "big_endian_whole")  # types of whole numbers
SAME = (*WHOLE, "big_endian", "single", "half", "fortran")  # other types of the same numbers


def same(got: Recording, expected: Recording) -> None:
    """As the plain integers would have been read."""
    assert got.unit_ids == expected.unit_ids or set(got.unit_ids) == {f"{u}.0" for u in expected.unit_ids}
    for name in ("spike_times", "spike_units", "domain", "trial_intervals"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert set(got.behavior) == set(expected.behavior)
    for name, variable in expected.behavior.items():
        np.testing.assert_array_equal(got.behavior[name].times, variable.times)
        np.testing.assert_array_equal(got.behavior[name].values, variable.values)
    for table in ("units", "trials", "truth"):
        assert set(getattr(got, table)) == set(getattr(expected, table))
        for key, column in getattr(expected, table).items():
            if column.dtype.kind in "US":
                assert list(getattr(got, table)[key]) == list(column)
            else:
                np.testing.assert_array_equal(np.asarray(getattr(got, table)[key], float), column)
    assert (got.frames is None) == (expected.frames is None)
    if expected.frames is not None:
        np.testing.assert_array_equal(got.frames.times, expected.frames.times)
        np.testing.assert_array_equal(got.frames.index, expected.frames.index)
        shown = expected.frames.images[np.unique(expected.frames.index)]
        np.testing.assert_array_equal(got.frames.images[np.unique(got.frames.index)], shown)
    assert (got.traces is None) == (expected.traces is None)
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

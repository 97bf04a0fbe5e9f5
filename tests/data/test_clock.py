"""The integer clock and tokens: which window and bin a spike belongs to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroformer.data import tokens
from neuroformer.data import windows as clock
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape, tile, to_ticks
from neuroformer.recording import Recording


def make(times, units, num_units=4, stop=3.0, start=0.0):
    order = np.argsort(times, kind="stable")
    return Recording(
        "r",
        np.asarray(times, float)[order],
        np.asarray(units)[order],
        {"id": np.arange(num_units)},
        np.array([[start, stop]]),
    )


def test_no_float_comparison_decides_a_bin():
    # 0.29 / 0.01 is 28.999999999999996 in floating point
    assert to_ticks(0.29, 0.0, 0.01) == 29
    k = np.arange(100_000)
    assert np.array_equal(to_ticks(k * 0.01, 0.0, 0.01), k)
    assert np.array_equal(to_ticks(4397.0023 + k * 0.05, 4397.0023, 0.05), k)


@pytest.mark.parametrize("dt", [0.001, 0.005, 0.01, 0.02, 1 / 30])
def test_every_border_opens_the_later_bin(dt):
    k = np.arange(1, 5000)
    border = k * dt
    assert np.array_equal(to_ticks(border + 1e-9, 0.0, dt) - to_ticks(border - 2e-9 - k * 1e-9, 0.0, dt), np.ones(4999))


def test_a_spike_on_start_is_in_and_on_stop_is_out():
    rec = make([0.0, 0.05, 0.0999999995, 0.1], [0, 1, 2, 3], stop=0.1)
    index = SpikeIndex.from_recording(rec, rec.domain, 0.01)
    shape = WindowShape(0.01, 5, 5)
    current = tokens.encode_current(index, Windows(np.zeros(2, int), np.array([0, 5])), shape)
    # the third rounds, to the nanosecond, onto the stop
    assert current.unit.tolist() == [0, 1] and current.tick.tolist() == [0, 0]


spikes = st.lists(st.tuples(st.integers(0, 2999), st.integers(0, 3)), max_size=60)


@settings(max_examples=100, deadline=None)
@given(spikes, st.integers(1, 9), st.integers(0, 12), st.integers(0, 5))
def test_encode_decode_is_the_identity_up_to_the_bin(cells, current, past, phase):
    """Windows that tile time hold every spike once, at its bin, in the order (bin, unit)."""
    ticks, units = (np.array([c[i] for c in cells], int) for i in range(2))
    rec = make(ticks * 0.001, units)
    index = SpikeIndex.from_recording(rec, rec.domain, 0.001)
    shape = WindowShape(0.001, current, past)
    windows = tile(np.array([[0, 0, 3000]]), shape, phase=min(phase, current - 1))
    encoded = tokens.encode_current(index, windows, shape)
    segment, tick, unit = tokens.decode(encoded, windows)
    covered = (ticks >= windows.tick[0]) & (ticks < windows.tick[-1] + current)
    order = np.lexsort((units[covered], ticks[covered]))
    assert np.array_equal(tick, ticks[covered][order]) and np.array_equal(unit, units[covered][order])
    assert (encoded.tick >= 0).all() and (encoded.tick < current).all() and (segment == 0).all()
    before = tokens.encode_past(index, windows, shape)
    for w in range(0, len(windows), 97):
        lo, hi = before.offsets[w : w + 2]
        t0 = windows.tick[w]
        inside = (ticks >= max(0, t0 - past)) & (ticks < t0)
        assert np.array_equal(np.sort(ticks[inside]), before.tick[lo:hi] + t0)


def test_windows_never_cross_an_origin():
    rec = make([0.95, 1.05], [0, 1], stop=2.0)
    segments = np.array([[0.0, 1.0], [1.0, 2.0]])
    index = SpikeIndex.from_recording(rec, segments, 0.01)
    shape = WindowShape(0.01, 10, 20)
    windows = Windows(np.array([1, 1]), np.array([0, 10]))
    past = tokens.encode_past(index, windows, shape)
    assert past.unit.tolist() == [1]  # the spike at 0.95 s is missing, not in the past of segment 1
    assert tokens.available_past(windows, shape).tolist() == [0, 10]


@given(times=st.lists(st.floats(0, 3, width=32), max_size=60), chunk=st.integers(1, 20), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_an_index_in_pieces_is_the_index_in_one(times, chunk, seed):
    """Pieces end anywhere, within a bin too; large indices lie in files."""
    units = np.random.default_rng(seed).integers(0, 4, len(times))
    rec = make(times, units)
    segments = np.array([[0.1, 1.0], [1.2, 2.9]])
    whole = SpikeIndex.from_recording(rec, segments, 0.05)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "CHUNK", chunk)
        patch.setattr(clock, "LARGE", 5)
        pieces = SpikeIndex.from_recording(rec, segments, 0.05)
    for name in ("keys", "unit", "base", "num_ticks", "origins", "offsets"):
        np.testing.assert_array_equal(getattr(pieces, name), getattr(whole, name))
    bins = np.arange(whole.total_ticks + 1)
    np.testing.assert_array_equal(whole.find(bins), np.searchsorted(whole.keys, bins))
    order = np.lexsort((whole.unit, whole.keys))
    assert np.array_equal(order, np.arange(len(order)))

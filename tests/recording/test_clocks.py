"""Clocks fitted to shared pulses: the true line is found, or the fit is refused; never a wrong line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroformer.recording import RecordingError
from neuroformer.recording.sources.clocks import fit_clock


def trains(rng, count, kind, lost, drift=None):
    """Pulses on both clocks, some lost on either side, and the line between the clocks."""
    gaps = {
        "poisson": rng.exponential(1.0, count) + 0.05,
        "jittered": 1 + rng.uniform(-0.2, 0.2, count),
        "bursts": np.where(np.arange(count) % 8 == 7, rng.uniform(2, 6, count), 0.05),
        "regular": np.ones(count),
    }[kind]
    pulses = np.cumsum(gaps)
    scale = 1 + (rng.uniform(-5e-3, 5e-3) if drift is None else drift)
    offset = rng.uniform(-1000, 1000)
    theirs = (pulses - offset) / scale + rng.normal(0, 1e-4, count)
    keep = lambda: np.sort(rng.permutation(count)[lost:]) if lost else np.arange(count)
    return pulses[keep()], theirs[keep()], offset, scale


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(12, 300),
    kind=st.sampled_from(["poisson", "jittered", "bursts"]),
    share=st.floats(0, 0.15),
)
def test_the_line_is_found_or_refused(seed, count, kind, share):
    rng = np.random.default_rng(seed)
    ours, theirs, offset, scale = trains(rng, count, kind, int(share * count))
    try:
        match = fit_clock(ours, theirs)
    except RecordingError:
        assert count < 60 or kind == "bursts"  # few pulses, or bursts alike, may fit in two ways
        return
    at = np.array([theirs[0], theirs[-1]])
    np.testing.assert_allclose(match.clock(at), offset + scale * at, atol=2e-3)
    assert np.median(np.abs(match.residuals)) < 1e-3


@pytest.mark.parametrize("kind", ["poisson", "jittered", "bursts", "regular"])
def test_none_lost_is_matched_in_order(kind):
    ours, theirs, offset, scale = trains(np.random.default_rng(0), 500, kind, 0)
    match = fit_clock(ours, theirs)
    assert match.in_order and len(match.residuals) == 500
    assert match.clock.scale == pytest.approx(scale, rel=1e-6)
    assert match.clock.offset == pytest.approx(offset, abs=1e-3)


def test_a_stray_pulse_moves_nothing():
    ours, theirs, offset, scale = trains(np.random.default_rng(1), 200, "jittered", 0)
    shifted = theirs.copy()
    shifted[100] += 0.3
    match = fit_clock(ours, shifted)
    np.testing.assert_allclose(match.clock(theirs), offset + scale * theirs, atol=1e-3)
    assert np.abs(match.residuals).max() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("lost", [[0], [50], [0, 99], [3, 40, 77]])
def test_a_regular_train_with_missing_pulses_is_refused(lost):
    ours = np.arange(100.0)
    with pytest.raises(RecordingError, match="so regularly that the missing ones cannot be placed"):
        fit_clock(ours, np.delete(ours, lost) - 12.5)


def test_trains_that_are_not_the_same_are_refused():
    rng = np.random.default_rng(2)
    with pytest.raises(RecordingError, match="do not fit each other"):
        fit_clock(np.cumsum(rng.exponential(1, 200)), np.cumsum(rng.exponential(1, 180)))
    ours = np.cumsum(rng.exponential(1, 200))
    with pytest.raises(RecordingError, match="milliseconds"):
        fit_clock(ours, ours * 1000)
    with pytest.raises(RecordingError, match="expected one at least"):
        fit_clock(ours, np.zeros(0))


def test_a_long_train_takes_no_time():
    rng = np.random.default_rng(3)
    ours, theirs, offset, scale = trains(rng, 40_000, "jittered", 30, drift=1e-4)
    match = fit_clock(ours, theirs)
    np.testing.assert_allclose(match.clock(theirs), offset + scale * theirs, atol=1e-3)
    assert len(match.residuals) > 39_900

"""Tuning: known curves are read back; what does not vary with the value is not called tuned."""

import numpy as np
import pytest

from neuroformer.comparison.tuning import agreement, tuning
from neuroformer.config import ConfigError


def gratings(num: int = 40, noise: float = 0.5):
    """Units: tuned to 90 degrees; to the orientation 45 degrees; to nothing; a constant."""
    rng = np.random.default_rng(0)
    angle = np.repeat(np.arange(0, 360, 30.0), num)
    a = np.deg2rad(angle)
    rate = np.stack([4 + 4 * np.cos(a - np.pi / 2), 4 + 4 * np.cos(2 * (a - np.pi / 4)), 4 + 0 * a, 0 * a], 1)
    return angle, rate + noise * rng.normal(size=rate.shape) * (rate.max(0) > 0)


def test_direction_and_orientation_are_told_apart():
    angle, y = gratings()
    found = tuning(angle, y, period=360)
    assert found.selectivity_U[0] == pytest.approx(0.5, abs=0.03) and found.orientation_U[0] < 0.05
    assert found.orientation_U[1] == pytest.approx(0.5, abs=0.03) and found.selectivity_U[1] < 0.05
    assert found.preferred_U[0] == pytest.approx(90, abs=5)
    assert found.p_U[0] < 0.01 and found.p_U[1] < 0.01 and found.p_U[2] > 0.05 and np.isnan(found.p_U[3])
    assert found.tuned == pytest.approx(2 / 3)


def test_a_network_is_measured_as_a_unit_is():
    """What is added below zero, or a scale, changes neither what is preferred nor whether it is tuned."""
    angle, y = gratings()
    unit, feature = tuning(angle, y[:, :1], 360), tuning(angle, 0.01 * (y[:, :1] - 4), 360)
    np.testing.assert_allclose(unit.preferred_U, feature.preferred_U, atol=5)
    assert feature.p_U[0] < 0.01
    both = agreement(tuning(angle, y, 360), tuning((angle + 350) % 360, y, 360), 360)
    assert both["units"] < 3 and "preferred_apart" not in both


def test_speed_is_a_line():
    rng = np.random.default_rng(1)
    speed = rng.gamma(2, 5, 3000)
    y = np.stack(
        [rng.poisson(np.exp(speed / 20)), rng.poisson(3, 3000), rng.poisson(8 * np.exp(-((speed - 10) ** 2) / 20))], 1
    )
    found = tuning(speed, y)
    assert len(found.values_A) == 12 and found.trend_U[0] > 0.3 > abs(found.trend_U[1])
    assert found.preferred_U[2] == pytest.approx(10, abs=2) and found.selectivity_U[2] > 0.9
    assert found.p_U[0] < 0.01 and found.p_U[2] < 0.01 and found.p_U[1] > 0.05
    assert np.isnan(found.orientation_U).all()


def test_blocks_are_shuffled_whole():
    """A slow drift beside a slow value is no tuning: only few blocks could have shown it."""
    t = np.arange(400)
    value, drift = np.floor(t / 40) % 3, np.floor(t / 40) % 3 + 0.0
    alone = tuning(value, drift[:, None])
    blocks = tuning(value, drift[:, None], block_N=t // 100)
    assert alone.p_U[0] < 0.01 < 0.03 < blocks.p_U[0]


def test_few_values_are_refused():
    with pytest.raises(ConfigError, match="three values"):
        tuning(np.repeat([0.0, 1.0], 20), np.ones((40, 2)))

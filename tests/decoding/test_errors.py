"""Errors in the variable's own unit, and ours against the best and the nearest baseline."""

import numpy as np
import pytest

from neuroformer.cli.tables import score_table
from neuroformer.config import TargetConfig
from neuroformer.decoding.decode import Decoded, score_decoded
from neuroformer.decoding.errors import against_baselines, error_difference, error_of, error_scores
from neuroformer.report.behavior import error_by_value


def decoded(kind="regression", columns=1):
    """A position that is decoded by the model with errors of 2, by Bayes with fewer but larger ones, by ridge with 4."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 100, (3000, columns))
    miss = rng.random((3000, 1)) < 0.3
    predicted = {
        "model": true + rng.normal(0, 2, true.shape),
        "bayes_mode": true + np.where(miss, 60, rng.normal(0, 1, true.shape)),
        "ridge": true + rng.normal(0, 4, true.shape),
    }
    true[::10] = np.nan
    return Decoded("place", np.arange(3000) * 0.1, np.zeros(3000, int), true, predicted, unit="cm")


def scores_of(one, target):
    found = score_decoded(one, target, ["place"] if one.true_VC.shape[1] == 1 else ["x", "y"])
    found |= error_scores(one, target)
    return found | against_baselines(one, target, f"decode_place_{'r2'}", found)


def test_median_and_mean_error_and_the_pairs():
    one, target = decoded(), TargetConfig("place")
    found = scores_of(one, target)
    error = np.abs(one.predicted["model"] - one.true_VC)[:, 0]
    assert found["decode_place_median_error"] == pytest.approx(np.nanmedian(error))
    assert found["decode_place_mean_error"] == pytest.approx(np.nanmean(error))
    assert found["decode_place_median_error_low"] < np.nanmedian(error) < found["decode_place_median_error_high"]
    # by R2 ridge is best, by median error the mode
    assert (found["decode_place_best_baseline"], found["decode_place_nearest_baseline"]) == ("ridge", "bayes_mode")
    assert found["decode_place_difference_low"] > 0  # the model's R2 is above ridge's
    assert found["decode_place_median_error_difference_low"] > 0  # and its median error above the mode's
    assert error_difference(one, target, "model", "ridge")[2] < 0
    table = score_table(one, target, found)
    assert "median error (cm)" in table and "median error, model minus bayes_mode: 0." in table and "paired" in table


def test_several_columns_are_a_distance_and_circles_go_the_shorter_way():
    one = decoded(columns=2)
    gap = one.predicted["model"] - one.true_VC
    np.testing.assert_allclose(error_of(one, TargetConfig("place"), "model"), np.hypot(*gap.T))
    circle = TargetConfig("place", "circular", period=100.0)
    turned = Decoded("place", np.arange(3), np.zeros(3, int), np.array([[99.0], [50.0], [1.0]]))
    turned.predicted["model"] = np.array([[1.0], [60.0], [np.float64(99)]])
    np.testing.assert_allclose(error_of(turned, circle, "model"), [2, 10, 2])
    assert error_scores(one, TargetConfig("place", "classification")) == {}


@pytest.mark.parametrize("columns", [1, 2])
def test_the_figure_has_a_line_or_a_map_a_decoder(columns):
    one = decoded(columns=columns)
    errors = {name: error_of(one, TargetConfig("place"), name) for name in one.predicted}
    figure = error_by_value(one.true_VC, errors, "place", ["x", "y"][:columns], "cm")
    if columns == 1:
        (ax,) = figure.axes
        assert [line.get_label() for line in ax.lines] == list(errors) and ax.get_ylabel() == "error (cm)"
    else:
        assert [ax.get_title() for ax in figure.axes[:3]] == list(errors)

"""The scikit-learn face: its conventions, its cross-validation, and no leak through the splitter."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from driven import driven_recording
from helpers import small_config, small_recording
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import (
    check_do_not_raise_errors_in_init_or_set_params,
    check_get_params_invariance,
    check_no_attributes_set_in_init,
    check_parameters_default_constructible,
    check_set_params,
)

from neuroformer.config import to_dict
from neuroformer.estimators import GapSplit, Moments, NeuroformerDecoder, NeuroformerEmbedding
from neuroformer.metrics import r2
from neuroformer.recording import BehaviorVariable
from neuroformer.training.train import train

CHECKS = (
    check_parameters_default_constructible,
    check_get_params_invariance,
    check_set_params,
    check_no_attributes_set_in_init,
    check_do_not_raise_errors_in_init_or_set_params,
)


def tiny(**sections):
    return small_config(
        **{
            "window": {"frames": 0.0},
            "targets": [],
            "decode": {"lags": [0.2]},
            "split": {"gap": 0.2},
            "loss": {"contrast": [{"pair": ["neural", "behavior"]}]},
            **sections,
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimators") / "run"
    train(driven_recording(), tiny(), folder, progress=False)
    return folder


@pytest.mark.parametrize("estimator", [NeuroformerDecoder, NeuroformerEmbedding])
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_scikit_learns_own_checks(check, estimator):
    check(estimator.__name__, estimator())


def test_fit_predict_and_parameters_that_travel(run):
    rec = driven_recording()
    decoder = NeuroformerDecoder(run, steps=10)
    with pytest.raises(NotFittedError):
        decoder.predict(rec)
    predicted = decoder.fit(rec, target="speed").predict(rec)
    moments = Moments(rec, 0.05)
    assert predicted.shape == (len(moments),) == (1200,)
    truth = moments.labels("speed")
    known = np.isfinite(truth)
    assert r2(truth[known], predicted[known])[0] > 0.3
    for other in (clone(decoder), pickle.loads(pickle.dumps(decoder))):
        assert other.get_params() == decoder.get_params() and not hasattr(other, "model_")
    two = NeuroformerDecoder(run, steps=5).fit(rec, target="place").predict(Moments(rec, 0.1))
    assert two.shape == (600, 2)


def test_a_network_from_scratch_and_classes():
    rec = driven_recording()
    decoder = NeuroformerDecoder(config=to_dict(tiny()), kind="classification", steps=5)
    decoder.fit(rec, target="choice")
    X = Moments(rec)
    assert set(np.unique(decoder.predict(X))) <= {0.0, 1.0}
    assert decoder.score(X, X.labels("choice")) > 0.6


def test_a_recording_too_short_for_the_configured_split():
    """The caller's moments say what trains, so nothing has to be held out as configured."""
    X = Moments(small_recording(seconds=20.0), 0.1)
    decoder = NeuroformerDecoder(config=tiny(split={"block": 60.0}), steps=1)
    assert decoder.fit(X, X.labels("speed")).predict(X[:3]).shape == (3,)


def test_cross_validation_and_search(run):
    rec = driven_recording()
    X = Moments(rec)
    scores = cross_val_score(NeuroformerDecoder(run, steps=5), X, X.labels("speed"), cv=GapSplit(3, gap=0.5))
    assert scores.shape == (3,) and (scores > 0.2).all()
    search = GridSearchCV(NeuroformerDecoder(run, steps=5), {"train": ["head", "top"]}, cv=GapSplit(2, gap=0.5))
    search.fit(X, X.labels("speed"))
    assert search.best_params_["train"] in ("head", "top")


def test_the_splitter_keeps_its_gap_and_holds_out_everything_once():
    X = Moments(driven_recording())
    held = []
    for train_rows, test_rows in GapSplit(4, gap=1.0).split(X):
        between = np.abs(X.times[train_rows][:, None] - X.times[test_rows])
        assert between.min() > 1.0 and (np.diff(test_rows) == 1).all()
        held.append(test_rows)
    np.testing.assert_array_equal(np.concatenate(held), np.arange(len(X)))
    times = np.arange(100.0)[:, None]
    assert len(cross_val_score(Ridge(), times, times[:, 0], cv=GapSplit(5, gap=3.0))) == 5
    with pytest.raises(ValueError, match="3 moments cannot be cut into 5 folds"):
        next(GapSplit(5).split(np.zeros((3, 1))))
    with pytest.raises(ValueError, match="a gap of 50 s leaves no moment to train on"):
        next(GapSplit(2, gap=50.0).split(X))


def test_held_out_spikes_do_not_reach_the_fit(run):
    """Fitting on the first half gives the same weights whatever happens more than the gap later."""
    rec = driven_recording()
    X = Moments(rec)
    first = X[X.times < 30]
    import dataclasses

    later = rec.spike_times > 31
    spoiled = dataclasses.replace(rec, spike_units=np.where(later, 0, rec.spike_units))
    a = NeuroformerDecoder(run, steps=5).fit(first, first.labels("speed"))
    b = NeuroformerDecoder(run, steps=5).fit(Moments(spoiled, times=first.times), first.labels("speed"))
    for p, q in zip(a.model_.parameters(), b.model_.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)


def test_embeddings(run):
    rec = driven_recording()
    state = NeuroformerEmbedding(run).fit_transform(rec)
    aligned = NeuroformerEmbedding(run, features="contrast").fit_transform(rec)
    assert state.shape == (1200, 16) and aligned.shape == (1200, 32)
    np.testing.assert_allclose(np.linalg.norm(aligned, axis=1), 1, rtol=1e-4)
    low = NeuroformerEmbedding(run, components=2)
    assert low.fit_transform(rec).shape == (1200, 2) and low.transform(Moments(rec, 0.5)).shape == (120, 2)


def test_mistakes_are_named(run):
    rec = driven_recording()
    with pytest.raises(ValueError, match="there is nothing to fit"):
        NeuroformerDecoder(run).fit(rec)
    with pytest.raises(ValueError, match="expected a Recording or Moments"):
        NeuroformerDecoder(run).fit(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(ValueError, match="1 of 1 moments lie outside the recording"):
        NeuroformerEmbedding(run).fit_transform(Moments(rec, times=np.array([0.01])))
    with pytest.raises(ValueError, match="give the folder of a trained run"):
        NeuroformerEmbedding().fit(rec)


def test_labels_of_classes_are_held_and_angles_go_around_the_circle():
    rec, t = driven_recording(), np.arange(0, 60, 0.2)
    behavior = {
        "side": BehaviorVariable(t, (np.sin(t) > 0) + 1.0),
        "angle": BehaviorVariable(t, (2 * t) % (2 * np.pi)),
    }
    rec = dataclasses.replace(rec, behavior={**rec.behavior, **behavior})
    X = Moments(rec, times=np.arange(1, 59, 0.05))
    assert set(X.labels("side", "classification")) == {1.0, 2.0}
    error = X.labels("angle", "circular") - 2 * X.times
    assert np.abs(np.angle(np.exp(1j * error))).max() < 0.02
    assert set(X.labels("side")) > {1.0, 2.0}
    for wrong in ({"kind": "ordinal"}, {"train": "heads"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is .*; expected one of"):
            NeuroformerDecoder(**wrong).fit(X, X.labels("side"))


def test_words_are_classes_and_come_back_as_words():
    rec = driven_recording()
    X = Moments(rec)
    side = np.array(["left", "right"])[X.labels("choice", "classification").astype(int)].astype(object)
    side[:20] = [None, "", np.nan, "left"] * 5
    decoder = NeuroformerDecoder(config=to_dict(tiny()), kind="classification", steps=0).fit(X, side)
    predicted = decoder.predict(X)
    assert list(decoder.classes_) == ["left", "right"] and set(predicted) == {"left", "right"}
    known = np.arange(20, len(X))
    expected = np.mean([(predicted[known] == w)[side[known] == w].mean() for w in ("left", "right")])
    assert decoder.score(X[known], side[known]) == pytest.approx(expected) and expected > 0.6
    assert decoder.score(X[known], np.full(len(known), "up")) != decoder.score(X[known], side[known])
    with pytest.raises(ValueError, match="the labels are words and kind is 'regression'"):
        NeuroformerDecoder(config=to_dict(tiny())).fit(X, side)


def test_angles_in_degrees():
    rec, t = driven_recording(), np.arange(0, 60, 0.2)
    turn = BehaviorVariable(t, (40 * t) % 360)
    rec = dataclasses.replace(rec, behavior={**rec.behavior, "turn": turn})
    X = Moments(rec, times=np.arange(1, 59, 0.05))
    y = X.labels("turn", "circular", period=360)
    error = (y - 40 * X.times + 180) % 360 - 180
    assert np.abs(error).max() < 1 and y.min() >= 0 and y.max() <= 360
    decoder = NeuroformerDecoder(config=to_dict(tiny()), kind="circular", steps=0, period=360).fit(X, y)
    assert decoder.score(X, y) == pytest.approx(decoder.score(X, y + 360), abs=1e-6)
    with pytest.raises(ValueError, match="give its period: 360"):
        NeuroformerDecoder(config=to_dict(tiny()), kind="circular").fit(X, y)


def test_words_of_trials_are_labels():
    trials = {
        "start": np.array([0.0, 10.0, 20.0]),
        "stop": np.array([9.0, 19.0, 29.0]),
        "rule": np.array(["b", "", "a"]),
    }
    X = Moments(dataclasses.replace(small_recording(), trials=trials), times=np.array([1.0, 9.5, 12.0, 25.0]))
    assert list(X.labels("rule", "classification")) == ["b", "", "", "a"]
    with pytest.raises(ValueError, match=r"'rule' is recorded as words \(a, b\); give kind='classification'"):
        X.labels("rule")

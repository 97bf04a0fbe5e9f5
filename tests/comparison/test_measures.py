"""Every measure against its definition, or against the library that the field uses."""

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge

from neuroformer.comparison.ceilings import reliability, spearman_brown
from neuroformer.comparison.cka import linear_cka
from neuroformer.comparison.predictivity import PENALTIES, PLS_COMPONENTS, PlsFit, RidgeFit, reduced
from neuroformer.comparison.rsa import (
    correlation_distance,
    crossnobis,
    euclidean,
    noise_precision,
    spearman,
    whitened,
)


@pytest.fixture(scope="module")
def patterns():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(12, 9))
    return means + 0.7 * rng.normal(size=(5, 12, 9)), means @ rng.normal(size=(9, 7))


@pytest.mark.parametrize("shape", [(80, 10), (40, 90)], ids=["tall", "wide"])
def test_ridge_is_that_of_scikit_learn(shape):
    rng = np.random.default_rng(1)
    x, new = rng.normal(size=shape) + 2, rng.normal(size=(7, shape[1]))
    y = rng.normal(size=(shape[0], 4)) + 3
    for penalty, got in zip(PENALTIES, RidgeFit(x).predict(y, new), strict=True):
        expected = Ridge(alpha=penalty * len(x), solver="svd").fit(x, y).predict(new)
        np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(120, 60, 30), (120, 60, 200), (90, 12, 5)], ids=["tall", "wide", "few features"])
def test_partial_least_squares_is_that_of_scikit_learn(shape):
    rng = np.random.default_rng(2)
    num, features, units = shape
    x, new = rng.normal(size=(num, features)), rng.normal(size=(7, features))
    y = x @ rng.normal(size=(features, units)) + rng.normal(size=(num, units))
    few = min(PLS_COMPONENTS, features)
    sklearn = PLSRegression(few, scale=False, max_iter=20_000, tol=1e-24).fit(x, y)
    (got,) = PlsFit(x).predict(y, new)
    np.testing.assert_allclose(got, sklearn.predict(new), atol=1e-6 * np.abs(y).max())


def test_partial_least_squares_ends_where_nothing_is_left():
    x = np.random.default_rng(3).normal(size=(30, 4))
    (got,) = PlsFit(x).predict(x[:, :1], x)
    np.testing.assert_allclose(got, x[:, :1], atol=1e-9)


def test_components_of_features_keep_distances():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(700, 20)) @ rng.normal(size=(20, 900)) + 5
    z = reduced(x)
    assert z.shape == (700, 512)
    centred = (x - x.mean(0)) / np.sqrt(x.var(0).mean())
    np.testing.assert_allclose(z @ z.T, centred @ centred.T * 512 / 900, atol=1e-6 * 512)
    np.testing.assert_allclose((reduced(x[:, :30]) ** 2).mean(), 1)
    few = x[:100] - x[:100].mean(0)
    z = reduced(x[:100])
    assert z.shape == (100, 100)
    np.testing.assert_allclose(z @ z.T, few @ few.T / few.var() * 100 / 900, atol=1e-6 * 100)


def test_similarity_is_that_of_rsatoolbox(patterns):
    pytest.importorskip("rsatoolbox")
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import RDMs, calc_rdm, compare

    y_RCD, x_CE = patterns
    repeats, conditions, channels = y_RCD.shape
    descriptors = {
        "condition": np.tile(np.arange(conditions), repeats),
        "repeat": np.repeat(np.arange(repeats), conditions),
    }
    data = Dataset(y_RCD.reshape(-1, channels), obs_descriptors=descriptors)
    mean, precision = y_RCD.mean(0), noise_precision(y_RCD)
    theirs = {
        "correlation": calc_rdm(data, "correlation", "condition"),
        "euclidean": calc_rdm(data, "euclidean", "condition"),
        "crossnobis": calc_rdm(data, "crossnobis", "condition", noise=precision, cv_descriptor="repeat"),
    }
    ours = {
        "correlation": correlation_distance(mean),
        "euclidean": euclidean(mean),
        "crossnobis": crossnobis(y_RCD, precision),
    }
    for name, rdm in theirs.items():
        np.testing.assert_allclose(ours[name], rdm.dissimilarities[0], atol=1e-6, err_msg=name)
    model = euclidean(x_CE)
    for name, rdm in theirs.items():
        for method, mine in (("spearman", spearman), ("corr_cov", whitened)):
            expected = compare(RDMs(model[None]), rdm, method)
            assert mine(model, ours[name]) == pytest.approx(float(expected[0, 0]), abs=1e-6), (name, method)


def test_crossnobis_is_zero_where_conditions_are_alike():
    rng = np.random.default_rng(5)
    noise = rng.normal(size=(4, 40, 30))
    assert abs(crossnobis(noise).mean()) < 0.02 < 0.4 < euclidean(noise.mean(0)).mean()


def test_alignment_is_the_debiased_one(patterns):
    """Against the textbook formula of the unbiased estimator; and around 0 for what is independent."""
    y_RCD, x_CE = patterns
    y_CD = y_RCD.mean(0)

    def criterion(a, b):
        k, m = (np.asarray(v @ v.T) * (1 - np.eye(len(v))) for v in (a, b))
        n, one = len(k), np.ones(len(k))
        inner = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (inner - 2 / (n - 2) * one @ k @ m @ one) / (n * (n - 3))

    expected = criterion(x_CE, y_CD) / np.sqrt(criterion(x_CE, x_CE) * criterion(y_CD, y_CD))
    assert linear_cka(x_CE, y_CD) == pytest.approx(expected, abs=1e-9)
    assert linear_cka(x_CE, x_CE) == pytest.approx(1)
    rng = np.random.default_rng(6)
    chance = [linear_cka(rng.normal(size=(20, 300)), rng.normal(size=(20, 300))) for _ in range(50)]
    assert abs(np.mean(chance)) < 0.05
    assert np.isnan(linear_cka(np.ones((20, 3)), x_CE[:1].repeat(20, 0)))


def test_ceilings_of_units_of_known_reliability():
    """200 units, 20 repeats: the estimate is within 0.02 of the truth on average, at every level."""
    rng = np.random.default_rng(7)
    single = np.repeat([0.02, 0.05, 0.15, 0.4], 50)  # share of a single repeat's variance that the stimulus explains
    signal = rng.normal(size=(600, 200)) * np.sqrt(single)
    y = signal + rng.normal(size=(20, 600, 200)) * np.sqrt(1 - single)
    fold = np.arange(600) * 5 // 600
    found, true = reliability(y, fold), spearman_brown(single, 20)
    for level in np.unique(single):
        these = single == level
        assert abs(found[these].mean() - true[these].mean()) < 0.02
    # the square root is what a perfect prediction reaches
    reached = [np.corrcoef(signal[:, u], y[:, :, u].mean(0))[0, 1] for u in range(200)]
    np.testing.assert_allclose(np.mean(np.array(reached) ** 2 - found), 0, atol=0.02)
    assert np.isnan(reliability(y[:1])).all()
    odd = reliability(y[:5], fold)
    assert abs((odd - spearman_brown(single, 5)).mean()) < 0.02

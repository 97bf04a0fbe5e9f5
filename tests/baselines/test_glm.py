"""The GLM baselines: causal, converged, and strong where there is something to know."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroformer.baselines import glm as glm_module
from neuroformer.baselines.glm import fit_glm, glm_bits_per_spike
from neuroformer.baselines.glm_design import Choice, ClipComponents, History, history_filters, raised_cosines
from neuroformer.baselines.poisson_regression import PoissonProblem
from neuroformer.config import from_dict
from neuroformer.data.normalization import fit_normalization
from neuroformer.data.splits import make_split
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape, tile
from neuroformer.recording import Recording, open_recording
from neuroformer.recording.recording import BehaviorVariable, FrameSeries

SHARED = Path(os.environ.get("NEUROFORMER_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
DT = 0.01


def prepare(rec, **config):
    config = from_dict(config)
    split = make_split(rec, config)
    index = SpikeIndex.from_recording(rec, split.segments, config.window.dt)
    return rec, split, index, config, fit_normalization(rec, split, config, index)


@pytest.fixture(scope="module")
def coupled():
    """Unit 0 drives unit 1 two and three bins later; speed drives unit 2; unit 3 follows a 4 s cycle."""
    rng = np.random.default_rng(0)
    bins, units = 30_000, 5
    speed = np.repeat(rng.normal(size=bins // 50), 50)
    log_rate = np.full((bins, units), np.log(0.05))
    log_rate[:, 2] += 0.8 * speed
    log_rate[:, 3] += 1.2 * np.sin(2 * np.pi * np.arange(bins) * DT / 4)
    counts = np.zeros((bins, units), int)
    rates = np.zeros((bins, units))
    for b in range(bins):
        if b >= 3:
            log_rate[b, 1] += 1.5 * (counts[b - 2, 0] + counts[b - 3, 0])
        rates[b] = np.exp(log_rate[b])
        counts[b] = rng.poisson(rates[b])
    b, u = np.nonzero(counts)
    times = np.repeat((b + 0.5) * DT, counts[b, u])
    times_of_samples = np.arange(bins // 50) * 0.5
    clock = BehaviorVariable(np.arange(bins) * DT, np.arange(bins) * DT % 4)
    rec = Recording(
        "coupled",
        times,
        np.repeat(u, counts[b, u]),
        {"id": np.arange(units)},
        np.array([[0.0, bins * DT]]),
        behavior={"speed": BehaviorVariable(times_of_samples, speed[::50]), "clock": clock},
    )
    return prepare(
        rec,
        window={"frames": 0.0},
        split={"block": 20.0},
        inputs=[{"name": "speed"}, {"name": "clock", "encoding": "fourier"}],
    ), rates


@pytest.fixture(scope="module")
def fitted(coupled, request):
    setup, _ = coupled
    past = fit_glm(*setup, variant="past")
    return {"past": past, "every": fit_glm(*setup, variant="every", like=past)}


def index_with(index, moved):
    """The index after `moved(segment, tick, unit)` has changed its spikes."""
    segment = np.searchsorted(index.base, index.keys, side="right") - 1
    segment, tick, unit = moved(segment, index.keys - index.base[segment], index.unit)
    return SpikeIndex.from_ticks(segment, tick, unit, index.origins, index.num_ticks, index.num_units, index.dt)


def test_recovers_coupling_and_inputs(coupled, fitted):
    (rec, split, index, config, norm), rates = coupled
    windows = tile(split.blocks["test"], WindowShape.from_config(config))
    true = rates[(windows.tick[:, None] + np.arange(5)).ravel()]
    every = fitted["every"].rates(windows).reshape(true.shape)
    for unit in (1, 2, 3):
        assert np.corrcoef(np.log(every[:, unit]), np.log(true[:, unit]))[0, 1] > 0.85
    scores = {v: glm_bits_per_spike(g, split, index, norm) for v, g in fitted.items()}
    assert scores["every"] > scores["past"] > 0.1
    # one spike of unit 0 at bin 3000: unit 1 answers two and three bins later, the others do not
    at = Windows(np.array([0]), np.array([3000]))
    none = index_with(index, lambda s, t, u: (s[:0], t[:0], u[:0]))
    one = index_with(index, lambda s, t, u: (np.array([0]), np.array([3000]), np.array([0])))
    answer = fitted["every"].rates(at, one)[0] / fitted["every"].rates(at, none)[0]
    assert answer[2:4, 1].min() > 2 and (np.abs(np.log(answer[:, 2:])) < 0.35).all()
    np.testing.assert_array_equal(answer[0], 1)
    np.testing.assert_array_equal(fitted["past"].rates(at, one), fitted["past"].rates(at, none))


def test_future_spikes_change_nothing(coupled, fitted):
    (_, split, index, config, _), _ = coupled
    rng = np.random.default_rng(1)
    windows = tile(split.blocks["test"], WindowShape.from_config(config))
    for k in rng.integers(len(windows), size=4):
        window, start = windows[k : k + 1], windows.tick[k]
        for b in range(5):

            def later(s, t, u, b=start + b):
                return s, t, np.where(t >= b, rng.integers(0, 5, len(u)), u)

            changed = index_with(index, later)
            before = fitted["every"].rates(window)[0], fitted["every"].rates(window, changed)[0]
            np.testing.assert_array_equal(before[0][: b + 1], before[1][: b + 1])
        after = index_with(index, lambda s, t, u, start=start: (s, t, np.where(t >= start, 4 - u, u)))
        np.testing.assert_array_equal(fitted["past"].rates(window), fitted["past"].rates(window, after))
    mirrored = index_with(index, lambda s, t, u: (s, t, 4 - u))
    for glm in fitted.values():
        assert not np.array_equal(glm.rates(windows), glm.rates(windows, mirrored))


def test_no_weights_is_the_null(coupled, fitted):
    (_, split, index, _, norm), _ = coupled
    glm = fitted["past"]
    weights, glm.weight_FU = glm.weight_FU, torch.zeros_like(glm.weight_FU)
    assert glm_bits_per_spike(glm, split, index, norm) == pytest.approx(0, abs=1e-5)
    glm.weight_FU = weights


def test_choice_says_what_was_chosen(fitted):
    for variant, glm in fitted.items():
        choice = glm.choice
        assert choice["variant"] == variant and choice["converged"] and choice["tried"]
        assert choice["num_features"] == len(glm.weight_FU) - 1
        assert choice["valid_bits_per_spike"] > 0
        for name, grid in glm_module.GRID.items():
            assert choice[name] in grid


def test_same_seed_same_fit(coupled, fitted):
    (rec, *rest), _ = coupled
    again = fit_glm(rec, *rest, variant="past")
    assert torch.equal(again.weight_FU, fitted["past"].weight_FU)
    with pytest.raises(ValueError, match="'past' or 'every'"):
        fit_glm(rec, *rest, variant="future")


def test_optimum_agrees_with_scikit_learn():
    from sklearn.linear_model import PoissonRegressor

    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    counts = rng.poisson(np.exp(x @ rng.normal(size=(4, 3)) * 0.4 - 0.5))
    x_RF = torch.tensor(np.hstack([x, np.ones((400, 1))]), dtype=torch.float64)
    relative = torch.tensor([1.0, 1, 1, 1, 1e-9], dtype=torch.float64)
    problem = PoissonProblem(x_RF, torch.tensor(counts, dtype=torch.float64), torch.full((3,), -1.0).double(), relative)
    fit = problem.fit(20.0, tolerance=1e-12)
    assert fit.converged
    for unit in range(3):
        # scikit-learn's penalty is half alpha per mean deviance
        other = PoissonRegressor(alpha=20 / 400, tol=1e-10, max_iter=1000).fit(x, counts[:, unit])
        np.testing.assert_allclose(fit.weight_FU[:4, unit], other.coef_, atol=1e-5)
        assert float(fit.weight_FU[4, unit]) - 1 == pytest.approx(other.intercept_, abs=1e-5)


def test_silent_unit_stays_at_its_prior():
    x = torch.cat([torch.randn(500, 2, generator=torch.Generator().manual_seed(0)), torch.ones(500, 1)], 1)
    rate = torch.tensor([0.5 / 500])
    fit = PoissonProblem(x, torch.zeros(500, 1), rate.log(), torch.tensor([1.0, 1, 1e-4])).fit(100.0)
    assert fit.converged and torch.isfinite(fit.weight_FU).all() and fit.weight_FU[-1].abs() < 100


def test_raised_cosines():
    np.testing.assert_array_equal(raised_cosines(4, 6), np.eye(4))
    assert np.isfinite(raised_cosines(20, 16)).all() and raised_cosines(20, 16).shape[1] < 16
    basis = raised_cosines(25, 4)
    np.testing.assert_allclose(basis.sum(0), 1)
    assert (basis >= 0).all() and basis[0].argmax() == 0 and basis[-1, -1] == basis[:, -1].max()
    assert (np.diff(basis.argmax(0)) > 0).all() and basis.sum(1).min() > 0


def test_history_filters_see_only_what_they_may():
    shape = WindowShape(DT, 5, 10)
    for variant in ("past", "every"):
        filters = history_filters(shape, Choice(num_basis=3), variant).numpy()
        seen = (filters > 0).any(2)
        for b in range(5):
            limit = 10 if variant == "past" else 10 + b
            assert seen[:limit, b].all() and not seen[limit:, b].any()
    # the same distance has the same weight in every bin
    np.testing.assert_array_equal(filters[3, 0], filters[5, 2])


def test_history_features_against_a_loop():
    rng = np.random.default_rng(0)
    segment, tick, unit = rng.integers(0, 3, 200), rng.integers(0, 40, 200), rng.integers(0, 2, 200)
    index = SpikeIndex.from_ticks(segment, tick, unit, np.arange(3) * 10.0, np.full(3, 40), 2, DT)
    shape = WindowShape(DT, 2, 4)
    windows = Windows(np.array([0, 1, 2, 2]), np.array([0, 2, 10, 38]))
    filters = history_filters(shape, Choice(num_basis=2), "every")
    got = History(index, shape).features(windows, filters).reshape(4, 2, 2, 2)
    counts = np.zeros((3, 40, 2))
    np.add.at(counts, (segment, tick, unit), 1)
    for w in range(4):
        for b in range(2):
            want = np.zeros((2, 2))
            for place in range(6):
                t = windows.tick[w] - 4 + place
                if 0 <= t < 40:
                    want += counts[windows.segment[w], t][:, None] * filters[place, b].numpy()
            np.testing.assert_allclose(got[w, b], want, atol=1e-6)
    current = History(index, shape).current(windows).reshape(4, 2, 2)
    np.testing.assert_array_equal(current[3], counts[2, 38:40])


@pytest.mark.parametrize("until", ["stop", "start"])
def test_clips_hold_no_later_frame(until):
    rng = np.random.default_rng(0)
    frames = FrameSeries(
        rng.integers(0, 255, (60, 6, 5), dtype=np.uint8), np.arange(300) * 0.033 + 0.004, rng.integers(0, 60, 300)
    )
    rec = Recording(
        "seen",
        np.arange(1, 99) * 0.1,
        np.zeros(98, int),
        {"id": ["a"]},
        np.array([[0.0, 9.9]]),
        frames=frames,
    )
    _, split, index, config, norm = prepare(rec, window={"frames": 0.1, "frames_until": until}, split={"block": 2.0})
    clips = ClipComponents(frames, split, index, config, norm["frames"]["count"], 8)
    windows = Windows(np.zeros(3, int), np.array([0, 100, 555]))
    shown = clips._shown(windows).reshape(3, 5, 3)
    for w, tick in enumerate(windows.tick):
        for b in range(5):
            limit = tick * DT + (0.05 if until == "stop" else 0.0)
            stop = min(limit, (tick + b + 1) * DT)
            seen = (frames.times < stop - 1e-9) & (frames.times >= max(limit - 0.1, 0) - 1e-9)
            want = frames.index[np.flatnonzero(seen)][-3:]
            got = shown[w, b]
            np.testing.assert_array_equal(got[got >= 0], want)
    x = clips(tile(split.blocks["train"], WindowShape.from_config(config)), 4)
    assert x.shape[1] == 4 and torch.allclose(x.std(0), torch.ones(4), atol=0.3)


def _real(name, **config):
    path = SHARED / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no {path.name} in {SHARED.name}: the shared recordings are not on this machine")
    return prepare(open_recording(path), **config)


def _both(setup):
    past = fit_glm(*setup, variant="past")
    every = fit_glm(*setup, variant="every", like=past)
    _, split, index, _, norm = setup
    return [glm_bits_per_spike(g, split, index, norm) for g in (past, every)]


def test_hippocampus_bar():
    past, every = _both(
        _real(
            "hippocampus_linear",
            window={"dt": 0.05, "current": 0.25, "past": 1.0, "frames": 0.0},
            split={"block": 60.0, "gap": 1.25},
        )
    )
    assert past >= 0.64 and every > past


@pytest.mark.slow
def test_retina_bar():
    past, every = _both(
        _real(
            "retina_movie_2",
            window={"frames": 0.0},
            split={"by": "trials", "claim": "repeats"},
            inputs=[{"name": "trial_time", "encoding": "fourier"}],
        )
    )
    assert past >= 2.45 and every > past

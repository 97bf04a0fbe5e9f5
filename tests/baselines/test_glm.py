"""The GLM baselines: causal, converged, and strong where there is something to know."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from neuroformer.baselines.glm import design as glm_design
from neuroformer.baselines.glm import own_spikes
from neuroformer.baselines.glm.clips import ClipComponents
from neuroformer.baselines.glm.design import Choice, filtered, history_filters, raised_cosines
from neuroformer.baselines.glm.fit import VARIANTS, Budget, fit_glm, fit_glms, glm_bits_per_spike
from neuroformer.baselines.glm.model import Glm
from neuroformer.baselines.glm.own_spikes import OwnSpikes
from neuroformer.baselines.glm.search import GRID
from neuroformer.baselines.glm.spikes import counts_around, patterns_around
from neuroformer.baselines.poisson_regression import PoissonProblem
from neuroformer.config import from_dict
from neuroformer.data.prepared import prepare as prepare_for
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape
from neuroformer.recording import ObservedIntervals, Recording, open_recording
from neuroformer.recording.recording import BehaviorVariable, FrameSeries

SHARED = Path(os.environ.get("NEUROFORMER_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
DT = 0.01


def prepare(rec, **config):
    return prepare_for(rec, from_dict(config))


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
def fitted(coupled):
    return fit_glms(coupled[0])


def index_with(index, moved):
    """The index after `moved(segment, tick, unit)` has changed its spikes."""
    segment = np.searchsorted(index.base, index.keys, side="right") - 1
    segment, tick, unit = moved(segment, index.keys - index.base[segment], index.unit)
    return SpikeIndex.from_ticks(segment, tick, unit, index.origins, index.num_ticks, index.num_units, index.dt)


def test_recovers_coupling_and_inputs(coupled, fitted):
    prepared, rates = coupled
    windows, index = prepared.windows("test"), prepared.index
    true = rates[(windows.tick[:, None] + np.arange(5)).ravel()]
    every = fitted["every"].rates(windows).reshape(true.shape)
    for unit in (1, 2, 3):
        assert np.corrcoef(np.log(every[:, unit]), np.log(true[:, unit]))[0, 1] > 0.85
    scores = {v: glm_bits_per_spike(g, prepared) for v, g in fitted.items()}
    assert scores["every"] > scores["past"] > 0.1
    assert abs(scores["same_bin"] - scores["every"]) < 0.02  # nothing happens within a bin
    # one spike of unit 0 at bin 3000: unit 1 answers two and three bins later, the others do not
    at = Windows(np.array([0]), np.array([3000]))
    none = index_with(index, lambda s, t, u: (s[:0], t[:0], u[:0]))
    one = index_with(index, lambda s, t, u: (np.array([0]), np.array([3000]), np.array([0])))
    answer = fitted["every"].rates(at, one)[0] / fitted["every"].rates(at, none)[0]
    assert answer[2:4, 1].min() > 2 and (np.abs(np.log(answer[:, 2:])) < 0.35).all()
    np.testing.assert_array_equal(answer[0], 1)
    np.testing.assert_array_equal(fitted["past"].rates(at, one), fitted["past"].rates(at, none))


def test_future_spikes_change_nothing(coupled, fitted):
    prepared, _ = coupled
    rng, index = np.random.default_rng(1), prepared.index
    windows = prepared.windows("test")
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


def test_a_bin_is_seen_in_the_order_of_its_tokens(coupled, fitted):
    """Spikes of a unit in the predicted bin change the rates of higher units in that bin, and of no others."""
    prepared, _ = coupled
    at, same_bin = Windows(np.array([0]), np.array([3000])), fitted["same_bin"]
    for unit in range(5):
        more = index_with(
            prepared.index, lambda s, t, u, unit=unit: (np.append(s, 0), np.append(t, 3002), np.append(u, unit))
        )
        moved = same_bin.rates(at, more)[0] != same_bin.rates(at)[0]
        assert not moved[:2].any() and not moved[2, : unit + 1].any() and moved[2, unit + 1 :].all()


def test_no_weights_is_the_null(coupled, fitted):
    glm = fitted["past"]
    weights, glm.weights = glm.weights, [torch.zeros_like(w) for w in glm.weights]
    assert glm_bits_per_spike(glm, coupled[0]) == pytest.approx(0, abs=1e-5)
    glm.weights = weights


def test_choice_says_what_was_chosen(fitted):
    assert tuple(fitted) == VARIANTS
    for variant, glm in fitted.items():
        choice = glm.choice
        assert choice["variant"] == variant and choice["converged"] and choice["tried"]
        assert choice["num_features"] == len(glm.weights[0]) - 1 and choice["form"] == "full"
        assert choice["valid_bits_per_spike"] > 0
        for name, grid in GRID.items():
            assert choice[name] in grid


def test_same_seed_same_fit(coupled, fitted):
    again = fit_glm(coupled[0], variant="past")
    assert torch.equal(again.weights[0], fitted["past"].weights[0])
    with pytest.raises(ValueError, match="'past' or 'every' or 'same_bin'"):
        fit_glm(coupled[0], variant="future")  # pyright: ignore[reportArgumentType]


def test_a_small_budget_costs_little(coupled, fitted):
    """Expected counts from a quarter of the bins, spikes from all: close to the whole fit."""
    small = Budget(tune_rows=4_000, tune_counts=0, search_work=1, fit_work=1, least_rows=5_000)
    glm = fit_glm(coupled[0], variant="every", budget=small)
    assert glm.choice["rows"] == 5_000 and glm.choice["spikes_of_rows"] > 15_000
    whole = glm_bits_per_spike(fitted["every"], coupled[0])
    assert whole - 0.02 < glm_bits_per_spike(glm, coupled[0]) < whole + 0.02


def seeing(frames=1500, units=6, side=14):
    """Units that each weigh every pixel of white noise: nearly two hundred components tell something of them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (frames, side, side), dtype=np.uint8)
    z = (images.reshape(frames, -1) - 127.5) / 74
    weights = rng.normal(size=(side * side, units)) / side
    counts = rng.poisson(0.15 * np.exp(1.2 * np.repeat(z @ weights, 5, 0)))
    b, u = np.nonzero(counts)
    rec = Recording(
        "seeing",
        np.repeat((b + 0.5) * DT, counts[b, u]),
        np.repeat(u, counts[b, u]),
        {"id": np.arange(units)},
        np.array([[0.0, frames * 5 * DT]]),
        frames=FrameSeries(images, np.arange(frames) * 5 * DT, np.arange(frames)),
    )
    return prepare(rec, window={"frames": 5 * DT, "past": 2 * DT}, split={"block": 10.0})


def test_where_a_sample_is_too_small_for_its_features_the_spikes_of_other_bins_are_left_out(monkeypatch):
    """Spikes of bins whose expected counts nobody sees pull on every feature without a cost; held-out windows see it."""
    seen, real, prepared = [], Glm.log_likelihood, seeing()
    monkeypatch.setattr(Glm, "log_likelihood", lambda *args: (seen.append(real(*args)), seen[-1])[1])
    tight = Budget(tune_rows=9_000, tune_counts=0, search_work=1e9, fit_work=1, least_rows=1_500)
    glm = fit_glm(prepared, variant="past", budget=tight)
    alone, every, kept = (model / spikes for model, _, spikes in seen[-3:])
    assert glm.choice["spikes_of_rows"] == glm.choice["rows"] == 1_500 and glm.choice["components"] > 50
    assert kept == alone > every + 0.05


@pytest.fixture(scope="module")
def patterned():
    """24 units: the first half follow one slow pattern; unit 20 repeats its own spikes; unit 23 is a copy of unit 3."""
    rng = np.random.default_rng(0)
    bins, units = 20_000, 24
    slow = np.repeat(rng.normal(size=bins // 100), 100)
    counts = rng.poisson(0.06 * np.exp(1.2 * slow[:, None] * (np.arange(units) < 12)))
    for b in range(1, bins):
        counts[b, 20] = rng.poisson(0.02 + 0.5 * min(counts[b - 1, 20], 1))
    counts[:, 23] = counts[:, 3]
    b, u = np.nonzero(counts)
    number = counts[b, u]
    rec = Recording(
        "patterned",
        np.repeat((b + 0.5) * DT, number),
        np.repeat(u, number),
        {"id": np.arange(units)},
        np.array([[0.0, bins * DT]]),
    )
    return prepare(rec, window={"frames": 0.0}, split={"block": 20.0})


def test_a_large_population_enters_through_patterns(patterned, monkeypatch):
    quick = Budget(tune_rows=3_000, tune_counts=0, search_work=1, least_rows=6_000)
    full = fit_glms(patterned, budget=quick)
    monkeypatch.setattr(glm_design, "FULL_UNITS", 8)
    monkeypatch.setattr(glm_design, "_GROUP", 10)
    few = fit_glms(patterned, budget=dataclasses.replace(quick, fit_work=1))
    bits = {v: (glm_bits_per_spike(full[v], patterned), glm_bits_per_spike(few[v], patterned)) for v in VARIANTS}
    for variant in VARIANTS:
        assert full[variant].choice["form"] == "full" and few[variant].choice["form"] == "patterns"
        assert few[variant].choice["rows"] == 6_000
        one_by_one, patterns = bits[variant]
        assert patterns > one_by_one - 0.03, variant
    assert bits["every"][0] > bits["past"][0] + 0.03 and bits["every"][1] > bits["past"][1] + 0.03
    assert bits["same_bin"][0] > bits["every"][0] + 0.2  # the copy
    # the chain rule: what a unit fires in a bin tells nothing of itself or of lower units in that bin
    at = Windows(np.array([0]), np.array([3000]))
    for unit in (3, 15, 23):
        more = index_with(
            patterned.index, lambda s, t, u, unit=unit: (np.append(s, 0), np.append(t, 3002), np.append(u, unit))
        )
        moved = few["same_bin"].rates(at, more)[0] != few["same_bin"].rates(at)[0]
        assert not moved[:2].any() and not moved[2, : unit + 1].any()


def test_a_copy_with_jitter_is_nearly_a_copy():
    """Five of ten units copied at 2 ms of jitter: most of what a perfect observer gains."""
    rng = np.random.default_rng(0)
    seconds, rate, units = 400.0, 2.0, 10
    times = [np.sort(rng.uniform(0, seconds, rng.poisson(seconds * rate))) for _ in range(units)]
    times += [t + rng.normal(0, 0.002, len(t)) for t in times[:5]]
    unit = np.repeat(np.arange(units + 5), [len(t) for t in times])
    times = np.concatenate(times)
    keep = (times > 0) & (times < seconds)
    order = np.argsort(times[keep])
    rec = Recording("copies", times[keep][order], unit[keep][order], {"id": np.arange(15)}, np.array([[0.0, seconds]]))
    prepared = prepare(rec, window={"frames": 0.0})
    glms = fit_glms(prepared)
    bits = {v: glm_bits_per_spike(g, prepared) for v, g in glms.items()}
    assert glms["same_bin"].choice["own_spikes"]
    # a third of the spikes are copies; one costs log2(1 / rate) bits and a nat of exposure less, but for its jitter
    late = 2 * 0.002 * (2 / np.pi) ** 0.5 / 0.01 / 2
    place = -((1 - late) * np.log2(1 - late) + late * np.log2(late / 2))
    ideal = (np.log2(1 / (rate * 0.01)) + 1 / np.log(2) - place) / 3
    assert bits["past"] < 0.02 and bits["every"] < 0.3 * ideal
    assert bits["same_bin"] > ideal - 0.2


def test_own_spikes_are_a_distribution_of_counts():
    z = torch.linspace(-3, 0.5, 6)[:, None].repeat(1, 2)
    rng = np.random.default_rng(0)
    rate = torch.linspace(-4, 0, 4000)[:, None]
    poisson = torch.from_numpy(rng.poisson(rate.exp().numpy())).float()
    once = (torch.rand(4000, 1, generator=torch.Generator().manual_seed(0)) < rate.exp()).float()
    lines = OwnSpikes.fit(rate.repeat(1, 2), torch.cat([poisson, once], 1))
    for unit in range(2):
        of_unit = OwnSpikes(lines.first_2U[:, unit : unit + 1], lines.further_2U[:, unit : unit + 1])
        for r in range(6):
            each = [of_unit.log_likelihood(torch.tensor([[float(k)]]), z[r : r + 1, :1]) for k in range(60)]
            assert np.exp(each).sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(lines.first_2U[:, 0], [0, 1], atol=0.15)  # a Poisson unit stays one
    ll = lambda counts, unit: OwnSpikes(
        lines.first_2U[:, unit : unit + 1], lines.further_2U[:, unit : unit + 1]
    ).log_likelihood(counts, rate)
    loss = float((once * rate - rate.exp()).sum())
    assert ll(once, 1) > loss + 50  # a unit that fires at most once is told apart from a Poisson one


def test_own_spikes_in_pieces_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    z = torch.from_numpy(rng.normal(-1, 0.5, (300, 7))).float()
    counts = torch.from_numpy(rng.poisson(z.exp().numpy())).float()
    whole = OwnSpikes.fit(z, counts)
    expected = whole.log_likelihood(counts, z)
    monkeypatch.setattr(own_spikes, "_CELLS", 900)
    pieces = OwnSpikes.fit(z, counts)
    torch.testing.assert_close(pieces.first_2U, whole.first_2U, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pieces.further_2U, whole.further_2U, atol=1e-5, rtol=1e-5)
    assert whole.log_likelihood(counts, z) == pytest.approx(expected)


def test_optimum_agrees_with_scikit_learn():
    from sklearn.linear_model import PoissonRegressor

    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    counts = rng.poisson(np.exp(x @ rng.normal(size=(4, 3)) * 0.4 - 0.5))
    x_RF = torch.tensor(np.hstack([x, np.ones((400, 1))]), dtype=torch.float64)
    relative = torch.tensor([1.0, 1, 1, 1, 1e-9], dtype=torch.float64)
    x_counts = x_RF.T @ torch.tensor(counts, dtype=torch.float64)
    problem = PoissonProblem(x_RF, x_counts, torch.full((3,), -1.0).double(), relative)
    fit = problem.fit(20.0, tolerance=1e-12)
    assert fit.converged
    for unit in range(3):
        # scikit-learn's penalty is half alpha per mean deviance
        other = PoissonRegressor(alpha=20 / 400, tol=1e-10, max_iter=1000).fit(x, counts[:, unit])
        np.testing.assert_allclose(fit.weight_FU[:4, unit], other.coef_, atol=1e-5)
        assert float(fit.weight_FU[4, unit]) - 1 == pytest.approx(other.intercept_, abs=1e-5)


def test_a_feature_that_is_not_allowed_has_no_weight():
    x = torch.cat([torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), torch.ones(500, 1)], 1)
    counts = (0.5 * x[:, :1] + x[:, 1:2] - 1).exp().repeat(1, 2)
    relative, allowed = torch.tensor([1.0, 1, 1, 1e-4]), torch.ones(4, 2)
    allowed[1, 0] = 0
    fit = PoissonProblem(x, x.T @ counts, torch.zeros(2), relative, allowed).fit(1.0, tolerance=1e-9)
    keep = [0, 2, 3]
    alone = PoissonProblem(x[:, keep], x[:, keep].T @ counts[:, :1], torch.zeros(1), relative[keep]).fit(
        1.0, tolerance=1e-9
    )
    assert fit.weight_FU[1, 0] == 0 and fit.weight_FU[1, 1] > 0.8
    torch.testing.assert_close(fit.weight_FU[keep, 0], alone.weight_FU[:, 0], atol=1e-3, rtol=1e-3)


def test_silent_unit_stays_at_its_prior():
    x = torch.cat([torch.randn(500, 2, generator=torch.Generator().manual_seed(0)), torch.ones(500, 1)], 1)
    rate = torch.tensor([0.5 / 500])
    fit = PoissonProblem(x, torch.zeros(3, 1), rate.log(), torch.tensor([1.0, 1, 1e-4])).fit(100.0)
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
    seen = counts_around(index, windows, shape.past, shape.current)
    got = filtered(seen, filters).reshape(4, 2, 2, 2)
    mix = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]])
    torch.testing.assert_close(patterns_around(index, windows, shape.past, shape.current, mix), seen @ mix)
    lower = patterns_around(index, windows, shape.past, shape.current, mix[:1])
    torch.testing.assert_close(lower, seen[:, :, :1] @ mix[:1])
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
    current = counts_around(index, windows, 0, 2)
    np.testing.assert_array_equal(current[3], counts[2, 38:40])


@pytest.mark.parametrize("until", ["stop", "start"])
def test_clips_hold_no_later_frame(until):
    rng = np.random.default_rng(0)
    frames = FrameSeries(
        rng.integers(0, 255, (60, 6, 5), dtype=np.uint8), np.arange(300) * 0.033 + 0.004, rng.integers(0, 60, 300)
    )
    rec = Recording(
        "seen",
        np.sort(rng.uniform(0, 9.9, 98)),
        np.zeros(98, int),
        {"id": ["a"]},
        np.array([[0.0, 9.9]]),
        frames=frames,
    )
    prepared = prepare(rec, window={"frames": 0.1, "frames_until": until}, split={"block": 2.0})
    clips = ClipComponents(prepared, 8)
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
    x = clips(prepared.windows("train"), 4)
    assert x.shape[1] == 4 and torch.allclose(x.std(0), torch.ones(4), atol=0.3)


def _real(name, **config):
    path = SHARED / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no {path.name} in {SHARED.name}: the shared recordings are not on this machine")
    return prepare(open_recording(path), **config)


def _both(prepared):
    past = fit_glm(prepared, variant="past")
    every = fit_glm(prepared, variant="every", like=past)
    return [glm_bits_per_spike(g, prepared) for g in (past, every)]


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


def test_silence_of_an_unobserved_unit_is_nothing_to_predict():
    """A Poisson unit that is observed in turns: as silence, its past predicts it well; unobserved, nothing does."""
    rng = np.random.default_rng(3)
    seconds, spans = 240.0, np.arange(0, 240, 4.0)[:, None] + np.array([0, 2.0])
    times = np.sort(rng.uniform(0, seconds, 4800))
    units = rng.integers(0, 2, len(times))
    hidden = (units == 1) & (times % 4 >= 2)
    rec = Recording("r", times[~hidden], units[~hidden], {"id": np.arange(2)}, np.array([[0.0, seconds]]))
    seen = dataclasses.replace(
        rec, observed=ObservedIntervals.from_units([np.array([[0, seconds]]), spans]), checked_spikes=None
    )
    config = {"window": {"frames": 0, "past": 0.5, "current": 0.1}, "split": {"block": 20.0}}
    bits = {}
    for name, one in (("silent", rec), ("observed", seen)):
        prepared = prepare(one, **config)
        glm = fit_glm(prepared, variant="every", budget=Budget(search_work=1e8))
        bits[name] = glm_bits_per_spike(glm, prepared)
    assert bits["silent"] > 0.1 and abs(bits["observed"]) < 0.02, bits

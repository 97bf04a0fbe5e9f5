"""Continuous activity: likelihoods that are ones, simulations that see only what they made, the whole line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from helpers import shared_recording, small_recording
from scipy import stats

import neuroformer
from neuroformer.cli import main
from neuroformer.config import ConfigError, apply_overrides, from_dict, to_dict
from neuroformer.data.prepared import prepare
from neuroformer.data.recordings import lacking
from neuroformer.data.traces import TraceIndex
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape
from neuroformer.generation import simulate as module
from neuroformer.generation.sequences import prepared_whole
from neuroformer.generation.simulate import simulate
from neuroformer.generation.stimulus import silence
from neuroformer.generation.store import SimulationError, SimulationFolder
from neuroformer.intervals import FewBlocksWarning
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording
from neuroformer.recording.formats.npz import write_npz
from neuroformer.recording.recording import Traces
from neuroformer.simulation_scores.whatif import rate_changes
from neuroformer.studies.forecast import forecast
from neuroformer.training.scoring.scores import NLL, NULL, NUMBER, score

KEEP = 0.9  # of an autoregression, which knows -log2(1 - 0.81) / 2 = 1.198 bits of each sample


def recording(samples=3000, units=4, seed=0, kind="gaussian") -> Recording:
    rng = np.random.default_rng(seed)
    x = np.zeros((samples, units))
    for k in range(1, samples):
        x[k] = KEEP * x[k - 1] + np.sqrt(1 - KEEP**2) * rng.normal(size=units)
    if kind == "gamma":  # active half of the time, with amplitudes of a gamma distribution
        x = np.where(x > 0, rng.gamma(2.0, 1.5, x.shape), 0.0)
    times = (np.arange(samples) + 0.5) / 10
    return Recording(
        "t",
        np.zeros(0),
        np.zeros(0, int),
        {"id": np.arange(units)},
        np.array([[0, samples / 10]]),
        traces=Traces(times, 3 + 2 * x if kind == "gaussian" else x, "dF/F"),
    )


def config(likelihood="gaussian", **train):
    return from_dict(
        {
            "name": "traces",
            "window": {"dt": 0.1, "current": 0.1, "past": 0.5, "frames": 0.0},
            "traces": {"likelihood": likelihood},
            "split": {"block": 12.0},
            "generate": {"max_seconds": 3.0},
            "model": {"width": 16, "heads": 2, "dropout": 0.0},
            "train": {
                "steps": 120,
                "batch_size": 128,
                "lr": 0.02,
                "evaluate_every": 40,
                "accelerator": "cpu",
            }
            | train,
        }
    )


def model_of(rec, likelihood, seed=0, shaken=True):
    prepared = prepare(rec, config(likelihood))
    torch.manual_seed(seed)
    model = Neuroformer(prepared.config, rec.num_units, prepared.normalization).double().eval()
    if shaken:
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.05 * torch.randn_like(p))
    return model, prepared


# -- likelihoods ------------------------------------------------------------------------------------------


def test_golden_likelihoods():
    model, _ = model_of(recording(), "gaussian")
    x = torch.tensor([[[0.5, -1.0, 2.0, float("nan")]]], dtype=torch.float64)
    p = torch.tensor([[[[0.1, 0.2], [0.0, -0.5], [1.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    expected = -stats.norm.logpdf([0.5, -1.0, 2.0], [0.1, 0.0, 1.0], np.exp([0.2, -0.5, 0.0]))
    np.testing.assert_allclose(model.observation.each_nll(p, x), expected, rtol=1e-9)
    model, _ = model_of(recording(kind="gamma"), "gamma")
    x = torch.tensor([[[0.0, 1.5, 4.0, 0.3]]], dtype=torch.float64)
    logit, log_mean, log_shape = (
        np.array([0.3, -1.0, 2.0, 0.0]),
        np.log([2.0, 1.0, 3.0, 0.5]),
        np.log([1.0, 2.0, 0.7, 5.0]),
    )
    p = torch.from_numpy(np.stack([log_mean, log_shape, logit], 1))[None, None]
    share, shape, mean = 1 / (1 + np.exp(-logit)), np.exp(log_shape), np.exp(log_mean)
    density = stats.gamma.logpdf(x.numpy()[0, 0], shape, scale=mean / shape)
    expected = -np.where(x.numpy()[0, 0] > 0, np.log(share) + density, np.log1p(-share))
    np.testing.assert_allclose(model.observation.each_nll(p, x), expected, rtol=1e-9)


def test_the_zero_inflated_gamma_is_a_distribution():
    """Mass at zero and the integral above it make one; what is drawn follows it."""
    model, _ = model_of(recording(kind="gamma"), "gamma")
    p = torch.tensor([0.7, 0.3, 0.4], dtype=torch.float64)
    grid = torch.linspace(1e-6, 80, 400_001, dtype=torch.float64)
    density = (-model.observation.each_nll(p.expand(1, 1, len(grid), 3), grid[None, None])).exp()
    zero = (-model.observation.each_nll(p.expand(1, 1, 1, 3), torch.zeros(1, 1, 1, dtype=torch.float64))).exp()
    assert float(torch.trapezoid(density, grid) + zero) == pytest.approx(1, abs=1e-3)
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    drawn = model.observation.draw(p.expand(1, 1, len(u), 3), u[None, None]).numpy().ravel()
    assert (drawn == 0).mean() == pytest.approx(float(zero), abs=1e-3)
    assert drawn[drawn > 0].mean() == pytest.approx(np.exp(0.7), rel=0.01)


@pytest.mark.parametrize("kind", ["gaussian", "gamma"])
def test_an_untrained_head_is_the_marginal(kind):
    rec = recording(samples=1200, kind=kind)
    model, prepared = model_of(rec, kind, shaken=False)
    scores = score(model, prepared, "test")
    assert scores.bits() == pytest.approx(0, abs=1e-6)
    # one sample a bin; a block that opens no segment gives its first bins to the past
    assert scores.number == rec.num_units * len(prepared.windows("test")) > 100
    scale = prepared.normalization.traces
    x = rec.traces.values[
        [k for a, b in prepared.split.intervals("train") for k in range(round(a * 10), round(b * 10))]
    ]
    np.testing.assert_allclose(scale.mean, x.mean(0), rtol=1e-4)
    if kind == "gamma":
        fitted = [stats.gamma.fit(v[v > 0], floc=0)[0] for v in x.T.astype(float)]
        np.testing.assert_allclose(scale.shape, fitted, rtol=0.02)
        np.testing.assert_allclose(scale.level, 3.0, rtol=0.15)


def test_the_interval_is_over_held_out_time_and_a_short_one_has_none():
    model, prepared = model_of(recording(samples=1200), "gaussian")
    scores = score(model, prepared, "test")
    windows = np.concatenate(scores.windows)
    assert (windows[:, NULL] - windows[:, NLL]).sum() / windows[:, NUMBER].sum() / np.log(2) == pytest.approx(
        scores.bits()
    )
    low, high = scores.interval()
    assert low < scores.bits() < high
    scores.windows = [windows[:12]]
    with pytest.warns(FewBlocksWarning, match="no 95 % interval of bits"):
        assert np.isnan(scores.interval()).all()


# -- data -------------------------------------------------------------------------------------------------


def test_windows_hold_the_samples_of_their_bins():
    rec = recording(samples=100)
    rec.traces.values[40] = np.nan
    index = SpikeIndex.from_recording(rec, np.array([[0.0, 5.0], [6.0, 10.0]]), 0.1)
    traces, shape = TraceIndex(rec, index), WindowShape(0.1, 2, 3)
    seen = traces.windows(Windows(np.array([0, 0, 1]), np.array([39, 1, 0])), shape)
    np.testing.assert_array_equal(seen.past_WLU[0], rec.traces.values[36:39])
    np.testing.assert_array_equal(seen.current_WBU[0], rec.traces.values[39:41])
    assert seen.past_WLU[1, :2].isnan().all() and not seen.past_WLU[1, 2].isnan().any()
    assert seen.past_WLU[2].isnan().all()  # a segment knows nothing of the one before
    np.testing.assert_array_equal(seen.current_WBU[2], rec.traces.values[60:62])


def test_what_cannot_be_modelled_is_refused():
    rec = recording(samples=900)
    with pytest.raises(ConfigError, match="two samples fall into one bin"):
        prepare(rec, replace(config(), window=replace(config().window, dt=0.2, current=0.2, past=0.4)))
    with pytest.raises(ConfigError, match="zero or more, use 'gaussian'"):
        prepare(rec, config("gamma"))
    with pytest.raises(ConfigError, match="has no traces"):
        prepare(replace(rec, traces=None), config())
    with pytest.raises(ConfigError, match="none where traces are modelled"):
        from_dict({"traces": {"likelihood": "gaussian"}, "targets": [{"name": "speed"}]})


def test_spikes_of_the_same_cells_are_out_of_reach():
    rec = recording(samples=900)
    spiking = replace(rec, spike_times=np.arange(1.0, 90), spike_units=np.zeros(89, int))
    assert prepare(spiking, config()).builder(Windows(np.array([0]), np.array([50]))).past.total == 0


# -- simulation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gaussian", "gamma"])
def test_a_simulation_sees_what_it_made_and_nothing_else(kind):
    rec = recording(samples=1200, kind=kind)
    model, prepared = model_of(rec, kind)
    run = lambda p, m=model: simulate(m, p, progress=False).recording
    first = run(prepared)
    start = prepared.split.intervals("test")[0, 0]
    values = rec.traces.values.copy()
    values[rec.traces.times > start] = 99.0  # all that is to be simulated, and all behind it
    late = prepare(replace(rec, traces=Traces(rec.traces.times, values)), config(kind), prepared.normalization)
    stop = first.trial_intervals[0, 1]
    here = lambda r: r.traces.values[r.traces.times < stop]
    np.testing.assert_array_equal(here(run(late)), here(first))
    values = rec.traces.values.copy()
    values[(rec.traces.times > start - 0.5) & (rec.traces.times < start)] += 1.0  # the past that it starts from
    early = prepare(replace(rec, traces=Traces(rec.traces.times, values)), config(kind), prepared.normalization)
    assert not np.array_equal(here(run(early)), here(first))


def test_a_sequence_draws_the_same_alone_and_among_many():
    rec = recording(samples=1200)
    model, prepared = model_of(rec, "gaussian")
    many = from_dict({**neuroformer.config.to_dict(prepared.config), "generate": {"samples": 3, "max_seconds": 2.0}})
    one = from_dict({**neuroformer.config.to_dict(prepared.config), "generate": {"samples": 1, "max_seconds": 2.0}})
    runs = [simulate(model, replace(prepared, config=c), progress=False).recording for c in (many, one)]
    of = lambda r, q: r.traces.values[(r.traces.times > r.trials["start"][q]) & (r.traces.times < r.trials["stop"][q])]
    np.testing.assert_allclose(of(runs[0], 0), of(runs[1], 0), rtol=1e-6)
    assert np.abs(of(runs[0], 0) - of(runs[0], 1)).max() > 0.1  # another sample of the same block


def changed(prepared, **generate):
    return from_dict(
        apply_overrides(neuroformer.config.to_dict(prepared.config), [f"generate.{k}={v}" for k, v in generate.items()])
    )


def run_of(model, p, config, **options):
    return simulate(model, replace(p, config=config), progress=False, **options)


def test_a_killed_simulation_of_traces_goes_on_to_the_identical_result(tmp_path, monkeypatch):
    rec = recording(samples=1200)
    model, p = model_of(rec, "gaussian")
    c = changed(p, samples=3, batch_size=4, max_seconds=4.0)
    whole = run_of(model, p, c)
    monkeypatch.setattr(module, "FLUSH_S", 0.0)  # every window is a file of its own
    write, left = SimulationFolder.write, [9]

    def dies(self, *args):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, *args)

    monkeypatch.setattr(SimulationFolder, "write", dies)
    with pytest.raises(KeyboardInterrupt):
        run_of(model, p, c, folder=tmp_path / "parts")
    monkeypatch.setattr(SimulationFolder, "write", write)
    assert len(list((tmp_path / "parts").glob("*.h5"))) == 9
    again = run_of(model, p, c, folder=tmp_path / "parts")
    assert again.recording.sha256() == whole.recording.sha256()
    np.testing.assert_array_equal(again.recording.traces.values, whole.recording.traces.values)
    # shares of two processes make the same whole
    for share in ((1, 2), (2, 2)):
        assert run_of(model, p, c, folder=tmp_path / "shared", share=share) is None
    both = run_of(model, p, c, folder=tmp_path / "shared").recording
    np.testing.assert_allclose(both.traces.values, whole.recording.traces.values, rtol=1e-6)
    with pytest.raises(SimulationError, match="differs in seed"):
        run_of(model, p, replace(c, seed=5), folder=tmp_path / "shared")


def test_what_if_of_traces(tmp_path):
    rec = recording(samples=1200)
    model, p = model_of(rec, "gaussian")
    runs = lambda text, **more: run_of(model, p, changed(p, interventions=text, **more)).recording
    base = runs("[]")
    at = lambda r, q=0: r.traces.values[
        (r.traces.times > r.trials["start"][q]) & (r.traces.times < r.trials["stop"][q])
    ]
    silent = runs("[{do: silence, units: [1], start: 1, stop: 2}]")
    assert (at(silent)[10:20, 1] == 0).all() and (at(base)[10:20, 1] != 0).all()
    np.testing.assert_array_equal(at(silent)[:10], at(base)[:10])
    assert np.abs(at(silent)[20:] - at(base)[20:]).max() > 0  # the model saw it
    clamped = runs("[{do: clamp, units: [0, 2], value: 4}]")
    assert (clamped.traces.values[:, [0, 2]] == 4).all() and (clamped.traces.values[:, 1] != 4).all()
    true = runs("[{do: clamp, units: [3], value: -1}]")
    begin = true.trials["source_start"][0]
    inside = (rec.traces.times > begin) & (rec.traces.times < begin + 3.0)
    np.testing.assert_array_equal(at(true)[:, 3], rec.traces.values[inside, 3])
    driven = runs("[{do: drive, units: [2], value: 0.5}]")
    np.testing.assert_allclose(at(driven)[0, 2], at(base)[0, 2] + 0.5, rtol=1e-6)  # the same random numbers
    change = rate_changes(base, clamped)
    assert change.after_U[0] == 4 and change.before_U[0] == pytest.approx(base.traces.values[:, 0].mean(), rel=1e-5)
    with pytest.raises(ConfigError, match="there is no unit 4; expected 0 to 3"):
        runs("[{do: silence, units: [4]}]")


def test_traces_of_a_stretch_from_a_given_past_and_of_a_new_stimulus():
    rec = recording(samples=1200)
    model, p = model_of(rec, "gaussian")
    stretch = run_of(model, p, changed(p, interval="[30, 33]")).recording
    assert stretch.trials["source_start"].tolist() == [30.0] and stretch.traces.values.shape == (30, 4)
    given = run_of(model, p, changed(p, interval="[30, 33]", past_from=90)).recording
    assert not np.array_equal(given.traces.values, stretch.traces.values)
    other = replace(
        rec, traces=Traces(rec.traces.times, np.where((rec.traces.times < 89.4)[:, None], 7.0, rec.traces.values))
    )
    same = prepare(other, p.config, p.normalization)
    again = run_of(model, same, changed(p, interval="[30, 33]", past_from=90)).recording
    np.testing.assert_array_equal(again.traces.values, given.traces.values)
    new = silence(5.0, rec.unit_ids, p.config)
    whole = prepared_whole(new, changed(p, max_seconds=0), p.normalization)
    made = simulate(model, whole, progress=False)
    assert made.recording.traces.values.shape == (50, 4) and np.isfinite(made.recording.traces.values).all()


# -- the whole line ---------------------------------------------------------------------------------------


def test_traces_are_forecast_beside_the_last_value():
    """An autoregression of first order is forgotten at a known pace: squared error 1 - KEEP^2h, that of copying 2 - 2 KEEP^h."""
    model, prepared = model_of(recording(), "gaussian", shaken=False)
    found = forecast(model.float(), prepared, [0.1, 0.5], samples=2)
    each = {name: [v[0] for v in scores["mse_over_copied"]] for name, scores in found.scores["candidates"].items()}
    wanted = [(1 - KEEP ** (2 * h)) / (2 - 2 * KEEP**h) for h in (1, 5)]
    np.testing.assert_allclose(each["autoregression"], wanted, rtol=0.1)
    # an untrained network expects the mean at any time
    mean = np.broadcast_to(prepared.normalization.traces.mean, found.expected["model"][:, 0].shape)
    np.testing.assert_allclose(found.expected["model"][:, 0], mean, atol=1e-5)
    assert each["last_value"][0] < each["model"][0] and "minus" not in found.scores


def test_an_autoregression_is_learnt_scored_and_simulated(tmp_path, capsys):
    write_npz(recording(samples=6000), tmp_path / "t.npz")
    tree = neuroformer.config.to_dict(config())
    tree["recording"]["path"] = str(tmp_path / "t.npz")
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(tree))
    run = str(tmp_path / "run")
    assert main(["audit", str(tmp_path / "t.yaml")]) == 0
    assert main(["train", "--config", str(tmp_path / "t.yaml"), "--run", run, "--quiet"]) == 0
    assert main(["generate", "--run", run, "--quiet", "generate.samples=2", "generate.max_seconds=0"]) == 0
    s = json.loads((tmp_path / "run" / "summary.json").read_text())
    truth = -0.5 * np.log2(1 - KEEP**2)
    assert s["bits_per_sample"] == pytest.approx(truth, abs=0.12)
    assert s["bits_per_sample_low"] < s["bits_per_sample"] < s["bits_per_sample_high"] < truth + 0.2
    assert s["bits_per_sample_autoregression"] == pytest.approx(truth, abs=0.1)
    assert s["trace_lag1_held_out"] == pytest.approx(KEEP, abs=0.05)
    assert s["trace_lag1_simulated"] == pytest.approx(KEEP, abs=0.1)
    assert 0.6 < s["trace_std_ratio"] < 1.5 and s["trace_mean_shift"] < 0.6
    simulated = neuroformer.open_recording(tmp_path / "run" / "simulated.npz")
    assert simulated.num_spikes == 0 and np.isfinite(simulated.traces.values).all()
    assert "bits_per_spike" not in s
    capsys.readouterr()
    again = ["generate", "--run", run, "--quiet", "generate.samples=2", "generate.max_seconds=0"]
    what_if = ["--out", str(tmp_path / "silent.npz"), "--against", str(tmp_path / "run" / "simulated.npz")]
    assert main([*again, *what_if, "generate.interventions=[{do: silence, units: [1]}]"]) == 0
    out = capsys.readouterr().out
    assert "mean before" in out and "0.00" in out.split("mean before")[1].splitlines()[1]
    assert main(["generate", "--run", run, "--quiet", "--seconds", "4", "--out", str(tmp_path / "free.nwb")]) == 0
    free = neuroformer.open_recording(tmp_path / "free.nwb").traces
    assert free.values.shape == (30, 4)  # the run's generate.max_seconds is 3
    assert main([*again, "--score"]) == 2
    assert "--score is for spikes" in capsys.readouterr().err


@pytest.mark.parametrize("likelihood", ["gamma", "gaussian"])
def test_the_songbird(likelihood, tmp_path):
    path = shared_recording("songbird_hvc.npz")
    third = 1 / 30
    tree = neuroformer.config.to_dict(config(likelihood, steps=10, evaluate_every=5, batch_size=64))
    tree["recording"]["path"] = str(path)
    tree["window"] |= {"dt": third, "current": third, "past": 10 * third}
    tree["split"] |= {"block": 2.0, "gap": 10 * third}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(tree))
    run = str(tmp_path / "run")
    assert main(["train", "--config", str(tmp_path / "s.yaml"), "--run", run, "--quiet"]) == 0
    assert main(["generate", "--run", run, "--quiet", "generate.max_seconds=0.5"]) == 0
    s = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert np.isfinite(s["bits_per_sample"]) and np.isfinite(s["trace_std_ratio"])
    simulated = neuroformer.open_recording(tmp_path / "run" / "simulated.npz").traces.values
    assert (simulated.min() >= 0) == (likelihood == "gamma")


# -- beside spikes ----------------------------------------------------------------------------------------


def test_one_run_holds_recordings_of_traces_and_of_spikes(tmp_path):
    """The trunk is shared, each is scored by what was recorded of it, and each opens as what it is."""
    calcium, probe = tmp_path / "calcium.npz", tmp_path / "probe.npz"
    write_npz(replace(recording(), name="calcium"), calcium)
    write_npz(small_recording(seconds=120.0, frames=False), probe)
    folder = tmp_path / "run"
    both = [{"path": str(calcium), "name": "calcium"}, {"path": str(probe), "name": "probe"}]
    found = neuroformer.train(from_dict(to_dict(config(steps=60)) | {"recordings": both}), folder).metrics
    scores = {name: neuroformer.evaluate(folder, recording=name, baselines=False) for name in ("calcium", "probe")}
    assert scores["calcium"]["bits_per_sample"] > 0.3 and np.isfinite(scores["probe"]["bits_per_spike"])
    calcium_net, probe_net = (neuroformer.load_model(folder, recording=name) for name in ("calcium", "probe"))
    assert calcium_net.config.traces.likelihood == "gaussian" and probe_net.config.traces.likelihood == "none"
    shared = [dict(net.named_parameters())["blocks.0.mlp.1.weight"] for net in (calcium_net, probe_net)]
    torch.testing.assert_close(*shared)
    with (folder / "log" / "metrics.csv").open() as file:
        columns = file.readline()
    assert all(
        name in columns for name in ("train/traces", "train/id", "valid/bits_per_sample", "valid/bits_per_spike")
    )
    assert np.isfinite(found["valid_best_likelihood"])


def test_traces_that_nothing_has_are_missed():
    asked = from_dict(to_dict(config()) | {"recordings": [{"path": "a", "name": "a"}]})
    with pytest.raises(ConfigError, match="has the traces \\(traces.likelihood is set\\)"):
        lacking([replace(small_recording(), name="a")], asked)

"""Forecasts: the closed form of the first window, no sight of the future, baselines that know what they should."""

import json

import numpy as np
import pytest
import torch
import yaml
from helpers import small_config, small_model, small_recording

from neuroformer.baselines.forecasts import Counts, autoregressive_glm, naive
from neuroformer.cli import main
from neuroformer.config import ConfigError, to_dict
from neuroformer.data.windows import SpikeIndex, Windows
from neuroformer.generation.forecast import expected_ahead
from neuroformer.recording import Recording
from neuroformer.recording.formats.npz import write_npz
from neuroformer.studies.forecast import flat_scores, forecast

SPANS = [(0, 5), (3, 8), (10, 15), (15, 20)]  # windows of five bins


@pytest.fixture(scope="module")
def some():
    config = small_config(targets=[], window={"frames": 0.0}, loss={"contrast": []})
    return small_model(small_recording(frames=False), config)


def windows_of(prepared, number=6):
    return prepared.windows("test")[10 : 10 + number]


def changed(prepared, which):
    """The same spike times, other units where ``which`` says."""
    index = prepared.index
    unit = np.where(which, (index.unit + 1) % index.num_units, index.unit)
    new = SpikeIndex.from_ticks(
        np.zeros(len(unit), int), index.keys, unit, index.origins, index.num_ticks, index.num_units, index.dt
    )
    return prepared.with_spikes(new)


def test_the_first_window_is_the_closed_form_and_later_ones_go_on_from_it(some):
    model, prepared = some
    windows = windows_of(prepared)
    found = expected_ahead(model, prepared, windows, SPANS, samples=3)
    with torch.no_grad():
        rates = model.expected(prepared.builder(windows)).exp().numpy()
    np.testing.assert_allclose(found[:, 0], rates.sum(1), rtol=1e-6)
    assert found.shape == (6, 4, model.num_units) and (found > 0).all()
    # a span over two windows is the end of one and the beginning of the other
    whole = expected_ahead(model, prepared, windows, [(3, 5), (5, 8)], samples=3)
    np.testing.assert_allclose(found[:, 1], whole.sum(1), rtol=1e-6)


def test_expected_counts_are_those_that_simulated_trials_have(some):
    """The mean over very many draws of the next windows."""
    model, prepared = some
    windows = windows_of(prepared, 2)
    few, many = (expected_ahead(model, prepared, windows, SPANS, samples=n) for n in (400, 800))
    np.testing.assert_allclose(few, many, rtol=0.05)


def test_no_forecast_sees_the_future_and_all_see_the_past(some):
    model, prepared = some
    windows = windows_of(prepared)
    last, train = int(windows.tick[-1]), prepared.windows("train")
    later, before = changed(prepared, prepared.index.keys >= last), changed(prepared, prepared.index.keys < last)
    here = Windows(windows.segment[-1:], windows.tick[-1:])
    of = lambda p: expected_ahead(model, p, here, SPANS, samples=4)
    np.testing.assert_array_equal(of(prepared), of(later))
    assert not np.allclose(of(prepared), of(before))
    counts = [Counts(p).values(here, -5, 0) for p in (prepared, later, before)]
    np.testing.assert_array_equal(counts[0], counts[1])
    assert not np.array_equal(counts[0], counts[2])
    assert set(naive(prepared, train, here, SPANS)) == {"last_value", "running_mean"}


def test_counts_of_spans_golden(some):
    _, prepared = some
    index = SpikeIndex.from_ticks(np.zeros(3, int), [2, 4, 7], [0, 1, 1], np.zeros(1), np.array([20]), 2, 0.01)
    counts = Counts.__new__(Counts)
    counts.index, counts.mean_U = index, np.zeros(2)
    at = Windows(np.zeros(2, int), np.array([4, 7]))
    np.testing.assert_array_equal(counts.values(at, 0, 4), [[0, 2], [0, 1]])
    np.testing.assert_array_equal(counts.values(at, -3, 0), [[1, 0], [0, 1]])
    np.testing.assert_array_equal(counts.values(at, 1, 4), [[0, 1], [0, 0]])


def test_a_very_active_population_is_continued_less_often(some, monkeypatch):
    from neuroformer.generation import forecast as module

    _, prepared = some
    spikes = sum(prepared.normalization.unit_rate) * 15  # drawn by a continuation of three windows
    for budget, wanted in ((1e9, (1000, 16)), (spikes * 1000 * 8, (1000, 8)), (spikes * 2000, (500, 4)), (1, (200, 4))):
        monkeypatch.setattr(module, "MOST_DRAWN", budget * 1.001)
        assert module.affordable(prepared, 1000, SPANS) == wanted
    monkeypatch.setattr(module, "MOST_DRAWN", spikes * 6000.01)
    assert module.affordable(prepared, 1000, SPANS, samples=10) == (600, 10)
    assert module.affordable(prepared, 1000, [(0, 5)]) == (1000, 16)  # the first window is not drawn


def drifting(seconds=200.0, num_units=4):
    """Units that follow a variable which is forgotten over half a second."""
    rng = np.random.default_rng(0)
    bins = round(seconds / 0.01)
    slow, z = np.zeros(bins), rng.normal(size=bins)
    for t in range(1, bins):
        slow[t] = 0.98 * slow[t - 1] + 0.2 * z[t]
    counts = rng.poisson(0.15 * np.exp(0.8 * slow[:, None] * [1, -1, 1, -1][:num_units] - 0.3))
    row, unit = np.nonzero(counts)
    return Recording(
        name="drifting",
        spike_times=(row + 0.5) * 0.01,
        spike_units=unit,
        units={"id": np.array([f"u{i}" for i in range(num_units)]), "area": np.array(["A", "A", "B", "B"])},
        domain=np.array([[0.0, seconds]]),
    )


def test_a_glm_forecasts_better_than_a_running_mean_and_less_further_ahead():
    config = small_config(
        targets=[], inputs=[], window={"frames": 0.0, "current": 0.1, "past": 0.5}, loss={"contrast": []}
    )
    _, prepared = small_model(drifting(), config)
    parts = [prepared.windows(p) for p in ("train", "valid", "test")]
    spans, of = [(0, 10), (20, 30), (90, 100)], Counts(prepared)
    test = parts[2][:-12]
    glm = autoregressive_glm(prepared, parts[0][:-12], parts[1][:-12], test, spans)
    simple = naive(prepared, parts[0][:-12], test, spans)
    loss = lambda x: np.array([of.loss(of.values(test, *s), x[:, h]) for h, s in enumerate(spans)]) / len(test)
    constant = loss(np.repeat(np.tile(of.expected(10), (len(test), 1))[:, None], 3, 1))
    for name in simple:
        assert (loss(glm)[:2] < loss(simple[name])[:2]).all() and (loss(simple[name])[:2] < constant[:2]).all()
    gain = constant - loss(glm)
    assert gain[0] > gain[1] > gain[2] > -0.05


def test_the_command_and_its_panel(tmp_path, capsys):
    write_npz(drifting(60), tmp_path / "r.npz")
    config = to_dict(small_config(targets=[], inputs=[], window={"frames": 0.0}, loss={"contrast": []}))
    config["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = tmp_path / "run"
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--run", str(run), "--no-baselines", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["forecast", "--run", str(run), "--horizon", "0.05,0.2", "--samples", "2", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "(12 fits)" in out and "model minus running_mean" in out and "units of" in out and "Poisson ceiling" in out
    summary = json.loads((run / "summary.json").read_text())
    assert np.isfinite([summary[f"forecast_bits_per_spike_{h}s_glm"] for h in ("0.05", "0.2")]).all()
    stored = json.loads((run / "forecast.json").read_text())
    assert {"model", "last_value", "running_mean", "glm"} == set(stored["candidates"])
    from neuroformer.report.forecast import forecast_charts

    charts = forecast_charts(run / "forecast.json")["charts"]
    assert charts[0]["name"] == "bits/spike" and len(charts[0]["series"]) == 4
    assert main(["forecast", "--run", str(run), "--horizon", "0.013"]) == 2
    assert "expected whole multiples of window.dt, 0.01 s" in capsys.readouterr().err


def test_repeats_and_psths_where_trials_show_a_stimulus_again():
    rec = small_recording(num_trials=20, frames=False)
    config = small_config(targets=[], window={"frames": 0.0}, loss={"contrast": []}, split={"by": "trials"})
    model, prepared = small_model(rec, config)
    found = forecast(model, prepared, [0.05, 0.1], samples=2, baselines=False)
    assert {"psth", "repeats"} <= set(found.expected)
    # leave-one-out: the mean of the nineteen other trials, and a prior worth one
    one = 3
    segment = int(np.searchsorted(prepared.index.origins, found.times[one] + 1e-9) - 1)
    tick = round((found.times[one] - prepared.index.origins[segment]) / 0.01)
    others = [s for s in range(20) if s != segment]
    counts = Counts(prepared)
    each = counts.values(Windows(np.array(others), np.full(19, tick)), 0, 5)
    np.testing.assert_allclose(found.expected["repeats"][one, 0], (each.sum(0) + counts.expected(5)) / 20)
    assert "forecast_minus_psth_0.1s" in flat_scores(found.scores)
    with pytest.raises(ConfigError, match="the longest horizon is 5 s"):
        forecast(model, prepared, [0.05, 5.0], baselines=False)

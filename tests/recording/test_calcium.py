"""Calcium: events from traces, thresholds set by the noise."""

import sys

import numpy as np
import pytest
from samples import shared_data

from neuroformer.recording import RecordingError, open_recording
from neuroformer.recording.calcium import keep_events, oasis, spikes_from_traces, thresholds
from neuroformer.recording.recording import Traces

RATE = 30.0


def simulate(num_units=6, samples=3000, noise=0.25, seed=0):
    """Spikes at 0.5 Hz, calcium decaying by 0.95 per sample, a baseline and white noise."""
    rng = np.random.default_rng(seed)
    spikes = rng.random((samples, num_units)) < 0.5 / RATE
    spikes[:, -1] = False  # the last unit is silent
    calcium = np.stack([np.convolve(s, 0.95 ** np.arange(200))[:samples] for s in spikes.T], 1)
    return spikes, calcium + 0.7 + noise * rng.normal(size=calcium.shape)


def test_events_are_found_and_noise_is_not():
    pytest.importorskip("oasis")
    spikes, traces = simulate()
    notes = []
    times, units = spikes_from_traces(Traces(np.arange(3000) / RATE, traces), notes)
    assert (units == 5).sum() <= 10  # 100 s of silence, at a rate near 0.02 per second
    for unit in range(5):
        true, found = np.flatnonzero(spikes[:, unit]) / RATE, times[units == unit]
        hit = [np.abs(found - t).min() < 0.1 for t in true]
        false = [np.abs(true - t).min() > 0.2 for t in found]
        assert np.mean(hit) > 0.8 and np.sum(false) < 0.15 * len(true)
    assert "OASIS" in notes[0] and "arbitrary units" in notes[0] and "%" in notes[0]


def test_the_threshold_rises_with_the_noise():
    pytest.importorskip("oasis")
    levels = []
    for noise in (0.1, 0.4):
        events, mirrored = oasis(simulate(noise=noise)[1][:, :3])
        levels.append(thresholds(events, mirrored, RATE))
    assert (levels[1] > levels[0]).all()


def test_dead_and_holed_traces():
    pytest.importorskip("oasis")
    traces = simulate(num_units=3)[1]
    traces[:, 0], traces[100:110, 1] = 1.0, np.nan
    notes = []
    _, units = spikes_from_traces(Traces(np.arange(3000) / RATE, traces), notes)
    assert 0 not in units and 1 in units
    traces[:, 2] = np.nan
    with pytest.raises(RecordingError, match="trace of unit 2 has no finite sample"):
        oasis(traces)
    with pytest.raises(RecordingError, match="32 samples or more"):
        oasis(np.zeros((5, 2)))


def test_amplitudes_alone():
    rng = np.random.default_rng(0)
    sparse = np.where(rng.random((1000, 1)) < 0.03, rng.uniform(0.5, 1, (1000, 1)), 0)
    noisy = np.abs(rng.normal(size=(1000, 1))) * (rng.random((1000, 1)) < 0.5)
    noisy[::50] = 10.0
    notes = []
    kept = keep_events(np.concatenate([sparse, noisy], 1), None, RATE, notes, "test")
    assert (kept[:, 0] == (sparse[:, 0] > 0)).all()
    assert np.flatnonzero(kept[:, 1]).tolist() == list(range(0, 1000, 50))
    assert "by unit" in notes[0]
    assert keep_events(np.zeros((10, 2)), None, RATE, notes, "test").sum() == 0 and "none" in notes[1]


def test_methods_and_their_errors(monkeypatch):
    traces = Traces(np.arange(40) / RATE, np.zeros((40, 2)))
    notes = []
    assert len(spikes_from_traces(traces, notes, method="none")[0]) == 0 and "no spikes" in notes[0]
    with pytest.raises(RecordingError, match="expected one of auto"):
        spikes_from_traces(traces, notes, method="cascade")
    with pytest.raises(RecordingError, match="there is no deconvolved activity"):
        spikes_from_traces(traces, notes, method="deconvolved")
    monkeypatch.setitem(sys.modules, "oasis", None)
    monkeypatch.delitem(sys.modules, "oasis.functions", raising=False)
    with pytest.raises(RecordingError, match=r"pip install 'neuroformer\[calcium\]'"):
        spikes_from_traces(traces, notes)


def test_songbird():
    rec = open_recording(shared_data() / "songbird_hvc.npz")
    assert rec.traces is not None and rec.traces.values.shape == (666, 75)
    assert rec.traces.rate_hz == pytest.approx(30, rel=1e-6)
    assert rec.rates().max() < 4  # thresholds leave no unit firing as noise does
    assert "of 3,336 kept" in rec.meta["notes"][0]
    inside = np.searchsorted(rec.traces.times, rec.spike_times)
    assert (rec.traces.values[inside.clip(0, 665), rec.spike_units] > 0).all()

"""Built-in recordings whose connectivity is known: hubs and inputs."""

import numpy as np
import pytest

from neuroformer.data.windows import SpikeIndex
from neuroformer.recording import open_recording
from neuroformer.recording import synthetic as syn
from neuroformer.recording.recording import RecordingError
from neuroformer.recording.synthetic import lif

SMALL = {"num_units": 60, "num_hubs": 2, "targets_per_hub": 20, "num_stretches": 10, "stretch_s": 20.0}


@pytest.fixture(scope="module")
def small():
    return syn.hubs(**SMALL)


def efficacy(rec, synapses, offset=0):
    """Chance that a target fires just when the kick of its hub arrives, the mean over synapses."""
    counts = SpikeIndex.from_recording(rec, rec.domain, 0.001).counts()
    chance = []
    for target, source, delay in zip(synapses.target, synapses.source, synapses.delay, strict=True):
        at = np.flatnonzero(counts[:-50, source])
        chance.append(counts[at + delay + offset, target].mean())
    return float(np.mean(chance))


@pytest.mark.slow
def test_default_hubs_are_the_published_ones():
    rec = syn.hubs()
    assert rec.sha256() == syn.HUBS_SHA256
    assert 1.8 < np.median(rec.rates()) < 2.4 and rec.duration == 1200


def test_default_inputs_are_the_published_ones():
    rec = open_recording("synthetic:inputs")
    assert rec.sha256() == syn.INPUTS_SHA256
    assert rec.num_units == 1000 and rec.frames.images.shape == (24000, 25, 40)


def test_hubs_are_determined_by_seed_and_parameters(small):
    assert syn.synthetic("synthetic:hubs", **SMALL).sha256() == small.sha256()
    assert syn.hubs(1, **SMALL).sha256() != small.sha256()


def test_targets_answer_their_hub_after_the_true_delay_and_nobody_else_does(small):
    synapses = lif.draw_synapses(syn.HubParameters(**SMALL), 0)
    truth = small.truth
    assert (truth["coupling"] > 0).sum(0)[truth["is_hub"]].tolist() == [20, 20]
    assert not truth["coupling"][:, ~truth["is_hub"]].any() and not np.diag(truth["coupling"]).any()
    at_delay = efficacy(small, synapses)
    assert at_delay > 0.15
    assert efficacy(small, synapses, -1) < 0.03  # nothing before the delay
    others = lif.Synapses(
        np.flatnonzero(~truth["coupling"].any(1))[:10],
        *(a[:10] for a in (synapses.source, synapses.weight, synapses.delay)),
    )
    assert efficacy(small, others) < 0.03


def test_no_neuron_fires_within_its_refractory_period(small):
    for u in range(5):
        gaps = np.diff(small.spike_times[small.spike_units == u])
        assert gaps.min() > 0.0019


@pytest.mark.slow
def test_brian_agrees(small):
    try:
        import brian2  # noqa: F401
    except (ImportError, AttributeError) as e:
        pytest.skip(f"Brian2 cannot be imported: {e}")
    p = syn.HubParameters(**SMALL)
    synapses = lif.draw_synapses(p, 0)
    times, units = lif.simulate_brian(p, synapses, 200.0)
    stretch = (times / p.stretch_s).astype(int)
    brian = lif.to_recording(p, synapses, 0, stretch, times - stretch * p.stretch_s + p.dt_s / 2, units)
    assert brian.rates().mean() == pytest.approx(small.rates().mean(), rel=0.05)
    assert efficacy(brian, synapses) == pytest.approx(efficacy(small, synapses), rel=0.1)
    assert efficacy(brian, synapses, -1) < 0.03


def test_units_follow_their_own_input_and_no_other():
    rec = syn.inputs(num_units=12, duration_s=200.0)
    lit = rec.frames.images.reshape(len(rec.frames.times), -1) > 0
    frame = np.searchsorted(rec.frames.times, rec.spike_times, side="right") - 1
    counts = np.zeros(lit.shape)
    np.add.at(counts, (frame, rec.spike_units), 1)
    gain = np.array([[counts[lit[:, k], u].mean() for k in range(12)] for u in range(12)])
    np.testing.assert_array_equal(gain.argmax(1), rec.truth["input_of_unit"])
    shown = np.array([lit[:, k].mean() for k in range(12)])
    np.testing.assert_allclose(shown, 0.1 / rec.truth["period_s"], rtol=0.15)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: syn.hubs(num_units=50), "need more than num_units = 50"),
        (lambda: syn.hubs(noise=0.0), "expected above 0"),
        (lambda: syn.hubs(delay_ms=(0, 3)), "delay_ms starts at 0"),
        (lambda: syn.hubs(num_hub=1), "did you mean 'num_hubs'"),
        (lambda: syn.inputs(num_units=0), "expected 1 or more"),
        (lambda: syn.inputs(pulse_s=0.01), "must last a frame"),
    ],
)
def test_impossible_requests_are_refused_by_name(call, says):
    with pytest.raises(RecordingError, match=says):
        call()

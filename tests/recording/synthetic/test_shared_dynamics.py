"""The built-in animals whose dynamics are the same."""

import numpy as np
import pytest

from neuroformer.recording import open_recording
from neuroformer.recording import synthetic as syn
from neuroformer.recording.recording import RecordingError

SMALL = {"duration_s": 60.0, "num_units": 8}


def test_the_default_animal_is_the_published_one():
    rec = open_recording("synthetic:shared")
    assert rec.sha256() == syn.SHARED_SHA256
    assert rec.num_units == 24 and rec.frames.images.shape == (12000, 6, 6)


def test_animals_of_a_circuit_share_its_network_and_nothing_else():
    a, b, other = (syn.shared(seed, circuit=c, **SMALL) for seed, c in ((0, 0), (1, 0), (0, 1)))
    for key in ("recurrent", "drive"):
        assert np.array_equal(a.truth[key], b.truth[key]) and not np.array_equal(a.truth[key], other.truth[key])
    assert not np.array_equal(a.truth["loading"], b.truth["loading"])
    assert not np.array_equal(a.frames.images, b.frames.images)
    assert a.name == "circuit0_animal0" and not set(a.unit_ids) & set(b.unit_ids)
    assert syn.shared(0, circuit=0, **SMALL).sha256() == a.sha256()


def test_types_read_variables_of_their_own():
    plain, rec = syn.shared(2, **SMALL), syn.shared(2, cell_types=2, **SMALL)
    assert "cell_type" not in plain.units and np.array_equal(plain.truth["latent"], rec.truth["latent"])
    words, loading = rec.units["cell_type"], rec.truth["loading"]
    assert sorted(words.tolist()) == ["type 0"] * 4 + ["type 1"] * 4
    read = loading > 0
    assert (loading >= 0).all() and not (read[words == "type 0"].any(0) & read[words == "type 1"].any(0)).any()
    with pytest.raises(RecordingError, match="at most num_latents"):
        syn.shared(0, cell_types=13)


def test_spikes_are_poisson_with_the_true_rate():
    rec = syn.shared(3, **SMALL)
    bins = len(rec.truth["rate"])
    counts = np.zeros((bins, rec.num_units))
    np.add.at(counts, ((rec.spike_times / 0.01).astype(int), rec.spike_units), 1)
    rate = rec.truth["rate"].astype(float)
    z = (counts - rate).sum(0) / np.sqrt(rate.sum(0))
    assert np.abs(z).max() < 4
    high = rate > np.quantile(rate, 0.99)
    assert counts[high].mean() == pytest.approx(rate[high].mean(), rel=0.1)
    assert 0.9 < np.log(rate).std() < 1.2


def test_unknown_parameters_are_refused():
    with pytest.raises(RecordingError, match="did you mean 'circuit'"):
        syn.shared(0, circuits=1)

"""The built-in animals of a few circuits."""

import numpy as np
import pytest

from neuroformer.config import from_dict
from neuroformer.data.recordings import expanded
from neuroformer.recording import synthetic as syn
from neuroformer.recording.recording import RecordingError

SMALL = {"duration_s": 60.0, "num_units": 40}


def test_the_default_animal_is_the_published_one():
    rec = syn.cohort()
    assert rec.sha256() == syn.COHORT_SHA256
    assert (rec.num_units, rec.duration) == (200, 600.0) and 2.0 < rec.rates().mean() < 4.0


def test_animals_of_a_circuit_share_its_mixing_and_units_of_an_area_their_weights():
    a, b, other = (syn.cohort(seed, **SMALL) for seed in (0, 5, 1))
    assert [r.meta["circuit"] for r in (a, b, other)] == [0, 0, 1]
    assert not set(a.unit_ids) & set(b.unit_ids) and not np.array_equal(a.truth["latent"], b.truth["latent"])
    area, loading = a.units["area"], a.truth["loading"]
    alike = np.corrcoef(loading)
    same = (area[:, None] == area) & ~np.eye(len(area), dtype=bool)
    assert (
        sorted(set(area)) == [f"area{i}" for i in range(4)]
        and alike[same].mean() > alike[area[:, None] != area].mean() + 0.2
    )
    assert syn.cohort(0, **SMALL).sha256() == a.sha256()


def test_units_follow_the_variables_and_rest_after_a_spike():
    rec = syn.cohort(2, **SMALL)
    bins = np.floor(rec.spike_times / 0.01 + 1e-6).astype(int)
    counts = np.zeros((6000, 40))
    np.add.at(counts, (bins, rec.spike_units), 1)
    assert counts.max() == 1 and not (counts[1:] * counts[:-1]).any()
    expected = np.exp(rec.truth["latent"] @ rec.truth["loading"].T + rec.truth["baseline"])
    r = [np.corrcoef(c, e)[0, 1] for c, e in zip(counts.T, expected.T, strict=True)]
    assert min(r) > 0.05 and 0.8 < counts.sum() / expected.sum() < 1.0


def test_a_range_of_seeds_is_as_many_recordings():
    config = expanded(from_dict({"recordings": [{"path": "synthetic:cohort[2:5]", "options": {"num_units": 7}}]}))
    assert [(r.path, r.options) for r in config.recordings] == [
        ("synthetic:cohort", {"num_units": 7, "seed": seed}) for seed in (2, 3, 4)
    ]
    with pytest.raises(RecordingError, match="no parameter 'num_unit'"):
        syn.cohort(0, num_unit=3)

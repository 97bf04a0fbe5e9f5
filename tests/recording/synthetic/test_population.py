"""synthetic:population: any number of units, the same from the same seed, and a truth that explains its spikes."""

from pathlib import Path

import numpy as np
import pytest

from neuroformer.metrics import poisson_log_likelihood
from neuroformer.recording import RecordingError
from neuroformer.recording import synthetic as syn

ROOT = Path(__file__).parents[3]
SMALL = {"num_units": 60, "trial_s": 4.0, "num_movies": 3, "rate_hz": 5.0, "num_pairs": 40}


@pytest.fixture(scope="module")
def rec():
    return syn.population(3, **SMALL)


def counts_of(rec):
    counts = np.zeros(rec.truth["rate"].shape, np.int64)
    np.add.at(counts, (np.floor(rec.spike_times / 0.01 + 1e-9).astype(int), rec.spike_units), 1)
    return counts


def test_the_same_seed_gives_the_same_recording_and_another_another(rec):
    assert syn.population(3, **SMALL).sha256() == rec.sha256() != syn.population(4, **SMALL).sha256()


@pytest.mark.slow
def test_the_default_is_the_published_recording():
    assert syn.population().sha256() == syn.POPULATION_SHA256


def test_the_true_rate_explains_the_spikes_better_than_any_part_of_it(rec):
    counts, rate = counts_of(rec), np.asarray(rec.truth["rate"], np.float64)
    assert counts.sum() == rec.num_spikes and abs(counts.sum() / rate.sum() - 1) < 0.02
    mean = np.broadcast_to(rate.mean(0), rate.shape)
    shifted = np.roll(rate, 37, 0)
    right, flat, wrong = (poisson_log_likelihood(counts, r) for r in (rate, mean, shifted))
    assert right > flat + 0.05 * counts.sum() and right > wrong + 0.05 * counts.sum()


def test_a_coupled_pair_fires_at_its_delay(rec):
    counts, coupling = counts_of(rec) > 0, rec.truth["coupling"]
    target, source = np.argwhere(coupling > 0).T
    bins = np.rint(rec.truth["coupling_delay_s"][target, source] / 0.01).astype(int)
    together = sum((counts[d:, t] & counts[:-d, s]).sum() for t, s, d in zip(target, source, bins, strict=True))
    chance = sum((counts[d + 7 :, t] & counts[: -d - 7, s]).sum() for t, s, d in zip(target, source, bins, strict=True))
    assert together > 2 * chance


def test_areas_behavior_and_trials(rec):
    assert set(rec.units["area"]) == {"V1", "LM"} and rec.num_trials == 15
    by_movie = [np.flatnonzero(rec.trials["movie"] == m) % 5 for m in range(3)]
    assert all(set(places) == set(range(5)) for places in by_movie)  # every part sees every movie
    assert list(rec.behavior) == ["speed", "azimuth", "elevation"]
    drift = rec.truth["drift"]
    assert len(drift) == len(rec.truth["rate"]) and np.abs(np.diff(drift)).max() < 0.2
    with pytest.raises(RecordingError, match="num_unit"):
        syn.population(num_unit=3)


def test_its_configuration_trains_on_a_small_one(tmp_path):
    from neuroformer import train

    few = [f"recording.options.{k}={v}" for k, v in SMALL.items()]
    quick = ["train.steps=2", "train.evaluate_every=2", "train.batch_size=8", "train.accelerator=cpu", "model.width=16"]
    found = train(ROOT / "configs" / "population.yaml", tmp_path, few + quick, progress=False)
    assert found.metrics["train_steps"] == 2 and found.prepared[0].rec.num_units == 60

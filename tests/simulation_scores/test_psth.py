"""PSTHs against values worked out by hand."""

import dataclasses

import numpy as np
import pytest
from helpers import small_config, small_recording

from neuroformer.data.prepared import prepare
from neuroformer.simulation_scores.psth import compare_psth, psth, psth_r, spike_counts


def test_psth_golden():
    counts = np.zeros((2, 7, 1))
    counts[0, 0] = 1  # 1 spike in the first 50 ms of one of two trials: 10 Hz
    counts[:, 5, 0] = 2
    np.testing.assert_allclose(psth(counts, 0.025), [[10.0], [0.0], [40.0]])
    counts[1, 4] = np.nan
    np.testing.assert_allclose(psth(counts, 0.025), [[10.0], [0.0], [40.0]])
    counts[1, 5] = np.nan
    np.testing.assert_allclose(psth(counts, 0.025)[2], [40.0])
    with pytest.raises(ValueError, match="multiple"):
        psth(counts, 0.03)


def test_psth_r_golden():
    a = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 2.0], [3.0, 1.0, 3.0]])
    b = np.array([[1.0, 5.0, 3.0], [2.0, 6.0, 2.0], [4.0, 7.0, 1.0]])
    out = psth_r(a, b)
    r0 = 3 / np.sqrt(28 / 3)
    assert out.per_unit[0] == pytest.approx(r0) and np.isnan(out.per_unit[1])
    assert out.per_unit[2] == pytest.approx(-1)
    assert out.num_excluded == 1 and out.r == pytest.approx((r0 - 1) / 2)


def test_agreement_of_two_psths_grows_with_repeats():
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(-2, 0.7, (100, 6)))
    sides = lambda repeats: (psth(rng.poisson(rate, (repeats, 100, 6)), 0.05) for _ in range(2))
    few, many = psth_r(*sides(3)), psth_r(*sides(60))
    assert 0 < few.r < many.r < 1


def test_the_ceiling_of_a_simulation_is_training_against_held_out_repeats():
    rec = small_recording(num_trials=20)
    rec = dataclasses.replace(rec, trials=rec.trials | {"movie": np.zeros(20)})
    split = prepare(rec, small_config(split={"by": "trials"})).split
    rows = {part: split.blocks[part][:, 0] for part in ("train", "test")}
    # a simulation that repeats the held-out trials
    trials = {k: rec.trials[k][rows["test"]] for k in ("start", "stop")} | {"source_trial": rows["test"]}
    found = compare_psth(rec, split, dataclasses.replace(rec, trials=trials), "test")
    assert found is not None and found.r == pytest.approx(1.0)
    train, held_out = (psth(spike_counts(rec, rec.trial_intervals[r], 0.05), 0.05) for r in rows.values())
    assert found.ceiling == pytest.approx(psth_r(train, held_out).r) and abs(found.ceiling) < 0.5
    assert (found.num_train, found.num_held_out) == (len(rows["train"]), len(rows["test"]))

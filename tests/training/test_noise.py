"""Noise on the past changes the past, at the rate asked for, and nothing else."""

import numpy as np
import pytest
import torch
from helpers import small_config, small_recording

from neuroformer.config import ConfigError
from neuroformer.data.prepared import prepare
from neuroformer.training.noise import noisy_past


@pytest.fixture(scope="module")
def batch():
    p = prepare(small_recording(num_trials=20, rate=30.0), small_config(split={"by": "trials"}))
    return p.builder(p.windows("train"))


def test_a_share_is_dropped_and_as_many_are_added_elsewhere(batch):
    torch.manual_seed(0)
    noisy = noisy_past(batch, 0.2)
    cells = lambda b: b.past.row_T * 1000 + (b.past_tick_P + 10) * 10 + b.past_unit_P
    counts = [torch.bincount(cells(b), minlength=1000 * batch.num_windows) for b in (batch, noisy)]
    gone, new = (counts[0] - counts[1]).clamp_min(0).sum(), (counts[1] - counts[0]).clamp_min(0).sum()
    total = batch.past.total
    assert total > 2000
    # a few of those added fall where others were dropped
    assert float(gone) / total == pytest.approx(0.2, abs=0.03) and float(new) / total == pytest.approx(0.2, abs=0.03)
    assert noisy.past.total == pytest.approx(total, rel=0.05)
    units = [torch.bincount(b.past_unit_P, minlength=6).double() for b in (batch, noisy)]
    assert torch.allclose(units[0], units[1], rtol=0.15)


def test_a_noisy_past_is_a_past(batch):
    torch.manual_seed(1)
    noisy = noisy_past(batch, 0.5)
    row, tick = noisy.past.row_T, noisy.past_tick_P
    assert (tick < 0).all() and (tick >= -batch.available_W[row]).all()
    assert (batch.available_W == 0).any()  # windows without a past are among them, and stay so
    key = (row * 10 + tick + 10) * 6 + noisy.past_unit_P
    assert (key.diff() >= 0).all()
    assert noisy.past.max_length == int(noisy.past.lengths_B.max())
    assert noisy.tick_S is batch.tick_S and noisy.current is batch.current and noisy.around is batch.around


def test_it_follows_from_the_seed_and_none_is_none(batch):
    assert noisy_past(batch, 0.0) is batch
    one, two = [], []
    for made in (one, two):
        torch.manual_seed(5)
        made.append(noisy_past(batch, 0.3).past_tick_P.numpy())
    assert np.array_equal(one[0], two[0])
    torch.manual_seed(6)
    assert not np.array_equal(noisy_past(batch, 0.3).past_tick_P.numpy(), one[0])


def test_shares_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"train.past_noise is 1.0; expected a share in \[0, 1\)"):
        small_config(train={"past_noise": 1.0})

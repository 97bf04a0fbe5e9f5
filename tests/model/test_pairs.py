"""A coupling of pairs is the same process as one of patterns, and training keeps it sparse."""

import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.config import ConfigError, load_config
from neuroformer.model.intensity import Coupling, cell_counts
from neuroformer.training.module import learning_rate, shrink


def twins(seed=0):
    """A coupling of patterns, and the one of pairs that holds its product."""
    torch.manual_seed(seed)
    patterns, pairs = Coupling(6, 5, 4, 3).double(), Coupling(6, 5, 4, 0).double()
    with torch.no_grad():
        for p in patterns.parameters():
            p.normal_()
        both = patterns.source @ patterns.target
        pairs.own.copy_(patterns.own)
        pairs.pair.copy_(both.flatten(0, 1))
    return patterns, pairs


def test_pairs_hold_what_patterns_give():
    _, prepared = small_model(small_recording(), small_config())
    batch = prepared.builder(prepared.windows("test")[:30])
    patterns, pairs = twins()
    first = cell_counts(batch.past, batch.past_tick_P, batch.past_unit_P) == 1
    past = (batch.past, batch.past_tick_P, batch.past_unit_P, first)
    assert not first.all()  # double spikes, of which one acts
    torch.testing.assert_close(pairs.before(*past), patterns.before(*past))
    weight = torch.rand(batch.past.total, dtype=torch.float64)
    torch.testing.assert_close(pairs.before(*past, weight), patterns.before(*past, weight))
    now = (batch.current, batch.tick_T, batch.unit_T, torch.ones_like(batch.tick_T, dtype=torch.bool))
    torch.testing.assert_close(pairs.within(*now), patterns.within(*now))


def test_gradients_reach_pairs_and_weights():
    _, prepared = small_model(small_recording(), small_config())
    batch = prepared.builder(prepared.windows("test")[:30])
    patterns, pairs = twins()
    every = torch.ones_like(batch.past_tick_P, dtype=torch.bool)
    grads = []
    for c in (patterns, pairs):
        weight = torch.ones(batch.past.total, dtype=torch.float64, requires_grad=True)
        total = c.before(batch.past, batch.past_tick_P, batch.past_unit_P, every, weight).square().sum()
        grads.append(torch.autograd.grad(total, [weight, c.pair if c.pair is not None else c.target])[0])
    torch.testing.assert_close(*grads)


def test_shrinking_stops_at_zero():
    config = small_config(model={"coupling_rank": 0}, train={"sparsity": 0.5, "lr": 0.01, "readout_lr": 2.0})
    model, prepared = small_model(small_recording(), config)
    t = prepared.config.train
    most = 0.01 * 2.0 * learning_rate(3, t) * 0.5
    pair = model.coupling.pair
    with torch.no_grad():
        pair.zero_()
        pair[0, :3] = torch.tensor([2 * most, 0.5 * most, -3 * most])
    shrink(model, 3, t)
    torch.testing.assert_close(pair[0, :3], torch.tensor([most, 0.0, -2 * most], dtype=pair.dtype))
    assert not pair[1:].any()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.sparsity=0.1", "train.sparsity is 0.1; expected 0, or above 0 with"),
        ("model.coupling_rank=-1", "model.coupling_rank is -1; expected 0"),
        ("model.most_drive=0", "model.most_drive is 0.0; expected a number above 0"),
    ],
)
def test_what_cannot_be_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])

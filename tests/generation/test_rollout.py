"""Simulation is closed loop, reproducible, and independent of the batch."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.config import GenerateConfig
from neuroformer.data.prepared import prepare
from neuroformer.generation.rollout import rollout
from neuroformer.generation.sampling import draw, uniforms
from neuroformer.generation.sequences import sequences_of
from neuroformer.generation.simulate import simulate
from neuroformer.generation.spikes import Spikes
from neuroformer.recording.formats.npz import read_npz, write_npz

CONFIG = GenerateConfig(max_seconds=0.5)


def run(net, prepared, which=slice(None), config=CONFIG, seed=3, sequences=None):
    sequences = sequences_of(prepared.asking(config)) if sequences is None else sequences
    result = rollout(net, prepared.asking(config, seed), sequences[which])
    s = result.spikes
    return list(zip(s.sequence.tolist(), s.tick.tolist(), s.unit.tolist(), strict=True))


def simulated(net, p, **options):
    result = simulate(net, p, progress=False, **options)
    assert result is not None
    return result


def test_uniforms_are_uniform_and_a_function_of_their_arguments():
    ident = torch.arange(20_000)
    u = uniforms(7, ident, 3, 2, 1)
    assert torch.equal(u, uniforms(7, ident, 3, 2, 1)) and torch.equal(u[500:501], uniforms(7, ident[500:501], 3, 2, 1))
    assert u.min() >= 0 and u.max() < 1
    assert np.abs(np.histogram(u.numpy(), 20, (0, 1))[0] - 1000).max() < 150
    others = [
        uniforms(8, ident, 3, 2, 1),
        uniforms(7, ident, 4, 2, 1),
        uniforms(7, ident, 3, 3, 1),
        uniforms(7, ident, 3, 2, 0),
    ]
    for other in [*others, uniforms(7, ident + 1, 3, 2, 1)]:
        assert abs(np.corrcoef(u, other)[0, 1]) < 0.03


def test_draw_follows_the_probabilities_and_never_the_impossible():
    logits = torch.log(torch.tensor([0.0, 0.2, 0.5, 0.0, 0.3, 0.0])).expand(50_000, -1)
    drawn = draw(logits, uniforms(0, torch.arange(50_000), 0, 0, 0))
    share = torch.bincount(drawn, minlength=6) / 50_000
    assert torch.allclose(share, logits[0].exp(), atol=0.01) and (share[[0, 3, 5]] == 0).all()
    assert (draw(logits, torch.full((50_000,), 1 - 2.0**-53)) == 4).all()
    assert (draw(logits, uniforms(0, torch.arange(50_000), 0, 0, 0), temperature=0) == 2).all()
    kept = draw(logits, uniforms(0, torch.arange(50_000), 0, 0, 0), top_p=0.6).unique()
    assert kept.tolist() == [2, 4]
    assert draw(logits, uniforms(0, torch.arange(50_000), 0, 0, 0), top_p=1e-9).unique().tolist() == [2]


def test_true_spikes_after_the_start_change_nothing():
    net, prepared = small_model()
    rec = prepared.rec
    simulated = run(net, prepared)
    assert simulated
    first = prepared.split.intervals("test")[0, 0]
    rng = np.random.default_rng(1)
    future = rec.spike_times >= first
    shuffled = rec.spike_units.copy()
    shuffled[future] = rng.permutation(shuffled[future])
    changed = prepare(dataclasses.replace(rec, spike_units=shuffled), prepared.config, prepared.normalization)
    assert run(net, changed) == simulated
    gone = prepare(rec.without_spikes_after(first), prepared.config, prepared.normalization)
    assert run(net, gone) == simulated


def test_the_history_and_what_was_generated_matter():
    net, prepared = small_model()
    several = dataclasses.replace(CONFIG, samples=8)  # untrained weights see little in three spikes
    sequences = sequences_of(prepared.asking(several))
    assert len(sequences.history.tick)
    silent = dataclasses.replace(sequences, history=Spikes.join([]))
    assert run(net, prepared, sequences=silent) != run(net, prepared, sequences=sequences)
    # the spikes of the first window alone decide what the second may see: replay it with another first window
    short = dataclasses.replace(sequences, stop=sequences.start + 10)
    a, b = run(net, prepared, sequences=short, seed=3), run(net, prepared, sequences=short, seed=4)
    window = lambda cells: [c for c in cells if c[1] < sequences.start[c[0]] + 5]
    assert window(a) != window(b)
    from neuroformer.data.tokens import Tokens
    from neuroformer.data.windows import Windows
    from neuroformer.model.stepper import Stepper

    def logits(cells):
        mine = [c for c in window(cells) if c[0] == 0]
        tick = np.array([c[1] for c in mine], int) - (sequences.start[0] + 5)
        past = Tokens(np.array([0, len(mine)]), tick, np.array([c[2] for c in mine], int))
        windows = Windows(sequences.segment[:1], sequences.start[:1] + 5)
        stepper = Stepper(net, prepared.builder(windows, past=past))
        zero = torch.zeros(1, dtype=torch.int64)
        return stepper.after(zero, zero, zero - 1, zero + 1).dt_log_p()

    with torch.no_grad():
        assert not torch.allclose(logits(a), logits(b))


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_the_batch_changes_no_spike(batch_size):
    net, prepared = small_model()
    config = dataclasses.replace(CONFIG, samples=3)
    together = run(net, prepared, config=config)
    apart = []
    for first in range(0, 3, batch_size):
        part = run(net, prepared, which=slice(first, min(first + batch_size, 3)), config=config)
        apart += [(s + first, tick, unit) for s, tick, unit in part]
    assert [c for c in together if c[0] < 3] == apart


def test_the_guard_is_counted():
    net, prepared = small_model()
    sequences = sequences_of(prepared.asking(CONFIG))
    result = rollout(net, prepared.asking(dataclasses.replace(CONFIG, max_tokens=1), 0), sequences)
    assert result.guard_hits > 0
    counts = np.bincount((result.spikes.tick - sequences.start[result.spikes.sequence]) // 5)
    assert counts.max() <= len(sequences)


@pytest.mark.parametrize("by", ["blocks", "trials"])
def test_a_simulation_is_a_recording_that_loads_back(by, tmp_path):
    rec = small_recording(num_trials=10)
    config = small_config(split={"by": by, "block": 8.0}, generate={"samples": 2, "max_seconds": 0.5})
    net, p = small_model(rec, config)
    result = simulated(net, p)
    back = read_npz(write_npz(result.recording, tmp_path / "simulated.npz"))
    assert back.sha256() == result.recording.sha256()
    assert back.num_trials == 2 * len(p.split.blocks["test"]) and back.unit_ids == rec.unit_ids
    assert np.allclose(np.diff(back.trial_intervals, axis=1), 0.5)
    assert set(back.trials["sample"]) == {0, 1}
    inside = np.zeros(back.num_spikes, bool)
    for start, stop in back.trial_intervals:
        inside |= (back.spike_times >= start) & (back.spike_times < stop)
    assert inside.all() and back.num_spikes > 0


def test_without_a_limit_the_whole_part_is_simulated():
    net, p = small_model(config=small_config(generate={"max_seconds": 0.0}))
    result = simulated(net, p)
    assert result.recording.duration == pytest.approx(p.split.seconds("test"))
    assert result.recording.spike_times.max() > 0.9 * result.recording.domain.max()

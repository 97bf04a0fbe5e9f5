"""What must hold of every closed loop; docs/simulation.md lists these properties and where each is tested."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.config import GenerateConfig
from neuroformer.data.tokens import no_spikes
from neuroformer.data.windows import SpikeIndex, Windows
from neuroformer.generation.rollout import rollout, rollout_true_past
from neuroformer.generation.scan import sample_window
from neuroformer.generation.sequences import sequences_of
from neuroformer.generation.simulate import simulate
from neuroformer.generation.spikes import Sequences, Spikes
from neuroformer.model.stepper import Stepper
from neuroformer.simulation_scores.whatif import first_divergence

CONFIG = GenerateConfig(samples=2, max_seconds=0.4)


@pytest.fixture(scope="module")
def small():
    return small_model(small_recording(num_trials=10), small_config(split={"by": "trials"}))


def cells(spikes):
    return list(zip(spikes.sequence.tolist(), spikes.tick.tolist(), spikes.unit.tolist(), strict=True))


def sequences(p, config=CONFIG):
    return sequences_of(p.asking(config))


@pytest.mark.parametrize("by", ["trials", "blocks"])
def test_a_closed_loop_is_the_loop_that_reads_its_own_output_as_a_recording(by):
    """So the past is built of what was generated, of all of it, and by what builds the past in training."""
    net, p = small_model(small_recording(num_trials=10), small_config(split={"by": by}))
    config = dataclasses.replace(CONFIG, samples=1, max_seconds=0.8)
    what = sequences(p, config)
    made = rollout(net, p.asking(config, 3), what).spikes
    s, h = p.split, what.history
    ends = np.rint((s.segments[:, 1] - s.segments[:, 0]) / s.dt).astype(int)
    index = SpikeIndex.from_ticks(
        what.segment[np.concatenate([h.sequence, made.sequence])],
        np.concatenate([h.tick, made.tick]),
        np.concatenate([h.unit, made.unit]),
        s.segments[:, 0],
        ends,
        net.num_units,
        s.dt,
    )
    again = rollout_true_past(net, p.asking(config, 3).with_spikes(index), what).spikes
    assert len(made.tick) > 20 and cells(again) == cells(made)
    other = dataclasses.replace(index, unit=(index.unit + 1) % net.num_units)
    assert cells(rollout_true_past(net, p.asking(config, 3).with_spikes(other), what).spikes) != cells(made)


def test_order_and_neighbors_change_no_spike(small):
    """Sequences of several trials, of unequal lengths, in any order and company."""
    net, p = small
    what = sequences(p)
    what.stop[1] -= 20
    what.stop[2] -= 7  # not a whole number of windows
    made = rollout(net, p.asking(CONFIG, 1), what).spikes
    order = np.random.default_rng(0).permutation(len(what))
    moved = Sequences(*(getattr(what, k)[order] for k in ("segment", "start", "stop", "ident", "known_from")))
    other = rollout(net, p.asking(CONFIG, 1), moved).spikes
    back = Spikes(order[other.sequence], other.tick, other.unit).ordered()
    assert cells(back) == cells(made)
    assert made.tick[made.sequence == 2].max() < 30 and made.tick[made.sequence == 1].max() < 20


def test_another_seed_sample_or_window_has_other_random_numbers(small):
    net, p = small
    what = sequences(p)
    made = cells(rollout(net, p.asking(CONFIG, 1), what).spikes)
    assert made != cells(rollout(net, p.asking(CONFIG, 2), what).spikes)
    of = lambda q: [c[1:] for c in made if c[0] == q]
    assert of(0) != of(1)  # two samples of one trial


def test_time_before_an_origin_is_missing_and_not_silent(small):
    net, p = small
    what = sequences(p)
    seen = []
    build = p.builder.__class__.__call__

    class Watched(p.builder.__class__):
        def __call__(self, *a, **k):
            return build(self, *a, **k)

    watched = Watched(p.rec, p.index, p.config, p.normalization)
    original = Stepper.__init__
    try:
        Stepper.__init__ = lambda self, model, batch: (
            seen.append(batch.available_W.tolist()),
            original(self, model, batch),
        )[1]
        rollout(net, dataclasses.replace(p.asking(CONFIG, 0), builder=watched), what)
    finally:
        Stepper.__init__ = original
    assert seen[0] == [0] * len(what) and seen[1] == [5] * len(what) and seen[2] == seen[-1] == [10] * len(what)


def test_what_a_loop_starts_from_lies_outside_the_training_blocks():
    _, p = small_model()
    what = sequences(p)
    assert (what.start > 0).all() and len(what.history.tick)
    for q, tick in zip(what.history.sequence, what.history.tick, strict=True):
        trained = p.split.blocks["train"][p.split.blocks["train"][:, 0] == what.segment[q]]
        assert not ((trained[:, 1] <= tick) & (tick < trained[:, 2])).any()


def test_a_loop_starts_from_the_spikes_before_its_start_and_from_no_later_one():
    _, p = small_model(small_recording(rate=60.0))  # spikes in every bin
    what, past = sequences(p), p.builder.shape.past
    ticks = np.floor(p.rec.spike_times * 100 + 1e-6).astype(int)
    for q, start in enumerate(what.start):
        mine, near = what.history.sequence == q, (ticks >= start - past) & (ticks < start)
        assert sorted(what.history.tick[mine]) == sorted(ticks[near])
        assert sorted(what.history.unit[mine]) == sorted(p.rec.spike_units[near])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.5},
        {"top_p": 0.8},
        {"temperature": 0.0},
    ],
)
def test_spikes_are_drawn_in_the_order_of_bins_and_units(small, options):
    """dt never decreases; within a bin the unit never decreases: whatever the sampler is told."""
    net, p = small
    num = 64
    windows = Windows(np.zeros(num, np.int64), np.full(num, 100))
    config = GenerateConfig(max_tokens=40, **options)
    with torch.no_grad():
        stepper = Stepper(net, p.builder(windows, past=no_spikes(num)))
        spikes, _ = sample_window(net, stepper, np.arange(num), np.zeros(num, int), config, 0)
    key = spikes.tick * net.num_units + spikes.unit
    for q in range(num):
        assert (np.diff(key[spikes.sequence == q]) >= 0).all()
    assert options.get("temperature") == 0 or len(key) > num


def first_spikes(net, p, **options):
    """(tick, unit) of the first spike of each of many equal windows, -1 where there is none; and its logits."""
    num = 300
    windows = Windows(np.zeros(num, np.int64), np.full(num, 100))
    with torch.no_grad():
        stepper = Stepper(net, p.builder(windows, past=no_spikes(num)))
        spikes, _ = sample_window(net, stepper, np.arange(num), np.zeros(num, int), GenerateConfig(**options), 0)
        zero, begun = torch.zeros(num, dtype=torch.int64), Stepper(net, p.builder(windows, past=no_spikes(num)))
        following = begun.after(torch.arange(num), zero, zero - 1, zero + 1)
    out = np.full((2, num), -1)
    sequence, place = np.unique(spikes.sequence, return_index=True)
    out[:, sequence] = spikes.tick[place], spikes.unit[place]
    return out, following


@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"top_p": 1e-9}], ids=str)
def test_bins_and_units_are_drawn_as_likely_as_the_settings_say(small, how):
    net, p = small
    (tick, unit), following = first_spikes(net, p, **how, max_tokens=3)
    base = first_spikes(net, p)[0]
    assert len(set(base[0])) > 3 and not np.array_equal(unit, base[1])
    bins = following.dt_log_p().argmax(1).numpy()
    assert np.array_equal(tick, np.where(bins < net.num_bins, bins, -1))
    fired = tick >= 0
    with torch.no_grad():
        likeliest = following.id_logits(torch.from_numpy(tick).clamp(min=0)).argmax(1).numpy()
    assert np.array_equal(unit[fired], likeliest[fired])


def test_the_model_is_given_the_last_spike_and_how_often_it_was_repeated(monkeypatch):
    net, p = small_model(small_recording(num_units=2, rate=60.0), small_config())
    num, seen = 64, [{} for _ in range(64)]
    windows = Windows(np.zeros(num, np.int64), np.full(num, 100))
    after = Stepper.after

    def watched(stepper, which, tick, unit, count):
        for row, *last in zip(stepper.rows[which].tolist(), tick.tolist(), unit.tolist(), count.tolist(), strict=True):
            seen[row][len(seen[row])] = tuple(last)
        return after(stepper, which, tick, unit, count)

    monkeypatch.setattr(Stepper, "after", watched)
    with torch.no_grad():
        stepper = Stepper(net, p.builder(windows, past=no_spikes(num)))
        spikes, _ = sample_window(net, stepper, np.arange(num), np.zeros(num, int), GenerateConfig(), 0)
    repeats = 0
    for q in range(num):
        mine = spikes.sequence == q
        expected, last = [(0, -1, 1)], None
        for cell in zip(spikes.tick[mine].tolist(), spikes.unit[mine].tolist(), strict=True):
            count = expected[-1][2] + 1 if cell == last else 1
            expected.append((*cell, count))
            last, repeats = cell, repeats + (count > 1)
        assert list(seen[q].values()) == expected
    assert repeats > 10 and max(len(s) for s in seen) > 5


def test_draws_follow_the_stated_probabilities():
    """The share of empty windows, and of every first cell, is what the model gives them."""
    net, p = small_model(small_recording(rate=2.0), small_config())
    num = 8_000
    windows = Windows(np.zeros(num, np.int64), np.full(num, 100))
    with torch.no_grad():
        one = Stepper(net, p.builder(windows[:1], past=no_spikes(1)))
        zero = torch.zeros(1, dtype=torch.int64)
        following = one.after(zero, zero, zero - 1, zero + 1)
        dt = following.dt_log_p().softmax(1)[0]
        first = torch.stack([dt[b] * following.id_logits(zero + b).softmax(1)[0] for b in range(net.num_bins)])
        stepper = Stepper(net, p.builder(windows, past=no_spikes(num)))
        spikes, _ = sample_window(net, stepper, np.arange(num), np.zeros(num, int), GenerateConfig(), 0)
    sequence, place = np.unique(spikes.sequence, return_index=True)  # drawn in order, so the first is the first
    share = np.bincount(spikes.tick[place] * net.num_units + spikes.unit[place], minlength=first.numel()) / num
    spread = np.sqrt(first.numpy().ravel() / num)
    assert abs(1 - len(sequence) / num - float(dt[-1])) < 4 * np.sqrt(0.25 / num)
    assert (np.abs(share - first.numpy().ravel()) < 5 * spread + 1e-4).all()
    # and what follows the commonest first spike is what the model gives after it
    cell = int(np.argmax(share))
    tick, unit = (torch.tensor([x]) for x in divmod(cell, net.num_units))
    with torch.no_grad():
        one.feed(tick, unit)
        end = float(one.after(zero, tick, unit, zero + 1).dt_log_p().softmax(1)[0, -1])
    these = sequence[spikes.tick[place] * net.num_units + spikes.unit[place] == cell]
    alone = (np.bincount(spikes.sequence, minlength=num)[these] == 1).mean()
    assert len(these) > 200 and abs(alone - end) < 5 * np.sqrt(0.25 / len(these))


def test_where_rounding_flips_a_token_the_first_divergence_is_reported(small):
    net, p = small
    run = lambda seed=0: simulate(net, p.asking(CONFIG, seed), progress=False).recording
    base = run()
    assert np.isnan(first_divergence(base, run())).all()
    apart = first_divergence(base, run(seed=9))
    assert (apart < 0.2).all()
    start = base.trials["start"][1]
    last = np.flatnonzero(base.spike_times < base.trials["stop"][1])[-1]
    units = base.spike_units.copy()
    units[last] = (units[last] + 1) % net.num_units
    parted = first_divergence(base, dataclasses.replace(base, spike_units=units))
    assert np.isnan(np.delete(parted, 1)).all() and parted[1] == pytest.approx(base.spike_times[last] - start)
    gone = dataclasses.replace(
        base, spike_times=np.delete(base.spike_times, last), spike_units=np.delete(base.spike_units, last)
    )
    assert first_divergence(base, gone)[1] == parted[1]


def test_a_loop_never_touches_the_recorded_spikes(small):
    """An index that breaks when it is read: nothing of a rollout reads it."""
    net, p = small
    what = sequences(p)

    class Untouchable:
        origins, dt = p.index.origins, p.index.dt

        def __getattr__(self, name):
            raise AssertionError(f"the recorded {name} was read")

    asked = p.asking(CONFIG, 0)
    index, builder = Untouchable(), p.builder.__class__(p.rec, Untouchable(), p.config, p.normalization)
    blind = dataclasses.replace(asked, rec=None, index=index, builder=builder)
    assert cells(rollout(net, blind, what).spikes) == cells(rollout(net, asked, what).spikes)

"""Properties of the likelihood: causality, support, exact mass, and no dependence on the batch."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.config import InputConfig
from neuroformer.data.scales import VariableScale
from neuroformer.data.windows import Windows
from neuroformer.losses import info_nce_sum, loss_terms, total_loss
from neuroformer.model import streams
from neuroformer.model.embed import InputEmbedding
from neuroformer.model.layers import Dropout, set_dropout
from neuroformer.model.stepper import Stepper
from neuroformer.ops import Ragged
from neuroformer.training import loop
from neuroformer.training.train import train

VARIANTS = [
    {},
    {"blocks": [{"attend": "past"}, {"attend": "current", "layers": 2}, {"attend": "frames"}]},
    {"frame_encoder": {"kind": "energy"}},
    {"frame_encoder": {"kind": "patches", "stride": [1, 4, 4]}},
]


def windows_nll(net, batch):
    """(W,) nats of each window's spikes."""
    return net.observation.nll(batch, net(batch).observed)


@pytest.fixture(params=[1, 10_000], ids=["keys_by_bin", "keys_by_spike"])
def most_keys(request, monkeypatch):
    """Whether past spikes are keys of their own, or summed in bins."""
    monkeypatch.setattr(streams, "MOST_KEYS", request.param)


@pytest.mark.parametrize("model", VARIANTS)
@torch.no_grad()
def test_padding_and_neighbours_change_nothing(model, most_keys):
    net, prepared = small_model(config=small_config(model=model))
    windows = prepared.windows("train")[:12]
    batch = prepared.builder(windows)
    together = windows_nll(net, batch)
    for w in range(len(windows)):
        one = prepared.builder(windows[w : w + 1])
        assert torch.allclose(windows_nll(net, one)[0], together[w], rtol=0, atol=1e-9)


@torch.no_grad()
def test_a_bin_of_mean_counts_looks_like_its_time(monkeypatch):
    """What is summed in bins is how much more or less units fired than on average, in units of a Poisson process's spread."""
    monkeypatch.setattr(streams, "MOST_KEYS", 1)
    net, prepared = small_model()
    batch, past = prepared.builder(prepared.windows("train")[:12]), net.streams["past"]
    counts_WLU = torch.zeros(len(batch.past), past.num_bins, net.num_units, dtype=torch.float64)
    place = batch.past.row_T, batch.past_tick_P + past.num_bins, batch.past_unit_P
    counts_WLU.index_put_(place, torch.ones(len(batch.past_unit_P), dtype=torch.float64), accumulate=True)
    past.unit_rate.fill_(0.25)
    spread = (0.25 * net.num_units) ** 0.5
    expected = (counts_WLU - 0.25) / spread @ net.embedding.unit.weight
    expected = expected + net.embedding.time_table()[: past.num_bins]
    keys, full = past(batch, net.embedding).context, batch.available_W == past.num_bins
    for w in torch.nonzero(full)[:, 0].tolist():
        rows = slice(int(keys.layout.offsets[w]) + 1, int(keys.layout.offsets[w + 1]))
        torch.testing.assert_close(keys.x_SD[rows], expected[w], rtol=0, atol=1e-7)


@torch.no_grad()
def test_tokens_without_a_shown_frame_are_left_out():
    """Whether the host knows how many frames are missing, or asks for it."""
    net, prepared = small_model()
    batch = prepared.builder(prepared.windows("train")[:12])
    clips, encoder = batch.clips, net.frames.encoder
    steps, rows, columns = encoder.grid
    missing = torch.tensor([0, 3, 1, 2])
    x = torch.arange(len(missing) * steps * rows * columns)[:, None]
    got, layout = encoder._drop_missing(x, missing, missing)
    last = torch.arange(steps) * encoder.stride[0] + encoder.kernel[0]
    keep = (last > missing[:, None]).repeat_interleave(rows * columns, 1)
    assert torch.equal(got, x[keep.flatten()]) and torch.equal(layout.lengths_B, keep.sum(1))
    assert clips.host_missing_G.any(), "windows at the start lack frames"
    asking = dataclasses.replace(batch, clips=dataclasses.replace(clips, host_missing_G=None))
    assert torch.equal(windows_nll(net, batch), windows_nll(net, asking))


@torch.no_grad()
def test_the_future_changes_no_earlier_output():
    """Later spikes of the window leave the terms of earlier ones as they were."""
    net, prepared = small_model()
    batch = prepared.builder(prepared.windows("train")[:40])
    w = int(batch.current.lengths_B.argmax())
    one = prepared.builder(prepared.windows("train")[w : w + 1])
    n = one.num_spikes
    full = net(one).observed
    for keep in range(n):
        cut = dataclasses.replace(
            one,
            current=Ragged.from_lengths(torch.tensor([keep])),
            tick_S=one.tick_S[:keep],
            unit_S=one.unit_S[:keep],
        )
        part = net(cut).observed
        assert torch.allclose(part.dt_nll_T[:keep], full.dt_nll_T[:keep], atol=1e-10)
        assert torch.allclose(part.id_nll_S, full.id_nll_S[:keep], atol=1e-10)
        assert torch.allclose(part.log_rate_WBU, full.log_rate_WBU, atol=1e-10)


def all_sequences(length, bins, units):
    """Every sequence of cells (bin, unit) that never goes back: multisets of cells."""
    return itertools.combinations_with_replacement(list(itertools.product(range(bins), range(units))), length)


@pytest.mark.parametrize("model", VARIANTS[:2])
@torch.no_grad()
def test_finished_mass_plus_live_mass_is_one(model):
    """For every small L: mass of finished sequences shorter than L, plus mass of all live prefixes of length L, is 1."""
    rec = small_recording(num_units=2)
    config = small_config(window={"dt": 0.025, "current": 0.05, "past": 0.1, "frames": 0.15}, model=model)
    net, prepared = small_model(rec, config)
    one = prepared.builder(prepared.windows("train")[5:6])
    finished = 0.0
    for length in range(4):
        sequences = list(all_sequences(length, 2, 2))
        num = len(sequences)
        cells = torch.tensor(sequences, dtype=torch.int64).reshape(-1, 2)
        many = prepared.builder(Windows(*(np.repeat(x, num) for x in (one.segment_W.numpy(), one.tick_W.numpy()))))
        many = dataclasses.replace(
            many,
            current=Ragged.from_lengths(torch.full((num,), length)),
            tick_S=cells[:, 0],
            unit_S=cells[:, 1],
        )
        output = net(many).observed
        last = many.current.offsets[1:] + torch.arange(num)  # each sequence's end-of-window term
        ends = output.dt_nll_T.double()[last]
        total = net.observation.nll(many, output)
        live = torch.exp(-(total - ends)).sum().item()
        assert live + finished == pytest.approx(1.0, abs=1e-6)
        finished += torch.exp(-total).sum().item()
    assert 0 < finished < 1


@pytest.mark.parametrize("model", VARIANTS)
@torch.no_grad()
def test_stepping_with_kept_keys_equals_the_full_pass(model, most_keys):
    net, prepared = small_model(config=small_config(model=model))
    batch = prepared.builder(prepared.windows("train")[:10])
    full = windows_nll(net, batch)
    stepper = Stepper(net, batch)
    nll = torch.zeros(10, dtype=torch.float64)
    tick, unit, count = torch.zeros(10, dtype=torch.int64), torch.full((10,), -1), torch.ones(10)
    for i in range(batch.current.max_length + 1):
        following = stepper.after(torch.arange(len(tick)), tick, unit, count)
        logp = following.dt_log_p().log_softmax(1)
        done = batch.current.lengths_B[stepper.rows] == i
        nll[stepper.rows[done]] -= logp[done, -1]
        going = torch.nonzero(~done).squeeze(1)
        if len(going) == 0:
            break
        place = batch.current.offsets[stepper.rows[going]] + i
        again = (batch.tick_S[place] == tick[going]) & (batch.unit_S[place] == unit[going])
        count = torch.where(again, count[going] + 1, 1)
        tick, unit = batch.tick_S[place], batch.unit_S[place]
        nll[stepper.rows[going]] -= logp[going, tick]
        at = torch.zeros(len(done), dtype=torch.int64).index_copy(0, going, tick)
        id_logp = following.id_logits(at)[going].log_softmax(1)
        nll[stepper.rows[going]] -= id_logp.gather(1, unit[:, None]).squeeze(1)
        stepper.keep(going)
        stepper.feed(tick, unit)
    assert torch.allclose(nll, full, atol=1e-9)


@torch.no_grad()
def test_an_untrained_model_starts_at_its_rates():
    """With residuals at zero the token model is the Poisson process of the readout."""
    from neuroformer.model.network import Neuroformer
    from neuroformer.training.scoring.scores import score

    rec, config = small_recording(rate=3.0, doubles=0.0), small_config()
    _, prepared = small_model(rec, config)
    model = Neuroformer(config, rec.num_units, prepared.normalization)
    scores = score(model, prepared, "valid")
    # the difference is the second spikes in one cell, for which the anchor is approximate
    assert scores.bits() == pytest.approx(scores.bits_of_rates(), abs=0.02)


@torch.no_grad()
def test_expected_counts_average_over_the_units_own_spikes():
    """Two bins: exactly; where a unit rests after a spike, below the rate that it has as long as it is silent."""
    net, _ = small_model()
    of = net.observation
    base, drive = torch.randn(2, 3, of.num_bins, net.num_units, dtype=torch.float64) - 2
    effect = of.own.rows.weight[:, 0]
    found = of.averaged(base, drive).exp()
    first = of.moved(base[:, 0], drive[:, 0]).exp()
    silent, after = of.moved(base[:, 1], drive[:, 1]).exp(), of.moved(base[:, 1], drive[:, 1] + effect).exp()
    torch.testing.assert_close(found[:, 0], first)
    torch.testing.assert_close(found[:, 1], (-first).exp() * silent + (1 - (-first).exp()) * after)
    of.own.rows.weight.fill_(-2.0)
    assert (of.averaged(base, drive)[:, 1:] < of.moved(base, drive)[:, 1:]).all()


def test_missing_labels_leave_the_loss():
    net, prepared = small_model()
    batch = prepared.builder(prepared.windows("train")[:16])
    spoiled = dict(batch.targets)
    spoiled["speed"] = batch.targets["speed"].clone()
    spoiled["speed"][3:] = float("nan")
    first = prepared.builder(prepared.windows("train")[:3])
    a = loss_terms(net, dataclasses.replace(batch, targets=spoiled), net(batch))["speed"]
    b = loss_terms(net, first, net(first))["speed"]
    assert torch.allclose(a, b)
    spoiled["speed"][:] = float("nan")
    assert loss_terms(net, dataclasses.replace(batch, targets=spoiled), net(batch))["speed"].item() == 0


def test_every_parameter_gets_a_gradient():
    net, prepared = small_model()
    batch = prepared.builder(prepared.windows("train")[:32])
    total_loss(net.config, loss_terms(net, batch, net(batch))).backward()
    idle = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_infonce_masks_windows_of_the_same_clip():
    a = torch.nn.functional.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1)
    same = torch.tensor([0, 1, 0, 2, 3, 4])
    masked = info_nce_sum(a, a, torch.tensor(5.0), same, None)
    scores = 5.0 * a @ a.T
    scores[0, 2] = scores[2, 0] = -torch.inf
    expected = (torch.logsumexp(scores, 1) - scores.diagonal()).sum()
    assert torch.allclose(masked, expected)
    keep = torch.tensor([True] * 5 + [False])
    assert torch.allclose(
        info_nce_sum(a, a, torch.tensor(5.0), None, keep),
        info_nce_sum(a[:5], a[:5], torch.tensor(5.0), None, None),
    )


def test_the_features_of_trial_time_tell_one_window_from_the_next():
    """Of a movie of 18 s in windows of 50 ms: neighbors differ as much as distant ones do with few features."""
    scale = VariableScale(mean=[9.0], std=[5.0], low=[0.0], high=[18.0])
    made = lambda name, **more: InputEmbedding(InputConfig(name, encoding="fourier", **more), scale, 8, 0.05)
    assert made("trial_time").size == 360 and made("place").size == 32
    assert made("trial_time", frequencies=7).size == 14
    at = torch.arange(0, 18, 0.05)[:, None, None]
    alike = lambda one: torch.nn.functional.cosine_similarity(
        *(one.features(at)[i:][:100] for i in (0, 1)), dim=-1
    ).mean()
    assert alike(made("trial_time")) < 0.7 < alike(made("trial_time", frequencies=16))


def test_dropout_fades_while_it_trains_and_is_whole_afterwards(monkeypatch, tmp_path):
    """What is dropped follows the learning rate, so that the last steps see what will be scored; and the class drops what it
    says."""
    strengths = []
    monkeypatch.setattr(loop, "set_dropout", lambda model, x: strengths.append(x) or set_dropout(model, x))
    config = small_config(model={"dropout": 0.3}, train={"steps": 40, "batch_size": 8, "accelerator": "cpu"})
    trained = train(small_recording(seconds=60.0), config, tmp_path, progress=False)
    assert max(strengths[:-1]) > 0.9 and strengths[-2] < 0.1 and strengths[-1] == 1.0
    assert len(strengths) == 41 and trained is not None

    layer, x = Dropout(0.4), torch.ones(100_000)
    for strength, share in ((1.0, 0.4), (0.5, 0.2), (0.0, 0.0)):
        set_dropout(layer, strength)
        y = layer(x)
        assert abs((y == 0).float().mean() - share) < 0.01 and abs(y.mean() - 1) < 0.01

"""Maps of attention and influence: sums that add up, causes that are causes, and what they cannot see."""

import argparse
import copy
import dataclasses

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.analysis import attend
from neuroformer.analysis.attention import AttentionCapture, attention_maps, frame_attention
from neuroformer.analysis.fields import energies, frame_sensitivity
from neuroformer.analysis.influence import gradients, knock_out, log_odds, without
from neuroformer.analysis.maps import Map, compare, load_maps, save_maps
from neuroformer.cli.trained import attend as command
from neuroformer.config import ConfigError
from neuroformer.model import streams

UNITS = [f"u{i}" for i in range(6)]


@pytest.fixture(scope="module")
def small():
    blocks = [{"attend": a} for a in ("current", "past", "frames", "behavior", "past", "current")]
    tree = {
        "model": {
            "width": 16,
            "heads": 2,
            "blocks": blocks,
            "dropout": 0.0,
            "frame_encoder": {"kind": "conv3d", "kernel": [2, 4, 4], "stride": [1, 2, 2]},
        }
    }
    model, prepared = small_model(small_recording(), small_config(**tree))
    return model, prepared, prepared.windows("test")[:40]


def by_name(maps):
    return {m.name: m for m in maps}


def test_a_stretch_in_pieces_is_the_stretch(small):
    model, prepared, windows = small
    whole = attention_maps(model, prepared, windows)
    pieces = attention_maps(model, prepared, windows, batch_size=7)
    assert len(whole) == 6 + 4
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_allclose(a.values, b.values, err_msg=a.name)
        np.testing.assert_array_equal(a.count, b.count)


def test_maps_account_for_all_attention(small):
    """Sums over units, null tokens left out, are what the observed weights hold."""
    model, prepared, windows = small
    batch = prepared.builder(windows)
    capture = AttentionCapture(model, UNITS, heads=True, rows="spike")
    seen = {}

    def observe(q, k, v, layout, k_layout, k_index):
        total = 0.0
        for w in range(len(layout)):
            qs = slice(int(layout.offsets[w]) + 1, int(layout.offsets[w + 1]))  # SOS left out
            ks = slice(int(k_layout.offsets[w]), int(k_layout.offsets[w + 1]))
            p = (torch.einsum("the,she->hts", q[qs], k[ks]) / q.shape[-1] ** 0.5).softmax(-1)
            total = total + p[..., 1:].sum((1, 2))  # the null token left out
        seen["past"] = total

    capture.blocks[1].observer = observe
    with torch.no_grad():
        model(batch)
    capture.add(batch)
    sums = capture.sums["attention to past, block 1"].sum((1, 2))
    torch.testing.assert_close(sums, seen["past"])


def test_a_past_of_many_spikes_is_seen_bin_by_bin(monkeypatch):
    """Its keys are bins: a map tells how far back tokens attend, and knock-outs and gradients still tell units apart."""
    monkeypatch.setattr(streams, "MOST_KEYS", 1)
    model, prepared = small_model(small_recording(), small_config(targets=[], loss={}))
    windows = prepared.windows("test")[:20]
    found = by_name(attention_maps(model, prepared, windows))["attention to past"]
    assert found.values.shape == (6, 1, 10) and found.lags_s[0] == 0.01
    batch = prepared.builder(windows)
    spikes = np.bincount(batch.unit_S.numpy(), minlength=6)
    np.testing.assert_array_equal(found.count, np.tile(spikes[:, None, None], (1, 1, 10)))
    assert (found.values.sum(2) < 1).all() and not found.square
    apart = ~np.eye(6, dtype=bool)
    for by_unit in (knock_out(model, prepared, windows), gradients(model, prepared, windows)):
        assert np.nanstd(by_unit.pairs()[apart]) > 0


def test_counts_are_the_pairs_that_could_attend(small):
    model, prepared, windows = small
    batch = prepared.builder(windows)
    maps = by_name(attention_maps(model, prepared, windows, rows="spike"))
    past, current = np.zeros((2, 6, 6))
    for w in range(len(windows)):
        now = batch.unit_S[batch.current.offsets[w] : batch.current.offsets[w + 1]].tolist()
        then = batch.past_unit_P[batch.past.offsets[w] : batch.past.offsets[w + 1]].tolist()
        for i, u in enumerate(now):
            for v in then:
                past[u, v] += 1
            for v in now[: i + 1]:
                current[u, v] += 1
    np.testing.assert_array_equal(maps["attention to past, block 2"].count, past)
    np.testing.assert_array_equal(maps["attention to current, block 1"].count, current)


def test_rows_are_the_unit_that_is_predicted_or_the_spike_itself(small):
    model, prepared, windows = small
    batch = prepared.builder(windows)
    predicted = AttentionCapture(model, UNITS).labels(batch).query_T
    own = AttentionCapture(model, UNITS, rows="spike").labels(batch).query_T
    lo, hi = (batch.current.offsets[:2] + torch.arange(2)).tolist()  # the first window's tokens, SOS included
    spikes = batch.unit_S[: batch.current.offsets[1]].tolist()
    assert predicted[lo:hi].tolist() == [*spikes, -1] and own[lo:hi].tolist() == [-1, *spikes]


def test_frames_and_inputs_have_their_columns(small):
    model, prepared, windows = small
    maps = by_name(attention_maps(model, prepared, windows))
    frames = maps["attention to frames"]
    assert frames.grid == (3, 3) and frames.values.shape == (6, 9, 2) and np.allclose(frames.lags_s, [0.075, 0.025])
    assert list(maps["attention to behavior"].columns) == ["pupil"]
    total = frame_attention(model, prepared, windows)
    assert total["images"].shape == (40, 8, 8) and total["attention"].shape == (40, 3, 3)
    assert (total["attention"].sum((1, 2)) < 1).all() and (total["attention"] > 0).all()


def test_capturing_changes_nothing_and_frames_count_every_block_alike(small):
    model, prepared, windows = small
    batch = prepared.builder(windows[:8])
    capture, kept = AttentionCapture(model, UNITS), []
    handle = model.register_forward_hook(lambda module, args, out: kept.append(out))
    capture.add(batch)
    handle.remove()
    with torch.no_grad():
        plain = model(batch)
    torch.testing.assert_close(kept[0].observed.log_rate_WBU, plain.observed.log_rate_WBU)
    torch.testing.assert_close(kept[0].observed.dt_nll_T, plain.observed.dt_nll_T)
    # two blocks of the same weights: their mean is either's
    frames = [b for b in model.blocks if b.attend == "frames"]
    model.blocks.insert(len(model.blocks), frames[0])
    try:
        twice = frame_attention(model, prepared, windows[:8])["attention"]
    finally:
        del model.blocks[-1]
    assert (twice.sum((1, 2)) < 1).all() and twice.sum() > 0.5 * frame_attention(model, prepared, windows[:8])[
        "attention"
    ].sum()


def test_memory_is_of_the_batch_not_of_the_stretch(small):
    model, prepared, windows = small
    capture = AttentionCapture(model, UNITS)
    sizes = []
    for i in range(0, 40, 10):
        capture.add(prepared.builder(windows[i : i + 10]))
        sizes.append(sum(t.numel() for t in [*capture.sums.values(), *capture.counts.values()]))
    assert len(set(sizes)) == 1
    assert all(block.observer is None for block in capture.blocks)


def test_a_silenced_unit_leaves_every_path(small):
    """Taking a unit away is the same as a recording in which it did not fire before the window."""
    model, prepared, windows = small
    batch = prepared.builder(windows)
    window = torch.tensor([3, 3, 8])
    unit = torch.tensor([0, 4, 2])
    ours = model.expected(without(batch, window, unit))
    for i, (w, u) in enumerate(zip(window.tolist(), unit.tolist(), strict=True)):
        rec = prepared.rec
        keep = rec.spike_units != u
        silent = dataclasses.replace(rec, spike_times=rec.spike_times[keep], spike_units=rec.spike_units[keep])
        from neuroformer.data.prepared import prepare

        other = prepare(silent, prepared.config, prepared.normalization)
        true = model.expected(other.builder(windows[w : w + 1]))
        torch.testing.assert_close(ours[i : i + 1], true)


def test_knock_out_is_the_mean_change_of_log_odds(small):
    model, prepared, windows = small
    found = knock_out(model, prepared, windows, batch_size=11)
    assert found.values.shape == (6, 6, 10 + 5 - 1) and found.lags_s[0] == 0.01
    batch = prepared.builder(windows)
    total, count = np.zeros((6, 14)), np.zeros(14)
    base = log_odds(model.expected(batch))
    for w in range(len(windows)):
        ticks = batch.past_tick_P[batch.past.offsets[w] : batch.past.offsets[w + 1]]
        units = batch.past_unit_P[batch.past.offsets[w] : batch.past.offsets[w + 1]]
        mine = ticks[units == 2]
        if len(mine):
            change = base[w] - log_odds(model.expected(without(batch, torch.tensor([w]), torch.tensor([2]))))[0]
            for b in range(5):
                lag = b - int(mine.max()) - 1
                total[:, lag] += change[b].detach().numpy()
                count[lag] += 1
    np.testing.assert_allclose(found.values[:, 2], total / count, atol=1e-9)


def test_gradients_of_a_spike_are_those_of_its_weight(small):
    """Integrated gradients sum to the difference between all spikes and none (completeness)."""
    model, prepared, windows = small
    few = windows[:12]
    reach = prepared.config.window.past
    found = gradients(model, prepared, few, steps=40, reach_s=reach)
    batch = prepared.builder(few)
    weight = lambda x: dataclasses.replace(batch, past_weight_P=torch.full((batch.past.total,), x, dtype=torch.float64))
    score = lambda x: log_odds(model.expected(weight(x))).sum((0, 1)).detach().numpy()
    total = np.nansum(found.values * found.count, (1, 2))
    np.testing.assert_allclose(total, score(1.0) - score(1e-9), rtol=0.05, atol=0.05)
    one = gradients(model, prepared, few, reach_s=reach)
    assert one.name == "gradient x input" and one.values.shape == (6, 6, 10)


def test_weights_of_one_change_nothing(small):
    model, prepared, windows = small
    batch = prepared.builder(windows)
    ones = dataclasses.replace(batch, past_weight_P=torch.ones(batch.past.total, dtype=torch.float64))
    torch.testing.assert_close(model.expected(ones), model.expected(batch))
    torch.testing.assert_close(model.expected(batch), model(batch).observed.log_rate_WBU)


def test_sensitivity_lies_where_the_readout_looks(small):
    """A unit that looks at the upper left corner, one that looks at the lower right one, and the rest, who look everywhere."""
    model, prepared, windows = copy.deepcopy(small[0]), *small[1:]
    readout = model.frames.readout
    with torch.no_grad():
        readout.where.weight.zero_()
        readout.where.weight[0, 0] = readout.where.weight[1, -1] = 10.0
        readout.what.weight.add_(2.0)
    found = frame_sensitivity(model, prepared, windows[:8])
    assert found.grid == (8, 8) and found.values.shape == (6, 64, 3) and (found.values >= 0).all()
    energy_URC = energies(found)
    upper_left, lower_right = energy_URC[:, :4, :4].sum((1, 2)), energy_URC[:, 4:, 4:].sum((1, 2))
    whole = energy_URC.sum((1, 2))
    assert upper_left[0] > 0.8 * whole[0] and lower_right[1] > 0.8 * whole[1]
    assert (upper_left[2:] < 0.5 * whole[2:]).all() and (lower_right[2:] < 0.5 * whole[2:]).all()


def test_maps_survive_their_file(tmp_path):
    rng = np.random.default_rng(0)
    a = Map(
        "a",
        rng.random((2, 3, 2)),
        "nats",
        ["x", "y"],
        ["p", "q", "r"],
        np.ones((1, 3, 1)),
        np.array([0.1, 0.2]),
    )
    b = Map("b", rng.random((2, 4)), "share", ["x", "y"], list("pqrs"), np.ones((2, 4)), grid=(2, 2)).with_null(
        np.zeros(1), np.ones(1)
    )
    save_maps(tmp_path / "maps.npz", [a, b])
    back = load_maps(tmp_path / "maps.npz")
    np.testing.assert_allclose(back["a"].values, a.values, rtol=1e-6)
    np.testing.assert_allclose(back["b"].z(), b.z(), rtol=1e-6)
    assert back["b"].grid == (2, 2) and back["a"].null_std is None and list(back["a"].columns) == ["p", "q", "r"]
    assert "no null" in str(pytest.raises(ValueError, back["a"].z).value)
    assert "<table>" in a._repr_html_()


def test_compare_is_of_ranks_without_the_diagonal():
    x = np.arange(16.0).reshape(4, 4)
    a = Map("a", x, "", UNITS[:4], UNITS[:4], np.ones((4, 4)))
    b = Map("b", np.exp(x / 4) + 1e9 * np.eye(4), "", UNITS[:4], UNITS[:4], np.ones((4, 4)))
    names, r = compare([a, b])
    assert names == ["a", "b"]
    np.testing.assert_allclose(r, 1)


def test_maps_that_do_not_fit_are_refused_before_any_is_made(small, monkeypatch):
    model, prepared, _ = small
    needed = 8 * attend.ARRAYS * 6**2 * (10 + 5 - 1)
    monkeypatch.setattr(attend, "free_memory", lambda device: needed / 4)
    monkeypatch.setattr(attend.influence, "knock_out", lambda *a, **k: pytest.fail("a map was begun"))
    with pytest.raises(ConfigError, match=r"maps of 6 x 6 units at 14 lags need about .*--units 3"):
        attend.attend(model, prepared)


def test_maps_of_the_busiest_units_are_cut_from_those_of_all(small):
    """What is seen of some units is what is seen of them among all: the model sees all, and no pair looks at a third unit."""
    net, prepared, _ = small
    spikes = np.bincount(prepared.index.unit, minlength=prepared.index.num_units)
    units = attend.busiest(prepared, 3)
    assert units.tolist() == sorted(np.argsort(-spikes, kind="stable")[:3]) and attend.busiest(prepared, 6) is None
    options = {"num_windows": 40, "num_knock_out": 10, "gradients": True}
    every, some = (attend.attend(net, prepared, most_units=n, **options) for n in (0, 3))
    assert "attend_units" not in every.summary and some.summary["attend_units"] == 3
    assert [m.name for m in every.maps] == [m.name for m in some.maps]
    for whole, part in zip(every.maps, some.maps, strict=True):
        wanted = whole.among(units)
        assert list(part.rows) == [prepared.rec.unit_ids[u] for u in units] == list(wanted.rows)
        np.testing.assert_allclose(part.values, wanted.values, rtol=1e-6, atol=1e-9)
        shown = np.broadcast_to(part.count, part.values.shape)
        np.testing.assert_allclose(shown, np.broadcast_to(wanted.count, wanted.values.shape), rtol=1e-9)


def test_the_command_maps_as_many_units_as_the_function():
    asked = argparse.ArgumentParser()
    command.add(lambda name, run, help, epilog: asked)
    assert asked.parse_args(["--run", "x"]).units == attend.MOST_MAPPED

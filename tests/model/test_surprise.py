"""Spikes beyond what the frames explain."""

import dataclasses

import numpy as np
import torch
from helpers import small_config, small_model

from neuroformer.data.windows import Windows
from neuroformer.model.embed import past_spikes


def _case():
    config = small_config(window={"dt": 0.01, "current": 0.05, "past": 0.2, "frames": 0.15}, model={"surprise": 0.2})
    model, prepared = small_model(config=config)
    assert model.surprise is not None
    return model, prepared


def test_counted_minus_expected_frame_by_frame():
    """Against loops over windows, frames and spikes."""
    model, prepared = _case()
    surprise, rec = model.surprise, prepared.rec
    assert surprise is not None and rec.frames is not None and model.what_where is not None
    windows = Windows(np.zeros(3, np.int64), np.array([0, 12, 400]))  # a recording's start, off the frames' grid, on it
    batch = prepared.builder(windows)
    earlier = batch.earlier
    assert earlier is not None
    state = model.encode(batch)
    assert state.expected is not None
    got = surprise.features(
        earlier, state.expected, batch.past.row_T, batch.past_tick_P, batch.past_unit_P, None, until=0
    )
    steps, num_lags = model.frames.grid[0] + 1, surprise.basis.shape[0]  # a kernel of two frames
    dt, spikes = 0.01, np.floor(rec.spike_times / 0.01 + 1e-6).astype(int)
    for w, tick in enumerate(windows.tick):
        shown = np.flatnonzero(rec.frames.times < (tick + 5) * dt - 1e-9)[-num_lags:]
        more = np.zeros((num_lags, rec.num_units))
        for k, frame in enumerate(shown, num_lags - len(shown)):
            onset = round(rec.frames.times[frame] / dt)
            stop = min(onset + 5, tick)
            clip = np.arange(frame - steps + 1, frame + 1)
            images = torch.from_numpy(rec.frames.images[rec.frames.index[np.maximum(clip, 0)]])[None]
            local = model.frames.local(images, torch.tensor([(clip < 0).sum()]))
            drive = model.what_where(local)[0] + model.rates.bias + surprise.level
            expected = drive.clamp_max(1.0).exp().detach().numpy() * max(0, stop - onset)
            inside = (spikes >= onset) & (spikes < stop) & (spikes >= tick - 20)
            more[k] = np.bincount(rec.spike_units[inside], minlength=rec.num_units) - expected
        wanted = np.einsum("ku,kf->uf", more, surprise.basis.numpy()) / surprise.spread.numpy()[:, None]
        np.testing.assert_allclose(got[w, : wanted.size].detach().numpy(), wanted.ravel(), atol=1e-5)


def test_the_change_of_every_frame_with_a_shift_is_that_of_the_current_one():
    model, prepared = _case()
    what_where = model.what_where
    assert what_where is not None and model.frames is not None
    images = torch.rand(2, model.frames.grid[0] + 1, *prepared.rec.frames.images.shape[1:]) * 255
    local = model.frames.local(images, torch.zeros(2, dtype=torch.long))
    drive, moved = what_where.along(local)
    torch.testing.assert_close(drive[:, -1], what_where(local))
    torch.testing.assert_close(moved[:, -1], what_where.moved(what_where.local(local)))


def test_spikes_tell_of_the_shift_that_made_them_more_likely():
    """Extra spikes of units that a shift drives say that it happened; those of units that it silences, that it did not."""
    model, prepared = _case()
    batch = prepared.builder(prepared.windows("train")[:16])
    surprise, earlier = model.surprise, batch.earlier
    assert surprise is not None and earlier is not None
    expected = model.encode(batch).expected
    assert expected is not None
    moved = torch.zeros_like(expected.moved_GK2U)
    moved[:, :, 1, :3], moved[:, :, 1, 3:] = 0.5, -0.5  # to the right: three units more, three less
    row, num = torch.arange(16), 2 * surprise.basis.shape[1]

    def shift(unit):
        features = surprise.features(
            earlier,
            expected._replace(moved_GK2U=moved),
            row,
            torch.full((16,), -3),
            torch.full((16,), unit),
            None,
            until=0,
        )
        return features[:, -num:].unflatten(1, (2, -1)).sum(2).detach()

    assert (shift(0)[1:, 1] > shift(4)[1:, 1]).all()  # the first window opens the recording: no frame came before
    assert torch.equal(shift(0)[:, 0], torch.zeros(16))


def test_a_silent_unit_is_missed():
    """Without its spikes, a unit's surprise falls and the others' stays."""
    model, prepared = _case()
    batch = prepared.builder(prepared.windows("train")[:16])
    assert model.surprise is not None and batch.earlier is not None
    expected = model.encode(batch).expected
    assert expected is not None
    filters = model.surprise.basis.shape[1]

    def features(weight):
        rows = batch.past.row_T, batch.past_tick_P, batch.past_unit_P
        return model.surprise.features(batch.earlier, expected, *rows, weight, until=0)[:, : -2 * filters].unflatten(
            1, (6, -1)
        )

    weight = (batch.past_unit_P != 2).double()
    change = features(weight) - features(None)
    assert (change[:, 2] <= 0).all() and change[:, 2].sum() < 0
    assert torch.equal(change[:, [0, 1, 3, 4, 5]], torch.zeros_like(change[:, :5]))


def test_decoders_see_the_window_and_rates_do_not():
    model, prepared = _case()
    batch = prepared.builder(prepared.windows("train")[:16])
    later = dataclasses.replace(batch, unit_T=(batch.unit_T + 1) % 6)
    assert torch.equal(model.expected(batch), model.expected(later))
    head = next(iter(model.targets.values()))
    a, b = (model.moment_counts(x, model.encode(x), head.ends, {}).counts_VF for x in (batch, later))
    size = model.surprise.size
    assert a.shape[1] == model.moments.size + size
    assert not torch.equal(a[:, -size:], b[:, -size:])


def test_half_of_the_units_are_hidden_in_training_only():
    config = small_config(model={"unit_dropout": 0.5})
    model, prepared = small_model(config=config)
    batch = prepared.builder(prepared.windows("train")[:64])
    assert torch.equal(model.expected(batch), model.expected(batch))
    model.train()
    assert not torch.equal(model.expected(batch), model.expected(batch))
    past, _, unit, _ = past_spikes(batch, model.num_units, 0.5)
    cells = lambda layout, u: set(zip(layout.row_T.tolist(), u.tolist(), strict=True))
    left, before = cells(past, unit), cells(batch.past, batch.past_unit_P)
    assert left < before and 0.3 < len(left) / len(before) < 0.7
    # a unit is hidden with all its spikes of a window
    kept = [c for c in zip(batch.past.row_T.tolist(), batch.past_unit_P.tolist(), strict=True) if c in left]
    assert len(kept) == past.total

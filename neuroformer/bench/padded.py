"""The same weights run the padded way, as the original does: for benchmarks only.

Current tokens are padded to 100 and past ones to 700, every window has frames of its own, attention matrices are
written out, and dropout falls on embeddings, attention weights and residuals.

Shape suffixes: W windows, L padded tokens, S padded keys, H heads, D width, B bins, U units.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from neuroformer.data.batch import Batch
from neuroformer.model.attention import Block
from neuroformer.model.network import Neuroformer
from neuroformer.model.spikes import BinTable, SpikeObservation, cell_counts
from neuroformer.model.streams import PastSpikes
from neuroformer.ops import Ragged

CURRENT, PAST = 100, 700


def padded_loss(model: Neuroformer, batch: Batch, dropout: float) -> Tensor:
    """Nats per spike of dt and id, as :func:`neuroformer.losses.loss_terms` gives them.

    Of a model of spikes without behavior. What belongs to windows and not to tokens, the tables of rates, is computed
    alike.
    """
    drop = lambda x: F.dropout(x, dropout, model.training)
    tick_WL, unit_WL = (_pad(x, batch.current, CURRENT - 1) for x in (batch.tick_S, batch.unit_S))
    past_stream = model.streams["past"]
    assert isinstance(past_stream, PastSpikes)
    missing = model.embedding.time_table().index_select(0, model.past_bins - batch.available_W)
    first_WD, terms_WBU = model.first + missing, torch.zeros(())
    contexts: dict[str, tuple[Tensor, Tensor | None]] = {}
    past = [_pad(x, batch.past, PAST - 1) for x in (batch.past_tick_P, batch.past_unit_P)]
    x_WSD = torch.cat([(past_stream.null + missing)[:, None], drop(_embed(model, *past))], 1)
    contexts["past"] = (x_WSD, _seen(batch.past, PAST))
    if batch.clips is not None and "frames" in model.streams:
        frames = model.frames
        age = batch.clips.age_W / frames.period
        first_WD = first_WD + frames.age(torch.stack([age, age.square()], 1).to(first_WD.dtype))
        x_WSD, local = _frames(model, batch, drop)
        contexts["frames"] = (x_WSD, None)
        terms_WBU = frames.readout(local)[:, None]
    x_WLD = torch.cat([drop(first_WD)[:, None], drop(_embed(model, tick_WL, unit_WL))], 1)
    causal = torch.ones(CURRENT, CURRENT, dtype=torch.bool).tril()
    for block in model.blocks:
        assert isinstance(block, Block)
        if block.attend == "current":
            x_WLD = _block(block, x_WLD, None, causal, drop)
        else:
            keys_WSD, seen = contexts[block.attend]
            x_WLD = _block(block, x_WLD, keys_WSD, seen, drop)
    return _loss(model, batch, model.norm(x_WLD), terms_WBU, tick_WL, unit_WL)


def _pad(x_T: Tensor, layout: Ragged, length: int) -> Tensor:
    """(T,) to (W, length), zeros behind."""
    return F.pad(layout.pad(x_T), (0, length - layout.max_length))


def _seen(layout: Ragged, length: int) -> Tensor:
    """(W, 1, 1, length) bool: the null token and the spikes."""
    return (torch.arange(length) <= layout.lengths_B[:, None])[:, None, None]


def _embed(model: Neuroformer, tick: Tensor, unit: Tensor) -> Tensor:
    return model.embedding(tick.flatten(), unit.flatten()).unflatten(0, tick.shape)


def _frames(model: Neuroformer, batch: Batch, drop) -> tuple[Tensor, Tensor]:
    """(W, 1 + places, D): every window's own clip, encoded; and (W, t, h, w, D), its local features."""
    encoder, clips = model.frames.encoder, batch.clips
    assert clips is not None
    local = encoder.local(clips.images_GFHW[clips.index_W], clips.num_missing_G[clips.index_W])
    time, row, column = encoder.position
    x_WSD = drop(rearrange(local + time[:, None, None] + row[:, None] + column, "w t h v d -> w (t h v) d"))
    for block in encoder.blocks:
        assert isinstance(block, Block)
        x_WSD = _block(block, x_WSD, None, None, drop)
    return torch.cat([encoder.null.expand(len(x_WSD), 1, -1), x_WSD], 1), local


def _block(block: Block, x_WLD: Tensor, keys_WSD: Tensor | None, seen: Tensor | None, drop) -> Tensor:
    y = block.norm(x_WLD)
    keys = y if keys_WSD is None else block.context_norm(keys_WSD)
    heads = block.attention.heads
    q = rearrange(block.attention.query(y), "w l (h e) -> w h l e", h=heads)
    k, v = rearrange(block.attention.key_value(keys), "w s (n h e) -> n w h s e", n=2, h=heads)
    scores_WHLS = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if seen is not None:
        scores_WHLS = scores_WHLS.masked_fill(~seen, float("-inf"))
    mixed = drop(scores_WHLS.softmax(-1)) @ v
    x_WLD = x_WLD + drop(block.attention.out(rearrange(mixed, "w h l e -> w l (h e)")))
    return x_WLD + drop(block.mlp(x_WLD))


def _loss(
    model: Neuroformer, batch: Batch, h_WLD: Tensor, terms_WBU: Tensor, tick_WL: Tensor, unit_WL: Tensor
) -> Tensor:
    """Logits at every padded position; those behind a window's last token leave the sum."""
    observation, num_bins = model.observation, model.num_bins
    assert isinstance(observation, SpikeObservation)
    base_WBU, drive_WBU = observation.before(batch, h_WLD[:, 0], terms_WBU)
    drive_WBU = observation.own(drive_WBU, batch.current, batch.tick_S, batch.unit_S)
    rate_WBU = observation.moved(base_WBU, drive_WBU).exp()
    table = BinTable(rate_WBU.flatten(0, 1))

    place, lengths = torch.arange(CURRENT), batch.current.lengths_B[:, None]
    count_WL = _pad(cell_counts(batch.current, batch.tick_S, batch.unit_S), batch.current, CURRENT - 1)
    last_tick, last_count = (F.pad(x, (1, 0)).flatten() for x in (tick_WL, count_WL))
    last_unit = F.pad(unit_WL, (1, 0), value=-1).flatten()
    tick, unit = F.pad(tick_WL, (0, 1)), F.pad(unit_WL, (0, 1))
    row = torch.arange(len(h_WLD)).repeat_interleave(CURRENT)
    h_ND, cell = h_WLD.flatten(0, 1), row * num_bins + last_tick

    left_NB = rate_WBU.sum(2)[row].scatter(1, last_tick[:, None], table.left(cell, last_unit, last_count)[:, None])
    dt_target = torch.where(place < lengths, tick, num_bins).masked_fill(place > lengths, -100)
    log_p = observation.dt_log_p(h_ND, left_NB, last_tick)
    dt_sum = F.nll_loss(log_p, dt_target.flatten(), reduction="sum", ignore_index=-100)

    classes, next_tick = torch.arange(model.num_units), tick.flatten()
    low = torch.where((last_tick == next_tick) & (last_unit >= 0), last_unit, -1)[:, None]
    again = table.again_logit(cell, last_unit, last_count)[:, None]
    base = torch.where(classes == low, again, table.unit_logits()[row * num_bins + next_tick])
    logits = observation.unit_logits(h_ND, next_tick, base).masked_fill(classes < low, float("-inf"))
    id_target = unit.masked_fill(place >= lengths, -100)
    id_sum = F.cross_entropy(logits, id_target.flatten(), reduction="sum", ignore_index=-100)
    return (dt_sum + id_sum) / batch.num_spikes

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
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.ops import Ragged

CURRENT, PAST = 100, 700


def padded_loss(model: Neuroformer, batch: Batch, dropout: float) -> Tensor:
    """Nats per spike of dt and id, as :func:`neuroformer.losses.loss_terms` gives them.

    Of a model without filtered counts, coupling, rate anchor and frame readout, which the original lacks.
    """
    drop = lambda x: F.dropout(x, dropout, model.training)
    tick_WL, unit_WL = (_pad(x, batch.current, CURRENT - 1) for x in (batch.tick_T, batch.unit_T))
    missing = model.spikes.time_table().index_select(0, model.past_bins - batch.available_W)
    start_WD = model.sos + missing
    contexts: dict[str, tuple[Tensor, Tensor | None]] = {}
    past = [_pad(x, batch.past, PAST - 1) for x in (batch.past_tick_P, batch.past_unit_P)]
    x_WSD = torch.cat([(model.past_null + missing)[:, None], drop(_embed(model, *past))], 1)
    contexts["past"] = (x_WSD, _seen(batch.past, PAST))
    if batch.clips is not None and model.frames is not None:
        age = batch.clips.age_W / model.frame_period
        start_WD = start_WD + model.frame_age(torch.stack([age, age.square()], 1).to(start_WD.dtype))
        contexts["frames"] = (_frames(model, batch, drop), None)
    x_WLD = torch.cat([drop(start_WD)[:, None], drop(_embed(model, tick_WL, unit_WL))], 1)
    causal = torch.ones(CURRENT, CURRENT, dtype=torch.bool).tril()
    for block in model.fusion.blocks:
        assert isinstance(block, Block)
        if block.attend == "current":
            x_WLD = _block(block, x_WLD, None, causal, drop)
        else:
            keys_WSD, seen = contexts[block.attend]
            x_WLD = _block(block, x_WLD, keys_WSD, seen, drop)
    return _loss(model, batch, model.fusion.norm(x_WLD), tick_WL, unit_WL)


def _pad(x_T: Tensor, layout: Ragged, length: int) -> Tensor:
    """(T,) to (W, length), zeros behind."""
    return F.pad(layout.pad(x_T), (0, length - layout.max_length))


def _seen(layout: Ragged, length: int) -> Tensor:
    """(W, 1, 1, length) bool: the null token and the spikes."""
    return (torch.arange(length) <= layout.lengths_B[:, None])[:, None, None]


def _embed(model: Neuroformer, tick: Tensor, unit: Tensor) -> Tensor:
    return model.spikes(tick.flatten(), unit.flatten()).unflatten(0, tick.shape)


def _frames(model: Neuroformer, batch: Batch, drop) -> Tensor:
    """(W, 1 + places, D): every window's own clip, encoded."""
    encoder, clips = model.frames, batch.clips
    assert encoder is not None and clips is not None
    local = encoder.local(clips.images_GFHW[clips.index_W], clips.num_missing_G[clips.index_W])
    time, row, column = encoder.position
    x_WSD = drop(rearrange(local + time[:, None, None] + row[:, None] + column, "w t h v d -> w (t h v) d"))
    for block in encoder.blocks:
        assert isinstance(block, Block)
        x_WSD = _block(block, x_WSD, None, None, drop)
    return torch.cat([encoder.null.expand(len(x_WSD), 1, -1), x_WSD], 1)


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


def _loss(model: Neuroformer, batch: Batch, h_WLD: Tensor, tick_WL: Tensor, unit_WL: Tensor) -> Tensor:
    """Logits at every padded position; those behind a window's last token leave the sum."""
    place = torch.arange(CURRENT)
    lengths = batch.current.lengths_B[:, None]
    last_tick = F.pad(tick_WL, (1, 0))
    last_unit = F.pad(unit_WL, (1, 0), value=-1)
    tick, unit = F.pad(tick_WL, (0, 1)), F.pad(unit_WL, (0, 1))

    dt_logits = model.heads.dt_logits(h_WLD.flatten(0, 1), None, last_tick.flatten())
    dt_target = torch.where(place < lengths, tick, model.num_bins).masked_fill(place > lengths, -100)
    dt_sum = F.cross_entropy(dt_logits, dt_target.flatten(), reduction="sum", ignore_index=-100)

    state = model.heads.id_state(h_WLD.flatten(0, 1), tick.flatten())
    id_logits = state @ model.heads.unit.T + model.heads.bias
    low = torch.where(last_tick == tick, last_unit.clamp_min(0), 0)
    id_logits = id_logits.masked_fill(torch.arange(model.num_units) < low.reshape(-1, 1), float("-inf"))
    id_target = unit.masked_fill(place >= lengths, -100)
    id_sum = F.cross_entropy(id_logits, id_target.flatten(), reduction="sum", ignore_index=-100)
    return (dt_sum + id_sum) / batch.num_spikes

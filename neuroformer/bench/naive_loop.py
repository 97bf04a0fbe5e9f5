"""The original's way of generating, with our weights: a full forward pass for every token, one sequence at a time.

Current tokens are padded to 100 and past ones to 700, and attention matrices are written out. For benchmarks only, of
models without filtered counts, coupling, rate anchor and frame readout, which the original lacks.

Shape suffixes: L padded tokens, S padded keys, D width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroformer.data.batch import Batch, BatchBuilder
from neuroformer.data.tokens import Tokens
from neuroformer.data.windows import Windows
from neuroformer.generation.sampling import DT, ID, draw, uniforms
from neuroformer.model.attention import Block
from neuroformer.model.network import Neuroformer

CURRENT, PAST = 100, 700


@torch.no_grad()
def naive_rollout(
    model: Neuroformer,
    builder: BatchBuilder,
    segment: int,
    start: int,
    lengths: np.ndarray,
    ident: int,
    seed: int,
) -> Iterator[list[tuple[int, int]]]:
    """One sequence in closed loop from an empty past; yields the (bin since its start, unit) spikes of each window.

    ``lengths``: how many spikes each window must have, since untrained weights know none.
    """
    shape, spikes = builder.shape, []
    for w, length in enumerate(lengths):
        tick = start + w * shape.current
        past = [(t - w * shape.current, u) for t, u in spikes if t >= w * shape.current - shape.past]
        offsets, (ticks, units) = np.array([0, len(past)]), np.array(past, np.int64).reshape(-1, 2).T
        windows = Windows(np.array([segment]), np.array([tick]))
        batch = builder(windows, past=Tokens(offsets, ticks, units))
        batch.available_W = torch.tensor([min(w * shape.current, shape.past)])
        new: list[tuple[int, int]] = []
        for token in range(int(length)):
            new.append(_next(model, batch, new, (seed, ident, w, token)))
        spikes += [(t + w * shape.current, u) for t, u in new]
        yield [(t + w * shape.current, u) for t, u in new]


def _next(
    model: Neuroformer, batch: Batch, new: list[tuple[int, int]], place: tuple[int, int, int, int]
) -> tuple[int, int]:
    seed, ident, window, token = place
    h_D = _forward(model, batch, new)[len(new)]
    stream = torch.tensor([ident])
    last_tick, last_unit = new[-1] if new else (0, -1)
    logits = model.heads.dt_logits(h_D[None], None, torch.tensor([last_tick]))[:, :-1]
    dt = draw(logits, uniforms(seed, stream, window, token, DT))
    state = model.heads.id_state(h_D[None], dt)
    logits = state @ model.heads.unit.T + model.heads.bias
    low = max(last_unit, 0) if int(dt) == last_tick else 0
    logits = logits.masked_fill(torch.arange(model.num_units) < low, float("-inf"))
    return int(dt), int(draw(logits, uniforms(seed, stream, window, token, ID)))


def _forward(model: Neuroformer, batch: Batch, new: list[tuple[int, int]]) -> Tensor:
    """(L, D) states of all padded tokens: everything anew."""
    missing = model.spikes.time_table()[model.past_bins - batch.available_W]
    first = model.sos + missing
    contexts: dict[str, tuple[Tensor, int]] = {}
    past = F.pad(model.spikes(batch.past_tick_P, batch.past_unit_P), (0, 0, 0, PAST - 1 - batch.past.total))
    contexts["past"] = torch.cat([model.past_null + missing, past]), batch.past.total + 1
    if batch.clips is not None and model.frames is not None:
        age = batch.clips.age_W / model.frame_period
        first = first + model.frame_age(torch.stack([age, age.square()], 1).to(first.dtype))
        contexts["frames"] = _frames(model, batch)
    tick, unit = (torch.tensor([s[i] for s in new], dtype=torch.int64) for i in (0, 1))
    x_LD = F.pad(torch.cat([first, model.spikes(tick, unit)]), (0, 0, 0, CURRENT - 1 - len(new)))
    causal = torch.ones(CURRENT, CURRENT, dtype=torch.bool).tril()
    for block in model.fusion.blocks:
        assert isinstance(block, Block)
        if block.attend == "current":
            x_LD = _block(block, x_LD, None, causal)
        else:
            keys, count = contexts[block.attend]
            x_LD = _block(block, x_LD, keys, (torch.arange(len(keys)) < count)[None])
    return model.fusion.norm(x_LD)


def _frames(model: Neuroformer, batch: Batch) -> tuple[Tensor, int]:
    encoder, clips = model.frames, batch.clips
    assert encoder is not None and clips is not None
    local = encoder.local(clips.images_GFHW, clips.num_missing_G)
    time, row, column = encoder.position
    x_SD = (local + time[:, None, None] + row[:, None] + column).reshape(-1, local.shape[-1])
    for block in encoder.blocks:
        assert isinstance(block, Block)
        x_SD = _block(block, x_SD, None, None)
    return torch.cat([encoder.null[None], x_SD]), len(x_SD) + 1


def _block(block: Block, x_LD: Tensor, keys_SD: Tensor | None, seen_LS: Tensor | None) -> Tensor:
    y = block.norm(x_LD)
    attention = block.attention
    q = attention.queries(y).transpose(0, 1)
    k, v = (x.transpose(0, 1) for x in attention.keys_values(y if keys_SD is None else block.context_norm(keys_SD)))
    scores_HLS = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
    if seen_LS is not None:
        scores_HLS = scores_HLS.masked_fill(~seen_LS, float("-inf"))
    return block.finish(x_LD, (scores_HLS.softmax(-1) @ v).transpose(0, 1))

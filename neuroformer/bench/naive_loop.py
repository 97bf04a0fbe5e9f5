"""The original's way of generating, with our weights: a full forward pass for every token, one sequence at a time.

Current tokens are padded to 100 and past ones to 700, and attention matrices are written out. The table of rates, which
the original lacks, is small beside that. For benchmarks only, of models of spikes without behavior.

Shape suffixes: L padded tokens, S padded keys, B bins of a window, U units, D width.
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
from neuroformer.model.frames import FrameEncoder
from neuroformer.model.network import Neuroformer
from neuroformer.model.spikes import BinTable, SpikeObservation
from neuroformer.model.streams import PastSpikes
from neuroformer.ops import Ragged

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
    h_LD, log_rate_WBU = _forward(model, batch, new)
    observation, stream = model.observation, torch.tensor([ident])
    assert isinstance(observation, SpikeObservation)
    h_ND, table = h_LD[len(new)][None], BinTable(_rates(observation, batch, h_LD[:1], log_rate_WBU, new))
    last = new[-1] if new else (0, -1)
    tick, unit, count = torch.tensor([[*last, max(new.count(last), 1)]]).T
    left_NB = table.rate_nU.sum(1)[None].scatter(1, tick[:, None], table.left(tick, unit, count)[:, None])
    logits = observation.dt_log_p(h_ND, left_NB, tick)[:, :-1]
    dt = draw(logits, uniforms(seed, stream, window, token, DT))
    base_NU = table.unit_logits()[dt]
    if new and int(dt) == new[-1][0]:
        base_NU[0, unit] = table.again_logit(tick, unit, count)
        base_NU[0, : int(unit)] = float("-inf")
    logits = observation.unit_logits(h_ND, dt, base_NU)
    return int(dt), int(draw(logits, uniforms(seed, stream, window, token, ID)))


def _rates(
    observation: SpikeObservation,
    batch: Batch,
    first_WD: Tensor,
    log_rate_WBU: Tensor | float,
    new: list[tuple[int, int]],
) -> Tensor:
    """(B, U) expected counts, given the spikes of earlier bins."""
    base_WBU, drive_WBU = observation.before(batch, first_WD, log_rate_WBU)
    tick, unit = torch.tensor(new, dtype=torch.int64).view(-1, 2).T
    drive_WBU = observation.own(drive_WBU, Ragged.from_lengths(torch.tensor([len(new)])), tick, unit)
    return observation.moved(base_WBU, drive_WBU)[0].exp()


def _forward(model: Neuroformer, batch: Batch, new: list[tuple[int, int]]) -> tuple[Tensor, Tensor | float]:
    """(L, D) states of all padded tokens, and what the frames add to the log rates: everything anew."""
    missing = model.embedding.time_table()[model.past_bins - batch.available_W]
    first, log_rate_WBU = model.first + missing, 0.0
    contexts: dict[str, tuple[Tensor, int]] = {}
    past = F.pad(model.embedding(batch.past_tick_P, batch.past_unit_P), (0, 0, 0, PAST - 1 - batch.past.total))
    stream = model.streams["past"]
    assert isinstance(stream, PastSpikes)
    contexts["past"] = torch.cat([stream.null + missing, past]), batch.past.total + 1
    if batch.clips is not None:
        stream = model.frames
        age = batch.clips.age_W / stream.period
        first = first + stream.age(torch.stack([age, age.square()], 1).to(first.dtype))
        local = stream.encoder.local(batch.clips.images_GFHW, batch.clips.num_missing_G)
        log_rate_WBU = stream.readout(local)[:, None]
        contexts["frames"] = _frames(stream.encoder, local)
    tick, unit = (torch.tensor([s[i] for s in new], dtype=torch.int64) for i in (0, 1))
    x_LD = F.pad(torch.cat([first, model.embedding(tick, unit)]), (0, 0, 0, CURRENT - 1 - len(new)))
    causal = torch.ones(CURRENT, CURRENT, dtype=torch.bool).tril()
    for block in model.blocks:
        assert isinstance(block, Block)
        if block.attend == "current":
            x_LD = _block(block, x_LD, None, causal)
        else:
            keys, count = contexts[block.attend]
            x_LD = _block(block, x_LD, keys, (torch.arange(len(keys)) < count)[None])
    return model.norm(x_LD), log_rate_WBU


def _frames(encoder: FrameEncoder, local: Tensor) -> tuple[Tensor, int]:
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

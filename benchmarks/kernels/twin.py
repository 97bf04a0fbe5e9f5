"""A small network made of the operations alone, to train twice: with one implementation and with another.

It has the reference's plan (causal self-attention, cross-attention to past and to frames, causal
self-attention, a head for dt and one for id), so its step at the reference's size is what the fused
kernels have to speed up. Shape suffixes: T current tokens, S keys, B windows, C channels, H heads,
E head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroformer.ops import Ragged, attention, marked_cross_entropy


@dataclass(frozen=True)
class TwinSize:
    """Defaults are those of the reference: 27 M parameters."""

    width: int = 256
    heads: int = 8
    blocks: tuple[int, int, int, int] = (6, 6, 6, 6)  # self, past, frames, self
    units: int = 400
    bins: int = 5
    windows: int = 160
    spikes: float = 15.0
    past: float = 100.0
    frames: int = 264


@dataclass
class TwinBatch:
    """``bins + 1`` values of dt: the last one ends the window. Tokens are SOS and the spikes."""

    unit_T: Tensor
    bin_T: Tensor
    next_unit_T: Tensor  # target; meaningless where next_bin_T ends the window
    next_bin_T: Tensor
    past_unit_S: Tensor
    current: Ragged
    past: Ragged
    frames: Ragged
    frame_SC: Tensor
    spike_rows: Tensor  # tokens that are followed by a spike

    def to(self, device) -> TwinBatch:
        """Moved to a device, where nothing has to wait for it any more."""
        return TwinBatch(**{name: value.to(device) for name, value in vars(self).items()})


def spike_counts(mean: float, num: int, generator: torch.Generator) -> Tensor:
    """Counts of windows of a population whose rate wanders: gamma-Poisson, variance mean + mean^2 / 4."""
    shape = torch.full((num, 4), 0.25)
    # a gamma of shape 4 is a sum of four exponentials
    rate = -(torch.rand(shape.shape, generator=generator).clamp_min(1e-6).log() * shape).sum(1) * mean
    return torch.poisson(rate, generator=generator).long()


def twin_batch(size: TwinSize, seed: int) -> TwinBatch:
    """Random windows whose spikes are ordered by (bin, unit), so that the supports are real."""
    g = torch.Generator().manual_seed(seed)
    num_spikes = spike_counts(size.spikes, size.windows, g)
    current = Ragged.from_lengths(num_spikes + 1)
    unit_T = torch.zeros(current.total, dtype=torch.int64)
    bin_T = torch.zeros(current.total, dtype=torch.int64)
    next_unit_T, next_bin_T = unit_T.clone(), torch.full_like(bin_T, size.bins)
    for b in range(size.windows):
        first, stop = int(current.offsets[b]), int(current.offsets[b + 1])
        code = torch.randint(0, size.bins * size.units, (stop - first - 1,), generator=g).sort().values
        unit_T[first + 1 : stop], bin_T[first + 1 : stop] = code % size.units, code // size.units
        next_unit_T[first : stop - 1], next_bin_T[first : stop - 1] = code % size.units, code // size.units
    past = Ragged.from_lengths(spike_counts(size.past, size.windows, g))
    frames = Ragged.from_lengths(torch.full((size.windows,), size.frames))
    return TwinBatch(
        unit_T,
        bin_T,
        next_unit_T,
        next_bin_T,
        torch.randint(0, size.units, (past.total,), generator=g),
        current,
        past,
        frames,
        torch.randn(frames.total, size.width, generator=g),
        (next_bin_T < size.bins).nonzero().squeeze(1),
    )


class Block(nn.Module):
    """Attention and a feed-forward layer, each after a normalisation and beside a shortcut."""

    def __init__(self, size: TwinSize, impl: str, causal: bool):
        super().__init__()
        self.impl, self.causal, self.heads = impl, causal, size.heads
        self.norm_q, self.norm_ff = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.q, self.kv = nn.Linear(size.width, size.width), nn.Linear(size.width, 2 * size.width)
        self.out = nn.Linear(size.width, size.width)
        self.ff = nn.Sequential(nn.Linear(size.width, 4 * size.width), nn.GELU(), nn.Linear(4 * size.width, size.width))

    def forward(self, x_TC: Tensor, q_layout: Ragged, keys_SC: Tensor | None, k_layout: Ragged) -> Tensor:
        normed_TC = self.norm_q(x_TC)
        keys_SC = normed_TC if keys_SC is None else keys_SC
        q_THE = self.q(normed_TC).unflatten(-1, (self.heads, -1))
        k_SHE, v_SHE = self.kv(keys_SC).unflatten(-1, (2, self.heads, -1)).unbind(1)
        mixed_THE = attention(q_THE, k_SHE, v_SHE, q_layout, k_layout, causal=self.causal, impl=self.impl)
        x_TC = x_TC + self.out(mixed_THE.flatten(-2))
        return x_TC + self.ff(self.norm_ff(x_TC))


class Twin(nn.Module):
    """The network; ``loss_impl`` is that of the cross-entropy."""

    def __init__(self, size: TwinSize, impl: str, loss_impl: str):
        super().__init__()
        self.size, self.loss_impl = size, loss_impl
        first, past, frames, last = size.blocks
        make = lambda num, causal: nn.ModuleList(Block(size, impl, causal) for _ in range(num))
        self.unit = nn.Embedding(size.units, size.width)
        self.bin = nn.Embedding(size.bins + 1, size.width)
        self.first, self.to_past, self.to_frames, self.last = (
            make(first, True),
            make(past, False),
            make(frames, False),
            make(last, True),
        )
        self.norm = nn.LayerNorm(size.width)
        self.dt_head = nn.Linear(size.width, size.bins + 1)
        self.id_head = nn.Linear(size.width, size.units)

    def forward(self, batch: TwinBatch) -> Tensor:
        """Mean negative log-likelihood of dt plus that of id, each over its targets."""
        current = batch.current
        x_TC = self.unit(batch.unit_T) + self.bin(batch.bin_T)
        past_SC = self.unit(batch.past_unit_S)
        for block in self.first:
            x_TC = block(x_TC, current, None, current)
        for block in self.to_past:
            x_TC = block(x_TC, current, past_SC, batch.past)
        for block in self.to_frames:
            x_TC = block(x_TC, current, batch.frame_SC.to(x_TC.dtype), batch.frames)
        for block in self.last:
            x_TC = block(x_TC, current, None, current)
        x_TC = self.norm(x_TC)

        # dt never decreases
        dt_loss = self._loss(x_TC, self.dt_head, batch.next_bin_T, batch.bin_T)
        # within a bin the unit never decreases; the state knows the dt of its target
        rows = batch.spike_rows
        h_NC = (x_TC + self.bin(batch.next_bin_T)).index_select(0, rows)
        same_bin = batch.bin_T[rows] == batch.next_bin_T[rows]
        least_N = torch.where(same_bin, batch.unit_T[rows], 0)
        id_loss = self._loss(h_NC, self.id_head, batch.next_unit_T[rows], least_N)
        return dt_loss + id_loss

    def _loss(self, h_NC: Tensor, head: nn.Linear, target_N, least_N) -> Tensor:
        weight, bias = head.weight, head.bias
        if torch.is_autocast_enabled(h_NC.device.type):
            h_NC, weight = (x.to(torch.get_autocast_dtype(h_NC.device.type)) for x in (h_NC, weight))
        base, row_N, least_base_N = (
            bias.new_zeros(1, len(bias)),
            torch.zeros_like(least_N),
            bias.new_zeros(len(least_N)),
        )
        arguments = (h_NC, weight, bias, target_N, least_N, base, row_N, least_base_N)
        return marked_cross_entropy(*arguments, impl=self.loss_impl).mean()


def train_twin(
    size: TwinSize, impl: str, loss_impl: str, steps: int, dtype=torch.float32, device: str = "cpu"
) -> list[float]:
    """Losses of ``steps`` steps of Adam on four batches in turn, from one initialisation."""
    torch.manual_seed(0)
    network = Twin(size, impl, loss_impl).to(device, dtype)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    batches = [twin_batch(size, seed).to(device) for seed in range(4)]
    losses = []
    for step in range(steps):
        loss = network(batches[step % len(batches)])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses

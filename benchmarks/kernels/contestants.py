"""What the fused kernels run against: each contestant computes the same thing from the same packed batch.

A contestant is a function without arguments that does one forward and backward pass (or a forward one,
where there is no other). What can be prepared once per batch (masks, block masks, layouts) is prepared
before, for every contestant alike. Shape suffixes as in ``neuroformer.ops.attention``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.kernels.cases import call_cross_entropy
from benchmarks.kernels.twin import Twin, TwinSize, spike_counts, twin_batch
from neuroformer.ops import Ragged, attention, decode_attention, eager

Step = Callable[[], object]


@dataclass(frozen=True)
class AttentionShape:
    """Query and key lengths: a mean drawn from spike counts, or a fixed number of frame tokens."""

    name: str
    batch: int
    queries: float
    keys: float | None = None  # None: self-attention
    frames: bool = False  # keys (or both sides of self-attention) have one length
    causal: bool = False
    shared: int = 1  # windows that read one key sequence
    heads: int = 8
    width: int = 32

    def build(self, device: str) -> dict[str, Any]:
        g = torch.Generator().manual_seed(0)
        groups = self.batch // self.shared
        if self.keys is None:
            lengths = torch.full((self.batch,), int(self.queries))
            q_layout = Ragged.from_lengths(lengths if self.frames else spike_counts(self.queries, self.batch, g) + 1)
            k_layout = q_layout = q_layout.to(device)
        else:
            q_layout = Ragged.from_lengths(spike_counts(self.queries, self.batch, g) + 1).to(device)
            fixed = torch.full((groups,), int(self.keys))
            k_layout = Ragged.from_lengths(fixed if self.frames else spike_counts(self.keys, groups, g))
            k_layout = k_layout.to(device)
        index = None
        if self.shared > 1:
            index = torch.arange(self.batch, device=device) // self.shared
        q, k, v, dout = (
            torch.randn(n, self.heads, self.width, device=device, dtype=torch.bfloat16)
            for n in (q_layout.total, k_layout.total, k_layout.total, q_layout.total)
        )
        qkv = [x.requires_grad_() for x in (q, k, v)]
        return {"qkv": qkv, "dout": dout, "q_layout": q_layout, "k_layout": k_layout, "k_index": index}

    def work(self, built: dict[str, Any]) -> tuple[float, float]:
        """(floating-point operations, bytes) of a forward and backward pass that wastes nothing."""
        q_lengths, k_lengths = built["q_layout"].lengths_B, built["k_layout"].lengths_B
        if built["k_index"] is not None:
            k_lengths = k_lengths[built["k_index"]]
        pairs = float((q_lengths.double() * k_lengths.double()).sum()) * (0.5 if self.causal else 1.0)
        features = self.heads * self.width
        num_q, num_k = built["q_layout"].total, built["k_layout"].total
        # forward reads q, k, v and writes out; backward reads q, k, v, out, dout and writes dq, dk, dv
        return 2.0 * 7 * pairs * features, 2.0 * features * (6 * num_q + 6 * num_k)


ATTENTION_SHAPES = (
    AttentionShape("self, causal, 15 spikes, batch 512", 512, 15, causal=True),
    AttentionShape("15 spikes to 100 past, batch 512", 512, 15, 100),
    AttentionShape("15 spikes to 700 past, batch 512", 512, 15, 700),
    AttentionShape("15 spikes to 264 frame tokens, batch 512", 512, 15, 264, frames=True),
    AttentionShape("15 spikes to 405 frame tokens, batch 128", 128, 15, 405, frames=True),
    AttentionShape("15 spikes to 405 shared by 8, batch 512", 512, 15, 405, frames=True, shared=8),
    AttentionShape("15 spikes to 700 past, batch 32", 32, 15, 700),
    AttentionShape("self, causal, 15 spikes, batch 32", 32, 15, causal=True),
    AttentionShape("self, causal, 100 spikes, batch 128", 128, 100, causal=True),
    AttentionShape("self, causal, 700 spikes, batch 32", 32, 700, causal=True),
    AttentionShape("frames to themselves, 264, batch 64", 64, 264, frames=True),
)


def _step(built: dict[str, Any], forward: Callable[..., Tensor]) -> Step:
    def run():
        out = forward(*built["qkv"])
        return torch.autograd.grad(out, built["qkv"], built["dout"])

    return run


def attention_contestants(shape: AttentionShape, built: dict[str, Any]) -> dict[str, Callable[[], Step]]:
    """Name to a function that prepares the contestant; it raises where the contestant cannot play."""
    layouts = built["q_layout"], built["k_layout"]
    options = {"k_index": built["k_index"], "causal": shape.causal}

    def ours(impl: str) -> Step:
        return _step(built, lambda q, k, v: attention(q, k, v, *layouts, **options, impl=impl))

    return {
        "triton": lambda: ours("triton"),
        "SDPA, padded": lambda: ours("sdpa"),
        "varlen flash": lambda: _varlen(shape, built),
        "SDPA, born padded": lambda: _born_padded(shape, built),
        "SDPA, nested": lambda: _nested(shape, built),
        "eager, padded": lambda: _eager_padded(shape, built),
        "FlexAttention": lambda: ours("flex"),
    }


def _spread(shape: AttentionShape, built: dict[str, Any]) -> Callable[[], list[Tensor]]:
    """Gives q, k, v with keys repeated for every window that reads them: not all contestants can share."""
    q, k, v = built["qkv"]
    if built["k_index"] is None:
        return lambda: [q, k, v]
    length = int(shape.keys or 0)

    def repeat(x: Tensor) -> Tensor:
        return x.unflatten(0, (-1, length)).repeat_interleave(shape.shared, 0).flatten(0, 1)

    return lambda: [q, repeat(k), repeat(v)]


def _spread_layouts(shape: AttentionShape, built: dict[str, Any]) -> tuple[Ragged, Ragged]:
    lengths = built["k_layout"].lengths_B.cpu().repeat_interleave(shape.shared)
    return built["q_layout"], Ragged.from_lengths(lengths).to(built["dout"].device)


def _varlen(shape: AttentionShape, built: dict[str, Any]) -> Step:
    """FlashAttention's kernels for packed batches: the package where installed, else PyTorch's own copy."""
    tensors, (q_layout, k_layout) = _spread(shape, built), _spread_layouts(shape, built)
    where = (q_layout.offsets.int(), k_layout.offsets.int(), q_layout.max_length, k_layout.max_length)
    try:
        from flash_attn import flash_attn_varlen_func  # pyright: ignore[reportMissingImports]
    except ImportError:
        flash = torch.ops.aten._flash_attention_forward
        return _step(built, lambda *_: flash(*tensors(), *where, 0.0, shape.causal, False)[0])
    return _step(built, lambda *_: flash_attn_varlen_func(*tensors(), *where, causal=shape.causal))


def _padded(shape: AttentionShape, built: dict[str, Any]) -> tuple[list[Tensor], Tensor, Tensor | None]:
    """Leaves (B, H, L, E), the gradient, and the mask (B, 1, 1, L) where lengths differ."""
    q_layout, k_layout = _spread_layouts(shape, built)
    with torch.no_grad():
        q, k, v = _spread(shape, built)()
        padded = [
            layout.pad(x).transpose(1, 2).contiguous()
            for layout, x in ((q_layout, q), (k_layout, k), (k_layout, v), (q_layout, built["dout"]))
        ]
    full = len(k_layout) * k_layout.max_length == k_layout.total
    mask = None if full or shape.causal else k_layout.mask_BL[:, None, None, :]
    return [x.requires_grad_() for x in padded[:3]], padded[3], mask


def _born_padded(shape: AttentionShape, built: dict[str, Any]) -> Step:
    """A model that pads everything, so that attention finds its tensors padded."""
    leaves, dout, mask = _padded(shape, built)

    def run():
        out = F.scaled_dot_product_attention(*leaves, attn_mask=mask, is_causal=shape.causal)
        return torch.autograd.grad(out, leaves, dout)

    return run


def _eager_padded(shape: AttentionShape, built: dict[str, Any]) -> Step:
    leaves, dout, mask = _padded(shape, built)
    hidden = None if mask is None else ~mask
    if shape.causal:
        size = leaves[0].shape[2]
        hidden = torch.ones(size, size, dtype=torch.bool, device=dout.device).triu(1)

    def run():
        q, k, v = leaves
        scores = q @ k.transpose(-1, -2) * shape.width**-0.5
        if hidden is not None:
            scores = scores.masked_fill(hidden, float("-inf"))
        return torch.autograd.grad(scores.softmax(-1) @ v, leaves, dout)

    return run


def _nested(shape: AttentionShape, built: dict[str, Any]) -> Step:
    """Jagged nested tensors over the packed values."""
    tensors, (q_layout, k_layout) = _spread(shape, built), _spread_layouts(shape, built)
    shortest = {layout: int(layout.lengths_B.min()) for layout in (q_layout, k_layout)}

    def nest(x: Tensor, layout: Ragged) -> Tensor:
        bounds: dict[str, Any] = {"min_seqlen": shortest[layout], "max_seqlen": layout.max_length}
        return torch.nested.nested_tensor_from_jagged(x, layout.offsets, **bounds).transpose(1, 2)

    def forward(*_):
        q, k, v = tensors()
        out = F.scaled_dot_product_attention(
            nest(q, q_layout), nest(k, k_layout), nest(v, k_layout), is_causal=shape.causal
        )
        return out.transpose(1, 2).values()

    return _step(built, forward)


@dataclass(frozen=True)
class LossShape:
    name: str
    rows: int
    classes: int
    bins: int = 5
    features: int = 256

    def build(self, device: str) -> dict[str, Any]:
        """Supports and bases of real windows: 15 spikes over the bins, ordered by unit within a bin."""
        torch.manual_seed(0)
        batch = twin_batch(TwinSize(units=self.classes, bins=self.bins, windows=self.rows // 14, past=1, frames=1), 0)
        rows = batch.spike_rows[: self.rows]
        same = batch.bin_T[rows] == batch.next_bin_T[rows]
        low = torch.where(same, batch.unit_T[rows], -1)
        row = batch.current.row_T[rows] * self.bins + batch.next_bin_T[rows]
        shapes = ((len(rows), self.features), (self.classes, self.features), (self.classes,))
        h, w, b = (torch.randn(s, device=device).mul(0.05).bfloat16().requires_grad_() for s in shapes)
        indices = [x.to(device) for x in (batch.next_unit_T[rows], low, row)]
        sizes = ((len(batch.current) * self.bins, self.classes), (len(rows),))
        base, first = (torch.randn(s, device=device).requires_grad_() for s in sizes)
        return {"floats": [h, w, b, base, first], "indices": indices}

    def work(self, built: dict[str, Any]) -> tuple[float, float]:
        """Four products over the supports alone: the loss, its gradient of h, and the weight's twice."""
        _, low, _ = built["indices"]
        pairs = float((self.classes - low.clamp_min(0)).double().sum())
        tensors = sum(x.numel() * x.element_size() for x in built["floats"])
        return 2.0 * 4 * pairs * self.features, 3.0 * tensors


LOSS_SHAPES = (
    LossShape("id head, 100,000 units", 7680, 100_000),
    LossShape("id head, 10,000 units", 7680, 10_000),
    LossShape("id head, 400 units", 7680, 400),
)


def loss_contestants(shape: LossShape, built: dict[str, Any]) -> dict[str, Callable[[], Step]]:
    from neuroformer.ops import marked_cross_entropy

    def step(call) -> Step:
        def run():
            loss = call_cross_entropy(call, built["floats"], built["indices"])
            return torch.autograd.grad(loss.mean(), built["floats"])

        return run

    return {
        "triton": lambda: step(lambda *x: marked_cross_entropy(*x, impl="triton")),
        "compiled": lambda: step(torch.compile(eager.marked_cross_entropy, dynamic=False)),
        "eager": lambda: step(eager.marked_cross_entropy),
    }


@dataclass(frozen=True)
class DecodeShape:
    name: str
    batch: int
    keys: int
    shared: bool = False
    heads: int = 8
    width: int = 32

    def build(self, device: str) -> dict[str, Any]:
        g = torch.Generator().manual_seed(0)
        groups = max(1, self.batch // 16) if self.shared else self.batch
        lengths = spike_counts(self.keys, groups, g).to(device)
        capacity = int(lengths.max())
        q, k, v = (
            torch.randn(n, self.heads, self.width, device=device, dtype=torch.bfloat16)
            for n in (self.batch, groups * capacity, groups * capacity)
        )
        index = torch.arange(self.batch, device=device) % groups if self.shared else None
        start = torch.arange(groups, device=device) * capacity
        layout = Ragged(torch.arange(self.batch + 1, device=device), 1, self.batch)
        return {"call": (q, k, v, start, lengths, capacity), "k_index": index, "q_layout": layout}

    def work(self, built: dict[str, Any]) -> tuple[float, float]:
        q, _, _, _, lengths, _ = built["call"]
        keys = float(lengths.sum())
        asked = lengths if built["k_index"] is None else lengths[built["k_index"]]
        features = self.heads * self.width
        return 4.0 * float(asked.sum()) * features, 2.0 * features * (2 * keys + 2 * q.shape[0])


DECODE_SHAPES = (
    DecodeShape("decode, 700 keys, batch 512", 512, 700),
    DecodeShape("decode, 700 keys, batch 32", 32, 700),
    DecodeShape("decode, 405 keys shared by 16, batch 512", 512, 405, True),
)


def decode_contestants(shape: DecodeShape, built: dict[str, Any]) -> dict[str, Callable[[], Step]]:
    q, k, v, _, lengths, capacity = built["call"]

    def ours() -> Step:
        more = {"k_index": built["k_index"], "q_layout": built["q_layout"]}
        return lambda: decode_attention(*built["call"], **more, impl="triton")

    def sdpa() -> Step:
        index = slice(None) if built["k_index"] is None else built["k_index"]
        caches = [x.unflatten(0, (-1, capacity)).transpose(1, 2) for x in (k, v)]
        place = torch.arange(capacity, device=q.device)
        mask = (place < lengths[index][:, None]) | (lengths[index] == 0)[:, None]
        return lambda: F.scaled_dot_product_attention(
            q[:, :, None], *(x[index] for x in caches), attn_mask=mask[:, None, None]
        )

    return {"triton": ours, "SDPA, padded cache": sdpa}


@dataclass(frozen=True)
class StepShape:
    """A training step of a network of the reference's size."""

    name: str
    size: TwinSize

    def build(self, device: str) -> dict[str, Any]:
        return {"batch": twin_batch(self.size, 0).to(device), "device": device}

    def work(self, built: dict[str, Any]) -> tuple[float, float]:
        return 0.0, 0.0  # not counted


STEP_SHAPES = (StepShape("training step of the reference's size, batch 160", TwinSize()),)


def step_contestants(shape: StepShape, built: dict[str, Any]) -> dict[str, Callable[[], Step]]:
    def train(impl: str, loss_impl: str) -> Step:
        torch.manual_seed(0)
        network = Twin(shape.size, impl, loss_impl).to(built["device"])
        device = built["device"]
        cuda = device == "cuda"
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=cuda, capturable=cuda)

        def run():
            optimiser.zero_grad(set_to_none=True)
            # weights cast inside a captured graph must not outlive it
            with torch.autocast(device, torch.bfloat16, cache_enabled=False):
                loss = network(built["batch"])
            loss.backward()
            optimiser.step()
            return loss.detach()

        return run

    return {"triton": lambda: train("triton", "triton"), "SDPA, padded": lambda: train("sdpa", "eager")}

"""Cases that the fused kernels are checked on: the same on a CPU (interpreted) and on a GPU.

Each check raises AssertionError naming the output or gradient that is off; the oracle is the eager
reference in float64, the tolerance that of ``neuroformer.ops.tolerance``. Shape suffixes: T query
tokens, S key tokens, B sequences, G key sequences, H heads, E head width, N rows, C classes, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.twin import spike_counts
from neuroformer.ops import eager
from neuroformer.ops.ragged import Ragged
from neuroformer.ops.tolerance import check_close

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


def layout(lengths: tuple[int, ...], device) -> Ragged:
    return Ragged.from_lengths(torch.tensor(lengths, dtype=torch.int64)).to(device)


def draw(generator: torch.Generator, *shape: int, dtype=torch.float64, device="cpu") -> Tensor:
    """Normal numbers that ``dtype`` holds exactly, so that all precisions start from the same values."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).to(device)


@dataclass(frozen=True)
class AttentionCase:
    """Lengths and shapes of one check of attention, forward and backward."""

    name: str
    q_lengths: tuple[int, ...]
    k_lengths: tuple[int, ...]
    heads: int = 1
    width: int = 32
    dtype: torch.dtype = F32
    backward: str | None = None  # "owned" or "split"; None leaves it to the table
    k_index: tuple[int, ...] | None = None
    causal: bool = False

    def layouts(self, device) -> tuple[Ragged, Ragged]:
        q_layout = layout(self.q_lengths, device)
        same = self.k_lengths == self.q_lengths and self.k_index is None
        return q_layout, q_layout if same else layout(self.k_lengths, device)

    def tensors(self, device) -> tuple[list[Tensor], Tensor]:
        """(q, k, v) and the gradient of the output, in the case's dtype."""
        g = torch.Generator().manual_seed(len(self.name))
        num_q, num_k = sum(self.q_lengths), sum(self.k_lengths)
        q, k, v, dout = (
            draw(g, n, self.heads, self.width, dtype=self.dtype, device=device) for n in (num_q, num_k, num_k, num_q)
        )
        return [q, k, v], dout

    def options(self, device) -> dict[str, Any]:
        index = None if self.k_index is None else torch.tensor(self.k_index, device=device)
        return {"causal": self.causal, "k_index": index}


def run_attention(call, case: AttentionCase, device, dtype) -> dict[str, Tensor]:
    """Outputs and gradients by name, computed in ``dtype`` from the values of the case's own dtype."""
    inputs, dout = case.tensors(device)
    inputs = [x.to(dtype).requires_grad_() for x in inputs]
    out, lse = call(*inputs, *case.layouts(device), **case.options(device))
    if out.requires_grad:  # the oracle's does not where there is nothing to attend to
        out.backward(dout.to(dtype))
    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in inputs]
    return {"out": out.detach(), "lse": lse, "dq": grads[0], "dk": grads[1], "dv": grads[2]}


def check_attention(case: AttentionCase, device) -> None:
    from neuroformer.kernels import configs  # pyright: ignore[reportMissingImports]
    from neuroformer.kernels.spike_attention import (  # pyright: ignore[reportMissingImports]
        spike_attention,
    )

    exact = run_attention(eager.attention, case, device, torch.float64)
    rounded = run_attention(eager.attention, case, device, case.dtype)
    with configs.forced(backward=case.backward):
        got = run_attention(spike_attention, case, device, case.dtype)
    for name in exact:
        check_close(f"{case.name}: {name}", got[name], rounded[name], exact[name])


QUERIES, KEYS = (0, 1, 63, 64, 65, 7), (5, 0, 64, 65, 1, 130)
FEW, GROUP = (3, 0, 40, 9, 1), (2, 1, 0, 2, 2)

SMALL_ATTENTION = (
    AttentionCase("cross", QUERIES, KEYS, 2, 32, F32, "owned"),
    AttentionCase("cross split", QUERIES, KEYS, 2, 16, F32, "split"),
    AttentionCase("cross bf16", QUERIES, KEYS, 1, 32, BF16, "owned"),
    AttentionCase("cross fp16 wide", QUERIES, KEYS, 1, 128, F16, "split"),
    AttentionCase("cross odd width", QUERIES, KEYS, 1, 60, BF16),
    AttentionCase("causal", QUERIES, QUERIES, 1, 32, F32, "owned", causal=True),
    AttentionCase("causal split", QUERIES, QUERIES, 1, 16, BF16, "split", causal=True),
    AttentionCase("causal of unequal lengths", QUERIES, KEYS, 1, 60, F32, "owned", causal=True),
    AttentionCase("causal of unequal lengths, split", QUERIES, KEYS, 1, 32, F16, "split", causal=True),
    AttentionCase("few queries, many keys", (15, 3, 0, 22), (300, 150, 20, 0), 1, 32, BF16),
    AttentionCase("shared keys", FEW, (17, 5, 70), 1, 32, F32, "owned", GROUP),
    AttentionCase("shared keys, split", FEW, (17, 5, 70), 2, 16, BF16, "split", GROUP),
    AttentionCase("shared keys, none read", (2, 3), (4, 6, 1), 1, 16, F32, None, (1, 1)),
    AttentionCase("no keys at all", (3, 2), (0, 0), 1, 16, F32),
    AttentionCase("no queries at all", (0, 0), (3, 2), 1, 16, F32),
)


@dataclass(frozen=True)
class CrossEntropyCase:
    """Sizes of one check of the marked cross-entropy, forward and backward."""

    name: str
    rows: int
    classes: int
    features: int
    dtype: torch.dtype = F32

    def tensors(self, device) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """(h, weight, bias, base, first), (target, low, row of the base), and the gradient of the loss."""
        g = torch.Generator().manual_seed(len(self.name))
        h = draw(g, self.rows, self.features, dtype=self.dtype, device=device)
        weight = draw(g, self.classes, self.features) * self.features**-0.5
        bias = draw(g, self.classes)
        # half of the rows open a bin and may choose every unit; the others go on from the last one
        low = torch.randint(0, self.classes, (self.rows,), generator=g)
        low = torch.where(torch.arange(self.rows) % 2 == 1, low, -1)
        share = torch.rand(self.rows, generator=g)
        target = low.clamp_min(0) + (share * (self.classes - low.clamp_min(0))).long()
        # several rows share one of the base, and some rows of it nobody takes
        num_base = self.rows // 3 + 2
        row = torch.randint(0, num_base, (self.rows,), generator=g)
        floats = [h, weight.to(self.dtype).to(device), bias.to(self.dtype).to(device)]
        floats += [draw(g, *size, dtype=F32, device=device) for size in ((num_base, self.classes), (self.rows,))]
        dloss = draw(g, self.rows, dtype=F32, device=device)
        return floats, [x.to(device) for x in (target, low, row)], dloss


def call_cross_entropy(call, floats: list[Tensor], indices: list[Tensor], **options: Any) -> Tensor:
    """The loss of a case's tensors."""
    (h, weight, bias, base, first), (target, low, row) = floats, indices
    return call(h, weight, bias, target, low, base, row, first, **options)


def run_cross_entropy(call, case: CrossEntropyCase, device, dtype) -> dict[str, Tensor]:
    floats, indices, dloss = case.tensors(device)
    # a base keeps float32, as the model gives it
    floats = [x.to(torch.promote_types(dtype, F32) if i > 2 else dtype) for i, x in enumerate(floats)]
    floats = [x.requires_grad_() for x in floats]
    loss = call_cross_entropy(call, floats, indices)
    loss.backward(dloss.to(loss.dtype))
    named = {"loss": loss.detach()}
    for name, x in zip(("dh", "dweight", "dbias", "dbase", "dfirst"), floats, strict=True):
        assert x.grad is not None
        named[name] = x.grad
    return named


def check_cross_entropy(case: CrossEntropyCase, device) -> None:
    from neuroformer.kernels.cross_entropy import (  # pyright: ignore[reportMissingImports]
        marked_cross_entropy,
    )

    exact = run_cross_entropy(eager.marked_cross_entropy, case, device, torch.float64)
    rounded = run_cross_entropy(eager.marked_cross_entropy, case, device, case.dtype)
    got = run_cross_entropy(marked_cross_entropy, case, device, case.dtype)
    for name in exact:
        check_close(f"{case.name}: {name}", got[name], rounded[name], exact[name])


SMALL_CROSS_ENTROPY = (
    CrossEntropyCase("units", 65, 200, 32),
    CrossEntropyCase("units bf16", 70, 130, 60, BF16),
    CrossEntropyCase("units fp16", 33, 97, 16, F16),
    CrossEntropyCase("few units", 100, 6, 32, F32),
    CrossEntropyCase("few units bf16", 70, 40, 60, BF16),
    CrossEntropyCase("one row", 1, 40, 16, F32),
)


@dataclass(frozen=True)
class DecodeCase:
    """Key lengths in storage of ``capacity`` rows each; ``k_index`` as in attention."""

    name: str
    lengths: tuple[int, ...]
    capacity: int
    heads: int = 2
    width: int = 32
    dtype: torch.dtype = F32
    k_index: tuple[int, ...] | None = None

    def arguments(self, device, dtype) -> tuple[list[Any], dict[str, Any]]:
        g = torch.Generator().manual_seed(len(self.name))
        num = len(self.lengths if self.k_index is None else self.k_index)
        rows = len(self.lengths) * self.capacity
        sizes = (num, rows, rows)
        q, k, v = (draw(g, n, self.heads, self.width, dtype=self.dtype, device=device) for n in sizes)
        start = torch.arange(len(self.lengths), device=device) * self.capacity
        index = None if self.k_index is None else torch.tensor(self.k_index, device=device)
        lengths = torch.tensor(self.lengths, device=device)
        return [q.to(dtype), k.to(dtype), v.to(dtype), start, lengths], {"k_index": index}


def check_decode(case: DecodeCase, device) -> None:
    from neuroformer.ops import decode_attention

    def run(dtype):
        (q, k, v, start, lengths), options = case.arguments(device, dtype)
        return eager.decode_attention(q, k, v, start, lengths, **options)

    (q, k, v, start, lengths), options = case.arguments(device, case.dtype)
    for x in (k, v):  # storage beyond the lengths is stale; whatever lies there must not matter
        x.view(len(case.lengths), case.capacity, -1)[_beyond(case, device)] = float("nan")
    got = decode_attention(q, k, v, start, lengths, case.capacity, **options, impl="triton")
    check_close(case.name, got, run(case.dtype), run(torch.float64))


def _beyond(case: DecodeCase, device) -> Tensor:
    lengths = torch.tensor(case.lengths, device=device)
    return torch.arange(case.capacity, device=device) >= lengths[:, None]


SMALL_DECODE = (
    DecodeCase("one key, none, many", (1, 0, 70), 80),
    DecodeCase("bf16", (33, 64, 200), 256, 2, 60, BF16),
    DecodeCase("fp16 wide", (5, 63), 64, 1, 128, F16),
    DecodeCase("shared", (40, 0, 90), 96, 1, 32, BF16, (2, 0, 2, 1, 2)),
    DecodeCase("shared by more than a tile", (50, 3), 64, 1, 16, F32, (0,) * 20 + (1,)),
)


def check_map(case: AttentionCase, device, per_head: bool) -> None:
    """Labels are drawn with repeats and some that do not count."""
    from neuroformer.ops import attention_map

    g = torch.Generator().manual_seed(3)
    labels = [torch.randint(-1, 6, (sum(n),), generator=g).to(device) for n in (case.q_lengths, case.k_lengths)]

    def run(dtype, impl):
        (q, k, v), _ = case.tensors(device)
        q, k, v = (x.to(dtype) for x in (q, k, v))
        layouts, options = case.layouts(device), case.options(device)
        _, lse = eager.attention(q, k, v, *layouts, **options)
        total = attention_map(
            q, k, lse, *layouts, labels[0], labels[1], (6, 6), per_head=per_head, impl=impl, **options
        )
        return total if dtype == torch.float64 else total.to(dtype)

    exact, rounded = run(torch.float64, "eager"), run(case.dtype, "eager")
    check_close(case.name, run(case.dtype, "triton"), rounded, exact)


def check_decode_in_graph(device) -> None:
    """A captured step follows the cache: lengths and contents change between replays."""
    from neuroformer.ops import decode_attention

    case = DecodeCase("graph", (5, 60, 200, 0), 256, 8, 32, BF16)
    (q, k, v, start, lengths), _ = case.arguments(device, case.dtype)

    def step() -> Tensor:
        return decode_attention(q, k, v, start, lengths, case.capacity, impl="triton")

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = step()
    for grown in (0, 1, 40):
        lengths += grown
        q.normal_()
        graph.replay()
        if not torch.equal(out, step()):
            raise AssertionError(f"replay after {grown} more keys differs from the same step as called")


SMALL_MAPS = (
    AttentionCase("map", QUERIES, KEYS, 2, 32, F32),
    AttentionCase("causal map", (40, 7, 0), (40, 7, 0), 2, 60, BF16, causal=True),
    AttentionCase("map of shared keys", FEW, (17, 5, 70), 2, 16, F32, None, GROUP),
)


def _many(mean: float, num: int, seed: int) -> tuple[int, ...]:
    g = torch.Generator().manual_seed(seed)
    return tuple(spike_counts(mean, num, g).tolist())


def _self(name: str, lengths: tuple[int, ...], **options: Any) -> AttentionCase:
    return AttentionCase(name, lengths, lengths, **options)


# Too slow for the interpreter: the sizes of real batches, checked before they are timed.
_REAL: dict[str, Any] = {"heads": 8, "width": 32, "dtype": BF16}
LARGE_ATTENTION = (
    AttentionCase("large: spikes to past", _many(15, 96, 0), _many(700, 96, 1), **_REAL),
    _self("large: spikes to themselves", _many(15, 256, 2), causal=True, **_REAL),
    _self("large: many spikes to themselves", _many(300, 16, 3), causal=True, **_REAL),
    AttentionCase("large: spikes to frames", _many(15, 64, 4), (405,) * 64, **_REAL),
    _self("large: frames to themselves", (264,) * 12, **_REAL),
    AttentionCase("large: shared frames", _many(15, 64, 5), (405,) * 8, k_index=tuple(range(8)) * 8, **_REAL),
    AttentionCase("large: thousands", (3000, 17, 0), (2500, 4000, 5), 2, 64, BF16),
    AttentionCase("large: fp32", _many(15, 24, 6), _many(100, 24, 7), 4, 32, F32),
    _self("large: fp16", _many(60, 24, 8), heads=4, width=60, dtype=F16, causal=True),
)

LARGE_CROSS_ENTROPY = (
    CrossEntropyCase("large: units", 2000, 20_000, 256, BF16),
    CrossEntropyCase("large: a hundred thousand units", 700, 100_000, 256, BF16),
    CrossEntropyCase("large: wide", 500, 5_000, 512, BF16),
    CrossEntropyCase("large: few units", 7680, 21, 256, BF16),
    CrossEntropyCase("large: units of one recording", 2000, 400, 256, BF16),
)

LARGE_DECODE = (
    DecodeCase("large", _many(700, 64, 9), 4000, 8, 32, BF16),
    DecodeCase("large: few sequences", (4000, 37, 1900), 4096, 8, 32, BF16),
    DecodeCase("large: shared", (405,) * 8, 405, 8, 32, BF16, tuple(range(8)) * 16),
)

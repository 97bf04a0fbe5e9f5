"""Who does what: the one table that ``impl="auto"`` reads, and the options each implementation knows."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

ATTENTION = ("eager", "sdpa", "flex", "triton")
CROSS_ENTROPY = ("eager", "triton")

# What each implementation of attention can do beyond plain, causal and shared-key attention. An option
# that is missing here is refused by name when that implementation was asked for.
ATTENTION_OPTIONS: dict[str, frozenset[str]] = {
    "eager": frozenset({"rotary_freqs", "window_s", "dropout_p", "dropout_seed", "return_lse"}),
    "sdpa": frozenset({"rotary_freqs", "window_s", "dropout_p"}),
    "flex": frozenset({"rotary_freqs", "window_s", "return_lse"}),
    "triton": frozenset({"rotary_freqs", "window_s", "dropout_p", "dropout_seed", "return_lse"}),
}

# auto takes the first row whose device, dtypes and options fit (None: any). On a GPU with 16 bits the
# fused kernels read every key once and pad nothing; float32 has no matrix unit in them.
HALF = (torch.bfloat16, torch.float16)
ATTENTION_AUTO: tuple[tuple[str, str | None, tuple[torch.dtype, ...] | None], ...] = (
    # impl    device  dtypes
    ("triton", "cuda", HALF),
    ("sdpa", None, None),
    ("triton", "cuda", None),
    ("eager", None, None),
)

CROSS_ENTROPY_AUTO: tuple[tuple[str, str | None, tuple[torch.dtype, ...] | None], ...] = (
    ("triton", "cuda", HALF),
    ("eager", None, None),
)

TRITON_WIDTHS = (16, 128)  # head widths of the fused attention
TRITON_FEATURES = 512  # widest input of the fused cross-entropy


_TRITON_INSTALLED = importlib.util.find_spec("triton") is not None  # found, not imported


def has_triton(x: Tensor) -> bool:
    """Whether the fused kernels can run where ``x`` lives: Triton is there, and the GPU has bf16 matrices."""
    return x.is_cuda and _TRITON_INSTALLED and torch.cuda.get_device_properties(x.device).major >= 8


def lacks_attention(impl: str, q: Tensor, options: set[str], deterministic: bool) -> str | None:
    """Why ``impl`` cannot do this case; None where it can."""
    missing = sorted(options - ATTENTION_OPTIONS[impl])
    if missing:
        return f"does not know {', '.join(missing)}"
    if impl == "triton" and not TRITON_WIDTHS[0] <= q.shape[-1] <= TRITON_WIDTHS[1]:
        return f"takes head widths {TRITON_WIDTHS[0]} to {TRITON_WIDTHS[1]}, got {q.shape[-1]}"
    if deterministic and q.is_cuda:
        if impl == "flex":
            return "is not deterministic on CUDA"
        if impl == "sdpa" and not torch.are_deterministic_algorithms_enabled():
            return "is deterministic on CUDA only under torch.use_deterministic_algorithms"
    return None


def pick_attention(q: Tensor, options: set[str], deterministic: bool) -> str:
    """The first implementation of the table that can do the case."""
    for impl, device, dtypes in ATTENTION_AUTO:
        if (device is not None and q.device.type != device) or (dtypes is not None and q.dtype not in dtypes):
            continue
        if impl == "triton" and not has_triton(q):
            continue
        if lacks_attention(impl, q, options, deterministic) is None:
            return impl
    raise ValueError(f"no implementation of attention can do {sorted(options)} on {q.device} in {q.dtype}")


def lacks_cross_entropy(impl: str, h: Tensor, weight: Tensor, base: bool) -> str | None:
    """Why ``impl`` cannot do this case; None where it can."""
    if impl != "triton":
        return None
    if base:
        return "does not know base_RC"
    if h.shape[1] > TRITON_FEATURES:
        return f"takes up to {TRITON_FEATURES} features, got {h.shape[1]}"
    if h.dtype != weight.dtype:
        return f"takes one dtype, got h {h.dtype} and weight {weight.dtype}"
    return None


def pick_cross_entropy(h: Tensor, weight: Tensor, base: bool) -> str:
    """The first implementation of the table that can do the case."""
    for impl, device, dtypes in CROSS_ENTROPY_AUTO:
        if (device is not None and h.device.type != device) or (dtypes is not None and h.dtype not in dtypes):
            continue
        if impl == "triton" and not has_triton(h):
            continue
        if lacks_cross_entropy(impl, h, weight, base) is None:
            return impl
    raise AssertionError("the last row of the table takes everything")

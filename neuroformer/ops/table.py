"""The table that ``impl="auto"`` reads, and what each implementation cannot do."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import torch
from torch import Tensor

ATTENTION = ("eager", "sdpa", "flex", "triton")
CROSS_ENTROPY = ("eager", "pieces", "triton")
LINEAR = ("torch", "onednn")
DECODE = ("eager", "sdpa", "triton")
MAP = ("eager", "padded", "triton")

# auto takes the first row whose device and dtypes fit, and that can do the case (None: any). On a GPU with 16 bits the
# fused kernels read every key once and pad nothing; float32 has no matrix unit in them.
HALF = (torch.bfloat16, torch.float16)
Rows = tuple[tuple[str, str | None, tuple[torch.dtype, ...] | None], ...]
ATTENTION_AUTO: Rows = (
    # impl    device  dtypes
    ("triton", "cuda", HALF),
    ("sdpa", None, None),
    ("triton", "cuda", None),
    ("eager", None, None),
)

CROSS_ENTROPY_AUTO: Rows = (("triton", "cuda", HALF), ("pieces", None, None))

DECODE_AUTO: Rows = (("triton", "cuda", None), ("sdpa", None, None))
MAP_AUTO: Rows = (("triton", "cuda", None), ("padded", None, None))

TRITON_WIDTHS = (16, 128)  # head widths of the fused attention
TRITON_FEATURES = 512  # widest input of the fused cross-entropy


_TRITON_INSTALLED = importlib.util.find_spec("triton") is not None  # found, not imported


def has_triton(x: Tensor) -> bool:
    """Whether the fused kernels can run on the device of ``x``: Triton is installed and the GPU has bf16 matrix
    units.
    """
    return x.is_cuda and _TRITON_INSTALLED and torch.cuda.get_device_properties(x.device).major >= 8


def lacks_attention(impl: str, q: Tensor, *, return_lse: bool = False) -> str | None:
    """Why ``impl`` cannot do this case; None where it can."""
    if impl == "sdpa" and return_lse:
        return "does not know return_lse"
    if impl == "triton" and not TRITON_WIDTHS[0] <= q.shape[-1] <= TRITON_WIDTHS[1]:
        return f"takes head widths {TRITON_WIDTHS[0]} to {TRITON_WIDTHS[1]}, got {q.shape[-1]}"
    if impl == "triton" and q.is_cuda and q.dtype not in (*HALF, torch.float32):
        return f"takes bfloat16, float16 and float32 on CUDA, got {q.dtype}"
    if impl == "flex" and q.is_cuda and torch.are_deterministic_algorithms_enabled():
        return "is not deterministic on CUDA"
    return None


def _fitting(rows: Rows, x: Tensor) -> Iterator[str]:
    """Implementations of the rows whose device and dtype are ``x``'s, in order."""
    for impl, device, dtypes in rows:
        fits = (device is None or x.device.type == device) and (dtypes is None or x.dtype in dtypes)
        if fits and (impl != "triton" or has_triton(x)):
            yield impl


def pick_attention(q: Tensor, *, return_lse: bool = False) -> str:
    """The first implementation of the table that can do the case; eager does everything."""
    fitting = _fitting(ATTENTION_AUTO, q)
    return next(impl for impl in fitting if lacks_attention(impl, q, return_lse=return_lse) is None)


def lacks_cross_entropy(impl: str, h: Tensor, weight: Tensor) -> str | None:
    """Why ``impl`` cannot do this case; None where it can."""
    if impl != "triton":
        return None
    if h.shape[1] > TRITON_FEATURES:
        return f"takes up to {TRITON_FEATURES} features, got {h.shape[1]}"
    if h.dtype != weight.dtype:
        return f"takes one dtype, got h {h.dtype} and weight {weight.dtype}"
    return None


def pick_cross_entropy(h: Tensor, weight: Tensor) -> str:
    """The first implementation of the table that can do the case; eager does everything."""
    fitting = _fitting(CROSS_ENTROPY_AUTO, h)
    return next(impl for impl in fitting if lacks_cross_entropy(impl, h, weight) is None)


def pick(name: str, known: tuple[str, ...], rows: Rows, impl: str, x: Tensor) -> str:
    """``impl`` itself, checked, or the first row of the table that fits; for operations without options."""
    if impl != "auto" and impl not in known:
        raise ValueError(f"{name} impl {impl!r} is unknown; choose one of auto, {', '.join(known)}")
    fitting = [impl] if impl != "auto" else _fitting(rows, x)
    for each in fitting:
        if each != "triton" or TRITON_WIDTHS[0] <= x.shape[-1] <= TRITON_WIDTHS[1]:
            return each
    raise ValueError(
        f"{name} impl {impl!r} takes head widths {TRITON_WIDTHS[0]} to {TRITON_WIDTHS[1]}, "
        f"got {x.shape[-1]}; choose another impl or 'auto'"
    )

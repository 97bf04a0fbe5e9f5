"""``x @ weight.T + bias`` with the faster of two libraries; precision is never lowered.

Shape suffixes: M rows, K features in, N features out.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuroformer.ops import table


def linear(
    x: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None, *, gelu: bool = False, impl: str = "auto"
) -> Tensor:
    """As :func:`torch.nn.functional.linear`, its GELU if asked for, by whichever library is faster on this machine.

    PyTorch multiplies float32 matrices on a CPU by MKL, which uses half the vector width on processors that are not
    Intel's; oneDNN, which PyTorch brings along, uses all of it. Both are float32 throughout; sums are in another order.

    Parameters
    ----------
    x : (..., K)
    gelu : also apply :func:`torch.nn.functional.gelu`; where no gradient is wanted, before the product leaves the cache
    impl : "auto", "torch" or "onednn"
        ``auto`` takes oneDNN for large float32 products on a CPU with AVX-512, those of a single row by a large
        matrix included: it reads the matrix 1.5 to 2 times as fast.

    Raises
    ------
    ValueError
        An unknown ``impl``, or a case that oneDNN cannot do.
    """
    if impl not in ("auto", *table.LINEAR):
        raise ValueError(f"linear impl {impl!r} is unknown; choose one of auto, {', '.join(table.LINEAR)}")
    if impl == "auto":
        # a compiler brings libraries of its own, takes any number of rows, and cannot look at this machine
        ours = not torch.compiler.is_compiling() and _is_large(x, weight_NK) and _fits(x, weight_NK)
        impl = "onednn" if ours and _is_faster() else "torch"
    if impl == "torch":
        out = F.linear(x, weight_NK, bias_N)
        return F.gelu(out) if gelu else out
    if not _fits(x, weight_NK):
        raise ValueError(f"linear impl 'onednn' takes float32 on a CPU, got {x.dtype} on {x.device}")
    if not torch.is_grad_enabled():
        return _product(x, weight_NK, bias_N, "gelu" if gelu else "none")
    out = _OneDnn.apply(x.reshape(-1, x.shape[-1]), weight_NK, bias_N).view(*x.shape[:-1], -1)
    return F.gelu(out) if gelu else out


def _is_large(x: Tensor, weight_NK: Tensor) -> bool:
    """Whether the product is worth the 20 microseconds of dispatch: many rows, or a large matrix to read."""
    size = weight_NK.numel()
    if size >= 100_000:
        return True
    rows = x.numel() // max(1, x.shape[-1])
    return rows >= 16 and rows * size >= 1 << 21


def _fits(x: Tensor, weight_NK: Tensor) -> bool:
    return (
        x.dtype == weight_NK.dtype == torch.float32
        and x.is_cpu
        and weight_NK.is_cpu
        and not torch.is_autocast_enabled("cpu")
        and x.numel() > 0
    )


@functools.cache
def _is_faster() -> bool:
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _product(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None, after: str = "none") -> Tensor:
    """(..., N); transposed views are read as they are. ``after`` "gelu": its exact form, by the error function."""
    return torch.ops.mkldnn._linear_pointwise(x, weight_NK, bias_N, after, [], "none")


class _OneDnn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
        ctx.save_for_backward(x_MK, weight_NK)
        return _product(x_MK, weight_NK, bias_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_MN: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x_MK, weight_NK = ctx.saved_tensors
        wanted_x, wanted_weight, wanted_bias = ctx.needs_input_grad
        grad_x = _product(grad_MN, weight_NK.t()) if wanted_x else None
        grad_weight = None
        if wanted_weight:  # oneDNN is faster where the result has more columns than rows
            wide = grad_MN.shape[1] > x_MK.shape[1]
            x_KM, grad_NM = x_MK.t(), grad_MN.t()
            grad_weight = _product(x_KM, grad_NM).t() if wide else _product(grad_NM, x_KM)
        return grad_x, grad_weight, grad_MN.sum(0) if wanted_bias else None

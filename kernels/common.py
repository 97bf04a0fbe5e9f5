"""What the kernels share: index arithmetic, masks, and where they run.

Sizes that change from batch to batch are not specialised on (``do_not_specialize``): a ragged batch would
otherwise compile every kernel again whenever its token count happens to be a multiple of 16.
"""

# Inside @triton.jit a name is not what Python types it as.
# pyright: reportArgumentType=false, reportOperatorIssue=false
from __future__ import annotations

import contextlib
import os
import typing

import torch
import triton
import triton.language as tl
from torch import Tensor

# Triton reads this variable when a kernel is decorated, so it is settled by the time this is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on")

# PyTorch 2.6 infers no schema of a custom op from list[int], nor from annotations kept as strings: modules
# with custom ops do without ``from __future__ import annotations``.
Ints = typing.List[int]  # noqa: UP006

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)

# The interpreter holds bfloat16 as its bits, and its tl.dot would multiply those as integers; it hands
# float32 to a BLAS whose order of summation varies with the shape, where the hardware's does not.
_WIDEN: tl.constexpr = tl.constexpr(INTERPRETED)
# Before 3.4 (or so) tl.dot took no float64, the interpreter's neither.
_SUM_PRODUCTS: tl.constexpr = tl.constexpr(tuple(map(int, triton.__version__.split(".")[:2])) < (3, 4))


def padded(width: int) -> int:
    """The power of two, at least 16, that a feature dimension is padded to: a matrix unit's least edge."""
    return max(16, 1 << (width - 1).bit_length())


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums, log-sum-exps and partial results are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def rows_contiguous(x: Tensor) -> Tensor:
    """The kernels take any stride but need features side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def on_device(x: Tensor):
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def check_runnable(x: Tensor, name: str) -> None:
    """Refuse a tensor that no Triton kernel of this process can read.

    Raises
    ------
    ValueError
        A CPU tensor without the interpreter.
    """
    if not x.is_cuda and not INTERPRETED:
        raise ValueError(
            f"{name} impl 'triton' needs a CUDA tensor, got one on {x.device}; "
            "move it, choose another impl, or set TRITON_INTERPRET=1 before the first import to test on a CPU"
        )


MOST_TILES = 65_535  # second dimension of a CUDA grid


def check_tiles(num: int, name: str) -> None:
    """Refuse a batch of more tiles than one launch has.

    Raises
    ------
    ValueError
        Too many tiles.
    """
    if num > MOST_TILES:
        raise ValueError(f"{name} impl 'triton' takes up to {MOST_TILES} tiles at once, got {num}")


@triton.jit
def _wide_matmul(a, b):
    """In float64, for the interpreter."""
    a = a.to(tl.float64)
    b = b.to(tl.float64)
    if _SUM_PRODUCTS:
        return tl.sum(a[:, :, None] * b[None, :, :], 1)
    else:
        return tl.dot(a, b)


@triton.jit
def matmul(a, b):
    """a @ b, accumulated in float32 (float64 of float64); float32 operands are not rounded to TF32."""
    if _WIDEN:
        return _wide_matmul(a, b).to(tl.float64 if a.dtype == tl.float64 else tl.float32)
    else:
        return tl.dot(a, b, input_precision="ieee")


@triton.jit
def matmul_add(a, b, acc):
    """acc + a @ b, in one instruction where there is one."""
    if _WIDEN:
        return (_wide_matmul(a, b) + acc.to(tl.float64)).to(acc.dtype)
    else:
        return tl.dot(a, b, acc, input_precision="ieee", out_dtype=acc.dtype)


@triton.jit
def load_rows(X, row, head, stride_t, stride_h, row_ok, E: tl.constexpr, PE: tl.constexpr):
    """(rows, PE) of one head; zeros outside the rows that are ``row_ok`` and beyond width E."""
    e = tl.arange(0, PE)
    pointers = X + row.to(tl.int64)[:, None] * stride_t + head * stride_h + e[None, :]
    if E == PE:
        return tl.load(pointers, mask=row_ok[:, None], other=0.0)
    else:
        return tl.load(pointers, mask=row_ok[:, None] & (e < E)[None, :], other=0.0)


@triton.jit
def store_rows(X, row, head, stride_t, stride_h, row_ok, value, E: tl.constexpr, PE: tl.constexpr):
    e = tl.arange(0, PE)
    pointers = X + row.to(tl.int64)[:, None] * stride_t + head * stride_h + e[None, :]
    mask = row_ok[:, None]
    if E != PE:
        mask = mask & (e < E)[None, :]
    tl.store(pointers, value.to(X.dtype.element_ty), mask=mask)


@triton.jit
def visible(m, n, q_length, k_length, CAUSAL: tl.constexpr):
    """Which (query, key) pairs count. Arguments are broadcast, so either may run along the rows."""
    seen = (m < q_length) & (n < k_length)
    if CAUSAL:
        seen = seen & (n <= m)
    return seen

"""Spike attention: launches, PyTorch custom ops with fake kernels, and the call.

Shape suffixes: T query tokens, S key tokens, B query sequences, G key sequences, H heads, E head width.
The mathematics, byte counts and measurements are in ``kernels/README.md``.
"""

import math
from typing import Any

import torch
from torch import Tensor

from . import configs, worklist
from .common import (
    INTERPRETED,
    Ints,
    check_runnable,
    check_tiles,
    exact_dtype,
    on_device,
    padded,
    rows_contiguous,
)
from .spike_attention_backward import attention_backward_owned
from .spike_attention_forward import attention_forward
from .spike_attention_split import attention_dkdv, attention_dq

WIDTHS = (16, 128)
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
if INTERPRETED:
    DTYPES = (*DTYPES, torch.float64)  # to check gradients; not every GPU has such a matrix product


def spike_attention(
    q_THE: Tensor, k_SHE: Tensor, v_SHE: Tensor, q_layout: Any, k_layout: Any, *, k_index: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attention of packed ragged sequences; see ``neuroformer.ops.attention`` for the arguments.

    Returns
    -------
    out : (T, H, E), and lse : (H, T), the natural log-sum-exp of the scores, which carries no gradient.

    Raises
    ------
    ValueError
        A device, dtype or head width that the kernels do not cover.
    """
    _check(q_THE)
    order = None
    queries = q_layout
    if k_index is not None:
        queries = worklist.groups(q_layout, k_index, len(k_layout))
        order = queries.order
    plan = configs.attention_plan(
        q_layout.total, queries.max_length, len(queries), q_THE.shape[-1], q_THE.dtype
    )
    forward, owned, backward = plan[:4], plan[4], plan[6:]
    none = q_layout.offsets.new_zeros((0, 2), dtype=torch.int32)
    tiles = worklist.tiles(queries, forward[0])
    q_tiles = none if owned else worklist.tiles(queries, backward[0])
    k_tiles = none if owned else worklist.tiles(k_layout, backward[1])
    most = max(tiles.shape[0], q_tiles.shape[0], k_tiles.shape[0], len(k_layout))
    check_tiles(most, "attention")
    out, lse2 = torch.ops.neuroformer.spike_attention(
        q_THE,
        k_SHE,
        v_SHE,
        queries.offsets,
        k_layout.offsets,
        order,
        tiles,
        q_tiles,
        k_tiles,
        causal,
        plan,
    )
    return out, lse2 * math.log(2.0)


def _check(q_THE: Tensor) -> None:
    """Refuse a device, dtype or head width that the kernels do not cover."""
    check_runnable(q_THE, "attention")
    width = q_THE.shape[-1]
    if q_THE.dtype not in DTYPES:
        names = ", ".join(str(dtype) for dtype in DTYPES)
        raise ValueError(f"attention impl 'triton' takes {names}, got {q_THE.dtype}")
    if not WIDTHS[0] <= width <= WIDTHS[1]:
        raise ValueError(f"attention impl 'triton' takes head widths {WIDTHS[0]} to {WIDTHS[1]}, got {width}")


def _options(q: Tensor, order: Tensor | None, causal: bool, tile: list[int]) -> dict[str, Any]:
    """Compile-time options that all kernels share."""
    width = q.shape[-1]
    return {
        "E": width,
        "PE": padded(width),
        "SCALE": width**-0.5,
        "CAUSAL": causal,
        "ORDERED": order is not None,
        "BM": tile[0],
        "BN": tile[1],
        "num_warps": tile[2],
        "num_stages": tile[3],
    }


@torch.library.custom_op("neuroformer::spike_attention", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, q_offsets: Tensor, k_offsets: Tensor, order: Tensor | None,
    tiles: Tensor, q_tiles: Tensor, k_tiles: Tensor, causal: bool, plan: Ints,
) -> tuple[Tensor, Tensor]:
    q, k, v = rows_contiguous(q), rows_contiguous(k), rows_contiguous(v)
    num_queries, num_heads, _ = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty((num_heads, num_queries), dtype=exact_dtype(q.dtype), device=q.device)
    if num_queries == 0 or num_heads == 0:
        return out, lse
    with on_device(q):
        attention_forward[(num_heads, tiles.shape[0])](
            q, k, v, out, lse, tiles, order, q_offsets, k_offsets,
            q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1),
            num_queries, num_heads, **_options(q, order, causal, plan[:4]),
        )
    return out, lse


@_forward.register_fake
def _(q, k, v, *_rest):
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(
        (q.shape[1], q.shape[0]), dtype=exact_dtype(q.dtype)
    )


@torch.library.custom_op("neuroformer::spike_attention_backward", mutates_args=())
def _backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, q_offsets: Tensor,
    k_offsets: Tensor, order: Tensor | None, q_tiles: Tensor, k_tiles: Tensor, causal: bool, plan: Ints,
) -> tuple[Tensor, Tensor, Tensor]:
    dout, q, k, v = rows_contiguous(dout), rows_contiguous(q), rows_contiguous(k), rows_contiguous(v)
    num_queries, num_heads, width = q.shape
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    if num_queries == 0 or k.shape[0] == 0 or num_heads == 0:
        return dq.zero_(), dk.zero_(), dv.zero_()
    exact = exact_dtype(q.dtype)
    owned, one_tile = plan[4:6]
    batch = (order, q_offsets, k_offsets)
    numbers = (
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1), dout.stride(0),
        dout.stride(1), num_queries, num_heads,
    )
    options = _options(q, order, causal, plan[6:])
    with on_device(q):
        if owned:
            scratch = None
            if not one_tile:
                scratch = q.new_empty((num_queries, num_heads, padded(width)), dtype=exact)
            grid = (num_heads, k_offsets.shape[0] - 1)
            one: dict[str, Any] = {"ONE_TILE": bool(one_tile)}
            attention_backward_owned[grid](
                q, k, v, out, lse, dout, dq, dk, dv, scratch, *batch, *numbers,
                **options, **one,
            )
        else:
            delta = torch.empty_like(lse)
            attention_dq[(num_heads, q_tiles.shape[0])](
                q, k, v, out, lse, dout, dq, delta, q_tiles, *batch, *numbers, **options
            )
            attention_dkdv[(num_heads, k_tiles.shape[0])](
                q, k, v, lse, dout, dk, dv, delta, k_tiles, *batch, *numbers, **options
            )
    return dq, dk, dv


@_backward.register_fake
def _(dout, q, k, v, *_rest):
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))


def _save(ctx, inputs, output) -> None:
    q, k, v, q_offsets, k_offsets, order, _, q_tiles, k_tiles, *rest = inputs
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(q, k, v, out, lse, q_offsets, k_offsets, order, q_tiles, k_tiles)
    ctx.rest = rest


def _differentiate(ctx, dout, _dlse):
    dq, dk, dv = torch.ops.neuroformer.spike_attention_backward(dout, *ctx.saved_tensors, *ctx.rest)
    return dq, dk, dv, *(None,) * 8


_forward.register_autograd(_differentiate, setup_context=_save)

"""Attention of one query per sequence over cached keys: kernels, custom op, call.

Shape suffixes: B sequences, S rows of key storage, G key sequences, H heads, E head width (PE: padded),
X splits. Keys are read once and nothing is computed twice, so the floor is the bytes of the keys; where
sequences are too few to fill the card, each one's keys are split among several programs.
"""

# Inside @triton.jit a name is not what Python types it as.
# pyright: reportArgumentType=false, reportOperatorIssue=false
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import configs, worklist
from .common import (
    LOG2E,
    Ints,
    check_runnable,
    check_tiles,
    exact_dtype,
    load_rows,
    matmul,
    matmul_add,
    on_device,
    padded,
    rows_contiguous,
    store_rows,
)

ROWS = 16  # queries per tile: a matrix unit's least; sequences that share keys fill it


@triton.jit(do_not_specialize=["num_queries", "num_splits"])
def decode_forward(
    Q, K, V, OUT, PEAK, TOTAL, ACC, TILES, ORDER, Q_OFFSETS, K_START, K_LENGTH,
    stride_qt, stride_qh, stride_kt, stride_kh, stride_vt, stride_vh, num_queries, num_heads, num_splits,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    GROUPED: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head over one split of its keys; OUT, or with SPLIT the partial sums."""
    head = tl.program_id(0).to(tl.int64)  # a head's place may lie beyond 2**31
    group = tl.program_id(1)
    split = tl.program_id(2)
    m = tl.arange(0, BM)
    if GROUPED:
        item = group
        group = tl.load(TILES + 2 * item)
        if group < 0:
            return
        begin = tl.load(Q_OFFSETS + group)
        place = begin + tl.load(TILES + 2 * item + 1) + m
        ok = place < tl.load(Q_OFFSETS + group + 1)
        row = tl.load(ORDER + place, mask=ok, other=0)
    else:
        ok = m < 1
        row = group + m
    k_begin = tl.load(K_START + group)
    k_length = tl.load(K_LENGTH + group).to(tl.int32)
    # whole blocks per split, by this sequence's own length
    per_split = tl.cdiv(tl.cdiv(k_length, BN), num_splits) * BN
    first = split * per_split
    stop = tl.minimum(first + per_split, k_length)

    exact: tl.constexpr = PEAK.dtype.element_ty
    to_log2: tl.constexpr = SCALE * LOG2E
    q = load_rows(Q, row, head, stride_qt, stride_qh, ok, E, PE)
    acc = tl.zeros((BM, PE), exact)
    peak = tl.full((BM,), float("-inf"), exact)
    total = tl.zeros((BM,), exact)
    for start in range(first, stop, BN):
        n = start + tl.arange(0, BN)
        k = load_rows(K, k_begin + n, head, stride_kt, stride_kh, n < stop, E, PE)
        v = load_rows(V, k_begin + n, head, stride_vt, stride_vh, n < stop, E, PE)
        scores = tl.where(n[None, :] < stop, matmul(q, tl.trans(k)) * to_log2, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))
        p = tl.exp2(scores - new_peak[:, None])
        shrink = tl.exp2(peak - new_peak)
        total = total * shrink + tl.sum(p, 1)
        acc = matmul_add(p.to(v.dtype), v, acc * shrink[:, None])
        peak = new_peak
    if SPLIT:
        at = (split * num_queries + row).to(tl.int64) * num_heads + head
        tl.store(PEAK + at, peak, mask=ok)
        tl.store(TOTAL + at, total, mask=ok)
        store_rows(ACC, at, 0, E, 0, ok, acc, E, PE)
    else:
        out = acc / tl.where(total > 0, total, 1.0)[:, None]
        store_rows(OUT, row, head, num_heads * E, E, ok, out, E, PE)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def decode_combine(
    OUT, PEAK, TOTAL, ACC, num_rows, num_splits, E: tl.constexpr, PE: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Puts the splits of a tile of (sequence, head) rows together."""
    row = tl.program_id(0) * BM + tl.arange(0, BM)
    ok = row < num_rows
    exact: tl.constexpr = PEAK.dtype.element_ty
    peak = tl.full((BM,), float("-inf"), exact)
    total = tl.zeros((BM,), exact)
    acc = tl.zeros((BM, PE), exact)
    for split in range(0, num_splits):
        at = split * num_rows + row
        part = tl.load(PEAK + at, mask=ok, other=float("-inf"))
        new_peak = tl.maximum(peak, part)
        safe = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        mine = tl.exp2(peak - safe)
        theirs = tl.exp2(part - safe)
        total = total * mine + tl.load(TOTAL + at, mask=ok, other=0.0) * theirs
        acc = acc * mine[:, None] + load_rows(ACC, at, 0, E, 0, ok, E, PE) * theirs[:, None]
        peak = new_peak
    out = acc / tl.where(total > 0, total, 1.0)[:, None]
    store_rows(OUT, row, 0, E, 0, ok, out, E, PE)


@torch.library.custom_op("neuroformer::decode_attention", mutates_args=())
def _decode(
    q: Tensor, k: Tensor, v: Tensor, k_start: Tensor, k_length: Tensor, tiles: Tensor | None,
    order: Tensor | None, q_offsets: Tensor | None, plan: Ints,
) -> Tensor:  # fmt: skip
    q, k, v = rows_contiguous(q), rows_contiguous(k), rows_contiguous(v)
    num_queries, num_heads, width = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    if num_queries == 0:
        return out
    exact = exact_dtype(q.dtype)
    keys, warps, stages, splits = plan
    partial = num_queries if splits > 1 else 0
    peak, total = (torch.empty((splits, partial, num_heads), dtype=exact, device=q.device) for _ in range(2))
    acc = torch.empty((splits, partial, num_heads, width), dtype=exact, device=q.device)
    items = num_queries if tiles is None else tiles.shape[0]
    with on_device(q):
        decode_forward[(num_heads, items, splits)](
            q, k, v, out, peak, total, acc, tiles, order, q_offsets, k_start, k_length,
            q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1),
            num_queries, num_heads, splits, E=width, PE=padded(width), SCALE=width**-0.5, BM=ROWS, BN=keys,
            GROUPED=tiles is not None, SPLIT=splits > 1, **_compiler(warps, stages),
        )  # fmt: skip
        if splits > 1:
            rows = num_queries * num_heads
            decode_combine[(triton.cdiv(rows, ROWS),)](
                out, peak, total, acc, rows, splits, E=width, PE=padded(width), BM=ROWS, **_compiler(1, 2)
            )
    return out


@_decode.register_fake
def _(q, *_rest):
    return torch.empty_like(q, memory_format=torch.contiguous_format)


def _compiler(warps: int, stages: int) -> dict[str, Any]:
    return {"num_warps": warps, "num_stages": stages}


def decode_attention(
    q_BHE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    k_start_G: Tensor,
    k_length_G: Tensor,
    max_length: int,
    *,
    k_index: Tensor | None = None,
    q_layout: Any = None,
) -> Tensor:
    """(B, H, E); see ``neuroformer.ops.decode_attention`` for the arguments."""
    check_runnable(q_BHE, "decode attention")
    tiles = order = q_offsets = None
    if k_index is not None:
        shared = worklist.groups(q_layout, k_index, k_start_G.shape[0])
        tiles, order, q_offsets = worklist.tiles(shared, ROWS), shared.order, shared.offsets
    items = q_BHE.shape[0] if tiles is None else tiles.shape[0]
    check_tiles(items, "decode attention")
    plan = configs.decode_plan(items * q_BHE.shape[1], max_length, q_BHE.shape[2], q_BHE.dtype)
    return torch.ops.neuroformer.decode_attention(
        q_BHE, k_SHE, v_SHE, k_start_G, k_length_G, tiles, order, q_offsets, plan
    )

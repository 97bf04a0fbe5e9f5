"""Attention of one query per sequence over cached keys: kernels, custom op, call.

Shape suffixes: B sequences, S rows of key storage, G key sequences, H heads, E head width (PE: padded),
X splits. Keys are read once and nothing is computed twice, so the floor is the bytes of the keys; where
sequences are too few to fill the card, each one's keys are split among several programs.

Alone, a query is a vector: a matrix unit would multiply fifteen rows of nothing with it (``decode_alone``). Queries
that share keys fill a tile (``decode_shared``).
"""

# Inside @triton.jit a name is not what Python types it as.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
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


@triton.jit
def _share(length, BN: tl.constexpr, num_splits, split):
    """First key and end of a split: whole blocks each, by this sequence's own length."""
    size = tl.cdiv(tl.cdiv(length, BN), num_splits) * BN
    first = split * size
    return first, tl.minimum(first + size, length)


@triton.jit(do_not_specialize=["num_queries", "num_splits"])
def decode_alone(
    Q, K, V, OUT, PEAK, TOTAL, ACC, K_START, K_LENGTH,
    stride_qt, stride_qh, stride_kt, stride_kh, stride_vt, stride_vh, num_queries, num_heads, num_splits,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BN: tl.constexpr, SPLIT: tl.constexpr,
):
    """One query of one head over one split of its keys; OUT, or with SPLIT the partial sums.

    Each row of a block keeps a softmax of its own, so that nothing in the loop waits for another row.
    """
    head = tl.program_id(0).to(tl.int64)  # a head's place may lie beyond 2**31
    query = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2)
    k_begin = tl.load(K_START + query)
    first, stop = _share(tl.load(K_LENGTH + query).to(tl.int32), BN, num_splits, split)

    exact: tl.constexpr = PEAK.dtype.element_ty
    to_log2: tl.constexpr = SCALE * LOG2E
    e = tl.arange(0, PE)
    q = tl.load(Q + query * stride_qt + head * stride_qh + e, mask=e < E, other=0.0).to(exact) * to_log2
    acc = tl.zeros((BN, PE), exact)
    peak = tl.full((BN,), float("-inf"), exact)
    total = tl.zeros((BN,), exact)
    for start in range(first, stop, BN):
        n = start + tl.arange(0, BN)
        k = load_rows(K, k_begin + n, head, stride_kt, stride_kh, n < stop, E, PE)
        v = load_rows(V, k_begin + n, head, stride_vt, stride_vh, n < stop, E, PE)
        scores = tl.where(n < stop, tl.sum(k.to(exact) * q[None, :], 1), float("-inf"))
        new_peak = tl.maximum(peak, scores)
        safe = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        p = tl.exp2(scores - safe)
        shrink = tl.exp2(peak - safe)
        total = total * shrink + p
        acc = acc * shrink[:, None] + p[:, None] * v.to(exact)
        peak = new_peak
    highest = tl.max(peak, 0)
    shrink = tl.exp2(peak - tl.where(highest == float("-inf"), 0.0, highest))
    whole = tl.sum(total * shrink, 0)
    mixed = tl.sum(acc * shrink[:, None], 0)
    if SPLIT:
        at = (split * num_queries + query) * num_heads + head
        tl.store(PEAK + at, highest)
        tl.store(TOTAL + at, whole)
        tl.store(ACC + at * E + e, mixed, mask=e < E)
    else:
        out = mixed / tl.where(whole > 0, whole, 1.0)
        tl.store(OUT + (query * num_heads + head) * E + e, out.to(OUT.dtype.element_ty), mask=e < E)


@triton.jit(do_not_specialize=["num_queries", "num_splits"])
def decode_shared(
    Q, K, V, OUT, PEAK, TOTAL, ACC, TILES, ORDER, Q_OFFSETS, K_START, K_LENGTH,
    stride_qt, stride_qh, stride_kt, stride_kh, stride_vt, stride_vh, num_queries, num_heads, num_splits,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """One tile of queries that share their keys, of one head, over one split of them."""
    head = tl.program_id(0).to(tl.int64)  # a head's place may lie beyond 2**31
    item = tl.program_id(1)
    split = tl.program_id(2)
    group = tl.load(TILES + 2 * item)
    if group < 0:
        return
    place = tl.load(Q_OFFSETS + group) + tl.load(TILES + 2 * item + 1) + tl.arange(0, BM)
    ok = place < tl.load(Q_OFFSETS + group + 1)
    row = tl.load(ORDER + place, mask=ok, other=0)
    k_begin = tl.load(K_START + group)
    first, stop = _share(tl.load(K_LENGTH + group).to(tl.int32), BN, num_splits, split)

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
):
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
) -> Tensor:
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
    sums = q, k, v, out, peak, total, acc
    numbers = (
        q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1), num_queries, num_heads, splits,
    )
    options: dict[str, Any] = {"E": width, "PE": padded(width), "SCALE": width**-0.5, "BN": keys}
    options |= {"SPLIT": splits > 1, **_compiler(warps, stages)}
    with on_device(q):
        if tiles is None:
            decode_alone[(num_heads, items, splits)](*sums, k_start, k_length, *numbers, **options)
        else:
            decode_shared[(num_heads, items, splits)](
                *sums, tiles, order, q_offsets, k_start, k_length, *numbers, BM=ROWS, **options
            )
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
    plan = configs.decode_plan(
        items * q_BHE.shape[1], max_length, q_BHE.shape[2], q_BHE.dtype, shared=tiles is not None
    )
    return torch.ops.neuroformer.decode_attention(
        q_BHE, k_SHE, v_SHE, k_start_G, k_length_G, tiles, order, q_offsets, plan
    )

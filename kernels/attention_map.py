"""Maps of who attends to what, from the saved log-sum-exp: kernel, custom op, call.

Shape suffixes: T query tokens, S key tokens, H heads, E head width (PE: padded), X and Y labels of
queries and keys. Probabilities are recomputed block by block and added to the map; T x S is never
written. They are added as 64-bit integers of 2**-40: integer sums do not depend on their order, so the
map is the same every time although programs add to it as they come.
"""

# Inside @triton.jit a name is not what Python types it as.
# pyright: reportArgumentType=false, reportOperatorIssue=false
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import worklist
from .common import (
    INTERPRETED,
    LOG2E,
    Ints,
    check_runnable,
    check_tiles,
    exact_dtype,
    load_rows,
    matmul,
    on_device,
    padded,
    rows_contiguous,
    visible,
)

UNIT: tl.constexpr = tl.constexpr(2.0**40)
MOST = 2**23  # weights of 1 that a 64-bit cell of such units holds


@triton.jit(do_not_specialize=["num_queries", "num_x", "num_y"])
def attention_map_kernel(
    Q, K, LSE, MAP, Q_LABELS, K_LABELS, TILES, ORDER, Q_OFFSETS, K_OFFSETS,
    stride_qt, stride_qh, stride_kt, stride_kh, num_queries, num_heads, num_x, num_y,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, ORDERED: tl.constexpr, PER_HEAD: tl.constexpr,
):
    """Adds one tile of queries to MAP, (H, X, Y) int64 with PER_HEAD, else (X, Y) summed over heads."""
    item = tl.program_id(1)
    group = tl.load(TILES + 2 * item)
    if group < 0:
        return
    first = tl.load(TILES + 2 * item + 1)
    q_begin = tl.load(Q_OFFSETS + group)
    q_length = (tl.load(Q_OFFSETS + group + 1) - q_begin).to(tl.int32)
    k_begin = tl.load(K_OFFSETS + group)
    k_length = (tl.load(K_OFFSETS + group + 1) - k_begin).to(tl.int32)
    m = first + tl.arange(0, BM)
    ok = m < q_length
    row = q_begin + m
    if ORDERED:
        row = tl.load(ORDER + row, mask=ok, other=0)
    q_label = tl.load(Q_LABELS + row, mask=ok, other=-1)

    exact: tl.constexpr = LSE.dtype.element_ty
    to_log2: tl.constexpr = SCALE * LOG2E
    if PER_HEAD:
        head_begin = tl.program_id(0).to(tl.int64)
        head_end = head_begin + 1
        base = head_begin * num_x * num_y
    else:
        head_begin = 0
        head_end = num_heads
        base = 0
    stop = k_length
    if CAUSAL:
        stop = tl.minimum(k_length, first + BM)
    for start in range(0, stop, BN):
        n = start + tl.arange(0, BN)
        k_label = tl.load(K_LABELS + k_begin + n, mask=n < k_length, other=-1)
        seen = visible(m[:, None], n[None, :], q_length, k_length, CAUSAL)
        seen = seen & (q_label[:, None] >= 0) & (k_label[None, :] >= 0)
        weight = tl.zeros((BM, BN), exact)
        for h in range(head_begin, head_end):
            head = tl.cast(h, tl.int64)  # a head's place may lie beyond 2**31
            q = load_rows(Q, row, head, stride_qt, stride_qh, ok, E, PE)
            k = load_rows(K, k_begin + n, head, stride_kt, stride_kh, n < k_length, E, PE)
            lse = tl.load(LSE + head * num_queries + row, mask=ok, other=0.0) * LOG2E
            scores = matmul(q, tl.trans(k)) * to_log2 - lse[:, None]
            weight += tl.exp2(tl.where(seen, scores, float("-inf")))
        cell = base + q_label[:, None] * num_y + k_label[None, :]
        tl.atomic_add(MAP + cell, (weight * UNIT + 0.5).to(tl.int64), mask=seen, sem="relaxed")


@torch.library.custom_op("neuroformer::attention_map", mutates_args=())
def _map(
    q: Tensor, k: Tensor, lse: Tensor, q_labels: Tensor, k_labels: Tensor, tiles: Tensor,
    order: Tensor | None, q_offsets: Tensor, k_offsets: Tensor, num_x: int, num_y: int, causal: bool,
    per_head: bool, tile: Ints,
) -> Tensor:
    q, k = rows_contiguous(q), rows_contiguous(k)
    num_queries, num_heads, width = q.shape
    maps = num_heads if per_head else 1
    total = torch.zeros((maps, num_x, num_y), dtype=torch.int64, device=q.device)
    options: dict[str, Any] = {
        "E": width,
        "PE": padded(width),
        "SCALE": width**-0.5,
        "CAUSAL": causal,
        "ORDERED": order is not None,
        "PER_HEAD": per_head,
        "BM": tile[0],
        "BN": tile[1],
        "num_warps": tile[2],
        "num_stages": tile[3],
    }
    if tiles.shape[0]:
        with on_device(q):
            attention_map_kernel[(maps, tiles.shape[0])](
                q, k, lse, total, q_labels, k_labels, tiles, order, q_offsets, k_offsets, q.stride(0),
                q.stride(1), k.stride(0), k.stride(1), num_queries, num_heads, num_x, num_y, **options,
            )
    return total.double() * 2.0**-40


@_map.register_fake
def _(
    q, k, lse, q_labels, k_labels, tiles, order, q_offsets, k_offsets, num_x, num_y, causal, per_head,
    tile,
):
    return q.new_empty((q.shape[1] if per_head else 1, num_x, num_y), dtype=torch.float64)


def attention_map(
    q_THE: Tensor,
    k_SHE: Tensor,
    lse_HT: Tensor,
    q_layout: Any,
    k_layout: Any,
    q_label_T: Tensor,
    k_label_S: Tensor,
    num_labels: tuple[int, int],
    *,
    per_head: bool,
    k_index: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """(H, X, Y) or (X, Y) float64; see ``neuroformer.ops.attention_map`` for the arguments."""
    check_runnable(q_THE, "attention map")
    if q_THE.shape[0] * q_THE.shape[1] > MOST:
        raise ValueError(
            f"attention map impl 'triton' takes up to {MOST} query tokens x heads at once, "
            f"got {q_THE.shape[0]} x {q_THE.shape[1]}; add up the maps of parts of the batch"
        )
    queries, order = q_layout, None
    if k_index is not None:
        queries = worklist.groups(q_layout, k_index, len(k_layout))
        order = queries.order
    exact = exact_dtype(q_THE.dtype)
    wide = padded(q_THE.shape[-1]) > 64 or q_THE.dtype == exact
    tile = [32, 32, 4, 1] if INTERPRETED or wide else [32, 64, 4, 2]
    tiles = worklist.tiles(queries, tile[0])
    check_tiles(tiles.shape[0], "attention map")
    total = torch.ops.neuroformer.attention_map(
        q_THE, k_SHE, lse_HT.to(exact).contiguous(), q_label_T, k_label_S, tiles, order,
        queries.offsets, k_layout.offsets, num_labels[0], num_labels[1], causal, per_head, tile,
    )
    return total if per_head else total[0] / q_THE.shape[1]

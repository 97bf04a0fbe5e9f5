"""Backward kernels of spike attention for long queries: one owns a tile of queries, one a tile of keys.

Shape suffixes and orientation as in ``spike_attention_backward``, whose parts they share.
"""

# Inside @triton.jit a name is not what Python types it as.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import triton
import triton.language as tl

from .common import LOG2E, matmul, matmul_add, store_rows, visible
from .spike_attention_backward import (
    load_keys,
    load_queries,
    softmax_gradient,
    store_key_gradients,
    tile_gradients,
)


@triton.jit(do_not_specialize=["num_queries"])
def attention_dq(
    Q, K, V, OUT, LSE, DO, DQ, DELTA, TILES, ORDER, Q_OFFSETS, K_OFFSETS,
    stride_qt, stride_qh, stride_kt, stride_kh, stride_vt, stride_vh, stride_dot, stride_doh,
    num_queries, num_heads,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, ORDERED: tl.constexpr,
):
    """Gradient of one tile of queries; also writes DELTA (H, T) = sum(dout * out) for attention_dkdv."""
    head = tl.program_id(0).to(tl.int64)  # a head's place may lie beyond 2**31
    item = tl.program_id(1)
    group = tl.load(TILES + 2 * item)
    if group < 0:
        return
    first = tl.load(TILES + 2 * item + 1)
    q_begin = tl.load(Q_OFFSETS + group)
    q_length = (tl.load(Q_OFFSETS + group + 1) - q_begin).to(tl.int32)
    k_begin = tl.load(K_OFFSETS + group)
    k_length = (tl.load(K_OFFSETS + group + 1) - k_begin).to(tl.int32)
    exact: tl.constexpr = LSE.dtype.element_ty
    to_log2: tl.constexpr = SCALE * LOG2E

    m = first + tl.arange(0, BM)
    ok = m < q_length
    row = q_begin + m
    if ORDERED:
        row = tl.load(ORDER + row, mask=ok, other=0)
    q, do, lse, delta = load_queries(
        Q, DO, OUT, LSE, LSE, row, ok, head, stride_qt, stride_qh, stride_dot, stride_doh, num_queries,
        num_heads, E, PE, False)
    tl.store(DELTA + head * num_queries + row, delta, mask=ok)
    dq = tl.zeros((BM, PE), exact)
    stop = k_length
    if CAUSAL:
        stop = tl.minimum(k_length, first + BM)
    for start in range(0, stop, BN):
        n = start + tl.arange(0, BN)
        k, v = load_keys(K, V, k_begin, n, n < k_length, head, stride_kt, stride_kh, stride_vt, stride_vh, E, PE)
        seen = visible(m[:, None], n[None, :], q_length, k_length, CAUSAL)
        scores = matmul(q, tl.trans(k)) * to_log2
        dp = matmul(do, tl.trans(v))
        _, ds = softmax_gradient(scores, seen, dp, lse[:, None], delta[:, None])
        dq = matmul_add(ds.to(k.dtype), k, dq)
    store_rows(DQ, row, head, num_heads * E, E, ok, dq * SCALE, E, PE)


@triton.jit(do_not_specialize=["num_queries"])
def attention_dkdv(
    Q, K, V, LSE, DO, DK, DV, DELTA, TILES, ORDER, Q_OFFSETS, K_OFFSETS,
    stride_qt, stride_qh, stride_kt, stride_kh, stride_vt, stride_vh, stride_dot, stride_doh,
    num_queries, num_heads,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, ORDERED: tl.constexpr,
):
    """Gradients of one tile of keys and values, summed over its queries in packed order."""
    head = tl.program_id(0).to(tl.int64)  # a head's place may lie beyond 2**31
    item = tl.program_id(1)
    group = tl.load(TILES + 2 * item)
    if group < 0:
        return
    start = tl.load(TILES + 2 * item + 1)
    q_begin = tl.load(Q_OFFSETS + group)
    q_length = (tl.load(Q_OFFSETS + group + 1) - q_begin).to(tl.int32)
    k_begin = tl.load(K_OFFSETS + group)
    k_length = (tl.load(K_OFFSETS + group + 1) - k_begin).to(tl.int32)
    exact: tl.constexpr = LSE.dtype.element_ty
    to_log2: tl.constexpr = SCALE * LOG2E

    n = start + tl.arange(0, BN)
    k, v = load_keys(K, V, k_begin, n, n < k_length, head, stride_kt, stride_kh, stride_vt, stride_vh, E, PE)
    dk = tl.zeros((BN, PE), exact)
    dv = tl.zeros((BN, PE), exact)
    first = 0
    if CAUSAL:
        first = start // BM * BM
    for m0 in range(first, q_length, BM):
        m = m0 + tl.arange(0, BM)
        ok = m < q_length
        row = q_begin + m
        if ORDERED:
            row = tl.load(ORDER + row, mask=ok, other=0)
        q, do, lse, delta = load_queries(
            Q, DO, DO, LSE, DELTA, row, ok, head, stride_qt, stride_qh, stride_dot, stride_doh,
            num_queries, num_heads, E, PE, True)
        dk, dv, _ = tile_gradients(
            q, do, lse, delta, k, v, m, n, dk, dv, q_length, k_length, to_log2, CAUSAL)
    store_key_gradients(DK, DV, dk, dv, k_begin, n, n < k_length, head, num_heads, E, PE, SCALE)

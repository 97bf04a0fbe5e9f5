"""Backward kernels of spike attention for long queries: one owns a tile of queries, one a tile of keys.

Shape suffixes and orientation as in ``spike_attention_backward``, whose parts they share.
"""

# Inside @triton.jit a name is not what Python types it as.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import triton
import triton.language as tl

from .common import LOG2E, matmul, matmul_add, rotate, store_rows, visible
from .spike_attention_backward import (
    load_keys,
    load_queries,
    softmax_gradient,
    store_key_gradients,
    tile_gradients,
)


@triton.jit
def _dq_visit(
    K, V, K_TIMES, FREQS, q, do, lse, delta, bits, dq, m, n, q_length, k_length, q_time, k_begin, head,
    stride_kt, stride_kh, stride_vt, stride_vh, window, threshold, keep_scale, E: tl.constexpr,
    PE: tl.constexpr, TO_LOG2: tl.constexpr, CAUSAL: tl.constexpr, ROTARY: tl.constexpr,
    WINDOW: tl.constexpr, DROPOUT: tl.constexpr,
):
    """Adds one block of keys to dq, which lacks the score scale."""
    k, v, k_time = load_keys(K, V, K_TIMES, FREQS, k_begin, n, n < k_length, head, stride_kt, stride_kh,
                              stride_vt, stride_vh, E, PE, ROTARY, WINDOW)
    seen = visible(m[:, None], n[None, :], q_length, k_length, q_time[:, None], k_time[None, :], window,
                   CAUSAL, WINDOW)
    scores = matmul(q, tl.trans(k)) * TO_LOG2
    dp = matmul(do, tl.trans(v))
    _, ds = softmax_gradient(scores, seen, dp, lse[:, None], delta[:, None], bits[:, None], n[None, :],
                              threshold, keep_scale, DROPOUT)
    return matmul_add(ds.to(k.dtype), k, dq)


@triton.jit(do_not_specialize=["num_queries", "threshold"])
def attention_dq(
    Q, K, V, OUT, LSE, DO, DQ, DELTA, TILES, ORDER, Q_OFFSETS, K_OFFSETS, Q_TIMES, K_TIMES, FREQS, SEED,
    stride_qt, stride_qh, stride_kt, stride_kh, stride_vt, stride_vh, stride_dot, stride_doh,
    num_queries, num_heads, window, threshold, keep_scale,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, ORDERED: tl.constexpr, ROTARY: tl.constexpr, WINDOW: tl.constexpr,
    DROPOUT: tl.constexpr,
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
    q, do, lse, delta, q_time, bits = load_queries(
        Q, DO, OUT, LSE, LSE, Q_TIMES, FREQS, SEED, row, ok, head, stride_qt, stride_qh, stride_dot,
        stride_doh, num_queries, num_heads, E, PE, ROTARY, WINDOW, DROPOUT, False)
    tl.store(DELTA + head * num_queries + row, delta, mask=ok)
    dq = tl.zeros((BM, PE), exact)
    stop = k_length
    if CAUSAL:
        stop = tl.minimum(k_length, first + BM)
    for start in range(0, stop, BN):
        n = start + tl.arange(0, BN)
        if WINDOW:
            k_time = tl.load(K_TIMES + k_begin + n, mask=n < k_length, other=0.0)
            close = visible(m[:, None], n[None, :], q_length, k_length, q_time[:, None], k_time[None, :],
                            window, CAUSAL, WINDOW)
            if tl.max(tl.max(close.to(tl.int32), 1), 0) > 0:
                dq = _dq_visit(
                    K, V, K_TIMES, FREQS, q, do, lse, delta, bits, dq, m, n, q_length, k_length,
                    q_time, k_begin, head, stride_kt, stride_kh, stride_vt, stride_vh, window,
                    threshold, keep_scale, E, PE, to_log2, CAUSAL, ROTARY, WINDOW, DROPOUT)
        else:
            dq = _dq_visit(
                K, V, K_TIMES, FREQS, q, do, lse, delta, bits, dq, m, n, q_length, k_length, q_time,
                k_begin, head, stride_kt, stride_kh, stride_vt, stride_vh, window, threshold,
                keep_scale, E, PE, to_log2, CAUSAL, ROTARY, WINDOW, DROPOUT)
    dq = dq * SCALE
    if ROTARY:
        dq = rotate(dq, q_time, FREQS, E, PE, True)
    store_rows(DQ, row, head, num_heads * E, E, ok, dq, E, PE)


@triton.jit
def _dkdv_visit(
    Q, DO, LSE, DELTA, Q_TIMES, FREQS, SEED, k, v, k_time, dk, dv, m, n, ok, row, q_length, k_length, head,
    stride_qt, stride_qh, stride_dot, stride_doh, num_queries, num_heads, window, threshold, keep_scale,
    E: tl.constexpr, PE: tl.constexpr, TO_LOG2: tl.constexpr, CAUSAL: tl.constexpr, ROTARY: tl.constexpr,
    WINDOW: tl.constexpr, DROPOUT: tl.constexpr,
):
    """Adds one tile of queries to dk and dv."""
    q, do, lse, delta, q_time, bits = load_queries(
        Q, DO, DO, LSE, DELTA, Q_TIMES, FREQS, SEED, row, ok, head, stride_qt, stride_qh, stride_dot,
        stride_doh, num_queries, num_heads, E, PE, ROTARY, WINDOW, DROPOUT, True)
    dk, dv, _ = tile_gradients(
        q, do, lse, delta, q_time, bits, k, v, k_time, m, n, dk, dv, q_length, k_length, window,
        threshold, keep_scale, TO_LOG2, CAUSAL, WINDOW, DROPOUT)
    return dk, dv


@triton.jit(do_not_specialize=["num_queries", "threshold"])
def attention_dkdv(
    Q, K, V, LSE, DO, DK, DV, DELTA, TILES, ORDER, Q_OFFSETS, K_OFFSETS, Q_TIMES, K_TIMES, FREQS, SEED,
    stride_qt, stride_qh, stride_kt, stride_kh, stride_vt, stride_vh, stride_dot, stride_doh,
    num_queries, num_heads, window, threshold, keep_scale,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, ORDERED: tl.constexpr, ROTARY: tl.constexpr, WINDOW: tl.constexpr,
    DROPOUT: tl.constexpr,
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
    k, v, k_time = load_keys(K, V, K_TIMES, FREQS, k_begin, n, n < k_length, head, stride_kt, stride_kh,
                              stride_vt, stride_vh, E, PE, ROTARY, WINDOW)
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
        if WINDOW:
            q_time = tl.load(Q_TIMES + row, mask=ok, other=0.0)
            close = visible(m[None, :], n[:, None], q_length, k_length, q_time[None, :], k_time[:, None],
                            window, CAUSAL, WINDOW)
            if tl.max(tl.max(close.to(tl.int32), 1), 0) > 0:
                dk, dv = _dkdv_visit(
                    Q, DO, LSE, DELTA, Q_TIMES, FREQS, SEED, k, v, k_time, dk, dv, m, n, ok, row,
                    q_length, k_length, head, stride_qt, stride_qh, stride_dot, stride_doh,
                    num_queries, num_heads, window, threshold, keep_scale, E, PE, to_log2, CAUSAL,
                    ROTARY, WINDOW, DROPOUT)
        else:
            dk, dv = _dkdv_visit(
                Q, DO, LSE, DELTA, Q_TIMES, FREQS, SEED, k, v, k_time, dk, dv, m, n, ok, row,
                q_length, k_length, head, stride_qt, stride_qh, stride_dot, stride_doh, num_queries,
                num_heads, window, threshold, keep_scale, E, PE, to_log2, CAUSAL, ROTARY, WINDOW,
                DROPOUT)
    store_key_gradients(DK, DV, dk, dv, k_time, FREQS, k_begin, n, n < k_length, head, num_heads, E, PE,
                         SCALE, ROTARY)

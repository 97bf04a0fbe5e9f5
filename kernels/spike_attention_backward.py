"""Backward kernels of spike attention; none uses an atomic, so every run gives the same bits.

Shape suffixes: T query tokens, S key tokens, G sequences, H heads, E head width (PE: padded to a power
of two). Two ways, chosen by the length of the queries (``configs.attention_plan``):

- *owned*: one program per (sequence, head) owns all of both its sides. Keys and values are read once,
  dk and dv written once, and dq stays in registers while the queries fit one tile; beyond one tile it is
  summed in a float32 scratch that no other program touches.
- *split* (``spike_attention_split``): for long queries, ``attention_dq`` owns a tile of queries and
  ``attention_dkdv`` a tile of keys.

Tiles are kept transposed, keys x queries, so that P^T and dS^T feed the matrix unit from registers.
"""

# Inside @triton.jit a name is not what Python types it as.
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

import triton
import triton.language as tl

from .common import LOG2E, load_rows, matmul, matmul_add, store_rows, visible


@triton.jit
def softmax_gradient(scores, seen, dp, lse, delta):
    """(weights, gradient of the scores) of one tile, in either orientation."""
    p = tl.exp2(tl.where(seen, scores - lse, float("-inf")))
    return p, p * (dp - delta)


@triton.jit
def load_queries(
    Q, DO, OUT, LSE, DELTA, row, ok, head, stride_qt, stride_qh, stride_dot, stride_doh, num_queries,
    num_heads, E: tl.constexpr, PE: tl.constexpr, DELTA_READY: tl.constexpr,
):
    """A tile of queries: q, dout, lse in log2, delta = sum(dout * out)."""
    q = load_rows(Q, row, head, stride_qt, stride_qh, ok, E, PE)
    do = load_rows(DO, row, head, stride_dot, stride_doh, ok, E, PE)
    at = head * num_queries + row
    # a row without keys has lse -inf; nothing of it is seen, and 0 keeps its exponent finite
    lse = tl.load(LSE + at, mask=ok, other=0.0)
    lse = tl.where(lse == float("-inf"), 0.0, lse)
    if DELTA_READY:
        delta = tl.load(DELTA + at, mask=ok, other=0.0)
    else:
        out = load_rows(OUT, row, head, num_heads * E, E, ok, E, PE)
        if do.dtype == tl.bfloat16:
            delta = tl.sum(do.to(lse.dtype) * out.to(lse.dtype), 1)
        else:
            # longer mantissas cancel dp - delta to the last bit only where both sum over E in the same
            # order, as a row with a single key must: take the diagonal of the same product
            i = tl.arange(0, row.shape[0])
            square = matmul(do, tl.trans(out))
            delta = tl.sum(tl.where(i[:, None] == i[None, :], square, 0.0), 1)
    return q, do, lse, delta


@triton.jit
def load_keys(
    K, V, k_begin, n, ok, head, stride_kt, stride_kh, stride_vt, stride_vh, E: tl.constexpr,
    PE: tl.constexpr,
):
    k = load_rows(K, k_begin + n, head, stride_kt, stride_kh, ok, E, PE)
    v = load_rows(V, k_begin + n, head, stride_vt, stride_vh, ok, E, PE)
    return k, v


@triton.jit
def tile_gradients(
    q, do, lse, delta, k, v, m, n, dk, dv, q_length, k_length, TO_LOG2: tl.constexpr, CAUSAL: tl.constexpr,
):
    """Adds one (keys x queries) tile to dk and dv (dk lacks the score scale); also returns dS^T."""
    scores = matmul(k, tl.trans(q)) * TO_LOG2
    seen = visible(m[None, :], n[:, None], q_length, k_length, CAUSAL)
    dp = matmul(v, tl.trans(do))
    weights, ds = softmax_gradient(scores, seen, dp, lse[None, :], delta[None, :])
    dv = matmul_add(weights.to(do.dtype), do, dv)
    ds = ds.to(q.dtype)
    dk = matmul_add(ds, q, dk)
    return dk, dv, ds


@triton.jit
def store_key_gradients(
    DK, DV, dk, dv, k_begin, n, ok, head, num_heads, E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr,
):
    store_rows(DK, k_begin + n, head, num_heads * E, E, ok, dk * SCALE, E, PE)
    store_rows(DV, k_begin + n, head, num_heads * E, E, ok, dv, E, PE)


@triton.jit
def _owned_by_one_tile(
    Q, K, V, OUT, LSE, DO, DQ, DK, DV, ORDER, stride_qt, stride_qh, stride_kt, stride_kh, stride_vt,
    stride_vh, stride_dot, stride_doh, num_queries, num_heads, head, q_begin, q_length, k_begin, k_length,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, ORDERED: tl.constexpr,
):
    """Queries that fit one tile: dq stays in registers while the keys go by."""
    exact: tl.constexpr = LSE.dtype.element_ty
    to_log2: tl.constexpr = SCALE * LOG2E
    m = tl.arange(0, BM)
    ok = m < q_length
    row = q_begin + m
    if ORDERED:
        row = tl.load(ORDER + row, mask=ok, other=0)
    q, do, lse, delta = load_queries(
        Q, DO, OUT, LSE, LSE, row, ok, head, stride_qt, stride_qh, stride_dot, stride_doh, num_queries,
        num_heads, E, PE, False)
    dq = tl.zeros((BM, PE), exact)
    for start in range(0, k_length, BN):
        n = start + tl.arange(0, BN)
        k, v = load_keys(K, V, k_begin, n, n < k_length, head, stride_kt, stride_kh, stride_vt, stride_vh, E, PE)
        zero = tl.zeros((BN, PE), exact)
        dk, dv, ds = tile_gradients(
            q, do, lse, delta, k, v, m, n, zero, zero, q_length, k_length, to_log2, CAUSAL)
        dq = matmul_add(tl.trans(ds), k, dq)
        store_key_gradients(DK, DV, dk, dv, k_begin, n, n < k_length, head, num_heads, E, PE, SCALE)
    store_rows(DQ, row, head, num_heads * E, E, ok, dq * SCALE, E, PE)


@triton.jit
def _owned_by_many_tiles(
    SCRATCH,
    Q, K, V, OUT, LSE, DO, DQ, DK, DV, ORDER, stride_qt, stride_qh, stride_kt, stride_kh, stride_vt,
    stride_vh, stride_dot, stride_doh, num_queries, num_heads, head, q_begin, q_length, k_begin, k_length,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, ORDERED: tl.constexpr,
):
    """Queries of several tiles: dq is summed in SCRATCH (T, H, PE), which no other program touches."""
    exact: tl.constexpr = LSE.dtype.element_ty
    to_log2: tl.constexpr = SCALE * LOG2E
    for start in range(0, k_length, BN):
        n = start + tl.arange(0, BN)
        k, v = load_keys(K, V, k_begin, n, n < k_length, head, stride_kt, stride_kh, stride_vt, stride_vh, E, PE)
        dk = tl.zeros((BN, PE), exact)
        dv = tl.zeros((BN, PE), exact)
        first = 0
        if CAUSAL:  # queries before the block see none of it
            first = start // BM * BM
        # the first block of keys starts the sums in the scratch, the others go on with them
        summed = tl.where(start > 0, q_length, 0)
        for m0 in range(first, q_length, BM):
            m = m0 + tl.arange(0, BM)
            ok = m < q_length
            row = q_begin + m
            if ORDERED:
                row = tl.load(ORDER + row, mask=ok, other=0)
            q, do, lse, delta = load_queries(
                Q, DO, OUT, LSE, LSE, row, ok, head, stride_qt, stride_qh, stride_dot, stride_doh,
                num_queries, num_heads, E, PE, False)
            dk, dv, ds = tile_gradients(
                q, do, lse, delta, k, v, m, n, dk, dv, q_length, k_length, to_log2, CAUSAL)
            part = matmul(tl.trans(ds), k)
            # this program alone touches these rows; the barriers order its own threads
            part += load_rows(SCRATCH, row, head, num_heads * PE, PE, m < summed, PE, PE)
            tl.debug_barrier()
            store_rows(SCRATCH, row, head, num_heads * PE, PE, ok, part, PE, PE)
            tl.debug_barrier()
        store_key_gradients(DK, DV, dk, dv, k_begin, n, n < k_length, head, num_heads, E, PE, SCALE)
    # without keys the scratch was never written: read none of it
    written = tl.where(k_length > 0, q_length, 0)
    for m0 in range(0, q_length, BM):
        m = m0 + tl.arange(0, BM)
        ok = m < q_length
        row = q_begin + m
        if ORDERED:
            row = tl.load(ORDER + row, mask=ok, other=0)
        dq = load_rows(SCRATCH, row, head, num_heads * PE, PE, m < written, PE, PE) * SCALE
        store_rows(DQ, row, head, num_heads * E, E, ok, dq, E, PE)


@triton.jit(do_not_specialize=["num_queries"])
def attention_backward_owned(
    Q, K, V, OUT, LSE, DO, DQ, DK, DV, SCRATCH, ORDER, Q_OFFSETS, K_OFFSETS,
    stride_qt, stride_qh, stride_kt, stride_kh, stride_vt, stride_vh, stride_dot, stride_doh,
    num_queries, num_heads,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, ORDERED: tl.constexpr, ONE_TILE: tl.constexpr,
):
    """All gradients of one (sequence, head). ONE_TILE: the host knows that no sequence exceeds BM queries."""
    head = tl.program_id(0).to(tl.int64)  # a head's place may lie beyond 2**31
    group = tl.program_id(1)
    q_begin = tl.load(Q_OFFSETS + group)
    q_length = (tl.load(Q_OFFSETS + group + 1) - q_begin).to(tl.int32)
    k_begin = tl.load(K_OFFSETS + group)
    k_length = (tl.load(K_OFFSETS + group + 1) - k_begin).to(tl.int32)
    if ONE_TILE:
        _owned_by_one_tile(
            Q, K, V, OUT, LSE, DO, DQ, DK, DV, ORDER, stride_qt, stride_qh, stride_kt, stride_kh,
            stride_vt, stride_vh, stride_dot, stride_doh, num_queries, num_heads, head, q_begin,
            q_length, k_begin, k_length, E, PE, SCALE, BM, BN, CAUSAL, ORDERED)
    else:
        if q_length <= BM:
            _owned_by_one_tile(
                Q, K, V, OUT, LSE, DO, DQ, DK, DV, ORDER, stride_qt, stride_qh, stride_kt, stride_kh,
                stride_vt, stride_vh, stride_dot, stride_doh, num_queries, num_heads, head, q_begin,
                q_length, k_begin, k_length, E, PE, SCALE, BM, BN, CAUSAL, ORDERED)
        else:
            _owned_by_many_tiles(
                SCRATCH, Q, K, V, OUT, LSE, DO, DQ, DK, DV, ORDER, stride_qt, stride_qh, stride_kt,
                stride_kh, stride_vt, stride_vh, stride_dot, stride_doh, num_queries, num_heads, head,
                q_begin, q_length, k_begin, k_length, E, PE, SCALE, BM, BN, CAUSAL, ORDERED)

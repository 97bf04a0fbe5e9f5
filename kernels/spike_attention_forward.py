"""Forward kernel of spike attention.

Shape suffixes: T query tokens, S key tokens, G sequences, H heads, E head width (PE: padded to a power
of two). One program owns a tile of BM queries of one head and walks over the keys of its sequence in
blocks of BN, with the running maximum and sum of the softmax in the log2 domain.
"""

# Inside @triton.jit a name is not what Python types it as.
# pyright: reportArgumentType=false, reportOperatorIssue=false
from __future__ import annotations

import triton
import triton.language as tl

from .common import LOG2E, load_rows, matmul, matmul_add, store_rows, visible


@triton.jit(do_not_specialize=["num_queries"])
def attention_forward(
    Q, K, V, OUT, LSE, TILES, ORDER, Q_OFFSETS, K_OFFSETS,
    stride_qt, stride_qh, stride_kt, stride_kh, stride_vt, stride_vh, num_queries, num_heads,
    E: tl.constexpr, PE: tl.constexpr, SCALE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    CAUSAL: tl.constexpr, ORDERED: tl.constexpr,
):
    """Writes OUT (T, H, E) and LSE (H, T), the log-sum-exp; zeros and -inf without keys.

    LSE stays in the log2 domain: backward needs it there, and a change of base would round it twice.
    """
    # heads run fastest: the heads of a key lie side by side, and their programs share its memory pages
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

    m = first + tl.arange(0, BM)
    row = q_begin + m
    if ORDERED:
        row = tl.load(ORDER + row, mask=m < q_length, other=0)
    q = load_rows(Q, row, head, stride_qt, stride_qh, m < q_length, E, PE)

    exact: tl.constexpr = LSE.dtype.element_ty
    to_log2: tl.constexpr = SCALE * LOG2E
    acc = tl.zeros((BM, PE), exact)
    peak = tl.full((BM,), float("-inf"), exact)
    total = tl.zeros((BM,), exact)
    stop = k_length
    if CAUSAL:
        stop = tl.minimum(k_length, first + BM)
    for start in range(0, stop, BN):
        n = start + tl.arange(0, BN)
        seen = visible(m[:, None], n[None, :], q_length, k_length, CAUSAL)
        k = load_rows(K, k_begin + n, head, stride_kt, stride_kh, n < k_length, E, PE)
        v = load_rows(V, k_begin + n, head, stride_vt, stride_vh, n < k_length, E, PE)
        scores = tl.where(seen, matmul(q, tl.trans(k)) * to_log2, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))
        # a row that has seen nothing keeps a peak of -inf; -inf - -inf would be NaN
        safe = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        p = tl.exp2(scores - safe[:, None])
        shrink = tl.exp2(peak - safe)
        total = total * shrink + tl.sum(p, 1)
        acc = matmul_add(p.to(v.dtype), v, acc * shrink[:, None])
        peak = new_peak

    out = acc / tl.where(total > 0, total, 1.0)[:, None]
    store_rows(OUT, row, head, num_heads * E, E, m < q_length, out, E, PE)
    lse = tl.where(total > 0, peak + tl.log2(tl.where(total > 0, total, 1.0)), float("-inf"))
    tl.store(LSE + head * num_queries + row, lse, mask=m < q_length)

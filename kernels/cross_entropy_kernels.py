"""Kernels of the marked cross-entropy: projection, support mask and loss in one pass; no logits stored.

Shape suffixes: N rows, C classes, D features (PD: padded to a power of two), R rows of the base, X splits.

The gradient of a row's state is ``sum_c p_c w_c - w_target``: attention of the row over the classes, with
the weights as keys and as values. So the forward pass, which holds each block of weights anyway, sums it
along with the softmax, and the backward pass has only the gradient of the weights left to do.
"""

# Inside @triton.jit a name is not what Python types it as.
# pyright: reportArgumentType=false, reportOperatorIssue=false
from __future__ import annotations

import triton
import triton.language as tl

from .common import LN2, LOG2E, load_rows, matmul, matmul_add, store_rows

UNITS: tl.constexpr = tl.constexpr(2.0**40)  # of a 64-bit cell of the base's gradient, in the largest gradient of a loss


@triton.jit(do_not_specialize=["num_rows", "num_classes", "classes_per_split"])
def cross_entropy_forward(
    H, W, BIAS, BASE, ROW, FIRST, TARGET, LOW, PEAK, TOTAL, CHOSEN, ACC,
    stride_h, stride_w, stride_base, num_rows, num_classes, classes_per_split,
    D: tl.constexpr, PD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, GRAD: tl.constexpr,
):
    """One tile of (sorted) rows against one split of the classes. ROW tells which row of BASE each takes, FIRST what its
    class LOW has in place of that.

    Writes, per split and row, the peak (log2), the sum, the target's logit (log2; zero where it
    lies in another split) and, with GRAD, the weights averaged by the unnormalised softmax.
    """
    # rows run fastest, so that programs side by side read the same classes
    tile = tl.program_id(0)
    split = tl.program_id(1)
    row = tile * BM + tl.arange(0, BM)
    ok = row < num_rows
    low = tl.load(LOW + row, mask=ok, other=num_classes).to(tl.int32)
    target = tl.load(TARGET + row, mask=ok, other=-1).to(tl.int32)
    h = load_rows(H, row, 0, stride_h, 0, ok, D, PD)
    exact: tl.constexpr = PEAK.dtype.element_ty
    base_row = tl.load(ROW + row, mask=ok, other=0).to(tl.int64) * stride_base
    first = tl.load(FIRST + row, mask=ok, other=0.0).to(exact)

    peak = tl.full((BM,), float("-inf"), exact)
    total = tl.zeros((BM,), exact)
    chosen = tl.zeros((BM,), exact)
    acc = tl.zeros((BM, PD), exact)
    # classes that no row of the tile may choose are skipped, whole blocks of them
    begin = tl.maximum(split * classes_per_split, tl.maximum(tl.min(low, 0), 0) // BN * BN)
    end = tl.minimum((split + 1) * classes_per_split, num_classes)
    for start in range(begin, end, BN):
        c = start + tl.arange(0, BN)
        w = load_rows(W, c, 0, stride_w, 0, c < num_classes, D, PD)
        bias = tl.load(BIAS + c, mask=c < num_classes, other=0.0).to(exact)
        above = (c[None, :] > low[:, None]) & (c < num_classes)[None, :]
        base = tl.load(BASE + base_row[:, None] + c[None, :], mask=above, other=0.0).to(exact)
        base = tl.where(c[None, :] == low[:, None], first[:, None], base)
        logits = (matmul(h, tl.trans(w)) + bias[None, :] + base) * LOG2E
        chosen += tl.sum(tl.where(c[None, :] == target[:, None], logits, 0.0), 1)
        logits = tl.where(above | (c[None, :] == low[:, None]), logits, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(logits, 1))
        safe = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        p = tl.exp2(logits - safe[:, None])
        shrink = tl.exp2(peak - safe)
        total = total * shrink + tl.sum(p, 1)
        peak = new_peak
        if GRAD:
            acc = matmul_add(p.to(w.dtype), w, acc * shrink[:, None])
    at = split * num_rows + row
    tl.store(PEAK + at, peak, mask=ok)
    tl.store(TOTAL + at, total, mask=ok)
    tl.store(CHOSEN + at, chosen, mask=ok)
    if GRAD:
        store_rows(ACC, at, 0, D, 0, ok, acc, D, PD)


@triton.jit(do_not_specialize=["num_rows", "num_splits"])
def cross_entropy_combine(
    W, TARGET, LOW, ORDER, PEAK, TOTAL, CHOSEN, ACC, LOSS, LSE, PULL, stride_w, num_rows, num_splits,
    D: tl.constexpr, PD: tl.constexpr, BM: tl.constexpr, ORDERED: tl.constexpr, GRAD: tl.constexpr,
):
    """Puts the splits together, and the rows back in their order.

    Writes LOSS (N,) in nats and PULL (N, D) = dloss / dh; LSE (N,) in log2 stays sorted.
    """
    place = tl.program_id(0) * BM + tl.arange(0, BM)
    ok = place < num_rows
    row = place
    if ORDERED:
        row = tl.load(ORDER + place, mask=ok, other=0)
    exact: tl.constexpr = PEAK.dtype.element_ty
    peak = tl.full((BM,), float("-inf"), exact)
    total = tl.zeros((BM,), exact)
    chosen = tl.zeros((BM,), exact)
    acc = tl.zeros((BM, PD), exact)
    for split in range(0, num_splits):
        at = split * num_rows + place
        part = tl.load(PEAK + at, mask=ok, other=float("-inf"))
        new_peak = tl.maximum(peak, part)
        safe = tl.where(new_peak == float("-inf"), 0.0, new_peak)
        mine = tl.exp2(peak - safe)
        theirs = tl.exp2(part - safe)
        total = total * mine + tl.load(TOTAL + at, mask=ok, other=0.0) * theirs
        chosen += tl.load(CHOSEN + at, mask=ok, other=0.0)
        if GRAD:
            acc = acc * mine[:, None] + load_rows(ACC, at, 0, D, 0, ok, D, PD) * theirs[:, None]
        peak = new_peak
    target = tl.load(TARGET + place, mask=ok, other=0)
    low = tl.load(LOW + place, mask=ok, other=0)
    inside = target >= low
    total = tl.where(total > 0, total, 1.0)
    lse = peak + tl.log2(total)
    tl.store(LOSS + row, tl.where(inside, (lse - chosen) * LN2, float("inf")), mask=ok)
    tl.store(LSE + place, lse, mask=ok)
    if GRAD:
        chosen_w = load_rows(W, target, 0, stride_w, 0, ok & inside, D, PD).to(exact)
        store_rows(PULL, row, 0, D, 0, ok, acc / total[:, None] - chosen_w, D, PD)


@triton.jit(do_not_specialize=["num_rows", "num_classes", "rows_per_split"])
def cross_entropy_weight_gradient(
    H, W, BIAS, BASE, ROW, FIRST, TARGET, LOW, STOP, LSE, DLOSS, MOST, DW, DBIAS, DBASE, DFIRST,
    stride_h, stride_w, stride_base, num_rows, num_classes, rows_per_split,
    D: tl.constexpr, PD: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BOUNDED: tl.constexpr,
    BASE_GRAD: tl.constexpr,
):
    """Gradient of one block of classes, summed over one split of the (sorted) rows.

    With BASE_GRAD also that of the base, added to DBASE (R, C) in 64-bit integers of MOST / 2**40 (integer sums do not depend
    on their order), and that of FIRST, to DFIRST (N,). Both are zero where no tile comes.

    Tiles are classes x rows, so that the recomputed softmax feeds the matrix unit from registers.
    With BOUNDED, STOP (class blocks,) bounds the rows that may choose any class of a block.
    """
    block = tl.program_id(0)
    split = tl.program_id(1)
    c = block * BN + tl.arange(0, BN)
    w = load_rows(W, c, 0, stride_w, 0, c < num_classes, D, PD)
    exact: tl.constexpr = LSE.dtype.element_ty
    bias = tl.load(BIAS + c, mask=c < num_classes, other=0.0).to(exact)
    dw = tl.zeros((BN, PD), exact)
    dbias = tl.zeros((BN,), exact)
    begin = split * rows_per_split
    end = tl.minimum(begin + rows_per_split, num_rows)
    if BOUNDED:
        end = tl.minimum(end, tl.load(STOP + block).to(tl.int32))
    if BASE_GRAD:
        most = tl.load(MOST).to(exact)
    for start in range(begin, end, BM):
        row = start + tl.arange(0, BM)
        ok = row < end
        low = tl.load(LOW + row, mask=ok, other=num_classes).to(tl.int32)
        target = tl.load(TARGET + row, mask=ok, other=-1).to(tl.int32)
        base_row = tl.load(ROW + row, mask=ok, other=0).to(tl.int64)
        first = tl.load(FIRST + row, mask=ok, other=0.0).to(exact)
        lse = tl.load(LSE + row, mask=ok, other=0.0)
        dloss = tl.load(DLOSS + row, mask=ok, other=0.0).to(exact)
        h = load_rows(H, row, 0, stride_h, 0, ok, D, PD)
        above = (c[:, None] > low[None, :]) & (c < num_classes)[:, None]
        lowest = c[:, None] == low[None, :]
        base = tl.load(BASE + base_row[None, :] * stride_base + c[:, None], mask=above, other=0.0).to(exact)
        logits = matmul(w, tl.trans(h)) + bias[:, None] + tl.where(lowest, first[None, :], base)
        p = tl.exp2(tl.where(above | lowest, logits * LOG2E - lse[None, :], float("-inf")))
        pull = tl.where(c[:, None] == target[None, :], p - 1.0, p)
        if BASE_GRAD:
            cell = DBASE + base_row[None, :] * num_classes + c[:, None]
            tl.atomic_add(cell, (pull * (dloss / most * UNITS)[None, :]).to(tl.int64), mask=above & ok[None, :], sem="relaxed")
            here = ok & (low >= block * BN) & (low < block * BN + BN)
            tl.store(DFIRST + row, tl.sum(tl.where(lowest, pull, 0.0), 0) * dloss, mask=here)
        pull = pull * dloss[None, :]
        dbias += tl.sum(pull, 1)
        dw = matmul_add(pull.to(h.dtype), h, dw)
    at = split * num_classes + c
    store_rows(DW, at, 0, D, 0, c < num_classes, dw, D, PD)
    tl.store(DBIAS + at, dbias.to(DBIAS.dtype.element_ty), mask=c < num_classes)

"""Marked cross-entropy: launches, PyTorch custom ops with fake kernels, and the call.

Shape suffixes: N rows, C classes, D features, R rows of the base, X splits. The mathematics, byte counts and measurements
are in ``kernels/README.md``.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from . import configs
from .common import Ints, check_runnable, exact_dtype, on_device, padded, rows_contiguous
from .cross_entropy_kernels import (
    cross_entropy_combine,
    cross_entropy_forward,
    cross_entropy_weight_gradient,
)

MAX_FEATURES = 512


def marked_cross_entropy(
    h_ND: Tensor, weight_CD: Tensor, bias_C: Tensor, target_N: Tensor, low_N: Tensor, base_RC: Tensor, row_N: Tensor,
    first_N: Tensor,
) -> Tensor:
    """(N,) negative log-likelihood in nats; see ``neuroformer.ops.marked_cross_entropy``.

    A target below ``low`` costs infinity, and gets no gradient that means anything.

    Raises
    ------
    ValueError
        A device or a number of features that the kernels do not cover, or mixed dtypes.
    """
    check_runnable(h_ND, "cross-entropy")
    features = h_ND.shape[1]
    if features > MAX_FEATURES:
        raise ValueError(f"cross-entropy impl 'triton' takes up to {MAX_FEATURES} features, got {features}")
    if h_ND.dtype != weight_CD.dtype:
        raise ValueError(f"cross-entropy dtypes disagree: h {h_ND.dtype}, weight {weight_CD.dtype}")
    plan = configs.cross_entropy_plan(h_ND.shape[0], weight_CD.shape[0], features, h_ND.dtype)
    order = stop = None
    if plan[-1]:
        # sorted, the rows that may choose a class of a block are the first so many: all others are skipped in both
        # passes, without a device sync
        low_N, order = torch.sort(low_N, stable=True)
        target_N, row_N = target_N.index_select(0, order), row_N.index_select(0, order)
        starts = torch.arange(0, weight_CD.shape[0], plan[6], device=low_N.device)
        stop = torch.searchsorted(low_N, starts + plan[6])
    wants = torch.is_grad_enabled() and h_ND.requires_grad
    return torch.ops.neuroformer.marked_cross_entropy(
        h_ND, weight_CD, bias_C, base_RC, first_N, target_N, low_N, row_N, order, stop, wants, plan
    )[0]


def _per_split(count: int, splits: int, block: int) -> int:
    """Items per split, whole blocks of them."""
    return -(-count // (block * splits)) * block


@torch.library.custom_op("neuroformer::marked_cross_entropy", mutates_args=())
def _forward(
    h: Tensor, weight: Tensor, bias: Tensor, base: Tensor, first: Tensor, target: Tensor, low: Tensor, row: Tensor,
    order: Tensor | None, stop: Tensor | None, wants: bool, plan: Ints,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss (N,), lse in log2 (N,), dloss / dh (N, D) or nothing of it).

    ``target``, ``low``, ``row`` and the lse are in sorted order; h, first, loss and dloss / dh in their own.
    """
    if order is not None:
        h, first = h.index_select(0, order), first.index_select(0, order)
    h, weight, base, first = rows_contiguous(h), rows_contiguous(weight), rows_contiguous(base), first.contiguous()
    (num_rows, features), num_classes = h.shape, weight.shape[0]
    exact = exact_dtype(h.dtype)
    loss, lse = (torch.empty(num_rows, dtype=exact, device=h.device) for _ in range(2))
    pull = torch.empty((num_rows if wants else 0, features), dtype=exact, device=h.device)
    if num_rows == 0:
        return loss, lse, pull
    splits = plan[4]
    peak, total, chosen = (torch.empty((splits, num_rows), dtype=exact, device=h.device) for _ in range(3))
    acc = torch.empty((splits, num_rows, features), dtype=exact, device=h.device) if wants else pull
    grad: dict[str, Any] = {"GRAD": wants}
    ordered: dict[str, Any] = {"ORDERED": order is not None}
    combine = _options(features, [16, 16, 4, 2])
    del combine["BN"]
    with on_device(h):
        cross_entropy_forward[(triton.cdiv(num_rows, plan[0]), splits)](
            h, weight, bias, base, row, first, target, low, peak, total, chosen, acc,
            h.stride(0), weight.stride(0), base.stride(0), num_rows, num_classes,
            _per_split(num_classes, splits, plan[1]), **_options(features, plan[:4]), **grad,
        )
        cross_entropy_combine[(triton.cdiv(num_rows, 16),)](
            weight, target, low, order, peak, total, chosen, acc, loss, lse, pull,
            weight.stride(0), num_rows, splits, **combine, **grad, **ordered,
        )
    return loss, lse, pull


@_forward.register_fake
def _(h, weight, bias, base, first, target, low, row, order, stop, wants, plan):
    exact = exact_dtype(h.dtype)
    loss, lse = (h.new_empty(h.shape[0], dtype=exact) for _ in range(2))
    return loss, lse, h.new_empty((h.shape[0] if wants else 0, h.shape[1]), dtype=exact)


@torch.library.custom_op("neuroformer::marked_cross_entropy_backward", mutates_args=())
def _backward(
    dloss: Tensor, h: Tensor, weight: Tensor, bias: Tensor, base: Tensor, first: Tensor, target: Tensor, low: Tensor,
    row: Tensor, order: Tensor | None, stop: Tensor | None, lse: Tensor, wants_base: bool, plan: Ints,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the weight, of the bias, and of the base (R, C) and ``first`` (N,) or nothing of these."""
    if order is not None:
        h, dloss, first = (x.index_select(0, order) for x in (h, dloss, first))
    h, weight, base = rows_contiguous(h), rows_contiguous(weight), rows_contiguous(base)
    dloss, first = dloss.contiguous(), first.contiguous()
    (num_rows, features), num_classes = h.shape, weight.shape[0]
    splits = plan[9]
    exact = exact_dtype(h.dtype)
    whole = splits == 1
    options: dict[str, Any] = {"BOUNDED": stop is not None, "BASE_GRAD": wants_base}
    dweight = torch.empty(
        (splits, num_classes, features), dtype=weight.dtype if whole else exact, device=h.device
    )
    dbias = torch.empty((splits, num_classes), dtype=bias.dtype if whole else exact, device=h.device)
    # what lies outside the supports is never visited
    cells = torch.zeros(base.shape if wants_base else (0, 0), dtype=torch.int64, device=h.device)
    dfirst = torch.zeros(num_rows if wants_base else 0, dtype=exact, device=h.device)
    most = dloss.to(exact).abs().amax(0, keepdim=True) if num_rows else dloss.new_zeros(1, dtype=exact)
    most = torch.where(most == 0, 1.0, most)
    with on_device(h):
        cross_entropy_weight_gradient[(triton.cdiv(num_classes, plan[6]), splits)](
            h, weight, bias, base, row, first, target, low, stop, lse, dloss, most, dweight, dbias, cells, dfirst,
            h.stride(0), weight.stride(0), base.stride(0), num_rows, num_classes,
            _per_split(num_rows, splits, plan[5]), **_options(features, plan[5:9]), **options,
        )
    dbase = (cells.double() * (most.double() * 2.0**-40)).to(base.dtype)
    if order is not None and wants_base:
        dfirst = torch.zeros_like(dfirst).index_copy(0, order, dfirst)
    dfirst = dfirst.to(first.dtype)
    if whole:
        return dweight.reshape(num_classes, features), dbias.reshape(num_classes), dbase, dfirst
    return dweight.sum(0).to(weight.dtype), dbias.sum(0).to(bias.dtype), dbase, dfirst


@_backward.register_fake
def _(dloss, h, weight, bias, base, first, target, low, row, order, stop, lse, wants_base, plan):
    return (
        torch.empty_like(weight, memory_format=torch.contiguous_format),
        torch.empty_like(bias),
        base.new_empty(base.shape if wants_base else (0, 0)),
        first.new_empty(first.shape[0] if wants_base else 0),
    )


def _options(features: int, tile: list[int]) -> dict[str, Any]:
    return {
        "D": features,
        "PD": padded(features),
        "BM": tile[0],
        "BN": tile[1],
        "num_warps": tile[2],
        "num_stages": tile[3],
    }


def _save(ctx, inputs, output) -> None:
    *tensors, wants, plan = inputs
    loss, lse, pull = output
    ctx.mark_non_differentiable(lse, pull)
    ctx.save_for_backward(*tensors, lse, pull)
    ctx.plan, ctx.wants = plan, wants


def _differentiate(ctx, dloss, _dlse, _dpull):
    *tensors, lse, pull = ctx.saved_tensors
    dh = dweight = dbias = dbase = dfirst = None
    wants_base = ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
    if ctx.wants:
        dh = (pull * dloss[:, None]).to(tensors[0].dtype)
    if any(ctx.needs_input_grad[1:5]):
        dweight, dbias, dbase, dfirst = torch.ops.neuroformer.marked_cross_entropy_backward(
            dloss, *tensors, lse, wants_base, ctx.plan
        )
    given = (x if needed else None for x, needed in zip((dbase, dfirst), ctx.needs_input_grad[3:5], strict=True))
    return dh, dweight, dbias, *given, *(None,) * 7


_forward.register_autograd(_differentiate, setup_context=_save)

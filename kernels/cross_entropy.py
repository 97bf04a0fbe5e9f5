"""Marked cross-entropy: launches, PyTorch custom ops with fake kernels, and the call.

Shape suffixes: N rows, C classes, D features, X splits. The mathematics, byte counts and measurements
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
    h_ND: Tensor, weight_CD: Tensor, bias_C: Tensor, target_N: Tensor, low_N: Tensor, high_N: Tensor,
    base_NC: Tensor | None = None,
) -> Tensor:
    """(N,) negative log-likelihood in nats; see ``neuroformer.ops.marked_cross_entropy``.

    A target outside its support costs infinity, and gets no gradient that means anything.

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
    plan = configs.cross_entropy_plan(
        h_ND.shape[0], weight_CD.shape[0], features, h_ND.dtype,
        roomy=configs.is_roomy(h_ND.device), base=base_NC is not None,
    )
    order = first = stop = None
    if plan[-1]:
        low_N, order = torch.sort(low_N, stable=True)
        target_N, high_N = target_N.index_select(0, order), high_N.index_select(0, order)
        first, stop = _reaching(low_N, high_N, weight_CD.shape[0], plan[6])
    wants = torch.is_grad_enabled() and h_ND.requires_grad
    return torch.ops.neuroformer.marked_cross_entropy(
        h_ND, weight_CD, bias_C, base_NC, target_N, low_N, high_N, order, first, stop, wants, plan
    )[0]


def _reaching(low_N: Tensor, high_N: Tensor, num_classes: int, block: int) -> tuple[Tensor, Tensor]:
    """Bounds of the rows, sorted by ``low``, that may choose a class of each block of classes.

    Sorted, those rows are neighbours: all others are skipped in both passes, without a device sync.
    """
    starts = torch.arange(0, num_classes, block, device=low_N.device)
    # rows before the first whose support reaches beyond the block's start all end too early
    first = torch.searchsorted(high_N.cummax(0).values, starts, right=True)
    return first, torch.searchsorted(low_N, starts + block)


def _per_split(count: int, splits: int, block: int) -> int:
    """Items per split, whole blocks of them."""
    return -(-count // (block * splits)) * block


@torch.library.custom_op("neuroformer::marked_cross_entropy", mutates_args=())
def _forward(
    h: Tensor, weight: Tensor, bias: Tensor, base: Tensor | None, target: Tensor, low: Tensor, high: Tensor,
    order: Tensor | None, first: Tensor | None, stop: Tensor | None, wants: bool, plan: Ints,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss (N,), lse in log2 (N,), dloss / dh (N, D) or nothing of it).

    ``target``, ``low``, ``high`` and the lse are in sorted order; h, base, loss and dloss / dh in their own.
    """
    base = None if base is None else rows_contiguous(base)
    h, weight = rows_contiguous(h if order is None else h.index_select(0, order)), rows_contiguous(weight)
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
    based: dict[str, Any] = {"BASED": base is not None}
    combine = _options(features, [16, 16, 4, 2])
    del combine["BN"]
    with on_device(h):
        cross_entropy_forward[(triton.cdiv(num_rows, plan[0]), splits)](
            h, weight, bias, base, target, low, high, order, peak, total, chosen, acc,
            h.stride(0), weight.stride(0), 0 if base is None else base.stride(0), num_rows, num_classes,
            _per_split(num_classes, splits, plan[1]), **_options(features, plan[:4]), **grad, **ordered, **based,
        )
        cross_entropy_combine[(triton.cdiv(num_rows, 16),)](
            weight, target, low, high, order, peak, total, chosen, acc, loss, lse, pull,
            weight.stride(0), num_rows, splits, **combine, **grad, **ordered,
        )
    return loss, lse, pull


@_forward.register_fake
def _(h, weight, bias, base, target, low, high, order, first, stop, wants, plan):
    exact = exact_dtype(h.dtype)
    loss, lse = (h.new_empty(h.shape[0], dtype=exact) for _ in range(2))
    return loss, lse, h.new_empty((h.shape[0] if wants else 0, h.shape[1]), dtype=exact)


@torch.library.custom_op("neuroformer::marked_cross_entropy_backward", mutates_args=())
def _backward(
    dloss: Tensor, h: Tensor, weight: Tensor, bias: Tensor, base: Tensor | None, target: Tensor, low: Tensor,
    high: Tensor, order: Tensor | None, first: Tensor | None, stop: Tensor | None, lse: Tensor,
    wants_base: bool, plan: Ints,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the weight, of the bias, and of the base (N, C) or nothing of it."""
    if order is not None:
        h, dloss = h.index_select(0, order), dloss.index_select(0, order)
    h, weight, dloss = rows_contiguous(h), rows_contiguous(weight), dloss.contiguous()
    base = None if base is None else rows_contiguous(base)
    (num_rows, features), num_classes = h.shape, weight.shape[0]
    splits = plan[9]
    exact = exact_dtype(h.dtype)
    whole = splits == 1
    options: dict[str, Any] = {"BOUNDED": first is not None, "ORDERED": order is not None}
    options |= {"BASED": base is not None, "BASE_GRAD": wants_base}
    dweight = torch.empty(
        (splits, num_classes, features), dtype=weight.dtype if whole else exact, device=h.device
    )
    dbias = torch.empty((splits, num_classes), dtype=bias.dtype if whole else exact, device=h.device)
    # what lies outside the supports is never visited
    like = bias if base is None else base
    dbase = torch.zeros((num_rows, num_classes) if wants_base else (0, 0), dtype=like.dtype, device=h.device)
    with on_device(h):
        cross_entropy_weight_gradient[(triton.cdiv(num_classes, plan[6]), splits)](
            h, weight, bias, base, target, low, high, order, first, stop, lse, dloss, dweight, dbias, dbase,
            h.stride(0), weight.stride(0), 0 if base is None else base.stride(0), num_rows, num_classes,
            _per_split(num_rows, splits, plan[5]), **_options(features, plan[5:9]), **options,
        )
    if whole:
        return dweight.reshape(num_classes, features), dbias.reshape(num_classes), dbase
    return dweight.sum(0).to(weight.dtype), dbias.sum(0).to(bias.dtype), dbase


@_backward.register_fake
def _(dloss, h, weight, bias, base, target, low, high, order, first, stop, lse, wants_base, plan):
    size = (h.shape[0], weight.shape[0]) if wants_base else (0, 0)
    return (
        torch.empty_like(weight, memory_format=torch.contiguous_format),
        torch.empty_like(bias),
        (bias if base is None else base).new_empty(size),
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
    dh = dweight = dbias = dbase = None
    if ctx.wants:
        dh = (pull * dloss[:, None]).to(tensors[0].dtype)
    if any(ctx.needs_input_grad[1:4]):
        dweight, dbias, dbase = torch.ops.neuroformer.marked_cross_entropy_backward(
            dloss, *tensors, lse, ctx.needs_input_grad[3], ctx.plan
        )
    return dh, dweight, dbias, dbase if ctx.needs_input_grad[3] else None, *(None,) * 8


_forward.register_autograd(_differentiate, setup_context=_save)

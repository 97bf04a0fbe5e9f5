"""Cross-entropy over many classes in pieces: logits exist for some rows at a time, and gradients are formed with them.

Shape suffixes: N rows, C classes, D features, R rows of the base.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PIECE = 1 << 24  # logits at a time: 64 MB in float32; about 10,000 rows of 2,000 classes, the fastest on a CPU


class CrossEntropyInPieces(torch.autograd.Function):
    """:func:`neuroformer.ops.eager.marked_cross_entropy` for losses that weigh all rows alike.

    The gradients of the summed loss are formed in the forward pass, while the logits are at hand; backward only scales
    them. So the losses must be weighed by one common factor: a sum or a mean of them, which is what training takes.
    """

    @staticmethod
    def forward(ctx: Any, h, weight, bias, target, least, base, row, least_base) -> Tensor:
        exact = torch.promote_types(h.dtype, torch.float32)
        wanted = any(ctx.needs_input_grad)
        loss = h.new_empty(len(h), dtype=exact)
        grads = [torch.zeros_like(x, dtype=exact) if wanted else None for x in (h, weight, bias, base, least_base)]
        classes = torch.arange(len(weight), device=h.device)
        size = max(1, PIECE // max(len(weight), 1))
        for start in range(0, len(h), size):
            part = slice(start, start + size)
            begun = torch.nonzero(least[part] >= 0).squeeze(1)
            marked = least[part][begun]
            logits = (h[part] @ weight.T + bias).to(exact)
            under = base.index_select(0, row[part])
            under[begun, marked] = least_base[part][begun].to(under.dtype)
            logits += under
            logits.masked_fill_(classes < least[part, None], float("-inf"))
            lse = logits.logsumexp(1, keepdim=True)
            loss[part] = lse.squeeze(1) - logits.gather(1, target[part, None]).squeeze(1)
            if not wanted:
                continue
            pull = logits.sub_(lse).exp_()  # from here on the gradient of the logits
            pull[torch.arange(len(pull), device=h.device), target[part]] -= 1
            dh, dweight, dbias, dbase, dleast_base = (g for g in grads if g is not None)
            dh[part] = pull.to(weight.dtype) @ weight
            dweight.addmm_(pull.T, h[part].to(exact))
            dbias += pull.sum(0)
            dleast_base[part].index_copy_(0, begun, pull[begun, marked])
            pull[begun, marked] = 0
            dbase.index_add_(0, row[part], pull)
        ctx.save_for_backward(*(g for g in grads if g is not None))
        ctx.dtypes = [x.dtype for x in (h, weight, bias, base, least_base)]
        return loss

    @staticmethod
    def backward(ctx: Any, dloss: Tensor):
        factor = dloss[:1]
        if not bool((dloss == factor).all()):
            raise RuntimeError(
                "this cross-entropy forms its gradients early, so that all its rows must be weighed alike"
            )
        dh, dweight, dbias, dbase, dleast_base = (
            None if not needed else (g * factor.squeeze(0) if len(factor) else g).to(dtype)
            for g, dtype, needed in zip(ctx.saved_tensors, ctx.dtypes, _five(ctx.needs_input_grad), strict=True)
        )
        return dh, dweight, dbias, None, None, dbase, None, dleast_base


def _five(needed: tuple[bool, ...]) -> tuple[bool, ...]:
    h, weight, bias, _, _, base, _, least_base = needed
    return h, weight, bias, base, least_base

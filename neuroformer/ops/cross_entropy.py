"""Cross-entropy over classes with a support per row: checks the arguments and picks an implementation, or refuses."""

from __future__ import annotations

import torch
from torch import Tensor

from neuroformer.ops import reference, table

IMPLEMENTATIONS = ("auto", *table.CROSS_ENTROPY)


def marked_cross_entropy(
    h_ND: Tensor,
    weight_CD: Tensor,
    bias_C: Tensor,
    target_N: Tensor,
    low_N: Tensor,
    high_N: Tensor,
    base_NC: Tensor | None = None,
    *,
    impl: str = "auto",
) -> Tensor:
    """Negative log-likelihood (nats) of classes whose support is ``[low, high)`` in each row.

    Both heads of the model are this: dt never decreases, and within a bin the unit never decreases.

    Parameters
    ----------
    h_ND : (rows, features); weight_CD : (classes, features); bias_C : (classes,)
    target_N, low_N, high_N : (rows,) int64; ``low <= target < high``
    base_NC : (rows, classes), optional
        Added to the logits. It and its gradient are as large as the logits, and no implementation
        avoids them; see ``kernels/README.md`` for why the model stores it.
    impl : "auto", "eager" or "triton"
        The fused kernel never stores the logits, skips classes outside the supports, and is
        deterministic. ``auto`` takes the first row of ``neuroformer.ops.table.CROSS_ENTROPY_AUTO``
        that fits. Under autocast h and the weight are rounded to its dtype, as in any product.

    Returns
    -------
    (N,) float32 (float64 of float64 inputs)

    Raises
    ------
    ValueError
        Shapes that disagree, an unknown ``impl``, or a case that ``impl`` cannot do.
    """
    _check(h_ND, weight_CD, bias_C, target_N, low_N, high_N, base_NC)
    if torch.is_autocast_enabled(h_ND.device.type) and h_ND.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(h_ND.device.type)
        h_ND, weight_CD = h_ND.to(dtype), weight_CD.to(dtype)
    if impl == "auto":
        impl = table.pick_cross_entropy(h_ND, weight_CD)
    elif impl not in table.CROSS_ENTROPY:
        raise ValueError(f"cross-entropy impl {impl!r} is unknown; choose one of {', '.join(IMPLEMENTATIONS)}")
    elif lack := table.lacks_cross_entropy(impl, h_ND, weight_CD):
        raise ValueError(f"cross-entropy impl {impl!r} {lack}; choose another impl or 'auto'")
    if impl == "triton":
        from neuroformer.kernels import cross_entropy  # pyright: ignore[reportMissingImports]

        return cross_entropy.marked_cross_entropy(h_ND, weight_CD, bias_C, target_N, low_N, high_N, base_NC)
    return reference.marked_cross_entropy(h_ND, weight_CD, bias_C, target_N, low_N, high_N, base_NC)


def _check(h_ND, weight_CD, bias_C, target_N, low_N, high_N, base_NC) -> None:
    if h_ND.shape[1:] != weight_CD.shape[1:] or bias_C.shape != weight_CD.shape[:1]:
        raise ValueError(
            f"cross-entropy shapes disagree: h {tuple(h_ND.shape)}, weight {tuple(weight_CD.shape)}, "
            f"bias {tuple(bias_C.shape)}"
        )
    rows = h_ND.shape[:1]
    for name, x in (("target", target_N), ("low", low_N), ("high", high_N)):
        if x.shape != rows:
            raise ValueError(f"cross-entropy {name} is {tuple(x.shape)} for {rows[0]} rows")
    if base_NC is not None and base_NC.shape != (rows[0], bias_C.shape[0]):
        raise ValueError(
            f"cross-entropy base is {tuple(base_NC.shape)} for {rows[0]} rows and {bias_C.shape[0]} classes"
        )

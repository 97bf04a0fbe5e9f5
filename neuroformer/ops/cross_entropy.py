"""Cross-entropy over classes with a support per row: checks the arguments and picks an implementation, or refuses."""

from __future__ import annotations

import torch
from torch import Tensor

from neuroformer.ops import eager, table
from neuroformer.ops.pieces import CrossEntropyInPieces

IMPLEMENTATIONS = ("auto", *table.CROSS_ENTROPY)


def marked_cross_entropy(
    h_ND: Tensor,
    weight_CD: Tensor,
    bias_C: Tensor,
    target_N: Tensor,
    least_N: Tensor,
    base_RC: Tensor,
    row_N: Tensor,
    least_base_N: Tensor,
    *,
    impl: str = "auto",
) -> Tensor:
    """Negative log-likelihood (nats) of classes, of which those below ``least`` are impossible in a row.

    The unit of a spike is this: within a bin the unit never decreases, and logits start from a table of rates that all
    spikes of a bin share.

    Parameters
    ----------
    h_ND : (rows, features); weight_CD : (classes, features); bias_C : (classes,)
    target_N : (rows,) int64, at least ``least``
    least_N : (rows,) int64; -1: no class is excluded, and ``least_base`` is not used
    base_RC : (R, classes)
        Added to the logits.
    row_N : (rows,) int64, which row of the base each takes
    least_base_N : (rows,)
        What the class ``least`` has in place of its base.
    impl : "auto", "eager", "pieces" or "triton"
        Only "eager" has all logits at once. "pieces" forms gradients on the way, for losses that weigh all rows alike; "auto"
        takes the first of ``table.CROSS_ENTROPY_AUTO`` that fits. Under autocast h and the weight are rounded to its dtype.

    Returns
    -------
    (N,) float32 (float64 of float64 inputs)

    Raises
    ------
    ValueError
        Shapes that disagree, an unknown ``impl``, or a case that ``impl`` cannot do.
    """
    arguments = (h_ND, weight_CD, bias_C, target_N, least_N, base_RC, row_N, least_base_N)
    _check(*arguments)
    if torch.is_autocast_enabled(h_ND.device.type) and h_ND.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(h_ND.device.type)
        arguments = (h_ND.to(dtype), weight_CD.to(dtype), *arguments[2:])
    if impl == "auto":
        impl = table.pick_cross_entropy(*arguments[:2])
    elif impl not in table.CROSS_ENTROPY:
        raise ValueError(f"cross-entropy impl {impl!r} is unknown; choose one of {', '.join(IMPLEMENTATIONS)}")
    elif lack := table.lacks_cross_entropy(impl, *arguments[:2]):
        raise ValueError(f"cross-entropy impl {impl!r} {lack}; choose another impl or 'auto'")
    if impl == "triton":
        from neuroformer.kernels import cross_entropy  # pyright: ignore[reportMissingImports]

        return cross_entropy.marked_cross_entropy(*arguments)
    if impl == "pieces":
        loss = CrossEntropyInPieces.apply(*arguments)
        assert isinstance(loss, Tensor)
        return loss
    return eager.marked_cross_entropy(*arguments)


def _check(h_ND, weight_CD, bias_C, target_N, least_N, base_RC, row_N, least_base_N) -> None:
    if h_ND.shape[1:] != weight_CD.shape[1:] or bias_C.shape != weight_CD.shape[:1]:
        raise ValueError(
            f"cross-entropy shapes disagree: h {tuple(h_ND.shape)}, weight {tuple(weight_CD.shape)}, "
            f"bias {tuple(bias_C.shape)}"
        )
    rows = h_ND.shape[:1]
    for name, x in (("target", target_N), ("least", least_N), ("row", row_N), ("least_base", least_base_N)):
        if x.shape != rows:
            raise ValueError(f"cross-entropy {name} is {tuple(x.shape)} for {rows[0]} rows")
    if base_RC.ndim != 2 or base_RC.shape[1:] != bias_C.shape:
        raise ValueError(f"cross-entropy base is {tuple(base_RC.shape)} for {bias_C.shape[0]} classes")

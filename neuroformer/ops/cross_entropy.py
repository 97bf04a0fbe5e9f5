"""Cross-entropy over classes with a support per row: checks, picks an implementation, refuses."""

from __future__ import annotations

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
    *,
    base_RC: Tensor | None = None,
    base_row_N: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Negative log-likelihood (nats) of classes whose support is ``[low, high)`` in each row.

    Both heads of the model are this: dt never decreases, and within a bin the unit never decreases.

    Parameters
    ----------
    h_ND : (rows, features); weight_CD : (classes, features); bias_C : (classes,)
    target_N, low_N, high_N : (rows,) int64; ``low <= target < high``
    base_RC : (base rows, classes), optional
        Added to the logits of row n: ``base_RC[base_row_N[n]]``.

    impl : "auto", "eager" or "triton"
        The fused kernel never stores the logits, skips classes outside the supports, and is
        deterministic; it takes no ``base_RC``, which is as large as the logits it would save.
        ``auto`` takes the first row of ``neuroformer.ops.table.CROSS_ENTROPY_AUTO`` that fits.

    Returns
    -------
    (N,) float32 (float64 of float64 inputs)

    Raises
    ------
    ValueError
        Shapes that disagree, an unknown ``impl``, or a case that ``impl`` cannot do.
    """
    _check(h_ND, weight_CD, bias_C, target_N, low_N, high_N, base_RC, base_row_N)
    if impl == "auto":
        impl = table.pick_cross_entropy(h_ND, weight_CD, base_RC is not None)
    elif impl not in table.CROSS_ENTROPY:
        raise ValueError(
            f"cross-entropy impl {impl!r} is unknown; choose one of {', '.join(IMPLEMENTATIONS)}"
        )
    elif lack := table.lacks_cross_entropy(impl, h_ND, weight_CD, base_RC is not None):
        raise ValueError(f"cross-entropy impl {impl!r} {lack}; choose another impl or 'auto'")
    if impl == "triton":
        from neuroformer.kernels import cross_entropy  # pyright: ignore[reportMissingImports]

        return cross_entropy.marked_cross_entropy(h_ND, weight_CD, bias_C, target_N, low_N, high_N)
    return reference.marked_cross_entropy(
        h_ND, weight_CD, bias_C, target_N, low_N, high_N, base_RC=base_RC, base_row_N=base_row_N
    )


def _check(h_ND, weight_CD, bias_C, target_N, low_N, high_N, base_RC, base_row_N) -> None:
    if (base_RC is None) != (base_row_N is None):
        raise ValueError("base_RC and base_row_N belong together: give both or neither")
    if h_ND.shape[1:] != weight_CD.shape[1:] or bias_C.shape != weight_CD.shape[:1]:
        raise ValueError(
            f"cross-entropy shapes disagree: h {tuple(h_ND.shape)}, weight {tuple(weight_CD.shape)}, "
            f"bias {tuple(bias_C.shape)}"
        )
    rows = h_ND.shape[:1]
    for name, x in (("target", target_N), ("low", low_N), ("high", high_N), ("base_row", base_row_N)):
        if x is not None and x.shape != rows:
            raise ValueError(f"cross-entropy {name} is {tuple(x.shape)} for {rows[0]} rows")
    if base_RC is not None and base_RC.shape[1:] != bias_C.shape:
        raise ValueError(f"base_RC has {base_RC.shape[1]} classes, the weight {bias_C.shape[0]}")

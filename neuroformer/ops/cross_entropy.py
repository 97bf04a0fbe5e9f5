"""Cross-entropy over classes with a support per row: checks, picks an implementation, refuses."""

from __future__ import annotations

from torch import Tensor

from neuroformer.ops import reference

IMPLEMENTATIONS = ("auto", "eager")


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

    Returns
    -------
    (N,) float32
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(
            f"cross-entropy impl {impl!r} is unknown; choose one of {', '.join(IMPLEMENTATIONS)}"
        )
    if (base_RC is None) != (base_row_N is None):
        raise ValueError("base_RC and base_row_N belong together: give both or neither")
    return reference.marked_cross_entropy(
        h_ND, weight_CD, bias_C, target_N, low_N, high_N, base_RC=base_RC, base_row_N=base_row_N
    )

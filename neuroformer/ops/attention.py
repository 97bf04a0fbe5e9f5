"""Attention of packed ragged sequences: checks, picks an implementation, refuses.

Shape suffixes: T query tokens, S key tokens, B sequences, G key sequences, H heads, E head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroformer.ops import reference
from neuroformer.ops.ragged import Ragged

IMPLEMENTATIONS = ("auto", "eager", "sdpa")


def attention(
    q_THE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    *,
    k_index: Tensor | None = None,
    causal: bool = False,
    impl: str = "auto",
) -> Tensor:
    """Scaled dot-product attention of packed ragged sequences.

    Parameters
    ----------
    q_THE, k_SHE, v_SHE : (tokens, heads, head width)
    q_layout, k_layout : Ragged
        Where the sequences lie; lengths may be zero.
    k_index : (B,) int64, optional
        Which key sequence each query sequence reads; several may share one.
    causal : bool
        Token i sees keys 0..i of its own sequence. Refused together with ``k_index``.
    impl : "auto", "eager" or "sdpa"

    Returns
    -------
    (T, H, E); a query without keys gives zeros.

    Raises
    ------
    ValueError
        Shapes that disagree, an unknown ``impl``, or a case that ``impl`` cannot do.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"attention impl {impl!r} is unknown; choose one of {', '.join(IMPLEMENTATIONS)}")
    if q_THE.shape[1:] != k_SHE.shape[1:] or k_SHE.shape != v_SHE.shape:
        raise ValueError(
            f"attention shapes disagree: q {tuple(q_THE.shape)}, k {tuple(k_SHE.shape)}, "
            f"v {tuple(v_SHE.shape)}; heads and head width must be equal, k and v alike"
        )
    if q_THE.shape[0] != q_layout.total or k_SHE.shape[0] != k_layout.total:
        raise ValueError(
            f"attention layouts disagree with the tensors: {q_layout.total} queries laid out, "
            f"{q_THE.shape[0]} given; {k_layout.total} keys laid out, {k_SHE.shape[0]} given"
        )
    if causal and k_index is not None:
        raise ValueError("causal attention is of a sequence over itself; k_index cannot be given with it")
    if k_index is None and len(q_layout) != len(k_layout):
        raise ValueError(f"{len(q_layout)} query sequences but {len(k_layout)} key sequences; give k_index")
    if impl == "eager":
        return reference.attention(q_THE, k_SHE, v_SHE, q_layout, k_layout, k_index=k_index, causal=causal)
    return _sdpa(q_THE, k_SHE, v_SHE, q_layout, k_layout, k_index, causal)


def _sdpa(q_THE, k_SHE, v_SHE, q_layout: Ragged, k_layout: Ragged, k_index, causal: bool) -> Tensor:
    """PyTorch's scaled_dot_product_attention on tensors padded to the longest sequence of the batch."""
    if q_layout.total == 0 or k_layout.total == 0:
        return torch.zeros_like(q_THE)
    order = None
    if k_index is not None:
        # Without causality, queries of sequences that share keys are one longer sequence: keys stay put.
        order, q_layout = _regroup(q_layout, k_index, len(k_layout))
        q_THE = q_THE.index_select(0, order)
    q_BHTE, k_BHSE, v_BHSE = (
        layout.pad(x).transpose(1, 2)
        for layout, x in ((q_layout, q_THE), (k_layout, k_SHE), (k_layout, v_SHE))
    )
    if causal:
        # Padding lies behind every token of its sequence, so causality alone keeps it out.
        out_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BHSE, v_BHSE, is_causal=True)
    else:
        full = len(k_layout) * k_layout.max_length == k_layout.total
        mask = None if full else k_layout.mask_BL[:, None, None, :]
        out_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BHSE, v_BHSE, attn_mask=mask)
        if not full:  # where there is no key at all the softmax has nothing to sum
            empty = (k_layout.lengths_B == 0)[:, None, None, None]
            out_BHTE = out_BHTE.masked_fill(empty, 0.0)
    out_THE = q_layout.unpad(out_BHTE.transpose(1, 2))
    if order is None:
        return out_THE
    return torch.empty_like(out_THE).index_copy(0, order, out_THE)


def _regroup(q_layout: Ragged, k_index: Tensor, num_groups: int) -> tuple[Tensor, Ragged]:
    """Order of the query tokens by the key sequence they read, and the layout of the groups."""
    group_T = k_index.index_select(0, q_layout.row_T)
    order = torch.argsort(group_T, stable=True)
    lengths = torch.zeros(num_groups, dtype=torch.int64, device=k_index.device)
    lengths.index_add_(0, group_T, torch.ones_like(group_T))
    return order, Ragged.from_lengths(lengths)

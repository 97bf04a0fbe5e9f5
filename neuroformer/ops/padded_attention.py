"""PyTorch's own attention kernels on packed ragged sequences: padded, or as one long masked sequence.

Shape suffixes: T query tokens, S key tokens, B sequences, H heads, E head width.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroformer.ops import similar
from neuroformer.ops.ragged import Ragged


def sdpa(
    q_THE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    *,
    k_index: Tensor | None,
    causal: bool,
) -> Tensor:
    """scaled_dot_product_attention on padded tensors: on a CPU sequences of similar lengths together, else all."""
    if q_layout.total == 0 or k_layout.total == 0:
        return torch.zeros_like(q_THE)
    itself = k_layout.offsets is q_layout.offsets
    if q_THE.device.type == "cpu" and (itself or not causal):
        parts = similar.parts(q_layout, k_layout, k_index)
        if parts is not None:
            return _in_parts(q_THE, k_SHE, v_SHE, parts, causal)
    order = None
    if k_index is not None:
        # Without causality, queries of sequences that share keys are one longer sequence: keys stay put.
        order, q_layout = _regrouped(q_layout, k_layout, k_index)
        q_THE = q_THE.index_select(0, order)
    q_BHTE, k_BHSE, v_BHSE = (
        layout.pad(x).transpose(1, 2) for layout, x in ((q_layout, q_THE), (k_layout, k_SHE), (k_layout, v_SHE))
    )
    blind = None
    if causal and itself:
        # Padding lies behind every token of its own sequence, so causality alone keeps it out.
        out_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BHSE, v_BHSE, is_causal=True)
    else:
        seen = _seen(q_layout, k_layout, causal)
        if seen is not None:  # a softmax over nothing is NaN: let such rows see all, then blank them
            blind = ~seen.any(-1, keepdim=True)
            seen = seen | blind
        out_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BHSE, v_BHSE, attn_mask=seen)
    if blind is not None:
        out_BHTE = out_BHTE.masked_fill(blind, 0.0)
    out_THE = q_layout.unpad(out_BHTE.transpose(1, 2))
    if order is None:
        return out_THE
    return torch.empty_like(out_THE).index_copy(0, order, out_THE)


def _regrouped(q_layout: Ragged, k_layout: Ragged, k_index: Tensor) -> tuple[Tensor, Ragged]:
    """:func:`similar.regrouped`, once a batch: it asks the device for lengths. The operands stay with it, so that no
    id is used again.
    """
    key = ("regrouped", id(k_layout), id(k_index))
    if key not in q_layout.cache:
        q_layout.cache[key] = (similar.regrouped(q_layout, k_index, len(k_layout)), k_layout, k_index)
    return q_layout.cache[key][0]


def _in_parts(q_THE: Tensor, k_SHE: Tensor, v_SHE: Tensor, parts: similar.Parts, causal: bool) -> Tensor:
    """Sequences that have keys, part by part; the others' queries give zeros."""
    q, k, v = parts.queries.spread(q_THE), parts.keys.spread(k_SHE), parts.keys.spread(v_SHE)
    out = []
    for part in parts.parts:
        q_BHTE, k_BHSE, v_BHSE = (
            x[rows].unflatten(0, (part.num, -1)).transpose(1, 2)
            for x, rows in ((q, part.queries), (k, part.keys), (v, part.keys))
        )
        mask = None if causal else part.seen
        out_BHTE = F.scaled_dot_product_attention(q_BHTE, k_BHSE, v_BHSE, attn_mask=mask, is_causal=causal)
        out.append(out_BHTE.transpose(1, 2).flatten(0, 1))
    return parts.queries.gather(torch.cat(out))


def _seen(q_layout: Ragged, k_layout: Ragged, causal: bool) -> Tensor | None:
    """(B, 1, T or 1, S) bool, True where a padded query sees a padded key; None where all see all."""
    full = len(k_layout) * k_layout.max_length == k_layout.total
    if full and not causal:
        return None
    seen = k_layout.mask_BL[:, None, None, :]
    if causal:
        q_place = torch.arange(q_layout.max_length, device=seen.device)
        k_place = torch.arange(k_layout.max_length, device=seen.device)
        seen = seen & (k_place <= q_place[:, None])
    return seen


def flex(
    q_THE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    *,
    k_index: Tensor | None,
    causal: bool,
) -> tuple[Tensor, Tensor]:
    """FlexAttention over the packed batch as one sequence, masked by who belongs to whom; and its lse.

    Compiled on a GPU. The block mask is made once per batch and kept in the layout.

    Raises
    ------
    ValueError
        A gradient on a CPU, where FlexAttention has no backward.
    """
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    make_mask: Any = create_block_mask
    call: Any = flex_attention
    if q_THE.is_cuda:  # compiled, the mask is never written out as queries x keys
        make_mask, call = _compiled(create_block_mask), _compiled(flex_attention)
    else:
        if torch.is_grad_enabled() and any(x.requires_grad for x in (q_THE, k_SHE, v_SHE)):
            raise ValueError("attention impl 'flex' has no backward on a CPU; choose 'sdpa', 'eager' or 'auto'")
        # it looks at the flag, even under no_grad
        q_THE, k_SHE, v_SHE = q_THE.detach(), k_SHE.detach(), v_SHE.detach()
    if q_layout.total == 0 or k_layout.total == 0:
        lse_HT = torch.full(q_THE.shape[:2], float("-inf"), device=q_THE.device).T
        return torch.zeros_like(q_THE), lse_HT
    key = ("flex", id(k_layout), id(k_index), causal)
    if key not in q_layout.cache:  # the operands stay with the mask, so that no id is used again
        seen = _flex_seen(q_layout, k_layout, k_index, causal)
        mask = make_mask(seen, None, None, q_layout.total, k_layout.total, device=str(q_THE.device))
        q_layout.cache[key] = (mask, k_layout, k_index)
    out_1HTE, more = call(
        *(x.transpose(0, 1)[None] for x in (q_THE, k_SHE, v_SHE)),
        block_mask=q_layout.cache[key][0],
        **_with_lse(),
    )
    lse_1HT = more if isinstance(more, Tensor) else more.lse
    return out_1HTE[0].transpose(0, 1), lse_1HT[0].detach()


def _with_lse() -> dict[str, Any]:
    """How FlexAttention is asked for the log-sum-exp: later PyTorch gave it another name."""
    try:
        from torch.nn.attention.flex_attention import AuxRequest
    except ImportError:
        return {"return_lse": True}
    return {"return_aux": AuxRequest(lse=True)}


def _flex_seen(q_layout: Ragged, k_layout: Ragged, k_index: Tensor | None, causal: bool):
    """Whether a query of the packed batch sees a key, as FlexAttention asks it."""
    q_group = q_layout.row_T if k_index is None else k_index.index_select(0, q_layout.row_T)
    k_group = k_layout.row_T
    q_place, k_place = q_layout.position_T, k_layout.position_T

    def seen(b, h, t, s):
        ok = q_group[t] == k_group[s]
        if causal:
            ok = ok & (k_place[s] <= q_place[t])
        return ok

    return seen


def decode(
    q_BHE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    k_start_G: Tensor,
    k_length_G: Tensor,
    max_length: int,
    *,
    k_index: Tensor | None,
) -> Tensor:
    """One query per sequence; keys are padded to the longest sequence, and shared keys are copied for each query."""
    if max_length == 0 or q_BHE.shape[0] == 0:
        return torch.zeros_like(q_BHE)
    if k_index is not None:
        k_start_G, k_length_G = k_start_G[k_index], k_length_G[k_index]
    place = torch.arange(max_length, device=q_BHE.device)
    seen_BS = place < k_length_G[:, None]
    row_BS = torch.where(seen_BS, k_start_G[:, None] + place, 0)
    k_BHSE, v_BHSE = (x[row_BS].transpose(1, 2) for x in (k_SHE, v_SHE))
    blind_B = k_length_G == 0  # a softmax over nothing is NaN: let such rows see all, then blank them
    seen = (seen_BS | blind_B[:, None])[:, None, None]
    out_BHE = F.scaled_dot_product_attention(q_BHE[:, :, None], k_BHSE, v_BHSE, attn_mask=seen)[:, :, 0]
    return out_BHE.masked_fill(blind_B[:, None, None], 0.0)


@functools.cache
def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=True)

"""Eager oracles: they define what is right, one sequence at a time, and are never fast.

Shape suffixes: T query tokens, S key tokens, B sequences, H heads, E head width, N rows,
C classes, D features, X and Y labels of a map.
"""

from __future__ import annotations

import torch
from torch import Tensor

from neuroformer.ops.ragged import Ragged


def attention(
    q_THE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    *,
    k_index: Tensor | None = None,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention of packed sequences; a query without keys gives zeros.

    Sequence b of the queries reads key sequence ``k_index[b]`` (``b`` itself where it is None).
    ``causal`` lets token i of a sequence see keys 0..i of it.

    Returns
    -------
    out : (T, H, E)
    lse : (H, T) natural log-sum-exp of the visible scores, -inf where there is none; no gradient
    """
    scale = q_THE.shape[-1] ** -0.5
    out = torch.zeros_like(q_THE)
    lse_HT = q_THE.new_full((q_THE.shape[1], q_THE.shape[0]), float("-inf"))
    for b in range(len(q_layout)):
        g = b if k_index is None else int(k_index[b])
        qs = slice(int(q_layout.offsets[b]), int(q_layout.offsets[b + 1]))
        ks = slice(int(k_layout.offsets[g]), int(k_layout.offsets[g + 1]))
        if qs.stop == qs.start or ks.stop == ks.start:
            continue
        scores_HTS = torch.einsum("the,she->hts", q_THE[qs], k_SHE[ks]) * scale
        if causal:
            future_TS = torch.ones(scores_HTS.shape[1:], dtype=torch.bool, device=q_THE.device).triu(1)
            scores_HTS = scores_HTS.masked_fill(future_TS, float("-inf"))
        out[qs] = torch.einsum("hts,she->the", scores_HTS.softmax(-1), v_SHE[ks])
        lse_HT[:, qs] = scores_HTS.detach().logsumexp(-1)
    return out, lse_HT


def attention_map(
    q_THE: Tensor,
    k_SHE: Tensor,
    lse_HT: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    q_label_T: Tensor,
    k_label_S: Tensor,
    num_labels: tuple[int, int],
    *,
    k_index: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """(H, X, Y) attention summed over all query tokens of label x and key tokens of label y.

    Probabilities are ``exp(score - lse)``; tokens with a negative label do not count.
    """
    num_heads = q_THE.shape[1]
    total = torch.zeros(num_heads, num_labels[0] * num_labels[1], dtype=torch.float64, device=q_THE.device)
    for b in range(len(q_layout)):
        g = b if k_index is None else int(k_index[b])
        qs = slice(int(q_layout.offsets[b]), int(q_layout.offsets[b + 1]))
        ks = slice(int(k_layout.offsets[g]), int(k_layout.offsets[g + 1]))
        scores_HTS = torch.einsum("the,she->hts", q_THE[qs], k_SHE[ks]) * q_THE.shape[-1] ** -0.5
        hidden_TS = (q_label_T[qs, None] < 0) | (k_label_S[None, ks] < 0)
        if causal:
            hidden_TS |= torch.ones_like(hidden_TS).triu(1)
        p_HTS = (scores_HTS - lse_HT[:, qs, None]).exp().masked_fill(hidden_TS, 0.0)
        cell_TS = (q_label_T[qs, None] * num_labels[1] + k_label_S[None, ks]).masked_fill(hidden_TS, 0)
        total.index_add_(1, cell_TS.flatten(), p_HTS.flatten(1).double())
    return total.reshape(num_heads, *num_labels)


def decode_attention(
    q_BHE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    k_start_G: Tensor,
    k_length_G: Tensor,
    *,
    k_index: Tensor | None = None,
) -> Tensor:
    """(B, H, E): one query per sequence over keys ``k_start : k_start + k_length`` of packed storage."""
    out = torch.zeros_like(q_BHE)
    for b in range(q_BHE.shape[0]):
        g = b if k_index is None else int(k_index[b])
        ks = slice(int(k_start_G[g]), int(k_start_G[g]) + int(k_length_G[g]))
        if ks.stop == ks.start:
            continue
        scores_HS = torch.einsum("he,she->hs", q_BHE[b], k_SHE[ks]) * q_BHE.shape[-1] ** -0.5
        out[b] = torch.einsum("hs,she->he", scores_HS.softmax(-1), v_SHE[ks])
    return out


def marked_cross_entropy(
    h_ND: Tensor,
    weight_CD: Tensor,
    bias_C: Tensor,
    target_N: Tensor,
    least_N: Tensor,
    base_RC: Tensor,
    row_N: Tensor,
    least_base_N: Tensor,
) -> Tensor:
    """Negative log-likelihood (nats, (N,)) of classes from ``least`` on; -1: of all.

    Logits are ``h @ weight.T + bias + base[row]``, where the class ``least`` itself has ``least_base`` in place of its base;
    classes below it have probability zero, exactly. The target must not lie below.
    """
    exact = torch.promote_types(h_ND.dtype, torch.float32)
    classes = torch.arange(weight_CD.shape[0], device=h_ND.device)
    base_NC = torch.where(
        classes == least_N[:, None], least_base_N[:, None].to(base_RC.dtype), base_RC.index_select(0, row_N)
    )
    logits_NC = (h_ND @ weight_CD.T + bias_C).to(exact) + base_NC
    logp_NC = logits_NC.masked_fill(classes < least_N[:, None], float("-inf")).log_softmax(-1)
    return -logp_NC.gather(1, target_N[:, None]).squeeze(1)

"""Eager oracles: they define what is right, one sequence at a time, and are never fast.

Shape suffixes: T query tokens, S key tokens, H heads, E head width, N rows, C classes, D features.
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
) -> Tensor:
    """Scaled dot-product attention of packed sequences; a query without keys gives zeros.

    Sequence b of the queries reads key sequence ``k_index[b]`` (``b`` itself where it is None).
    ``causal`` lets token i of a sequence see keys 0..i of it.
    """
    scale = q_THE.shape[-1] ** -0.5
    out = torch.zeros_like(q_THE)
    for b in range(len(q_layout)):
        g = b if k_index is None else int(k_index[b])
        qs = slice(int(q_layout.offsets[b]), int(q_layout.offsets[b + 1]))
        ks = slice(int(k_layout.offsets[g]), int(k_layout.offsets[g + 1]))
        if qs.stop == qs.start or ks.stop == ks.start:
            continue
        scores_HTS = torch.einsum("the,she->hts", q_THE[qs], k_SHE[ks]) * scale
        if causal:
            future = torch.ones(scores_HTS.shape[1:], dtype=torch.bool, device=q_THE.device).triu(1)
            scores_HTS = scores_HTS.masked_fill(future, float("-inf"))
        out[qs] = torch.einsum("hts,she->the", scores_HTS.softmax(-1), v_SHE[ks])
    return out


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
) -> Tensor:
    """Negative log-likelihood (nats, (N,)) of classes whose support is ``[low, high)`` in each row.

    Logits are ``h @ weight.T + bias (+ base[base_row])``; classes outside the support have
    probability zero, exactly. The target must lie in the support.
    """
    logits_NC = (h_ND @ weight_CD.T + bias_C).float()
    if base_RC is not None:
        assert base_row_N is not None
        logits_NC = logits_NC + base_RC.index_select(0, base_row_N)
    classes = torch.arange(weight_CD.shape[0], device=h_ND.device)
    outside = (classes < low_N[:, None]) | (classes >= high_N[:, None])
    logp_NC = logits_NC.masked_fill(outside, float("-inf")).log_softmax(-1)
    return -logp_NC.gather(1, target_N[:, None]).squeeze(1)

"""Attention without gradients: one query per sequence over cached keys, and maps of who attends to what.

Shape suffixes: B sequences, T query tokens, S key tokens, G key sequences, H heads, E head width, X and
Y labels of queries and keys.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neuroformer.ops import eager, maps, padded_attention, table
from neuroformer.ops.attention import attention, check_shapes
from neuroformer.ops.ragged import Ragged


def decode_attention(
    q_BHE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    k_start_G: Tensor,
    k_length_G: Tensor,
    max_length: int,
    *,
    k_index: Tensor | None = None,
    q_layout: Ragged | None = None,
    impl: str = "auto",
) -> Tensor:
    """Attention of one query per sequence: a step of a rollout.

    Keys lie anywhere in one storage: a cache (B, L, H, E) is ``cache.flatten(0, 1)`` with
    ``k_start = arange(B) * L`` and its fill as lengths; packed cross keys have their layout's offsets.

    Parameters
    ----------
    q_BHE : (sequences, heads, head width)
    k_SHE, v_SHE : (rows of storage, heads, head width)
    k_start_G, k_length_G : (G,) int64 on the device
        Where key sequences begin, and how many keys they hold now; may be zero.
    max_length : int
        No key sequence is, or will be while a captured graph is replayed, longer.
    k_index : (B,) int64, optional
        Which key sequence each query reads; several may share one, whose keys are then loaded once for
        16 of them. Without it G = B.
    q_layout : Ragged, optional
        Keeps what is derived from ``k_index`` between calls (any layout of B sequences of one token).
    impl : "auto", "eager", "sdpa" or "triton"
        The fused kernel asks the device nothing and allocates by ``max_length`` alone: it can be
        captured in a CUDA graph. No implementation has a gradient here.

    Returns
    -------
    (B, H, E); a query without keys gives zeros.

    Raises
    ------
    ValueError
        Shapes that disagree, an unknown ``impl``, or a case that ``impl`` cannot do.
    """
    _check_decode(q_BHE, k_SHE, v_SHE, k_start_G, k_index)
    impl = table.pick("decode attention", table.DECODE, table.DECODE_AUTO, impl, q_BHE)
    with torch.no_grad():
        if impl == "eager":
            return eager.decode_attention(q_BHE, k_SHE, v_SHE, k_start_G, k_length_G, k_index=k_index)
        if impl == "sdpa":
            return padded_attention.decode(q_BHE, k_SHE, v_SHE, k_start_G, k_length_G, max_length, k_index=k_index)
        from neuroformer.kernels import decode_attention as fused  # pyright: ignore[reportMissingImports]

        if k_index is not None and q_layout is None:
            num = q_BHE.shape[0]
            q_layout = Ragged(torch.arange(num + 1, device=q_BHE.device), 1, num)
        return fused.decode_attention(
            q_BHE, k_SHE, v_SHE, k_start_G, k_length_G, max_length, k_index=k_index, q_layout=q_layout
        )


def _check_decode(q_BHE, k_SHE, v_SHE, k_start_G, k_index) -> None:
    if q_BHE.shape[1:] != k_SHE.shape[1:] or k_SHE.shape != v_SHE.shape:
        raise ValueError(
            f"decode attention shapes disagree: q {tuple(q_BHE.shape)}, k {tuple(k_SHE.shape)}, "
            f"v {tuple(v_SHE.shape)}; heads and head width must be equal, k and v alike"
        )
    if k_index is None and k_start_G.shape[0] != q_BHE.shape[0]:
        raise ValueError(f"{q_BHE.shape[0]} queries but {k_start_G.shape[0]} key sequences; give k_index")


def attention_map(
    q_THE: Tensor,
    k_SHE: Tensor,
    lse_HT: Tensor | None,
    q_layout: Ragged,
    k_layout: Ragged,
    q_label_T: Tensor,
    k_label_S: Tensor,
    num_labels: tuple[int, int],
    *,
    per_head: bool = True,
    k_index: Tensor | None = None,
    causal: bool = False,
    impl: str = "auto",
) -> Tensor:
    """Attention summed by label: unit x unit, or unit x patch where a key's label is its patch.

    :func:`attention_with_map` gives the attention's result beside it, for less than both cost apart.

    Parameters
    ----------
    q_THE, k_SHE, layouts, k_index and causal : as given to ``attention``
    lse_HT : (H, T), optional
        What ``attention(..., return_lse=True)`` gave for them; computed here where it is None.
    q_label_T, k_label_S : (T,), (S,) int64
        Row and column of the map that a token counts for; a negative one does not count.
    num_labels : (X, Y)
    per_head : bool
        False gives the mean over heads, in one pass.
    impl : "auto", "eager", "padded" or "triton"
        ``padded`` makes the weights of a piece of the batch at a time.

    Returns
    -------
    (H, X, Y) float64, or (X, Y): sums of probabilities. Divide by the number of queries with a label to
    get the attention of an average one.

    Raises
    ------
    ValueError
        Shapes that disagree, an unknown ``impl``, or a case that ``impl`` cannot do.
    """
    check_shapes(q_THE, k_SHE, k_SHE, q_layout, k_layout, k_index, causal)
    _check_labels(q_THE, k_SHE, lse_HT, q_label_T, k_label_S)
    impl = table.pick("attention map", table.MAP, table.MAP_AUTO, impl, q_THE)
    options: dict[str, Any] = {"k_index": k_index, "causal": causal}
    labels = (q_label_T, k_label_S, num_labels)
    with torch.no_grad():
        if impl == "padded":
            return maps.attention_map(q_THE, k_SHE, q_layout, k_layout, *labels, per_head=per_head, **options)[0]
        if lse_HT is None:
            _, lse_HT = attention(q_THE, k_SHE, k_SHE, q_layout, k_layout, return_lse=True, **options)
        inputs = (q_THE, k_SHE, lse_HT, q_layout, k_layout, *labels)
        if impl == "triton":
            from neuroformer.kernels import attention_map as fused  # pyright: ignore[reportMissingImports]

            return fused.attention_map(*inputs, per_head=per_head, **options)
        total = eager.attention_map(*inputs, **options)
        return total if per_head else total.mean(0)


def _check_labels(q_THE, k_SHE, lse_HT, q_label_T, k_label_S) -> None:
    if lse_HT is not None and lse_HT.shape != (q_THE.shape[1], q_THE.shape[0]):
        raise ValueError(f"lse must be (heads, queries), got {tuple(lse_HT.shape)}")
    if q_label_T.shape != q_THE.shape[:1] or k_label_S.shape != k_SHE.shape[:1]:
        raise ValueError(
            f"labels disagree: {tuple(q_label_T.shape)} for {q_THE.shape[0]} queries, "
            f"{tuple(k_label_S.shape)} for {k_SHE.shape[0]} keys"
        )


def attention_with_map(
    q_THE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    q_label_T: Tensor,
    k_label_S: Tensor,
    num_labels: tuple[int, int],
    *,
    per_head: bool = True,
    k_index: Tensor | None = None,
    causal: bool = False,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Attention and its map, each weight computed once: what ``attention`` and ``attention_map`` give, without gradients.

    ``padded`` takes both from the same weights; the others hand the log-sum-exp of the attention on to the map.

    Returns
    -------
    (T, H, E), and the map of :func:`attention_map`.

    Raises
    ------
    ValueError
        As :func:`attention_map`.
    """
    options: dict[str, Any] = {"k_index": k_index, "causal": causal}
    labels = (q_label_T, k_label_S, num_labels)
    impl = table.pick("attention map", table.MAP, table.MAP_AUTO, impl, q_THE)
    with torch.no_grad():
        if impl == "padded":
            check_shapes(q_THE, k_SHE, v_SHE, q_layout, k_layout, k_index, causal)
            made = maps.attention_map(
                q_THE, k_SHE, q_layout, k_layout, *labels, per_head=per_head, v_SHE=v_SHE, **options
            )
            assert made[1] is not None
            return made[1], made[0]
        out_THE, lse_HT = attention(q_THE, k_SHE, v_SHE, q_layout, k_layout, return_lse=True, impl=impl, **options)
        found = attention_map(
            q_THE, k_SHE, lse_HT, q_layout, k_layout, *labels, per_head=per_head, impl=impl, **options
        )
        return out_THE, found

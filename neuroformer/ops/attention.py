"""Attention of packed ragged sequences: checks the arguments and picks an implementation, or refuses.

Shape suffixes: T query tokens, S key tokens, B sequences, G key sequences, H heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

from torch import Tensor

from neuroformer.ops import eager, padded_attention, table
from neuroformer.ops.ragged import Ragged

IMPLEMENTATIONS = ("auto", *table.ATTENTION)


@overload
def attention(
    q_THE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    *,
    k_index: Tensor | None = None,
    causal: bool = False,
    return_lse: Literal[False] = False,
    impl: str = "auto",
) -> Tensor: ...
@overload
def attention(
    q_THE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    *,
    k_index: Tensor | None = None,
    causal: bool = False,
    return_lse: Literal[True],
    impl: str = "auto",
) -> tuple[Tensor, Tensor]: ...
def attention(
    q_THE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    *,
    k_index: Tensor | None = None,
    causal: bool = False,
    return_lse: bool = False,
    impl: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Scaled dot-product attention of packed ragged sequences.

    Parameters
    ----------
    q_THE, k_SHE, v_SHE : (tokens, heads, head width)
    q_layout, k_layout : Ragged
        Where the sequences lie; lengths may be zero.
    k_index : (B,) int64, optional
        Which key sequence each query sequence reads; several may share one, whose keys are then loaded once for all.
    causal : bool
        Token i sees keys 0..i of its own sequence. Refused together with ``k_index``.
    return_lse : bool
        Also return the natural log-sum-exp of the scores, (H, T), without gradient: ``attention_map`` takes it.
    impl : "auto", "eager", "sdpa", "flex" or "triton"
        ``auto`` takes the first row of ``neuroformer.ops.table.ATTENTION_AUTO`` that fits. All but ``flex`` on CUDA
        are deterministic, ``sdpa`` there only under ``torch.use_deterministic_algorithms``.

    Returns
    -------
    (T, H, E), or that and (H, T); a query without keys gives zeros and -inf.

    Raises
    ------
    ValueError
        Shapes that disagree, an unknown ``impl``, or a case that ``impl`` cannot do.
    """
    check_shapes(q_THE, k_SHE, v_SHE, q_layout, k_layout, k_index, causal)
    impl = _pick(impl, q_THE, return_lse)
    inputs = (q_THE, k_SHE, v_SHE, q_layout, k_layout)
    if impl == "sdpa":  # has no log-sum-exp, and was not picked if that was asked for
        return padded_attention.sdpa(*inputs, k_index=k_index, causal=causal)
    out_THE, lse_HT = _implementation(impl)(*inputs, k_index=k_index, causal=causal)
    return (out_THE, lse_HT) if return_lse else out_THE


def _implementation(impl: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Those that give the log-sum-exp too."""
    if impl == "flex":
        return padded_attention.flex
    if impl == "eager":
        return eager.attention
    from neuroformer.kernels.spike_attention import spike_attention  # pyright: ignore[reportMissingImports]

    return spike_attention


def _pick(impl: str, q_THE: Tensor, return_lse: bool) -> str:
    """The requested implementation (an error if it cannot do the case), or the first that can."""
    if impl == "auto":
        return table.pick_attention(q_THE, return_lse=return_lse)
    if impl not in table.ATTENTION:
        raise ValueError(f"attention impl {impl!r} is unknown; choose one of {', '.join(IMPLEMENTATIONS)}")
    if lack := table.lacks_attention(impl, q_THE, return_lse=return_lse):
        raise ValueError(f"attention impl {impl!r} {lack}; choose another impl or 'auto'")
    return impl


def check_shapes(q_THE, k_SHE, v_SHE, q_layout: Ragged, k_layout: Ragged, k_index, causal: bool) -> None:
    if q_THE.shape[1:] != k_SHE.shape[1:] or k_SHE.shape != v_SHE.shape:
        raise ValueError(
            f"attention shapes disagree: q {tuple(q_THE.shape)}, k {tuple(k_SHE.shape)}, "
            f"v {tuple(v_SHE.shape)}; heads and head width must be equal, k and v alike"
        )
    if not q_THE.dtype == k_SHE.dtype == v_SHE.dtype:
        raise ValueError(f"attention dtypes disagree: q {q_THE.dtype}, k {k_SHE.dtype}, v {v_SHE.dtype}")
    if q_THE.shape[0] != q_layout.total or k_SHE.shape[0] != k_layout.total:
        raise ValueError(
            f"attention layouts disagree with the tensors: {q_layout.total} queries laid out, "
            f"{q_THE.shape[0]} given; {k_layout.total} keys laid out, {k_SHE.shape[0]} given"
        )
    if causal and k_index is not None:
        raise ValueError("causal attention is of a sequence over itself; k_index cannot be given with it")
    if k_index is None and len(q_layout) != len(k_layout):
        raise ValueError(f"{len(q_layout)} query sequences but {len(k_layout)} key sequences; give k_index")

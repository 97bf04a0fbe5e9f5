"""Attention of packed ragged sequences: checks the arguments and picks an implementation, or refuses.

Shape suffixes: T query tokens, S key tokens, B sequences, G key sequences, H heads, E head width,
F = E / 2 rotary pairs.
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from neuroformer.ops import padded_attention, reference, table
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
    return_lse: Literal[False] = False,
    **options: Any,
) -> Tensor: ...
@overload
def attention(
    q_THE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    *,
    return_lse: Literal[True],
    **options: Any,
) -> tuple[Tensor, Tensor]: ...
def attention(  # pyright: ignore[reportInconsistentOverload]  # the options are spelt out below
    q_THE: Tensor,
    k_SHE: Tensor,
    v_SHE: Tensor,
    q_layout: Ragged,
    k_layout: Ragged,
    *,
    k_index: Tensor | None = None,
    causal: bool = False,
    q_times: Tensor | None = None,
    k_times: Tensor | None = None,
    rotary_freqs: Tensor | None = None,
    window_s: float | None = None,
    dropout_p: float = 0.0,
    dropout_seed: Tensor | int | None = None,
    deterministic: bool | None = None,
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
    q_times, k_times : (T,), (S,), optional
        Seconds, relative to an origin near them (the window, not the recording): the kernels compute angles in float32.
    rotary_freqs : (F,), optional
        Rotary embedding by continuous time: pair (2f, 2f + 1) turns by ``time * rotary_freqs[f]`` radians; no gradient.
    window_s : float, optional
        Keys more than this many seconds from the query, before or after, are not seen.
    dropout_p : float
        Share of the attention weights dropped. With ``dropout_seed`` (an int or a 0-d int64 tensor on the device) the
        dropped set is a function of the seed alone, the same in every implementation that takes one; without, it comes
        from PyTorch's generator.
    deterministic : bool, optional
        Refuse implementations whose gradients differ from run to run (the fused kernels' never do); by default whatever
        ``torch.use_deterministic_algorithms`` says.
    return_lse : bool
        Also return the natural log-sum-exp of the scores, (H, T), without gradient: ``attention_map`` takes it.
    impl : "auto", "eager", "sdpa", "flex" or "triton"
        ``auto`` takes the first row of ``neuroformer.ops.table.ATTENTION_AUTO`` that fits.

    Returns
    -------
    (T, H, E), or that and (H, T); a query without keys gives zeros and -inf.

    Raises
    ------
    ValueError
        Shapes that disagree, an unknown ``impl``, or a case that ``impl`` cannot do.
    """
    check_shapes(q_THE, k_SHE, v_SHE, q_layout, k_layout, k_index, causal)
    check_times(q_THE, k_SHE, q_times, k_times, rotary_freqs, window_s)
    options: dict[str, Any] = {
        "k_index": k_index,
        "causal": causal,
        "q_times": q_times,
        "k_times": k_times,
        "rotary_freqs": rotary_freqs,
        "window_s": window_s,
    }
    asked = _asked(options, dropout_p, dropout_seed, return_lse)
    inputs = (q_THE, k_SHE, v_SHE, q_layout, k_layout)
    out_THE, lse_HT = _run(_pick(impl, q_THE, asked, deterministic), inputs, options, dropout_p, dropout_seed)
    if return_lse:
        assert lse_HT is not None
        return out_THE, lse_HT
    return out_THE


def _asked(options: dict[str, Any], dropout_p: float, dropout_seed, return_lse: bool) -> set[str]:
    """What of all that not every implementation can do is wanted, by the names of :mod:`neuroformer.ops.table`."""
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"attention dropout_p must lie in [0, 1), got {dropout_p}")
    wanted = {name: options[name] is not None for name in ("rotary_freqs", "window_s")}
    wanted |= {"dropout_p": dropout_p > 0, "dropout_seed": dropout_p > 0 and dropout_seed is not None}
    wanted["return_lse"] = return_lse
    return {name for name, is_wanted in wanted.items() if is_wanted}


def _run(
    impl: str, inputs: tuple, options: dict[str, Any], dropout_p: float, dropout_seed: Tensor | int | None
) -> tuple[Tensor, Tensor | None]:
    """The result of an implementation, and the log-sum-exp where it has one."""
    if impl == "sdpa":
        return padded_attention.sdpa(*inputs, **options, dropout_p=dropout_p), None
    if impl == "flex":
        return padded_attention.flex(*inputs, **options)
    seed = _seed(dropout_seed, inputs[0].device) if dropout_p > 0 else None
    if impl == "eager":
        return reference.attention(*inputs, **options, dropout_p=dropout_p, dropout_seed=seed)
    from neuroformer.kernels.spike_attention import spike_attention  # pyright: ignore[reportMissingImports]

    return spike_attention(*inputs, **options, dropout_p=dropout_p, dropout_seed=seed)


def _pick(impl: str, q_THE: Tensor, options: set[str], deterministic: bool | None) -> str:
    """The requested implementation (an error if it cannot do the case), or the first that can."""
    if deterministic is None:
        deterministic = torch.are_deterministic_algorithms_enabled()
    if impl == "auto":
        return table.pick_attention(q_THE, options, deterministic)
    if impl not in table.ATTENTION:
        raise ValueError(f"attention impl {impl!r} is unknown; choose one of {', '.join(IMPLEMENTATIONS)}")
    if lack := table.lacks_attention(impl, q_THE, options, deterministic):
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


def check_times(q_THE, k_SHE, q_times, k_times, rotary_freqs, window_s) -> None:
    wanted = [n for n, x in (("rotary_freqs", rotary_freqs), ("window_s", window_s)) if x is not None]
    if not wanted:
        return
    if q_times is None or k_times is None:
        raise ValueError(f"attention with {wanted[0]} needs q_times and k_times")
    if q_times.shape != q_THE.shape[:1] or k_times.shape != k_SHE.shape[:1]:
        raise ValueError(
            f"attention times disagree: q_times {tuple(q_times.shape)} for {q_THE.shape[0]} queries, "
            f"k_times {tuple(k_times.shape)} for {k_SHE.shape[0]} keys"
        )
    if window_s is not None and not window_s >= 0:
        raise ValueError(f"attention window_s must be seconds, at least 0, got {window_s}")
    if rotary_freqs is None:
        return
    if q_THE.shape[-1] % 2 or rotary_freqs.shape != (q_THE.shape[-1] // 2,):
        raise ValueError(
            f"rotary_freqs must be (head width / 2,) of an even head width; "
            f"got {tuple(rotary_freqs.shape)} for width {q_THE.shape[-1]}"
        )
    if rotary_freqs.requires_grad:
        raise ValueError("rotary_freqs gets no gradient; detach it")


def _seed(seed: Tensor | int | None, device: torch.device) -> Tensor:
    """The seed as a 0-d int64 tensor on the device, so that neither the host nor a captured graph has to wait."""
    if isinstance(seed, Tensor):
        return seed
    if seed is None:
        return torch.randint(0, 2**31 - 1, (), dtype=torch.int64, device=device)
    return torch.full((), seed & 0xFFFFFFFF, dtype=torch.int64, device=device)

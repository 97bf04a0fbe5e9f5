"""Random streams that belong to sequences, and drawing from logits with them.

Shape suffixes: N rows, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

DT, ID, FORCED, TRACE = 0, 1, 2, 3  # kinds of random numbers


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    """The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014); int64 arithmetic wraps around."""
    x = (x ^ _shift(x, 30)) * -4658895280553007687
    x = (x ^ _shift(x, 27)) * -7723592293110705685
    return x ^ _shift(x, 31)


def uniforms(seed: int, sequence_N: Tensor, window: Tensor | int, token: Tensor | int, kind: Tensor | int) -> Tensor:
    """(N,) float64 in [0, 1): a function of its arguments alone; (K, N) of ``kind`` (K, 1).

    ``window`` and ``token`` may differ between sequences, (N,). A sequence thus draws the same numbers in a batch of
    1 or of 500, in any order, and after an interruption.
    """
    return uniforms_of(streams(seed, sequence_N, window), token, kind)


def streams(seed: int, sequence_N: Tensor, window: Tensor | int) -> Tensor:
    """(N,) int64, the part of :func:`uniforms` that stays the same within a window."""
    return _follow(torch.full_like(sequence_N, seed & 0x7FFFFFFFFFFFFFFF), sequence_N, window)


def uniforms_of(stream_N: Tensor, token: Tensor | int, kind: Tensor | int) -> Tensor:
    """What :func:`uniforms` gives, from :func:`streams`."""
    return _shift(_follow(stream_N, token, kind), 11).double() * 2.0**-53


def _follow(x: Tensor, *parts: Tensor | int) -> Tensor:
    golden = -7046029254386353131
    for part in parts:
        x = _mix(x + golden + part)
    return x


def draw(logits_NC: Tensor, uniform_N: Tensor, *, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """(N,) classes, by inverting the cumulative distribution at ``uniform_N``.

    Parameters
    ----------
    logits_NC : -inf where a class is impossible; such a class is never drawn
    temperature : 0 takes the likeliest class
    top_p : smallest set of likeliest classes whose probability reaches it (Holtzman et al. 2020)
    """
    if temperature == 0:
        return logits_NC.argmax(1)
    p = (logits_NC.double() / temperature).softmax(1)
    if top_p < 1:
        ordered, order = p.sort(1, descending=True)
        drop = ordered.cumsum(1) - ordered >= top_p
        p = torch.zeros_like(p).scatter(1, order, ordered.masked_fill(drop, 0.0))
    total = p.cumsum(1)
    # the last class with any probability bounds what rounding could push past it
    last = p.shape[1] - 1 - (p > 0).flip(1).to(torch.int8).argmax(1)
    return torch.searchsorted(total, (uniform_N * total[:, -1])[:, None], right=True).squeeze(1).minimum(last)

"""The one tolerance of this project's numerical checks, derived from the data of each check."""

from __future__ import annotations

import torch
from torch import Tensor


def tolerance(exact: Tensor, eager: Tensor) -> float:
    """Largest error an implementation may have, in the units of ``exact``.

    Twice the error of eager PyTorch in the same dtype plus one rounding step of that dtype, both taken
    over the whole tensor. A result that eager happens to hit exactly still leaves room for one rounding.

    Parameters
    ----------
    exact : float64 result of the eager reference
    eager : result of the eager reference in the dtype that is checked
    """
    if exact.numel() == 0:
        return 0.0
    error = float((eager.double() - exact).abs().max())
    return 2.0 * error + torch.finfo(eager.dtype).eps * float(exact.abs().max())


def check_close(name: str, got: Tensor, eager: Tensor, exact: Tensor) -> None:
    """Raise AssertionError naming ``name`` where ``got`` is further from ``exact`` than allowed.

    Infinities must stand in the same places; a NaN anywhere fails.
    """
    if got.shape != exact.shape:
        raise AssertionError(f"{name}: shape {tuple(got.shape)}, expected {tuple(exact.shape)}")
    if got.numel() == 0:
        return
    finite = exact.isfinite()
    if not torch.equal(got.double()[~finite], exact[~finite]):
        raise AssertionError(f"{name}: infinities differ from the reference")
    got, eager, exact = got[finite], eager[finite], exact[finite]
    allowed = tolerance(exact, eager)
    if exact.numel() == 0:
        return
    error = float((got.double() - exact).abs().max())
    if not error <= allowed:  # NaN fails too
        raise AssertionError(f"{name}: error {error:.3e} exceeds {allowed:.3e} ({got.dtype})")

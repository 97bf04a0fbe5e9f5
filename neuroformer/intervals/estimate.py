"""Scores and how sure they are, on a scale on which errors are nearly normal.

Shape suffixes: S scores, R repeats.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

Scale = Literal["plain", "explained", "correlation", "share", "positive"]

# on these scales a score's error is closer to a normal one and free of the bounds: to the scale, and back
SCALES: dict[str, tuple[Callable, Callable]] = {
    "plain": (lambda x: x, lambda z: z),
    "explained": (lambda x: np.log(1 - x), lambda z: 1 - np.exp(z)),  # R2: unexplained shares are ratios
    "correlation": (np.arctanh, np.tanh),
    "share": (
        lambda x: np.arcsin(np.sqrt(np.clip(x, 0, 1))),
        lambda z: np.sin(np.clip(z, 0, np.pi / 2)) ** 2,
    ),
    "positive": (np.log, np.exp),
}


@dataclass(frozen=True, eq=False)
class Estimate:
    """Scores and how sure they are, on the scale on which ends are taken.

    Attributes
    ----------
    value_S : the scores
    center_S, error_S : on the scale: the middle of the interval and its standard error; NaN without an interval
    degrees_S : degrees of freedom of the error
    """

    value_S: np.ndarray
    center_S: np.ndarray
    error_S: np.ndarray
    degrees_S: np.ndarray
    scale: Scale = "plain"

    def ends(self) -> np.ndarray:
        """(2, S) lower and upper end of the 95 % interval, from Student's t; NaN where there is none."""
        half = stdtrit(np.maximum(self.degrees_S, 1), 0.975) * self.error_S
        with np.errstate(all="ignore"):
            return np.sort(SCALES[self.scale][1](np.stack([self.center_S - half, self.center_S + half])), axis=0)

    def with_error(self, error_S: np.ndarray, degrees_S: np.ndarray | float) -> Estimate:
        """The same with another independent source of error, on the scale; degrees of freedom after Satterthwaite."""
        mine, other = self.error_S**2, error_S**2
        with np.errstate(divide="ignore", invalid="ignore"):
            degrees = (mine + other) ** 2 / (mine**2 / self.degrees_S + other**2 / degrees_S)
        return dataclasses.replace(self, error_S=np.sqrt(mine + other), degrees_S=np.nan_to_num(degrees, nan=1.0))

    def with_repeats(self, values_RS: np.ndarray) -> Estimate:
        """The same, over independent repeats too (draws of labels, say), whose mean the scores are; one tells nothing.

        What blocks and repeats do together counts twice, so the interval is rather too wide than too narrow.
        """
        repeats = len(values_RS)
        if repeats < 2:
            return self
        z_RS = SCALES[self.scale][0](np.asarray(values_RS, np.float64))
        return self.with_error(z_RS.std(0, ddof=1) / np.sqrt(repeats), repeats - 1)

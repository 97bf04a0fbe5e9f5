"""How a field of the schema declares its default, its meaning and the values that it may have."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

# of behavior variables: they become names of modules, arrays, files and columns
NAME = re.compile(r"\w(?:[\w -]*\w)?")


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    also: float | None = None,
    name: bool = False,
) -> Any:
    """A field of a section.

    Parameters
    ----------
    default : value; a mapping is copied for every section
    help : what it means; becomes the comment in ``configs/reference.yaml`` and part of the error
    unit : of the numbers, as an error names it
    above, least, below, most : bounds; the first and third are excluded. Of a list they hold for every number
    also : a value outside the bounds that has a meaning of its own
    name : the value names a behavior variable or a group of them
    """
    metadata = {"help": help, "limits": Limits(unit, above, least, below, most, also), "name": name}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Limits:
    """Which numbers a field may hold. All are finite."""

    unit: str = ""
    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None
    also: float | None = None

    def hold(self, x: float) -> bool:
        """Whether a number keeps to them."""
        if x == self.also:
            return True
        over = (self.above is None or x > self.above) and (self.least is None or x >= self.least)
        under = (self.below is None or x < self.below) and (self.most is None or x <= self.most)
        return math.isfinite(x) and over and under

    def __str__(self) -> str:
        """As an error says what it expected: ``seconds above 0``, ``a share in [0, 1)``, ``1 or more``."""
        low, high = _first(self.above, self.least), _first(self.below, self.most)
        if low is not None and high is not None:
            what = self.unit or ("a share" if (low, high) == (0, 1) else "a number")
            said = f"{what} in {'[' if self.above is None else '('}{low}, {high}{']' if self.below is None else ')'}"
        elif self.above is not None:
            said = f"{self.unit or 'a number'} above {self.above}"
        elif self.least is not None:
            said = (f"{self.unit}, " if self.unit else "") + f"{self.least} or more"
        else:
            said = f"a finite number{f' of {self.unit}' if self.unit else ''}"
        return said if self.also is None else f"{said}, or {self.also}"


def _first(*values: float | None) -> float | None:
    return next((v for v in values if v is not None), None)

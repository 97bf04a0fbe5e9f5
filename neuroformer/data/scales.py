"""What a model must know of the numbers that it was trained on: rates, means, standard deviations, classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class VariableScale:
    """A behavior variable on training blocks, by column; or the classes of one.

    Attributes
    ----------
    mean, std, low, high : by column, in the variable's own unit; empty for classes
    columns : names of the columns
    period : of a circular variable; 0 of any other
    classes : labels that occur in training, ascending; empty for numbers
    words : what the labels count, where a variable was recorded as words
    """

    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    period: float = 0.0
    classes: list[int] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def word(self, label: float) -> str:
        """What a class label stands for."""
        return self.words[int(label)] if 0 <= int(label) < len(self.words) else f"{label:g}"

    def titled(self, name: str) -> str:
        """A target's name for the axis of a figure, with what its first labels stand for."""
        named = ", ".join(f"{label} {self.words[label]}" for label in range(min(4, len(self.words))))
        return f"{name} ({named}{', ...' if len(self.words) > 4 else ''})" if self.words else name


@dataclass
class BackboneScale:
    """A pretrained network for frames: where it came from, its digest, the grid and scale of its features."""

    id: str
    sha256: str
    video: bool
    grid: list[int]
    mean: list[float]
    std: list[float]
    model_type: str
    config: str


@dataclass
class FrameScale:
    """Frames of the training blocks.

    Attributes
    ----------
    mean, std : of their pixels
    count : frames that a window sees
    period : seconds from one to the next
    shape : of an image
    backbone : the pretrained network that encodes them, if there is one
    """

    mean: float
    std: float
    count: int
    period: float
    shape: list[int]
    backbone: BackboneScale | None = None


@dataclass
class TraceScale:
    """Each unit's marginal distribution of traces on training blocks: the null model of bits/sample.

    Attributes
    ----------
    mean, std : of the Gaussian
    share : of samples above zero; ``level``, their mean; ``shape``, of their gamma distribution
    """

    mean: list[float]
    std: list[float]
    share: list[float]
    level: list[float]
    shape: list[float]


@dataclass
class Normalization:
    """Everything that a model must know about its training data.

    Attributes
    ----------
    unit_rate : expected count per bin of each unit, ``(n + 0.5) / bins``: the null model of bits/spike
    unit_peak : one more than the largest count of each unit in a bin
    inputs, targets : by variable
    frames, traces : where the model has them
    """

    unit_rate: list[float] = field(default_factory=list)
    unit_peak: list[float] = field(default_factory=list)
    inputs: dict[str, VariableScale] = field(default_factory=dict)
    targets: dict[str, VariableScale] = field(default_factory=dict)
    frames: FrameScale | None = None
    traces: TraceScale | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is empty is left out."""
        by_variable = {
            key: {name: _filled(scale) for name, scale in getattr(self, key).items()} for key in ("inputs", "targets")
        }
        return _filled(self) | by_variable

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Normalization:
        """The inverse of :meth:`to_dict`.

        Raises
        ------
        TypeError
            A key that is not known, or one that is missing.
        """
        known = dict(tree)
        for key in ("inputs", "targets"):
            known[key] = {name: VariableScale(**scale) for name, scale in tree.get(key, {}).items()}
        if known.get("frames") is not None:
            frames = dict(known["frames"])
            backbone = frames.pop("backbone", None)
            known["frames"] = FrameScale(**frames, backbone=None if backbone is None else BackboneScale(**backbone))
        if known.get("traces") is not None:
            known["traces"] = TraceScale(**known["traces"])
        return cls(**known)


def _filled(tree: Any) -> Any:
    """A tree of plain values without what is empty, and without the period of what is not circular."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        tree = dataclasses.asdict(tree)
    if not isinstance(tree, dict):
        return tree
    filled = {key: _filled(value) for key, value in tree.items()}
    return {
        key: value for key, value in filled.items() if value not in (None, [], {}) and (key, value) != ("period", 0)
    }

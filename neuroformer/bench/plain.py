"""The original's layers on our weights."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from neuroformer.model.layers import Linear, Mlp

Module = TypeVar("Module", bound=nn.Module)


def plain(model: Module) -> Module:
    """The same parameters and buffers in PyTorch's own layers: what the other side of a comparison runs."""
    shared = {id(x): x for x in (*model.parameters(), *model.buffers())}
    twin = copy.deepcopy(model, shared)
    for layer in twin.modules():
        for ours, theirs in ((Linear, nn.Linear), (Mlp, nn.Sequential)):
            if isinstance(layer, ours):
                layer.__class__ = theirs  # pyright: ignore[reportAttributeAccessIssue]
    return twin

"""Parameters that are sharded over the processes (FSDP2), and functions to read and write them whole. Without
sharding, every function here returns its argument.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from neuroformer.bundle.cohort import Cohort
from neuroformer.model.attention import Block


def shard(module: nn.Module, mesh: Any) -> nn.Module:
    """Shard a model: each block is gathered when it computes, the rest at the start of the forward pass."""
    mesh = mesh["data_parallel"] if "data_parallel" in (mesh.mesh_dim_names or ()) else mesh
    for model in [m for m in module.modules() if isinstance(m, Cohort)][0].members:
        for block in model.modules():
            if isinstance(block, Block):
                fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh, ignored_params=set(whole_parameters(model)))
    return module


def can_shard() -> bool:
    """Whether this PyTorch can leave single numbers whole."""
    return "ignored_params" in inspect.signature(fully_shard).parameters


def is_sharded(module: nn.Module) -> bool:
    return any(isinstance(m, FSDPModule) for m in module.modules())


def whole_parameters(module: nn.Module) -> list[nn.Parameter]:
    """Single numbers, which cannot be sharded: every process has them."""
    return [p for p in module.parameters() if p.ndim == 0]


def average_gradients(module: nn.Module) -> None:
    """Average the gradients of the parameters that every process has whole; FSDP averages the others."""
    for p in whole_parameters(module):
        if p.requires_grad:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()


def gathered(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors from the pieces of all processes; every process must call this."""
    return {k: v.full_tensor().cpu() if isinstance(v, DTensor) else v for k, v in tensors.items()}


def in_pieces(tensors: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`gathered`: cut as the tensors of the same names in ``like`` are."""
    out = {}
    for name, x in tensors.items():
        place = like.get(name)
        if isinstance(place, DTensor) and place.shape == x.shape:
            x = distribute_tensor(x.to(place.device), place.device_mesh, place.placements)
        out[name] = x
    return out


def let_go(module: nn.Module) -> None:
    """Drop what an evaluation gathered, since the next update makes it outdated."""
    for m in module.modules():
        if isinstance(m, FSDPModule):
            m.reshard()

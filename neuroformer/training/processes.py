"""Communication between the processes of a run. With one process, every function returns its argument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from lightning.fabric import Fabric
from torch import Tensor, nn

from neuroformer.losses import Gather


class Processes:
    """The group of processes that train one model."""

    def __init__(self, fabric: Fabric):
        self.device, self.rank, self.num = fabric.device, fabric.global_rank, fabric.world_size

    def sum(self, x: Tensor) -> Tensor:
        """The sum over processes of a tensor, in place."""
        if self.num > 1:
            dist.all_reduce(x)
        return x

    def add_up(self, counts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The sums, over pieces and processes, of dictionaries of counts, which have the same keys in all processes."""
        names = list(dict.fromkeys(name for c in counts for name in c))
        none = torch.zeros_like(next(iter(counts[0].values())))
        total = torch.stack([torch.stack([c.get(name, none) for name in names]) for c in counts]).sum(0)
        return dict(zip(names, self.sum(total), strict=True))

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the gradients of all processes, which handle the same recordings and therefore have the same ones."""
        if self.num == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        total = self.sum(torch.cat([g.flatten() for g in grads]))
        for g, part in zip(grads, total.split([g.numel() for g in grads]), strict=True):
            g.copy_(part.view_as(g))

    def agree(self, *flags: int) -> list[int]:
        """The largest value of each flag over all processes, so that all act alike."""
        if self.num == 1:
            return list(flags)
        x = torch.tensor(flags, device=self.device)
        dist.all_reduce(x, dist.ReduceOp.MAX)
        return x.tolist()

    def collect(self, x: Any) -> list[Any]:
        """One object of each process, in the order of their ranks."""
        if self.num == 1:
            return [x]
        out: list[Any] = [None] * self.num
        dist.all_gather_object(out, x)
        return out

    def gather(self, sizes: tuple[int, ...]) -> Gather | None:
        """A function that gathers the rows of all processes (whose numbers differ), for alignment."""
        if self.num == 1:
            return None

        def rows(x: Tensor) -> tuple[Tensor, int]:
            padded = x.new_zeros(max(sizes), *x.shape[1:])
            padded[: len(x)] = x
            if x.requires_grad:
                every = dist_nn.all_gather(padded)
            else:
                plain = padded.byte() if x.dtype == torch.bool else padded
                every = [torch.empty_like(plain) for _ in sizes]
                dist.all_gather(every, plain)
                every = [e.to(x.dtype) for e in every]
            return torch.cat([e[:n] for e, n in zip(every, sizes, strict=True)]), sum(sizes[: self.rank])

        return rows

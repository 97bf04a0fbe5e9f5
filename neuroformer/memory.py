"""How much memory is free, and what a computation keeps of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

CGROUPS = (  # limit and use of a container or a batch job: version 2, version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory(device: torch.device) -> float:
    """Bytes that this process may still take: of a GPU, or of this machine, its container and its own limit, the least."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    found = [_available(), *(_left(limit, use) for limit, use in CGROUPS), _left_of_process()]
    return max(0.0, min(x for x in found if x is not None))


def give_back() -> None:
    """Hand memory that is free within this process back to the system, where its C library can (glibc).

    Batches differ in size, so the heap grows around its holes: over some thousand steps by as much as a step needs.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _available() -> float:
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) / 2


def _left(limit: str, use: str) -> float | None:
    try:
        return float(Path(limit).read_text()) - float(Path(use).read_text())
    except (OSError, ValueError):  # no such group, or "max"
        return None


def _left_of_process() -> float | None:
    """What ``ulimit -v`` leaves."""
    if not sys.platform.startswith("linux"):
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return float(limit - pages * os.sysconf("SC_PAGE_SIZE"))


def kept_bytes(run: Callable[[], Tensor], model: torch.nn.Module) -> int:
    """Bytes that a forward pass keeps for its gradients, each storage once; those of the model's parameters are not new."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        run()
    return sum(kept.values())

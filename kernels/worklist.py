"""Work lists: which tile of which sequence a program handles. Made once per batch, without a device sync.

Sizes are bounds that the host knows (total tokens, longest sequence); the tiles themselves are computed
where the offsets live. Shape suffixes: B query sequences, G key sequences, T query tokens, W work items.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tiles(layout, block: int) -> Tensor:
    """(W, 2) int32 (sequence, first token) of every tile of ``block`` tokens; (-1, 0) beyond the last.

    Kept in ``layout.cache``, so that every layer of a step shares it.
    """
    key = ("tiles", block)
    if key not in layout.cache:
        num = len(layout) * -(-layout.max_length // block)
        layout.cache[key] = build_tiles(layout.offsets, min(num, layout.total // block + len(layout)), block)
    return layout.cache[key]


def build_tiles(offsets: Tensor, num_items: int, block: int) -> Tensor:
    """The list of :func:`tiles` for (B + 1,) offsets, ``num_items`` long (an upper bound)."""
    num = offsets.shape[0] - 1
    if num == 0 or num_items == 0:
        return torch.zeros(0, 2, dtype=torch.int32, device=offsets.device)
    counts = (offsets[1:] - offsets[:-1] + (block - 1)) // block
    ends = counts.cumsum(0)
    item = torch.arange(num_items, device=offsets.device)
    sequence = torch.searchsorted(ends, item, right=True)
    inside = sequence.clamp(max=num - 1)
    start = (item - (ends - counts)[inside]) * block
    used = sequence < num
    return torch.stack((torch.where(used, inside, -1), torch.where(used, start, 0)), 1).to(torch.int32)


class Groups:
    """Query sequences put together by the key sequence they read.

    Without causality, queries that share their keys are one longer sequence: its tiles load the keys
    once. ``order`` (T,) int32 lists the query tokens group after group, ``offsets`` (G + 1,) bounds them.
    It looks like a Ragged to :func:`tiles`; its longest group is unknown to the host, hence bounded.
    """

    def __init__(self, order: Tensor, offsets: Tensor, total: int):
        self.order, self.offsets, self.total, self.max_length = order, offsets, total, total
        self.cache: dict = {}

    def __len__(self) -> int:
        return self.offsets.shape[0] - 1


def groups(q_layout, k_index: Tensor, num_keys: int) -> Groups:
    """Groups of ``q_layout``'s tokens by ``k_index`` (B,); kept in the layout's cache.

    The order within a group is the packed order, so gradients of shared keys are summed in it.
    """
    known = q_layout.cache.get("groups")
    if known is not None and known[0] is k_index:
        return known[1]
    group_T = k_index.index_select(0, q_layout.row_T)
    sorted_T, order = torch.sort(group_T, stable=True)
    bounds = torch.arange(num_keys + 1, device=k_index.device)
    made = Groups(order.to(torch.int32), torch.searchsorted(sorted_T, bounds), q_layout.total)
    q_layout.cache["groups"] = (k_index, made)
    return made

"""Tile shapes: one readable table, picked by what the host knows of a batch. No device is waited for.

An entry is ``(queries per tile, keys per tile, warps, pipeline stages)``. Tiles of 16 or 32 queries suit
spike windows (about 15 tokens); one or two warps then keep the softmax within a warp, and the many small
programs hide each other's latency. ``make gpu`` sweeps the candidates below on the
device it runs on and reports where the table is not the best.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
import triton

from .common import INTERPRETED, padded

Tile = tuple[int, int, int, int]

# mean queries per sequence up to -> tile, for heads up to 64 wide in 16 bits
FORWARD: tuple[tuple[float, Tile], ...] = (
    (12, (16, 64, 1, 3)),
    (40, (32, 64, 2, 3)),
    (160, (64, 64, 4, 3)),
    (float("inf"), (128, 64, 4, 3)),
)
OWNED: tuple[tuple[float, Tile], ...] = (
    (12, (16, 64, 2, 2)),
    (float("inf"), (32, 64, 4, 2)),
)
SPLIT: Tile = (64, 64, 4, 2)

# Beyond this many queries one program per (sequence, head) is too few programs doing too much.
OWNED_MAX_QUERIES = 128

CANDIDATES: dict[str, tuple[Tile, ...]] = {
    "forward": (
        (16, 32, 1, 3), (16, 64, 1, 3), (16, 64, 2, 3), (16, 128, 4, 3), (32, 32, 1, 3), (32, 64, 2, 3),
        (32, 64, 4, 3), (64, 64, 4, 3), (128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2),
    ),
    "owned": (
        (16, 32, 1, 2), (16, 64, 2, 2), (16, 64, 4, 3), (16, 128, 4, 2), (32, 32, 2, 2), (32, 64, 2, 2),
        (32, 64, 4, 2), (32, 64, 4, 3), (32, 128, 4, 2), (64, 64, 4, 2),
    ),
    "split": (
        (32, 64, 4, 2), (64, 64, 4, 2), (64, 64, 4, 3), (64, 128, 8, 2), (128, 64, 8, 2), (128, 128, 8, 2),
    ),
}

_forced: dict[str, Any] = {}


@contextlib.contextmanager
def forced(**choices: Any) -> Iterator[None]:
    """Within the block, use these tiles: ``forward=``, ``owned=``, ``split=`` a tile; ``backward=`` which."""
    before = dict(_forced)
    _forced.update({name: choice for name, choice in choices.items() if choice is not None})
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


def _shrink(tile: Tile, dtype: torch.dtype, width: int, backward: bool) -> Tile:
    """Wider or longer elements get smaller tiles: the table is for heads up to 64 wide, of 16 bits."""
    queries, keys, warps, stages = tile
    if dtype in (torch.float32, torch.float64):  # no matrix unit: each product costs registers
        return min(queries, 32), min(keys, 32), max(warps, 4), 1
    if padded(width) > 64:
        return min(queries, 64), min(keys, 32 if backward else 64), max(warps, 4), 2
    return tile


def _lookup(table: tuple[tuple[float, Tile], ...], value: float) -> Tile:
    return next(tile for limit, tile in table if value <= limit)


def attention_plan(
    num_queries: int, longest: int, num_sequences: int, width: int, dtype: torch.dtype
) -> list[int]:
    """[forward tile (4), backward is owned, one tile, backward tile (4)] as the custom op takes it.

    ``longest`` is the most queries of a sequence, or a bound on it.
    """
    mean = num_queries / max(num_sequences, 1)
    forward = _shrink(_lookup(FORWARD, mean), dtype, width, False)
    owned_tile = _shrink(_lookup(OWNED, mean), dtype, width, True)
    split_tile = _shrink(SPLIT, dtype, width, True)
    if INTERPRETED:  # one configuration, small enough that short tests cross tile borders
        forward = owned_tile = split_tile = (32, 32, 4, 1)
    forward = _forced.get("forward", forward)
    owned_tile = _forced.get("owned", owned_tile)
    split_tile = _forced.get("split", split_tile)
    one_tile = longest <= owned_tile[0]
    owned = one_tile or longest <= OWNED_MAX_QUERIES
    if "backward" in _forced:
        owned = _forced["backward"] == "owned"
    backward = owned_tile if owned else split_tile
    return [*forward, int(owned), int(one_tile and owned), *backward]


# Programs that keep a large card busy for a few waves: what splits aim at.
PROGRAMS = 528

# features up to -> (rows, classes, warps, stages); the side that is summed over comes second in backward
CROSS_ENTROPY_FORWARD: tuple[tuple[float, Tile], ...] = (
    (128, (128, 32, 8, 2)),
    (256, (64, 32, 8, 2)),
    (512, (32, 16, 4, 2)),
)
CROSS_ENTROPY_BACKWARD: tuple[tuple[float, Tile], ...] = (
    (128, (32, 128, 8, 2)),
    (256, (32, 64, 8, 2)),
    (512, (16, 32, 4, 2)),
)
# Below this many classes sorting the rows costs more than the blocks that it lets be skipped.
SORT_FROM = 4096

CANDIDATES["cross_entropy_forward"] = (
    (128, 64, 8, 2), (128, 64, 8, 3), (128, 32, 8, 3), (64, 64, 4, 2), (64, 128, 8, 2), (64, 32, 4, 3),
)
CANDIDATES["cross_entropy_backward"] = (
    (32, 128, 8, 3), (32, 128, 8, 2), (64, 128, 8, 2), (64, 64, 8, 2), (32, 64, 4, 3), (64, 64, 4, 2),
)


def cross_entropy_plan(num_rows: int, num_classes: int, features: int, dtype: torch.dtype) -> list[int]:
    """[forward tile (4), class splits, backward tile (4), row splits, rows are sorted]; tiles are
    (rows, classes, warps, stages)."""
    forward = _lookup(CROSS_ENTROPY_FORWARD, features)
    backward = _lookup(CROSS_ENTROPY_BACKWARD, features)
    sort = num_classes >= SORT_FROM
    if dtype in (torch.float32, torch.float64):
        forward = backward = (16, 16, 4, 1) if padded(features) > 128 else (32, 32, 4, 1)
    if INTERPRETED:
        forward = backward = (32, 32, 4, 1)
        sort = num_classes >= 64
    few_classes = forward[1] // 2 >= max(num_classes, 16)
    if few_classes:  # a block of classes is no wider than it has to be
        width = max(16, triton.next_power_of_2(num_classes))
        forward, backward = (32, width, 4, 2), (64, width, 4, 2)
    forward = _forced.get("cross_entropy_forward", forward)
    backward = _forced.get("cross_entropy_backward", backward)
    tiles = -(-num_rows // forward[0])
    blocks = -(-num_classes // backward[1])
    class_splits = _splits(tiles, -(-num_classes // forward[1]))
    row_splits = _splits(blocks, -(-num_rows // backward[0]))
    class_splits = _forced.get("class_splits", class_splits)
    row_splits = _forced.get("row_splits", row_splits)
    return [*forward, class_splits, *backward, row_splits, int(sort)]


def _splits(programs: int, most: int) -> int:
    """How often to cut a sum so that there are enough programs; each cut costs scratch to put together."""
    aim = 2 if INTERPRETED else -(-PROGRAMS // max(programs, 1))
    return max(1, min(aim, most, 32))


def decode_plan(programs: int, max_length: int, width: int, dtype: torch.dtype, *, shared: bool) -> list[int]:
    """[keys per block, warps, stages, splits] for ``programs`` (tile or sequence, head) pairs without splitting.

    A query alone has one warp, each of whose threads has eight loads of 16 bytes of keys and as many of values under
    way; its sums over features then never leave the warp. Loads of odd widths are shorter, so there are fewer keys.
    """
    wide = padded(width)
    if not shared:
        at_once = 4096 if width == wide else 2048  # bytes of keys
        keys, warps, stages = min(64, max(8, at_once // (wide * dtype.itemsize))), 1, 1
    elif dtype in (torch.float32, torch.float64):
        keys, warps, stages = 32, 4, 1
    else:
        keys, warps, stages = (64, 1 if wide <= 32 else 2, 3) if wide <= 64 else (32, 2, 3)
    if INTERPRETED:
        keys = 32
    splits = _splits(programs, max(1, max_length // (2 * keys)))  # at least two blocks for each
    return [keys, warps, stages, _forced.get("key_splits", splits)]

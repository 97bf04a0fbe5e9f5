"""Training, validation and test data: contiguous blocks with gaps, or whole trials."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroformer.config import Config, ConfigError
from neuroformer.recording import Recording
from neuroformer.recording.clock import joined, nanoseconds, num_bins
from neuroformer.recording.names import natural

PARTS = ("train", "valid", "test")
BLOCK_S = 60.0  # seconds of a block where the recording is long enough


@dataclass(frozen=True, eq=False)
class Split:
    """Segments (the origins of the clock) and the blocks of each part.

    Attributes
    ----------
    segments : (N, 2) float64 seconds
        Trials, or intervals of the domain; windows never cross them.
    blocks : dict of part to (blocks, 3) int64
        Segment, first bin, one past the last bin.
    dt : float
        Seconds a bin.
    """

    segments: np.ndarray
    blocks: dict[str, np.ndarray]
    dt: float

    @classmethod
    def whole(cls, segments: np.ndarray, dt: float, parts: Sequence[str] = PARTS) -> Split:
        """A split that holds nothing out: each of ``parts`` is all of the segments (N, 2 seconds), the others are
        empty.
        """
        ticks = nanoseconds(segments[:, 1] - segments[:, 0]) // nanoseconds(dt)
        every = np.stack([np.arange(len(ticks)), np.zeros_like(ticks), ticks], 1).astype(np.int64)
        return cls(segments, {part: every if part in parts else every[:0] for part in PARTS}, dt)

    def sha256(self) -> str:
        """Digest that names this split in a bundle."""
        digest = hashlib.sha256(np.ascontiguousarray(self.segments).tobytes())
        for part in PARTS:
            digest.update(part.encode() + np.ascontiguousarray(self.blocks[part]).tobytes())
        return digest.hexdigest()

    def intervals(self, part: str) -> np.ndarray:
        """(blocks, 2) seconds of one part."""
        b = self.blocks[part]
        return self.segments[b[:, 0], 0][:, None] + b[:, 1:] * self.dt

    def seconds(self, part: str) -> float:
        return float((self.blocks[part][:, 2] - self.blocks[part][:, 1]).sum() * self.dt)


def reach_seconds(config: Config) -> float:
    """How far from a window anything is read: past, frames, lookahead, and the baselines' lags."""
    behind = (config.window.target_past, max(config.decode.lags)) if config.targets else ()
    return max(*_read_beside(config).values(), *behind)


def _read_beside(config: Config) -> dict[str, float]:
    """Seconds that the model reads before or after a window, by setting.

    Without how far heads and baselines look back: where that is farther, their windows begin later in a block (`tile`).
    """
    w = config.window
    frames = w.frames if w.frames_until == "start" else w.frames - w.current
    return {"past": w.past, "frames": frames, "lookahead": w.lookahead if config.targets else 0.0}


def make_split(rec: Recording, config: Config) -> Split:
    """The split that a configuration declares, on a recording's integer clock.

    By trials, the pattern runs over the trials, or with ``split.hold_out`` over the values of that column of them. By
    blocks, it runs over blocks of the domain: an interval longer than a block is cut into several, and neighboring
    intervals that are shorter share one. Neighbours of one part join, and ``split.gap`` seconds are left out between
    those of different parts, less the time between the intervals in which they lie.

    Raises
    ------
    ConfigError
        No trials or no such column to split by, a gap shorter than the reach of a window, a window longer than a
        trial, or a part that gets no data.
    """
    s, w = config.split, config.window
    if s.hold_out and s.by != "trials":
        raise ConfigError(f"split.hold_out is '{s.hold_out}', a column of the trials; use split.by: trials with it")
    if s.by == "trials" and rec.num_trials == 0:
        raise ConfigError(f"split.by is 'trials', but recording '{rec.name}' has none; use 'blocks'")
    segments = rec.trial_intervals if s.by == "trials" else joined(rec.domain)
    num_ticks = num_bins(segments, w.dt)
    if num_ticks.max() * w.dt < w.current - 1e-9:
        what = "trial" if s.by == "trials" else "interval"
        raise ConfigError(
            f"window.current is {w.current:g} s, but the longest {what} of '{rec.name}' lasts "
            f"{num_ticks.max() * w.dt:g} s; shorten the window"
        )
    if s.by == "trials":
        blocks: dict[str, list[tuple[int, int, int]]] = {part: [] for part in (*PARTS, "none")}
        for n, (part, ticks) in enumerate(zip(parts_of_trials(rec, config), num_ticks.tolist(), strict=True)):
            blocks[part].append((n, 0, ticks))
    else:
        blocks = _cut(nanoseconds(segments[:, 0]), num_ticks, config, block_seconds(rec, config))
    arrays = {part: np.array(blocks[part], dtype=np.int64).reshape(-1, 3) for part in PARTS}
    for part in ("train", "valid"):
        arrays[part] = _first_share(arrays[part], config.recording.share)
    split = Split(segments, arrays, w.dt)
    for part in PARTS:
        if split.seconds(part) < w.current:
            by_blocks = (
                f"interval(s), split.block {block_seconds(rec, config):g} s, gaps of {_gap_ticks(config) * w.dt:g} s"
            )
            by_value = f"trials, {_num_values(rec, s.hold_out)} values of '{s.hold_out}'" if s.hold_out else "trials"
            what = by_value if s.by == "trials" else by_blocks
            raise ConfigError(
                f"the split leaves {split.seconds(part):g} s for '{part}' ({rec.duration:,.3g} s in {len(segments)} "
                f"{what}, split.pattern {', '.join(s.pattern)}); change one of these{_block_that_fits(rec, config)}"
            )
    return split


def block_seconds(rec: Recording, config: Config) -> float:
    """``split.block``, or what follows the recording: the pattern goes round twice, but a block is at least four gaps."""
    if config.split.block:
        return config.split.block
    least = max(4 * _gap_ticks(config) * config.window.dt, 2 * config.window.current)
    return min(BLOCK_S, max(least, rec.duration / (2 * len(config.split.pattern))))


def _block_that_fits(rec: Recording, config: Config) -> str:
    """What to say of ``split.block`` where the recording is shorter than one turn of the pattern."""
    block = int(rec.duration / len(config.split.pattern))
    shorter = 2 * _gap_ticks(config) * config.window.dt < block < block_seconds(rec, config)
    fits = config.split.by == "blocks" and shorter
    return f", say split.block={block}" if fits else ""


def _first_share(blocks: np.ndarray, share: float) -> np.ndarray:
    """The first share of the blocks, by time; the block at the border is cut."""
    lengths = blocks[:, 2] - blocks[:, 1]
    left = round(share * int(lengths.sum())) - (np.cumsum(lengths) - lengths)
    kept = blocks.copy()
    kept[:, 2] = blocks[:, 1] + np.minimum(lengths, np.maximum(left, 0))
    return kept[left > 0]


def _gap_ticks(config: Config) -> int:
    """The gap of a split, in bins: ``split.gap``, or the reach of a window where that is not given (-1)."""
    reach, gap, dt = reach_seconds(config), config.split.gap, config.window.dt
    if gap < 0:
        return int(np.ceil(reach / dt - 1e-9))
    longest, needed = max(_read_beside(config).items(), key=lambda item: item[1])
    if gap < needed - 1e-9:
        raise ConfigError(
            f"split.gap is {gap:g} s, but a window reaches {needed:g} s beyond itself (window.{longest}); "
            "use at least that, or -1 for the longest reach"
        )
    return int(np.ceil(gap / dt - 1e-9))


def block_edges(num_ticks: int, block: int) -> list[int]:
    """Where the blocks of one interval begin and end, before gaps."""
    edges = list(range(0, num_ticks, block)) + [num_ticks]
    if len(edges) > 2 and edges[-1] - edges[-2] < block // 2:
        del edges[-2]  # a short rest joins the block before it
    return edges


def parts_of_trials(rec: Recording, config: Config) -> list[str]:
    """The part of each trial: the pattern runs over the trials, or over the values of the column that is held out."""
    pattern, column = config.split.pattern, config.split.hold_out
    if not column:
        return [pattern[n % len(pattern)] for n in range(rec.num_trials)]
    values = rec.trials.get(column)
    if values is None or values.ndim != 1 or column in ("start", "stop"):
        known = [k for k, v in rec.trials.items() if v.ndim == 1 and k not in ("start", "stop")]
        raise ConfigError(
            f"split.hold_out is '{column}', which is no column of the trials of '{rec.name}' with one value per trial; "
            f"they have: {', '.join(known) or 'none'}"
        )
    # a trial of which the value is not known may show anything: it is in no part
    part = {v: pattern[i % len(pattern)] for i, v in enumerate(_values(values))}
    return [part.get(v, "none") for v in values.tolist()]


def _values(column: np.ndarray) -> list[Any]:
    """The distinct values of a column in their natural order, without empty words and NaN."""
    values = np.unique(column).tolist()
    known = [v for v in values if v != "" and v == v]
    return sorted(known, key=natural) if column.dtype.kind == "U" else known


def _num_values(rec: Recording, column: str) -> int:
    return len(_values(rec.trials[column]))


def _cut(
    origin_ns: np.ndarray, num_ticks: np.ndarray, config: Config, block_s: float
) -> dict[str, list[tuple[int, int, int]]]:
    """Blocks of each part, cut from segments that begin at ``origin_ns`` and have so many bins."""
    pattern, dt = config.split.pattern, config.window.dt
    dt_ns, gap_ns = int(nanoseconds(dt)), _gap_ticks(config) * int(nanoseconds(dt))
    size = max(1, round(block_s / dt))
    edges = [block_edges(int(n), size) for n in num_ticks]
    pieces = [(n, a, b) for n, e in enumerate(edges) for a, b in zip(e[:-1], e[1:], strict=True) if b > a]
    blocks: dict[str, list[tuple[int, int, int]]] = {part: [] for part in (*PARTS, "none")}
    ends: dict[str, int] = {}
    for (n, start, stop), block in zip(pieces, _gathered([b - a for _, a, b in pieces], size), strict=True):
        part, origin = pattern[block % len(pattern)], int(origin_ns[n])
        free = max((end + gap_ns for other, end in ends.items() if other != part), default=origin)
        start = max(start, -((origin - free) // dt_ns))  # the first bin that begins at or after `free`
        if stop <= start:
            continue
        before = blocks[part][-1] if blocks[part] else (-1, 0, 0)
        if before[0] == n and before[2] == start:  # neighbours of one part join
            start = blocks[part].pop()[1]
        blocks[part].append((n, start, stop))
        ends[part] = origin + stop * dt_ns
    return blocks


def _gathered(lengths: list[int], size: int) -> list[int]:
    """The block of each piece: pieces shorter than half a block are gathered until they come closest to one."""
    out: list[int] = []
    filled = 0
    for length in lengths:
        full = filled + length / 2 > size or min(2 * filled, 2 * length) >= size
        number = (out[-1] if out else 0) + (full and filled > 0)
        filled = length if full else filled + length
        out.append(number)
    short = out[-1:] if 2 * filled + 1 < size else []  # a short rest joins the block before it
    return [max(n - 1, 0) if n in short else n for n in out]

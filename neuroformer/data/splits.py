"""Training, validation and test data: contiguous blocks with gaps, or whole trials."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from neuroformer.config import Config, ConfigError
from neuroformer.data.windows import nanoseconds
from neuroformer.recording import Recording

PARTS = ("train", "valid", "test")


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

    By trials, the pattern runs over the trials. By blocks, each interval of the domain is cut into blocks and
    the pattern runs on over all of them; neighbours of one part join, and between neighbours of different
    parts ``split.gap`` seconds are left out.

    Raises
    ------
    ConfigError
        No trials to split by, a gap shorter than the reach of a window, a window longer than a trial, or a
        part that gets no data.
    """
    s, w = config.split, config.window
    dt_ns = int(nanoseconds(w.dt))
    if s.by == "trials":
        if rec.num_trials == 0:
            raise ConfigError(f"split.by is 'trials', but recording '{rec.name}' has none; use 'blocks'")
        segments = rec.trial_intervals
    else:
        segments = rec.domain
    num_ticks = nanoseconds(segments[:, 1] - segments[:, 0]) // dt_ns
    if num_ticks.max() * w.dt < w.current - 1e-9:
        what = "trial" if s.by == "trials" else "interval"
        raise ConfigError(
            f"window.current is {w.current:g} s, but the longest {what} of '{rec.name}' lasts "
            f"{num_ticks.max() * w.dt:g} s; shorten the window"
        )
    blocks: dict[str, list[tuple[int, int, int]]] = {part: [] for part in (*PARTS, "none")}
    if s.by == "trials":
        for n, ticks in enumerate(num_ticks):
            blocks[s.pattern[n % len(s.pattern)]].append((n, 0, int(ticks)))
    else:
        gap = _gap_ticks(config)
        place = 0
        for n, ticks in enumerate(num_ticks):
            place = _cut(blocks, n, int(ticks), round(s.block / w.dt), gap, s.pattern, place)
    arrays = {part: np.array(blocks[part], dtype=np.int64).reshape(-1, 3) for part in PARTS}
    for part in ("train", "valid"):
        arrays[part] = _first_share(arrays[part], config.recording.share)
    split = Split(segments, arrays, w.dt)
    for part in PARTS:
        if split.seconds(part) < w.current:
            by_blocks = f"interval(s), split.block {s.block:g} s, gaps of {_gap_ticks(config) * w.dt:g} s"
            what = "trials" if s.by == "trials" else by_blocks
            raise ConfigError(
                f"the split leaves {split.seconds(part):g} s for '{part}' ({rec.duration:,.3g} s in {len(segments)} "
                f"{what}, split.pattern {', '.join(s.pattern)}); change one of these{_block_that_fits(rec, config)}"
            )
    return split


def _block_that_fits(rec: Recording, config: Config) -> str:
    """What to say of ``split.block`` where the recording is shorter than one turn of the pattern."""
    block = int(rec.duration / len(config.split.pattern))
    fits = config.split.by == "blocks" and 2 * _gap_ticks(config) * config.window.dt < block < config.split.block
    return f", say split.block={block}" if fits else ""


def _first_share(blocks: np.ndarray, share: float) -> np.ndarray:
    """The first share of the blocks, by time; the block at the border is cut."""
    lengths = blocks[:, 2] - blocks[:, 1]
    left = round(share * int(lengths.sum())) - (np.cumsum(lengths) - lengths)
    kept = blocks.copy()
    kept[:, 2] = blocks[:, 1] + np.minimum(lengths, np.maximum(left, 0))
    return kept[left > 0]


def _gap_ticks(config: Config) -> int:
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


def _cut(blocks, segment: int, num_ticks: int, block: int, gap: int, pattern, place: int) -> int:
    """Cut one interval into blocks; returns the position in the pattern for the next interval."""
    edges = block_edges(num_ticks, block)
    parts = [pattern[(place + i) % len(pattern)] for i in range(len(edges) - 1)]
    start = 0
    for i, part in enumerate(parts):
        stop = edges[i + 1]
        if i + 1 < len(parts) and parts[i + 1] == part:
            continue  # neighbours of one part join
        if stop > start:
            blocks[part].append((segment, start, stop))
        start = stop + gap
    return place + len(parts)

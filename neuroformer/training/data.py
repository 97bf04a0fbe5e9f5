"""A recording made ready for a configuration, and the windows of every training step."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from neuroformer.config import Config, ConfigError
from neuroformer.data.batch import Batch, BatchBuilder
from neuroformer.data.configured import configured
from neuroformer.data.normalization import fit_normalization
from neuroformer.data.splits import Split, make_split
from neuroformer.data.windows import SpikeIndex, Windows, tile
from neuroformer.recording import Recording


@dataclass
class Prepared:
    """A recording made ready for one configuration: split, index, normalisation, batch builder."""

    rec: Recording
    config: Config
    split: Split
    index: SpikeIndex
    normalization: dict[str, Any]
    builder: BatchBuilder

    def windows(self, part: str, **options) -> Windows:
        """Windows that tile one part of the split."""
        return tile(self.split.blocks[part], self.builder.shape, **options)

    def describe(self) -> dict[str, Any]:
        """Plain values that name what is trained on: the units, and the split with its digest."""
        split: dict[str, Any] = {"sha256": self.split.sha256(), "claim": self.config.split.claim}
        split |= {part: self.split.intervals(part).tolist() for part in self.split.blocks}
        return {"units": list(self.rec.unit_ids), "spikes": self.rec.num_spikes, "split": split}


def prepare(rec: Recording, config: Config, normalization: dict[str, Any] | None = None) -> Prepared:
    """Split, index and normalise a recording; ``normalization`` of a bundle replaces a fresh fit."""
    rec = configured(rec, config)
    split = make_split(rec, config)
    index = SpikeIndex.from_recording(rec, split.segments, config.window.dt)
    scale = fit_normalization(rec, split, config, index) if normalization is None else normalization
    return Prepared(rec, config, split, index, scale, BatchBuilder(rec, index, config, scale))


@dataclass
class Piece:
    """What one process does at once: its windows of a part of a step's batch.

    Attributes
    ----------
    windows : Windows
    sizes : tuple of int
        How many windows each process has in the same part.
    """

    windows: Windows
    sizes: tuple[int, ...]


class StepDataset(Dataset):
    """A dataset whose items are the batches of whole steps: the sampler says which windows."""

    def __init__(self, builder: BatchBuilder):
        self.builder = builder

    def __getitem__(self, pieces: list[Piece]) -> list[tuple[Piece, Batch]]:
        return [(piece, self.builder(piece.windows)) for piece in pieces]


class Steps(Sampler):
    """For ever: every stretch of the training blocks once an epoch, in random batches of nearly equal size.

    With ``jitter`` the tiling starts at a random bin each epoch, so that windows lie at every phase. What a step
    holds follows from the seed and its number alone, so that a run goes on at any step as if it had never
    stopped. A batch is cut into ``pieces`` (gradient accumulation), and these are dealt to the processes.
    """

    def __init__(
        self, prepared: Prepared, *, first: int = 0, rank: int = 0, processes: int = 1, pieces: int = 1
    ):
        self.prepared, self.first = prepared, first
        self.rank, self.processes, self.pieces = rank, processes, pieces
        config = prepared.config
        num_windows = len(prepared.windows("train"))
        if num_windows == 0:
            raise ConfigError(
                f"recording '{prepared.rec.name}' has no training window: its training blocks last "
                f"{prepared.split.seconds('train'):g} s and a window reads {config.window.past:g} s of past and "
                f"{config.window.current:g} s; make split.block longer or window.past shorter"
            )
        if min(num_windows, config.train.batch_size) < processes * pieces:
            raise ConfigError(
                f"a batch of {min(num_windows, config.train.batch_size)} windows cannot be dealt to {processes} "
                f"processes in {pieces} pieces (train.accumulate); raise train.batch_size"
            )
        self.num_batches = max(1, num_windows // config.train.batch_size)  # an epoch

    def __iter__(self) -> Iterator[list[Piece]]:
        for step in itertools.count(self.first):
            epoch, place = divmod(step, self.num_batches)
            if place == 0 or step == self.first:
                batches = self._epoch(epoch)
            yield [self._piece(part) for part in _cut(batches[place], self.pieces)]

    def _epoch(self, epoch: int) -> list[Windows]:
        config = self.prepared.config
        rng = np.random.default_rng([config.seed, epoch])
        current = self.prepared.builder.shape.current
        phase = int(rng.integers(current)) if config.train.jitter else 0
        windows = self.prepared.windows("train", phase=phase)
        return _cut(windows[rng.permutation(len(windows))], self.num_batches)

    def _piece(self, windows: Windows) -> Piece:
        sizes = tuple(len(range(r, len(windows), self.processes)) for r in range(self.processes))
        return Piece(windows[self.rank :: self.processes], sizes)


def _cut(windows: Windows, num: int) -> list[Windows]:
    return [windows[which] for which in np.array_split(np.arange(len(windows)), num)]


def step_loader(steps: Steps) -> DataLoader:
    """The batches of all steps from ``steps.first`` on; ``train.workers`` processes build them ahead."""
    workers = steps.prepared.config.train.workers
    return DataLoader(
        StepDataset(copy.copy(steps.prepared.builder)), sampler=steps, batch_size=None, num_workers=workers
    )


def in_order(prepared: Prepared, part: str, batch_size: int = 0) -> list[Windows]:
    """Windows that tile one part, cut into batches."""
    windows = prepared.windows(part)
    size = batch_size or 2 * prepared.config.train.batch_size
    return [windows[i : i + size] for i in range(0, len(windows), size)]

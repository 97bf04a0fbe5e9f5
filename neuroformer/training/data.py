"""Windows of a recording, shuffled into batches, for Lightning."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from neuroformer.config import Config
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


def prepare(rec: Recording, config: Config, normalization: dict[str, Any] | None = None) -> Prepared:
    """Split, index and normalise a recording; ``normalization`` of a bundle replaces a fresh fit."""
    rec = configured(rec, config)
    split = make_split(rec, config)
    index = SpikeIndex.from_recording(rec, split.segments, config.window.dt)
    scale = fit_normalization(rec, split, config, index) if normalization is None else normalization
    return Prepared(rec, config, split, index, scale, BatchBuilder(rec, index, config, scale))


class WindowDataset(Dataset):
    """A dataset whose items are whole batches: the sampler says which windows."""

    def __init__(self, builder: BatchBuilder):
        self.builder = builder

    def __getitem__(self, windows: Windows) -> Batch:
        return self.builder(windows)


class ShuffledWindows(Sampler):
    """Every stretch of the training blocks once an epoch, in random batches of nearly equal size.

    With ``jitter`` the tiling starts at a random bin each epoch, so that windows lie at every phase.
    What an epoch holds follows from the seed and its number alone.
    """

    def __init__(self, prepared: Prepared, batch_size: int, jitter: bool, seed: int):
        self.prepared, self.batch_size, self.jitter, self.seed = prepared, batch_size, jitter, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, len(self.prepared.windows("train")) // self.batch_size)

    def __iter__(self) -> Iterator[Windows]:
        rng = np.random.default_rng([self.seed, self.epoch])
        phase = int(rng.integers(self.prepared.builder.shape.current)) if self.jitter else 0
        windows = self.prepared.windows("train", phase=phase)
        for which in np.array_split(rng.permutation(len(windows)), len(self)):
            yield windows[which]


class WindowData(L.LightningDataModule):
    """Training and validation loaders of one prepared recording."""

    def __init__(self, prepared: Prepared):
        super().__init__()
        self.prepared = prepared

    def train_dataloader(self) -> DataLoader:
        t = self.prepared.config.train
        sampler = ShuffledWindows(self.prepared, t.batch_size, t.jitter, self.prepared.config.seed)
        return self._loader(sampler)

    def val_dataloader(self) -> DataLoader:
        return self._loader(in_order(self.prepared, "valid"))

    def _loader(self, sampler) -> DataLoader:
        workers = self.prepared.config.train.workers
        return DataLoader(
            WindowDataset(copy.copy(self.prepared.builder)), sampler=sampler, batch_size=None,
            num_workers=workers, persistent_workers=workers > 0,
        )  # fmt: skip


def in_order(prepared: Prepared, part: str, batch_size: int = 0) -> list[Windows]:
    """Windows that tile one part, cut into batches."""
    windows = prepared.windows(part)
    size = batch_size or 2 * prepared.config.train.batch_size
    return [windows[i : i + size] for i in range(0, len(windows), size)]

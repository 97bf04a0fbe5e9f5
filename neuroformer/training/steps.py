"""The windows of every training step."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from neuroformer.config import ConfigError
from neuroformer.data.batch import Batch, BatchBuilder
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows


@dataclass
class StepPiece:
    """What one process computes at once: its windows of a part of a step's batch.

    Attributes
    ----------
    windows : Windows
    sizes : tuple of int
        How many windows each process has in the same part.
    recording : int
        Index of the recording that the windows belong to.
    """

    windows: Windows
    sizes: tuple[int, ...]
    recording: int = 0


class StepDataset(Dataset):
    """A dataset whose items are the batches of whole steps; the sampler chooses the windows."""

    def __init__(self, builders: Sequence[BatchBuilder]):
        self.builders = builders

    def __getitem__(self, pieces: list[StepPiece]) -> list[tuple[StepPiece, Batch]]:
        return [(piece, self.builders[piece.recording](piece.windows)) for piece in pieces]


class StepSampler(Sampler):
    """Endless: every stretch of the training blocks once per epoch, in random batches of nearly equal size.

    With ``jitter`` the tiling starts at a random bin each epoch, so that windows lie at every phase. Each batch holds
    windows of one recording. With several recordings, a shuffled deck decides which: each is in it as often as it has
    batches, or all equally often (``train.balance``). The content of a step depends only on the seed and the step
    number, so a run can continue at any step as if it had never stopped. A batch is cut into ``pieces`` (gradient
    accumulation), which are dealt to the processes.
    """

    def __init__(
        self,
        recordings: Sequence[Prepared],
        *,
        first: int = 0,
        rank: int = 0,
        processes: int = 1,
        pieces: int = 1,
    ):
        self.recordings, self.first = recordings, first
        self.rank, self.processes, self.pieces = rank, processes, pieces
        self.config = recordings[0].config
        self.num_batches = [self._num_batches(prepared) for prepared in recordings]  # an epoch
        equal = self.config.train.balance == "equal"
        self._shuffled: tuple[int, np.ndarray] | None = None  # the deck at hand, and which it is
        self.deck = [max(self.num_batches)] * len(recordings) if equal else self.num_batches

    def _num_batches(self, prepared: Prepared) -> int:
        config, num_windows = prepared.config, len(prepared.windows("train"))
        batch = min(num_windows, config.train.batch_size)
        if batch < self.processes * self.pieces:
            raise ConfigError(
                f"a batch of {batch} windows cannot be divided among {self.processes} processes in {self.pieces} pieces "
                "(train.accumulate); raise train.batch_size"
            )
        return max(1, num_windows // config.train.batch_size)

    def __iter__(self) -> Iterator[list[StepPiece]]:
        epochs: dict[int, tuple[int, list[Windows]]] = {}  # by recording, the one it is in
        for step in itertools.count(self.first):
            recording, turn = self.drawn(step)
            epoch, place = divmod(turn, self.num_batches[recording])
            if recording not in epochs or epochs[recording][0] != epoch:
                epochs[recording] = epoch, self._epoch(recording, epoch)
            batch = epochs[recording][1][place]
            yield [self._piece(recording, part) for part in _cut(batch, self.pieces)]

    def drawn(self, step: int) -> tuple[int, int]:
        """The recording of a step, and the number of its earlier batches."""
        if len(self.deck) == 1:
            return 0, step
        times, place = divmod(step, sum(self.deck))
        if self._shuffled is None or self._shuffled[0] != times:
            cards = np.repeat(np.arange(len(self.deck)), self.deck)
            self._shuffled = times, np.random.default_rng([self.config.seed, times, 0, 1]).permutation(cards)
        cards = self._shuffled[1]
        recording = int(cards[place])
        return recording, times * self.deck[recording] + int((cards[:place] == recording).sum())

    def _epoch(self, recording: int, epoch: int) -> list[Windows]:
        prepared = self.recordings[recording]
        rng = np.random.default_rng([self.config.seed, epoch, recording])
        current = prepared.builder.shape.current
        phase = int(rng.integers(current)) if self.config.train.jitter else 0
        windows = prepared.windows("train", phase=phase)
        return _cut(windows[rng.permutation(len(windows))], self.num_batches[recording])

    def _piece(self, recording: int, windows: Windows) -> StepPiece:
        sizes = tuple(len(range(r, len(windows), self.processes)) for r in range(self.processes))
        return StepPiece(windows[self.rank :: self.processes], sizes, recording)


def _cut(windows: Windows, num: int) -> list[Windows]:
    return [windows[which] for which in np.array_split(np.arange(len(windows)), num)]


def step_loader(steps: StepSampler) -> DataLoader:
    """The batches of all steps from ``steps.first`` on; ``train.workers`` processes build them ahead."""
    workers = steps.config.train.workers
    builders = [copy.copy(prepared.builder) for prepared in steps.recordings]
    return DataLoader(StepDataset(builders), sampler=steps, batch_size=None, num_workers=workers)

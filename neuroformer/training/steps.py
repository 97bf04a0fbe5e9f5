"""The windows of every training step."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from neuroformer.config import ConfigError
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows

RECORDINGS = 8  # of which a step holds windows, at most
FEWEST = 32  # windows of each of them, at least


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

    def __init__(self, recordings: Sequence[Prepared]):
        self.recordings = recordings

    def __getitem__(self, pieces: list[StepPiece]) -> list[tuple[StepPiece, Batch]]:
        return [(piece, self.recordings[piece.recording].builder(piece.windows)) for piece in pieces]


class StepSampler(Sampler):
    """Endless: every stretch of the training blocks once per epoch, in random batches of nearly equal size.

    With ``jitter`` the tiling starts at a random bin each epoch, so that windows lie at every phase. Of several recordings, a
    batch holds a group of windows of each of up to :data:`RECORDINGS` of them, so that neither the heads handle few windows nor
    the trunk sees few animals. A shuffled deck decides which: each recording is in it as often as it has groups, or all equally
    often (``train.balance``), and its turns are spread over the deck. The content of a step depends only on the seed and the step
    number, so a run can continue at any step as if it had never stopped. Each group is cut into ``pieces`` (gradient
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
        batch = self.config.train.batch_size
        self.together = max(1, min(len(recordings), RECORDINGS, batch // FEWEST))
        self.group = batch // self.together
        self.num_groups = [self._num_groups(prepared) for prepared in recordings]  # an epoch
        equal = self.config.train.balance == "equal"
        self.deck = [max(self.num_groups)] * len(recordings) if equal else self.num_groups
        self._shuffled: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # the decks at hand

    @property
    def steps_a_pass(self) -> int:
        """So many steps are one pass through the deck."""
        return max(1, sum(self.deck) // self.together)

    def _num_groups(self, prepared: Prepared) -> int:
        num_windows = len(prepared.windows("train"))
        group = min(num_windows, self.group)
        if group < self.processes * self.pieces:
            raise ConfigError(
                f"a batch of {group} windows of '{prepared.name}' cannot be divided among {self.processes} processes in "
                f"{self.pieces} pieces (train.accumulate); raise train.batch_size"
            )
        return max(1, num_windows // self.group)

    def __iter__(self) -> Iterator[list[StepPiece]]:
        epochs: dict[int, tuple[int, list[Windows]]] = {}  # of the recordings used last, the one each is in
        for step in itertools.count(self.first):
            groups = []
            for recording, turn in self.drawn(step):
                epoch, place = divmod(turn, self.num_groups[recording])
                known = epochs.pop(recording, None)
                epochs[recording] = known if known and known[0] == epoch else (epoch, self._epoch(recording, epoch))
                groups.append((recording, epochs[recording][1][place]))
            for recording in list(epochs)[: max(0, len(epochs) - 2 * RECORDINGS)]:
                del epochs[recording]
            yield [self._piece(recording, part) for recording, group in groups for part in _cut(group, self.pieces)]

    def drawn(self, step: int) -> list[tuple[int, int]]:
        """The recordings of a step, and of each the number of its earlier groups."""
        return [self._card(self.together * step + k) for k in range(self.together)]

    def _card(self, number: int) -> tuple[int, int]:
        if len(self.deck) == 1:
            return 0, number
        times, place = divmod(number, sum(self.deck))
        if times not in self._shuffled:
            self._shuffled = {k: v for k, v in self._shuffled.items() if k == times - 1} | {times: self._deal(times)}
        cards, turns = self._shuffled[times]
        return int(cards[place]), times * self.deck[cards[place]] + int(turns[place])

    def _deal(self, times: int) -> tuple[np.ndarray, np.ndarray]:
        """The recording of each card, and its turn: one in each equal stretch of the deck, at a random place of it."""
        rng = np.random.default_rng([self.config.seed, times, 0, 1])
        cards = np.repeat(np.arange(len(self.deck)), self.deck)
        turns = np.concatenate([np.arange(n) for n in self.deck])
        order = np.argsort((turns + rng.random(len(cards))) / np.array(self.deck)[cards], kind="stable")
        return cards[order], turns[order]

    def _epoch(self, recording: int, epoch: int) -> list[Windows]:
        prepared = self.recordings[recording]
        rng = np.random.default_rng([self.config.seed, epoch, recording])
        phase = int(rng.integers(prepared.shape.current)) if self.config.train.jitter else 0
        windows = prepared.windows("train", phase=phase)
        return _cut(windows[rng.permutation(len(windows))], self.num_groups[recording])

    def _piece(self, recording: int, windows: Windows) -> StepPiece:
        sizes = tuple(len(range(r, len(windows), self.processes)) for r in range(self.processes))
        return StepPiece(windows[self.rank :: self.processes], sizes, recording)


def _cut(windows: Windows, num: int) -> list[Windows]:
    return [windows[which] for which in np.array_split(np.arange(len(windows)), num)]


def step_loader(steps: StepSampler) -> DataLoader:
    """The batches of all steps from ``steps.first`` on; ``train.workers`` processes build them ahead."""
    workers = steps.config.train.workers
    return DataLoader(StepDataset(steps.recordings), sampler=steps, batch_size=None, num_workers=workers)

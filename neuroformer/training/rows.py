"""What belongs to one of several recordings: those of the last steps in memory, the others in files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neuroformer.bundle.cohort import Cohort
from neuroformer.training.module import Average

FOLDER = "rows"  # of a run
FOLLOWED = "followed"


class Rows:
    """The rows of each recording's units, with what the optimiser and the average know of them.

    A file holds one recording as it was after some step, and is never written again. So what a checkpoint names stays as it was
    until the next checkpoint is whole, and only recordings that have changed since are written for it.

    Parameters
    ----------
    cohort : Cohort
    optimizer : over all of its parameters
    average : optional
    folder : of the run
    most : recordings that stay in memory
    rank : of this process; the first one's files are those of checkpoints, and each has a folder of its own for the rest
    """

    def __init__(
        self,
        cohort: Cohort,
        optimizer: torch.optim.Optimizer,
        average: Average | None,
        folder: Path,
        most: int,
        rank: int = 0,
    ):
        self.cohort, self.optimizer, self.average = cohort, optimizer, average
        self.home, self.most, self.rank = folder / FOLDER, most, rank
        self.folder = self.home / f"process_{rank}" if rank else self.home
        several = len(cohort) > 1
        self._known: dict[
            int, dict[str, Tensor]
        ] = {}  # what is each one's own; looking it up takes as long as a small step
        self._used = dict.fromkeys(range(len(cohort)) if several else ())  # in memory; the one used last is the last
        self._changed = dict.fromkeys(self._used, 0)  # the step that changed it last
        self._files: dict[int, str] = {}  # of recordings that are as their files say
        self._kept: set[str] = set()  # files of the last checkpoint

    def fetch(self, places: Iterable[int]) -> None:
        """Bring recordings into memory; those that were used longest ago make room."""
        if len(self.cohort) == 1:
            return
        places = list(places)
        for place in places:
            if place not in self._used:
                self._read(place)
            self._used[place] = self._used.pop(place, None)
        for place in list(self._used)[: max(0, len(self._used) - max(self.most, len(places)))]:
            self._write(place)
            self._release(place)

    def changes(self, places: Iterable[int], step: int) -> None:
        """Say that a step changes recordings, which are in memory."""
        for place in places if len(self.cohort) > 1 else ():
            self._changed[place] = step
            file = self._files.pop(place, None)
            if file is not None and file not in self._kept:
                (self.folder / file).unlink(missing_ok=True)

    def parameters(self, place: int) -> list[nn.Parameter]:
        """A recording's own."""
        return [p for p in self._own(place).values() if isinstance(p, nn.Parameter)]

    def _own(self, place: int) -> dict[str, Tensor]:
        if place not in self._known:
            self._known[place] = self.cohort.own(place)
        return self._known[place]

    def weights(self, place: int, step: int) -> dict[str, Tensor]:
        """A recording's own tensors as they are scored and kept: averages after ``step``, where there are averages."""
        state = self._state(place) if place in self._used else load_file(self._path(place))
        own = {name.removeprefix("model."): x for name, x in state.items() if name.startswith("model.")}
        if self.average is None:
            return own
        kept = self.average.kept(int(state[FOLLOWED]) + 1, step)
        averages = {name.removeprefix("average."): x for name, x in state.items() if name.startswith("average.")}
        return own | {name: x.lerp(own[name], 1 - kept) for name, x in averages.items()}

    # -- checkpoints

    def save(self) -> dict[str, str]:
        """Bring every recording to the disk; gives the file of each. :meth:`saved` says that a checkpoint names them."""
        if self.rank:
            return {}
        for place in self._used:
            self._write(place)
        for file in set(self._files.values()) - self._kept:
            handle = os.open(self.folder / file, os.O_RDWR)
            os.fsync(handle)
            os.close(handle)
        return {str(place): file for place, file in self._files.items()}

    def saved(self) -> None:
        """The last checkpoint names the files of :meth:`save`: others may go."""
        if self.rank:
            return
        self._kept = set(self._files.values())
        for file in self.folder.glob("*.safetensors") if self._kept else ():
            if file.name not in self._kept:
                file.unlink()

    def load(self, files: Mapping[str, str]) -> None:
        """Go on with the files of a checkpoint."""
        for place in list(self._used):
            self._release(place)
        self._files = {int(place): file for place, file in files.items()}
        for place, file in self._files.items():
            self._changed[place] = int(file.split("-")[1].split(".")[0])
        self._kept = set(self._files.values())
        self.saved()

    def clear(self) -> None:
        """Remove all files: the run has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, place: int) -> Path:
        file = self._files[place]
        return (self.home if file in self._kept else self.folder) / file

    # -- one recording

    def _write(self, place: int) -> None:
        if place in self._files:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        file = f"{place}-{self._changed[place]}.safetensors"
        save_file({k: x.detach().cpu().contiguous() for k, x in self._state(place).items()}, self.folder / file)
        self._files[place] = file

    def _read(self, place: int) -> None:
        tensors = load_file(self._path(place))
        for name, x in self._own(place).items():
            x.data = tensors[f"model.{name}"].to(x.device)
            if not isinstance(x, nn.Parameter):
                continue
            if self.average is not None:
                self.average.of[x] = tensors[f"average.{name}"].to(x.device)
            set_state(self.optimizer, x, tensors, name)
        if self.average is not None:
            self.average.followed[place] = int(tensors[FOLLOWED])

    def _release(self, place: int) -> None:
        del self._used[place]
        for x in self._own(place).values():
            x.grad = None
            x.data = x.data.new_empty(0)
            if isinstance(x, nn.Parameter):
                self.optimizer.state.pop(x, None)
                if self.average is not None:
                    del self.average.of[x]

    def _state(self, place: int) -> dict[str, Tensor]:
        own = self._own(place)
        out = {f"model.{name}": x.detach() for name, x in own.items()}
        for name, x in own.items():
            if isinstance(x, nn.Parameter):
                out |= get_state(self.optimizer, x, name)
                if self.average is not None:
                    out[f"average.{name}"] = self.average.of[x]
        if self.average is not None:
            out[FOLLOWED] = torch.tensor(self.average.followed[place])
        return out


def get_state(optimizer: torch.optim.Optimizer, p: nn.Parameter, name: str) -> dict[str, Tensor]:
    """What the optimiser knows of a parameter, by name in a file."""
    return {f"optimizer.{name}.{key}": x for key, x in optimizer.state.get(p, {}).items()}


def set_state(optimizer: torch.optim.Optimizer, p: nn.Parameter, tensors: Mapping[str, Tensor], name: str) -> None:
    """The inverse of :func:`get_state`."""
    prefix = f"optimizer.{name}."
    found = {key.removeprefix(prefix): x for key, x in tensors.items() if key.startswith(prefix)}
    on_device = optimizer.defaults.get("fused")  # else the number of steps stays on the CPU
    if found:
        optimizer.state[p] = {key: x.to(p.device) if x.ndim or on_device else x for key, x in found.items()}

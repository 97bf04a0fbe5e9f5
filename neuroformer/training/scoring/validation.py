"""Scores of a run on its validation parts, by which the best weights of each objective are kept."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from neuroformer.bundle.bundle import LIKELIHOOD, STIMULUS
from neuroformer.bundle.cohort import Cohort
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import spread
from neuroformer.model.network import Neuroformer
from neuroformer.model.spikes import SpikeObservation
from neuroformer.model.targets import TargetHead
from neuroformer.training.module import Average
from neuroformer.training.processes import Processes
from neuroformer.training.rows import Rows
from neuroformer.training.scoring.scores import Scores

VALID_STEPS = 16  # an evaluation is over at most so many batches, of all recordings together
MOST_VALIDATED = 64  # recordings, spread over all of them: each then still has some windows


class Validation:
    """The validation parts of a run's recordings, scored with the weights that are kept: their averages, where there are
    averages.

    Parameters
    ----------
    fabric, processes : of the run
    recordings, cohort : what is trained on, and its models
    rows : what belongs to one of several recordings
    average : of the weights; None: the weights themselves are kept
    """

    def __init__(
        self,
        fabric: Fabric,
        processes: Processes,
        recordings: Sequence[Prepared],
        cohort: Cohort,
        rows: Rows,
        average: Average | None,
    ):
        self.fabric, self.processes, self.recordings = fabric, processes, recordings
        self.cohort, self.rows, self.average = cohort, rows, average

    def scores(self, step: int) -> tuple[dict[str, float], list[dict[str, float]]]:
        """Mean scores over recordings after so many steps, and those of each.

        Of very many recordings and windows it takes a sample, spread over all of them and the same every time.
        """
        places = spread(len(self.recordings), MOST_VALIDATED)
        most = VALID_STEPS * self.cohort.config.train.batch_size // len(places)
        each = [self.of_recording(int(i), step, most) for i in places]
        names = dict.fromkeys(name for values in each for name in values)
        return {name: _mean([v[name] for v in each if name in v]) for name in names}, each

    def of_recording(self, place: int, step: int, most: int) -> dict[str, float]:
        """Scores of at most so many windows of one recording, over all processes."""
        prepared = self.recordings[place]
        scores = Scores(clips=[] if "frames" in self.cohort[place].streams else None)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        windows = prepared.windows("valid")
        windows = windows[spread(len(windows), most)]
        with self._model(place, step) as model:
            for piece in prepared.pieces(windows)[rank::world]:
                batch = prepared.builder(piece).to(self.fabric.device)
                with self.fabric.autocast():
                    scores.add(model, batch, model(batch))
        scores = Scores.merge(self.processes.collect(scores))
        found = {LIKELIHOOD: scores.bits()}
        if isinstance(model.observation, SpikeObservation):
            found |= {"bits_per_spike": scores.bits(), "bits_per_spike_rate_readout": scores.bits_of_rates()}
        else:
            found["bits_per_sample"] = scores.bits()
        if scores.clips is not None:
            found[STIMULUS] = scores.stimulus_r()
        for name, head in model.targets.items():
            assert isinstance(head, TargetHead)
            found[f"{name}_score"] = scores.target_score(head, name)
        return found

    def trunk(self) -> dict[str, Tensor]:
        """What recordings share, as it is scored and kept."""
        of = {} if self.average is None else self.average.of
        return {name: of.get(x, x) for name, x in self.cohort.trunk().items()}  # pyright: ignore[reportArgumentType,reportCallIssue]

    def own(self, step: int) -> Iterator[dict[str, Tensor]]:
        """What is each of several recordings' own after so many steps, likewise; nothing of a single one."""
        several = len(self.recordings) > 1
        return (self.rows.weights(i, step) for i in range(len(self.recordings) if several else 0))

    @contextlib.contextmanager
    def _model(self, place: int, step: int) -> Iterator[Neuroformer]:
        """The model of a recording as it is scored."""
        self.rows.fetch([place])
        model = self.cohort[place].eval()
        named = self.cohort.trunk() | self.cohort.own(place)
        values = self.trunk() | (self.rows.weights(place, step) if len(self.cohort) > 1 else {})
        scored = {x: values[name] for name, x in named.items() if isinstance(x, torch.nn.Parameter)}
        with self.average.in_place(scored) if self.average is not None else contextlib.nullcontext():
            yield model
        model.train()


def _mean(values: list[float]) -> float:
    """Of those that are numbers: a recording without labels to validate by does not count."""
    return float(np.mean([v for v in values if math.isfinite(v)] or [math.nan]))

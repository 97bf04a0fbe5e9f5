"""Windows on a GPU: one step, draw and feed, is captured as a CUDA graph and replayed.

A step of a small model is some hundred short kernels, which take longer to launch than to run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from neuroformer.config import GenerateConfig
from neuroformer.data.batch import Batch
from neuroformer.generation.scan import Scan, Spikes
from neuroformer.model.fixed_stepper import FixedStepper, Places
from neuroformer.model.neuroformer import Neuroformer

LOOK_EVERY = 4  # steps between two questions to the device whether all windows ended


class Replay:
    """Draws window after window of a fixed number of sequences, as :func:`~neuroformer.generation.rollout.sample_window`
    does, but with the same few captured kernels.

    On a CPU nothing is captured, and the step runs as it would be replayed: the step of the first window, on what later
    windows put in its places.
    """

    def __init__(self, model: Neuroformer, config: GenerateConfig, seed: int):
        self.model, self.config, self.seed = model, config, seed
        self.places = Places()
        self.step: _Step | None = None
        self.run: Callable[[], object] = lambda: None

    def filled_up(self, alive: np.ndarray) -> np.ndarray:
        """These sequences, and the first again and again: as many as before, unless so many fewer are left that new
        places pay."""
        size = 0 if self.step is None else len(self.step.alive)
        spare = size - len(alive) if len(alive) <= size < 2 * len(alive) else 0
        return np.concatenate([alive, np.full(spare, alive[0])])

    def sample_window(
        self, batch: Batch, ident_Q: np.ndarray, window_Q: np.ndarray, num_real: int
    ) -> tuple[Spikes, int]:
        """Spikes of the first ``num_real`` windows of the batch, and how many of them hit the guard; the others only
        fill it up."""
        places = self.places
        stepper = FixedStepper(self.model, batch, places)
        step = _Step(Scan(self.model, stepper, ident_Q, window_Q, self.config, self.seed), stepper, num_real)
        drawn: list[Tensor] = []
        for n in range(self.config.max_tokens):
            if n % LOOK_EVERY == 0 and not bool(places.held["alive"].any()):
                break
            if n + 2 > stepper.room:
                stepper.grow()
            if places.moved:
                self.step, places.moved = step, False
                self.run = self._capture(step) if self.model.sos.is_cuda else step
            self.run()
            drawn.append(places.held["drawn"].clone())
        over, _ = step.scan.draw(stepper.every)
        hits = int((places.held["alive"] & ~over).sum())
        return _collect(drawn, self.model.num_units), hits

    def _capture(self, step: _Step) -> Callable[[], object]:
        before = {name: place.clone() for name, place in self.places.held.items()}
        with torch.cuda.device(self.model.sos.device):
            # libraries set themselves up and kernels are compiled before, on a stream apart
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                step()
                step()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
        for name, place in self.places.held.items():
            place.copy_(before[name])
        return graph.replay


class _Step:
    """One draw of every sequence, and its spike fed to the model: tensors in their places, nothing asked of the device.

    ``alive``: whose windows go on; ``drawn``: cells (bin * units + unit) of the step, -1 where none.
    """

    def __init__(self, scan: Scan, stepper: FixedStepper, num_real: int):
        self.scan, self.stepper, places = scan, stepper, stepper.places
        for name, value in scan.tensors().items():
            setattr(scan, name, places.put(name, value))
        self.alive = places.put("alive", stepper.every < num_real)
        self.drawn = places.put("drawn", torch.full_like(stepper.every, -1))

    def __call__(self) -> None:
        scan = self.scan
        over, _ = scan.draw(self.stepper.every)
        self.alive.logical_and_(~over)
        cell = scan.tick * scan.model.num_units + scan.unit
        self.drawn.copy_(torch.where(self.alive, cell, -1))
        # who ended before its first spike feeds some unit, unheeded
        self.stepper.feed(scan.tick, scan.unit.clamp_min(0))


def _collect(drawn: list[Tensor], num_units: int) -> Spikes:
    if not drawn:
        return Spikes.join([])
    cell_NQ = torch.stack(drawn).cpu().numpy()
    sequence, place = np.nonzero(cell_NQ.T >= 0)
    cell = cell_NQ[place, sequence]
    return Spikes(sequence, cell // num_units, cell % num_units)

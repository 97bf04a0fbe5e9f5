"""Windows on a GPU: one step (draw a spike, feed it back) is captured as a CUDA graph and replayed.

A step of a small model consists of hundreds of short kernels, which take longer to launch than to run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from neuroformer.config import GenerateConfig
from neuroformer.data.batch import Batch
from neuroformer.generation.interventions import UnitChanges
from neuroformer.generation.scan import Scan
from neuroformer.generation.spikes import Spikes
from neuroformer.model.fixed_stepper import FixedStepper, Places
from neuroformer.model.network import Neuroformer

LOOK_EVERY = 4  # steps between two questions to the device whether all windows ended


class GraphedWindows:
    """Draws window after window of a fixed number of sequences, as :func:`~neuroformer.generation.scan.sample_window`
    does, but with the same few captured kernels.

    On a CPU nothing is captured, but the step runs just as it would be replayed: the step of the first window, on the
    data that later windows put into the same memory.
    """

    def __init__(self, model: Neuroformer, config: GenerateConfig, seed: int):
        self.model, self.config, self.seed = model, config, seed
        self.places = Places()
        self.step: _Step | None = None
        self.run: Callable[[], object] = lambda: None

    def filled_up(self, alive: np.ndarray) -> np.ndarray:
        """These sequences, padded with copies of the first to as many as before; fewer once so few are left that new
        memory pays off.
        """
        size = 0 if self.step is None else len(self.step.alive)
        spare = size - len(alive) if len(alive) <= size < 2 * len(alive) else 0
        return np.concatenate([alive, np.full(spare, alive[0])])

    def sample_window(
        self,
        batch: Batch,
        ident_Q: np.ndarray,
        window_Q: np.ndarray,
        num_real: int,
        changes: UnitChanges | None = None,
    ) -> tuple[Spikes, int]:
        """Spikes of the first ``num_real`` windows of the batch, and how many of these hit the guard; the others are
        padding.
        """
        places = self.places
        stepper = FixedStepper(self.model, batch, places)
        scan = Scan(self.model, stepper, ident_Q, window_Q, self.config, self.seed, changes)
        step = _Step(scan, stepper, num_real)
        drawn: list[Tensor] = []
        # of draws, some are thrown away; whoever draws on and on is stopped, and reported as the guard's
        for n in range(4 * (self.config.max_tokens + 1)):
            if n % LOOK_EVERY == 0 and not bool(step.alive.any()):
                break
            if n + 2 > stepper.room:
                stepper.grow()
            if places.moved:
                self.step, places.moved = step, False
                self.run = self._capture(step) if self.model.device.type == "cuda" else step
            self.run()
            drawn.append(step.drawn.clone())
        return _collect(drawn, self.model.num_units), int((step.stopped | step.alive).sum())

    def _capture(self, step: _Step) -> Callable[[], object]:
        before = {name: place.clone() for name, place in self.places.held.items()}
        with torch.cuda.device(self.model.device):
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
    """One draw for every sequence, and its spike fed to the model: tensors at fixed addresses, no wait for the
    device.

    ``alive``: sequences whose window continues; ``stopped``: those that the guard stopped; ``drawn``: cells (bin *
    units + unit) of the step's spikes, -1 without one.
    """

    def __init__(self, scan: Scan, stepper: FixedStepper, num_real: int):
        self.scan, self.stepper, places = scan, stepper, stepper.places
        for name, value in scan.tensors().items():
            setattr(scan, name, places.put(name, value))
        if scan.forced is not None and scan.silent is not None:
            scan.silent = places.put("silent", scan.silent)
            spare = places.bound("forced", scan.forced.shape[1]) - scan.forced.shape[1]
            scan.forced = places.put("forced", F.pad(scan.forced, (0, spare), value=scan.silent.numel()))
        self.alive = places.put("alive", stepper.every < num_real)
        self.stopped = places.put("stopped", torch.zeros_like(self.alive))
        self.drawn = places.put("drawn", torch.full_like(stepper.every, -1))

    def __call__(self) -> None:
        scan = self.scan
        over, thrown = scan.draw(self.stepper.every)
        going = self.alive & ~over
        spikes = going if thrown is None else going & ~thrown
        full = self.stepper.filled_A > scan.config.max_tokens
        self.stopped.logical_or_(spikes & full)
        self.alive.copy_(going & ~self.stopped)
        fed = spikes & ~full
        self.drawn.copy_(torch.where(fed, scan.tick * scan.model.num_units + scan.unit, -1))
        # who ended before its first spike holds no unit
        self.stepper.feed_some(scan.tick, scan.unit.clamp_min(0), fed)


def _collect(drawn: list[Tensor], num_units: int) -> Spikes:
    if not drawn:
        return Spikes.join([])
    cell_NQ = torch.stack(drawn).cpu().numpy()
    sequence, place = np.nonzero(cell_NQ.T >= 0)
    cell = cell_NQ[place, sequence]
    return Spikes(sequence, cell // num_units, cell % num_units)

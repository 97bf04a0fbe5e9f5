"""One window of many sequences: the scan over its cells (bin, unit), draw by draw.

Shape suffixes: Q sequences, A active sequences, B bins of a window, U units, F forced spikes of a window.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuroformer.config import GenerateConfig
from neuroformer.generation.interventions import UnitChanges
from neuroformer.generation.sampling import DT, ID, draw, streams, uniforms_of
from neuroformer.generation.spikes import Spikes
from neuroformer.model.network import Neuroformer
from neuroformer.model.stepper import Stepper


def sample_window(
    model: Neuroformer,
    stepper: Stepper,
    ident_Q: np.ndarray,
    window_Q: np.ndarray,
    config: GenerateConfig,
    seed: int,
    changes: UnitChanges | None = None,
) -> tuple[Spikes, int]:
    """Draw the spikes of one window of every sequence; returns them and how many hit the guard.

    ``window_Q``: the number of the window within its sequence, which random numbers depend on.
    """
    scan = Scan(model, stepper, ident_Q, window_Q, config, seed, changes)
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(config.max_tokens):
        going = scan.next_spike()
        if len(going) < len(stepper.rows):
            stepper.keep(going)
            scan.keep(going)
        if len(going) == 0:
            return _collect(drawn), 0
        drawn.append((stepper.rows, scan.tick.clone(), scan.unit.clone()))
        stepper.feed(scan.tick, scan.unit)
    return _collect(drawn), len(scan.next_spike())


class Scan:
    """The position of each active sequence among the cells (bin, unit) of its window, and its next steps.

    Attributes
    ----------
    stream : (A,) random stream of each sequence in this window
    tick, unit, count : (A,) the last cell drawn, and how many spikes of it; unit -1 before any
    draws : (A,) how many times each drew: the position in its random stream
    """

    def __init__(
        self,
        model: Neuroformer,
        stepper: Stepper,
        ident_Q: np.ndarray,
        window_Q: np.ndarray,
        config: GenerateConfig,
        seed: int,
        changes: UnitChanges | None = None,
    ):
        self.model, self.stepper, self.config = model, stepper, config
        device = stepper.h_AD.device
        move = lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(device)
        self.stream = streams(seed, move(ident_Q.astype(np.int64)), move(window_Q.astype(np.int64)))
        self.kinds = torch.tensor([[DT], [ID]], device=device)
        self.tick = torch.zeros_like(self.stream)
        self.unit = torch.full_like(self.stream, -1)
        self.count, self.draws = torch.ones_like(self.stream), torch.zeros_like(self.stream)
        self.silent = None if changes is None else move(changes.silent_BU)
        self.forced = None if changes is None else move(changes.forced_QF)
        self.num_forced = torch.zeros_like(self.stream)  # so many have happened

    def tensors(self) -> dict[str, Tensor]:
        """The tensors with a row for each active sequence, by attribute."""
        names = ("stream", "tick", "unit", "count", "draws", "num_forced")
        return {name: getattr(self, name) for name in names}

    def keep(self, which: Tensor) -> None:
        """Keep only the sequences ``which``."""
        for name, value in self.tensors().items():
            setattr(self, name, value[which])
        self.forced = None if self.forced is None else self.forced[which]

    def next_spike(self) -> Tensor:
        """Move every sequence to its next spike; returns which have one (the others' windows end)."""
        which = torch.arange(len(self.tick), device=self.tick.device)
        over, thrown = self.draw(which)
        if thrown is None:
            return torch.nonzero(~over).squeeze(1)
        ended = over | thrown  # thrown: unless a later draw says otherwise
        # the guard bounds the draws that are thrown away as well
        for _ in range(self.config.max_tokens):
            which = which[thrown]
            if len(which) == 0:
                break
            over, thrown = self.draw(which, some=True)
            ended[which] = over if thrown is None else over | thrown
        return torch.nonzero(~ended).squeeze(1)

    def draw(self, which: Tensor, *, some: bool = False) -> tuple[Tensor, Tensor | None]:
        """Move the sequences ``which`` (all, in order, unless ``some``) by one draw. Returns whose window ended, and
        whose spike is discarded (None: nobody's), without waiting for the device.
        """
        c, num_bins, num_units = self.config, self.model.num_bins, self.model.num_units
        at = (lambda x: x[which]) if some else (lambda x: x)
        put = (lambda x, y: x.index_copy_(0, which, y)) if some else (lambda x, y: x.copy_(y))
        tick, unit, count, draws = at(self.tick), at(self.unit), at(self.count), at(self.draws)
        following = self.stepper.after(which, tick, unit, count)
        u_dt, u_id = uniforms_of(at(self.stream), draws, self.kinds)
        put(self.draws, draws + 1)
        dt = draw(following.dt_log_p(), u_dt, temperature=c.temperature, top_p=c.top_p)
        logits = following.id_logits(dt.clamp(max=num_bins - 1))  # of windows that end here, a draw that nothing uses
        drawn = draw(logits, u_id, temperature=c.temperature, top_p=c.top_p)
        end = num_bins * num_units
        cell = torch.where(dt < num_bins, dt * num_units + drawn, end)
        forced = self._forced(which, cell)
        over = cell == end
        put(self.count, torch.where(cell == tick * num_units + unit, count + 1, 1))
        put(self.tick, torch.where(over, tick, cell // num_units))
        put(self.unit, torch.where(over, unit, cell % num_units))
        if self.silent is None or forced is None:
            return over, None
        silent = self.silent.flatten()[cell.clamp(max=end - 1)]
        return over, silent & ~over & ~forced

    def _forced(self, which: Tensor, cell: Tensor) -> Tensor | None:
        """Where a forced spike comes first it takes the drawn cell's place, in ``cell``; returns where."""
        if self.forced is None:
            return None
        first = self.forced[which].gather(1, self.num_forced[which][:, None]).squeeze(1)
        forced = (first <= cell) & (first < self.model.num_bins * self.model.num_units)
        cell.copy_(torch.where(forced, first, cell))
        self.num_forced[which] += forced.long()
        return forced


def _collect(drawn: list[tuple[Tensor, Tensor, Tensor]]) -> Spikes:
    return Spikes.join([Spikes(*(x.cpu().numpy() for x in part)) for part in drawn])

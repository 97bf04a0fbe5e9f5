"""One window of many sequences: the scan over its cells (bin, unit), draw by draw.

Shape suffixes: Q sequences, A active sequences, B bins of a window, U units, F forced spikes of a window.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from neuroformer.config import GenerateConfig
from neuroformer.generation.interventions import UnitChanges
from neuroformer.generation.sampling import DT, ID, draw, uniforms
from neuroformer.generation.spikes import Spikes
from neuroformer.model.neuroformer import Neuroformer
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
    tick, unit, count : (A,) the last cell drawn, and how many spikes of it; unit -1 before any
    draws : (A,) how many times each drew: the position in its random stream
    """

    def __init__(
        self, model: Neuroformer, stepper: Stepper, ident_Q: np.ndarray, window_Q: np.ndarray,
        config: GenerateConfig, seed: int, changes: UnitChanges | None = None,
    ):  # fmt: skip
        self.model, self.stepper, self.config, self.seed = model, stepper, config, seed
        device = stepper.h_AD.device
        move = lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(device)
        self.ident, self.window = move(ident_Q.astype(np.int64)), move(window_Q.astype(np.int64))
        self.kinds = torch.tensor([[DT], [ID]], device=device)
        self.tick = torch.zeros_like(self.ident)
        self.unit = torch.full_like(self.ident, -1)
        self.count, self.draws = torch.ones_like(self.ident), torch.zeros_like(self.ident)
        self.silent = None if changes is None else move(changes.silent_BU)
        self.forced = None if changes is None else move(changes.forced_QF)
        self.num_forced = torch.zeros_like(self.ident)  # so many have happened

    def tensors(self) -> dict[str, Tensor]:
        """The tensors with a row for each active sequence, by attribute."""
        names = ("ident", "window", "tick", "unit", "count", "draws", "num_forced")
        return {name: getattr(self, name) for name in names}

    def keep(self, which: Tensor) -> None:
        """Keep only the sequences ``which``."""
        for name, value in self.tensors().items():
            setattr(self, name, value[which])
        self.forced = None if self.forced is None else self.forced[which]

    def next_spike(self) -> Tensor:
        """Move every sequence to its next spike; returns which have one (the others' windows end)."""
        which = torch.arange(len(self.tick), device=self.tick.device)
        ended = torch.zeros_like(which, dtype=torch.bool)
        # only spikes that are thrown away need another draw; the guard bounds them as well
        for _ in range(self.config.max_tokens + 1):
            over, thrown = self.draw(which)
            if thrown is None:
                ended = over
                break
            ended[which] = over | thrown  # thrown: unless a later draw says otherwise
            which = which[thrown]
            if len(which) == 0:
                break
        return torch.nonzero(~ended).squeeze(1)

    def draw(self, which: Tensor) -> tuple[Tensor, Tensor | None]:
        """Move the sequences ``which`` by one draw. Returns whose window ended, and whose spike is discarded (None:
        nobody's), without waiting for the device.
        """
        c, num_bins, num_units = self.config, self.model.num_bins, self.model.num_units
        tick, unit = self.tick[which], self.unit[which]
        stream, window, place = self.ident[which], self.window[which], self.draws[which]
        self.draws[which] += 1
        following = self.stepper.after(which, tick, unit, self.count[which])
        u_dt, u_id = uniforms(self.seed, stream, window, place, self.kinds)
        dt = draw(
            following.dt_logits(), u_dt, temperature=c.temperature_dt, top_p=c.top_p_dt, top_k=c.top_k_dt
        )
        logits = following.id_logits(dt.clamp(max=num_bins - 1))  # of those that end: drawn in vain
        drawn = draw(logits, u_id, temperature=c.temperature_id, top_p=c.top_p_id, top_k=c.top_k_id)
        cell = torch.where(dt < num_bins, dt * num_units + drawn, num_bins * num_units)
        forced = self._forced(which, cell)
        over = cell == num_bins * num_units
        same = cell == tick * num_units + unit
        self.count[which] = torch.where(same & (unit >= 0), self.count[which] + 1, 1)
        self.tick[which] = torch.where(over, tick, cell // num_units)
        self.unit[which] = torch.where(over, unit, cell % num_units)
        if self.silent is None or forced is None:
            return over, None
        silent = self.silent.flatten()[cell.clamp(max=num_bins * num_units - 1)]
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

"""A recording made ready for a configuration: the object that everybody is handed."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from neuroformer.config import Config, GenerateConfig
from neuroformer.data.automatic import settled
from neuroformer.data.batch import Batch, BatchBuilder
from neuroformer.data.normalization import fit_normalization
from neuroformer.data.observed import ObservedBins
from neuroformer.data.scales import Normalization
from neuroformer.data.splits import Split, make_split
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape, tile
from neuroformer.recording import Recording
from neuroformer.recording.derive import with_speed
from neuroformer.shown import Shown

MOST_CELLS = 2**23  # (window, bin, unit) of a batch: a table of them has 32 MB


class Known(Protocol):
    """What is known of a recording before it is opened."""

    @property
    def name(self) -> str: ...
    @property
    def unit_ids(self) -> list[str]: ...
    @property
    def num_units(self) -> int: ...
    @property
    def num_spikes(self) -> int: ...


@dataclass
class Prepared(Shown):
    """A recording prepared for one configuration: split, index, normalisation, batch builder; and what it lacks of
    the inputs of the whole run. :func:`prepare` makes it.
    """

    rec: Recording
    config: Config
    split: Split
    index: SpikeIndex
    normalization: Normalization
    builder: BatchBuilder
    lacks: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        rec: Recording,
        config: Config,
        split: Split,
        normalization: Normalization | None = None,
        lacks: Sequence[str] = (),
    ) -> Prepared:
        """A recording as it is, indexed on the clock of a given split; with ``normalization`` nothing is fitted."""
        index = SpikeIndex.from_recording(rec, split.segments, config.window.dt)
        scale = fit_normalization(rec, split, config, index) if normalization is None else normalization
        return cls(rec, config, split, index, scale, BatchBuilder(rec, index, config, scale), list(lacks))

    # what is known of it without its data

    @property
    def known(self) -> Known:
        """What tells of the recording without its data: the recording itself, unless it stays on disk."""
        return self.rec

    @property
    def name(self) -> str:
        return self.known.name

    @property
    def unit_ids(self) -> list[str]:
        return self.known.unit_ids

    @property
    def num_units(self) -> int:
        return self.known.num_units

    @property
    def num_spikes(self) -> int:
        return self.known.num_spikes

    @property
    def shape(self) -> WindowShape:
        """Of its windows, in bins."""
        return WindowShape.from_config(self.config)

    @property
    def opened(self) -> Prepared:
        """With its data at hand: itself, unless it is one of many that stay on disk."""
        return self

    @property
    def observed(self) -> ObservedBins | None:
        """Which units were observed in which bins of the clock; None: all in all."""
        return self.index.observed

    def windows(self, part: str, **options) -> Windows:
        """Windows that tile one part of the split."""
        return tile(self.split.blocks[part], self.shape, **options)

    def pieces(self, windows: Windows, size: int = 0) -> list[Windows]:
        """``size`` consecutive windows each (0: twice the training batch); fewer where units and bins are many."""
        cells = self.shape.current * self.num_units
        return windows.pieces(min(size or 2 * self.config.train.batch_size, max(1, MOST_CELLS // cells)))

    def batches(self, windows: Windows, size: int = 0, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """A batch of each of the :meth:`pieces`, on a device."""
        for piece in self.pieces(windows, size):
            yield self.builder(piece).to(device)

    def asking(self, generate: GenerateConfig, seed: int | None = None) -> Prepared:
        """The same recording, of which something else is to be simulated."""
        seed = self.config.seed if seed is None else seed
        return dataclasses.replace(self, config=dataclasses.replace(self.config, generate=generate, seed=seed))

    def with_spikes(self, index: SpikeIndex) -> Prepared:
        """The same recording with other spikes on the same clock, which batches then hold where units were observed."""
        if self.index.observed is not None:
            seen = self.index.observed.cells(index.keys, index.unit)
            index = dataclasses.replace(
                index, keys=index.keys[seen], unit=index.unit[seen], offsets=None, observed=self.index.observed
            )
        builder = copy.copy(self.builder)
        builder.index = index
        return dataclasses.replace(self, index=index, builder=builder)

    def __repr__(self) -> str:
        w, s = self.config.window, self.split
        parts = ", ".join(f"{part} {s.seconds(part):,.0f} s ({len(self.windows(part)):,} windows)" for part in s.blocks)
        lacks = f"\n  lacks     {', '.join(self.lacks)}" if self.lacks else ""
        return (
            f"Prepared '{self.name}': windows of {w.current:g} s in bins of {w.dt:g} s\n"
            f"  split     {parts}; by {self.config.split.by}, claims {self.config.split.claim}{lacks}"
        )

    def describe(self) -> dict[str, Any]:
        """Plain values that identify the training data: the units, and the split with its digest."""
        split: dict[str, Any] = {"sha256": self.split.sha256(), "claim": self.config.split.claim}
        split |= {part: self.split.intervals(part).tolist() for part in self.split.blocks}
        return {"units": list(self.unit_ids), "spikes": self.num_spikes, "split": split}


def prepare(
    rec: Recording,
    config: Config,
    normalization: Normalization | None = None,
    lacks: Sequence[str] = (),
    split: Split | None = None,
) -> Prepared:
    """Read a recording as configured, split it (as configured, or as given), index and normalise it; with
    ``normalization`` (of a bundle), nothing is fitted.
    """
    rec, config = configured(rec, config), settled(config, [rec])
    return Prepared.of(rec, config, make_split(rec, config) if split is None else split, normalization, lacks)


def configured(rec: Recording, config: Config) -> Recording:
    """The recording with the speeds that ``recording.speeds`` asks for, and without spikes if traces are modelled in
    their place.

    :func:`prepare` does it once; doing it twice changes nothing.

    Raises
    ------
    RecordingError
        A speed of a variable that the recording lacks, or whose name is taken.
    """
    for speed in config.recording.speeds:
        if speed.name not in rec.behavior or rec.meta.get("speeds", {}).get(speed.name) != speed.of:
            rec = with_speed(rec, speed.name, speed.of, speed.smooth)
    if config.traces.likelihood != "none":  # spikes that were made of the traces would say what comes next
        rec = dataclasses.replace(rec, spike_times=np.zeros(0), spike_units=np.zeros(0, np.int32))
    return rec

"""A recording made ready for a configuration: the object that everybody is handed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from neuroformer.config import Config
from neuroformer.data.batch import BatchBuilder
from neuroformer.data.configured import configured
from neuroformer.data.normalization import fit_normalization
from neuroformer.data.splits import Split, make_split
from neuroformer.data.windows import SpikeIndex, Windows, tile
from neuroformer.recording import Recording


@dataclass
class Prepared:
    """A recording prepared for one configuration: split, index, normalisation, batch builder; and what it lacks of
    the inputs of the whole run.
    """

    rec: Recording
    config: Config
    split: Split
    index: SpikeIndex
    normalization: dict[str, Any]
    builder: BatchBuilder
    lacks: list[str] = field(default_factory=list)

    def windows(self, part: str, **options) -> Windows:
        """Windows that tile one part of the split."""
        return tile(self.split.blocks[part], self.builder.shape, **options)

    def describe(self) -> dict[str, Any]:
        """Plain values that identify the training data: the units, and the split with its digest."""
        split: dict[str, Any] = {"sha256": self.split.sha256(), "claim": self.config.split.claim}
        split |= {part: self.split.intervals(part).tolist() for part in self.split.blocks}
        return {"units": list(self.rec.unit_ids), "spikes": self.rec.num_spikes, "split": split}


def prepare(
    rec: Recording,
    config: Config,
    normalization: dict[str, Any] | None = None,
    lacks: Sequence[str] = (),
    split: Split | None = None,
) -> Prepared:
    """Split (as configured, or as given), index and normalise a recording; with ``normalization`` (of a bundle), nothing is
    fitted."""
    rec = configured(rec, config)
    split = make_split(rec, config) if split is None else split
    index = SpikeIndex.from_recording(rec, split.segments, config.window.dt)
    scale = fit_normalization(rec, split, config, index) if normalization is None else normalization
    return Prepared(rec, config, split, index, scale, BatchBuilder(rec, index, config, scale), list(lacks))


def in_order(prepared: Prepared, part: str, batch_size: int = 0) -> list[Windows]:
    """Windows that tile one part, cut into batches."""
    windows = prepared.windows(part)
    size = batch_size or 2 * prepared.config.train.batch_size
    return [windows[i : i + size] for i in range(0, len(windows), size)]

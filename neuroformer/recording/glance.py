"""A recording that was looked at and not read: what is shown of a file at an address before anything large is fetched."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from neuroformer.recording.recording import Recording

LOOK = 20_000  # samples of a behavior variable


@dataclass(frozen=True, eq=False, repr=False)
class Glance(Recording):
    """A recording without its spikes, which were only counted.

    Parameters
    ----------
    counted : (units,) number of spikes of each unit
    """

    counted: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def num_spikes(self) -> int:
        return int(self.counted.sum())

    def unit_spikes(self) -> np.ndarray:
        return self.counted

    def spikes_inside(self) -> np.ndarray:
        return self.counted


def glance(rec: Recording, counted: np.ndarray) -> Glance:
    """A recording without spikes as one whose spikes were counted: ``counted`` (units,)."""
    return Glance(**{f.name: getattr(rec, f.name) for f in fields(Recording)}, counted=counted)

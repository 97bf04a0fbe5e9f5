"""Which units of a recording are kept: a small language of conditions, and the measures that it knows."""

from neuroformer.recording.units.choose import choose_units, needs_spikes

__all__ = ["choose_units", "needs_spikes"]

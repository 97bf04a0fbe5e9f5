"""The likelihood of a synthetic recording under its own generator, which no model can be expected to exceed."""

from __future__ import annotations

import numpy as np

from neuroformer.baselines.glm.spikes import counts_around
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows, nanoseconds
from neuroformer.metrics import bits_per_spike, poisson_log_likelihood

_CHUNK = 512  # windows at once


def oracle_bits_per_spike(prepared: Prepared, windows: Windows) -> float:
    """Bits/spike of the generator's own conditional rate on the windows of the model, where units were observed.

    ``rec.truth['rate']`` (bins, units) is the expected count of each generator bin given everything, hidden
    gaze and speed included; ``rec.truth['rate_times']`` (bins,) the bins' starts.

    Raises
    ------
    ValueError
        The generator's bins are not the clock's.
    """
    index, shape = prepared.index, prepared.builder.shape
    times, rate = prepared.rec.truth["rate_times"], prepared.rec.truth["rate"]
    start = windows.starts(index)
    first = np.searchsorted(nanoseconds(times), nanoseconds(start))
    if first.max() + shape.current > len(times) or np.abs(times[first] - start).max() > 1e-6:
        raise ValueError("the generator's bins do not lie on the windows' clock; window.dt must be the generator's dt")
    if abs(float(np.median(np.diff(times))) - shape.dt) > 1e-9:
        raise ValueError(
            f"the generator's bin is {np.median(np.diff(times)):g} s, window.dt {shape.dt:g} s; make them equal"
        )
    model = null = spikes = 0.0
    for i in range(0, len(windows), _CHUNK):
        counts = counts_around(index, windows[i : i + _CHUNK], 0, shape.current).numpy()
        rates = rate[first[i : i + _CHUNK, None] + np.arange(shape.current)]
        constant = np.broadcast_to(prepared.normalization.unit_rate, rates.shape)
        seen = index.observed_in(windows[i : i + _CHUNK], 0, shape.current)
        if seen is not None:
            rates, constant = rates * seen, constant * seen
        model += poisson_log_likelihood(counts, rates)
        null += poisson_log_likelihood(counts, constant)
        spikes += float(counts.sum())
    return bits_per_spike(model, null, spikes)

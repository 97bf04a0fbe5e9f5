"""What frames alone tell of rates, along a recording.

Shape suffixes: W windows, U units.
"""

from __future__ import annotations

import numpy as np

from neuroformer.baselines.energy.components import energy_components
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows


def stimulus_rates(prepared: Prepared, blocks: np.ndarray) -> list[np.ndarray]:
    """(bins, units) log expected counts of each block's whole windows, from a Poisson regression on the energies of the frames
    that each window sees (:func:`~neuroformer.baselines.energy.regression.fit_poisson`), fitted on training clips.

    It knows neither spikes nor behavior: what a model has beyond it is not of the stimulus; what it falls short of repeats'
    means is what nobody has read from the frames yet.

    Parameters
    ----------
    blocks : (blocks, 3) segment, first bin, one past the last bin
    """
    components = energy_components(prepared)
    fit = components.poisson
    current, out = prepared.builder.shape.current, []
    for segment, start, stop in blocks:
        tick = np.arange(start, stop - current + 1, current)
        windows = Windows(np.full(len(tick), segment), tick)
        expected_WU = fit.expected(components.of(prepared, windows))
        out.append(np.log(np.maximum(expected_WU, 1e-12) / current).repeat(current, 0))
    return out

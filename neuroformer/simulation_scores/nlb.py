"""The scores of the Neural Latents Benchmark beside bits/spike, as it defines them.

References
----------
Pei et al., Neural Latents Benchmark '21, NeurIPS 2021, section 3.3 and appendix. Co-smoothing (``co-bps``) and forward
prediction (``fp-bps``) are the pooled value of :func:`neuroformer.metrics.bits_per_spike_rates`, of held-out units and of all
units in the bins after a trial's end.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from neuroformer.metrics import r2

RIDGE_PENALTIES = tuple(np.logspace(-4, 0, 9))  # the benchmark's own grid


def psth_r2(psth_NU: np.ndarray, rates_NU: np.ndarray) -> float:
    """R2 of predicted rates against the PSTH of each trial's condition, the mean over units.

    Parameters
    ----------
    psth_NU, rates_NU : all bins of all evaluated trials, one after another; NaN where the PSTH is not defined
    """
    known = np.isfinite(psth_NU).all(1)
    return float(np.nanmean(r2(psth_NU[known], rates_NU[known])))


def behavior_r2(train_NU, train_NC, held_NU, held_NC) -> float:
    """R2, the mean over columns weighed equally, of ridge regression from rates to behavior (velocity), fitted on training
    trials; its penalty, of :data:`RIDGE_PENALTIES`, is chosen by cross-validation in five contiguous parts of them. Moments
    without a label are left out.

    Parameters
    ----------
    train_NU, held_NU : predicted rates of all units
    train_NC, held_NC : behavior at the same moments
    """
    known = [np.isfinite(y).all(1) for y in (train_NC, held_NC)]
    search = GridSearchCV(Ridge(), {"alpha": list(RIDGE_PENALTIES)})
    search.fit(train_NU[known[0]], train_NC[known[0]])
    held = held_NC[known[1]]
    predicted = np.reshape(search.predict(held_NU[known[1]]), held.shape)  # one column comes back flat
    return float(np.mean(r2(held, predicted)))

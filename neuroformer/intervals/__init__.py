"""Honest 95 % intervals of scores: over held-out time, over trials, over seeds.

Scores along a recording are of values that depend on their neighbours, so the number of values says nothing of how
sure a score is. :func:`over_time` cuts the values into contiguous blocks that are long against the autocorrelation
of labels and errors, leaves out one block after another (the jackknife), and takes the ends from Student's t. Where
the recording is worth too few independent values, there is no interval, and a warning says why.
"""

from neuroformer.intervals.estimate import Estimate, Scale
from neuroformer.intervals.terms import (
    Terms,
    error_terms,
    pearson_terms,
    ratio_terms,
    target_terms,
)
from neuroformer.intervals.time import FewBlocksWarning, independent_values, over_time
from neuroformer.intervals.trials import LEAST_TRIALS, SUBSETS, left_out, mean_interval, over_trials

__all__ = [
    "LEAST_TRIALS",
    "SUBSETS",
    "Estimate",
    "FewBlocksWarning",
    "Scale",
    "Terms",
    "error_terms",
    "independent_values",
    "left_out",
    "mean_interval",
    "over_time",
    "over_trials",
    "pearson_terms",
    "ratio_terms",
    "target_terms",
]

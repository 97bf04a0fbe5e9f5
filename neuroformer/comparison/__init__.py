"""Brains and models side by side: which features explain the units of a recording."""

from neuroformer.comparison.compare import METRICS, Comparison, Score, compare

__all__ = ["METRICS", "Comparison", "Score", "compare"]

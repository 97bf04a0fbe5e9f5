"""Linear centred kernel alignment, debiased.

Shape suffixes: C conditions, D and E channels of either side.
"""

from __future__ import annotations

import numpy as np

from neuroformer.comparison.rsa import cosine


def linear_cka(x_CD: np.ndarray, y_CE: np.ndarray) -> float:
    """Centred kernel alignment of linear kernels (Kornblith et al., ICML 2019), with the unbiased estimator of the
    Hilbert-Schmidt independence criterion (Song et al., JMLR 2012): independent representations give 0 on average however
    many channels they have. It may be negative. NaN where a side does not vary.
    """
    return cosine(kernel(x_CD), kernel(y_CE))


def kernel(x_CD: np.ndarray) -> np.ndarray:
    """(C, C) linear kernel, centred without bias, zero on the diagonal: the sum of products of two such is the unbiased
    criterion times ``C (C - 3)`` (Szekely and Rizzo, Annals of Statistics 2014)."""
    size = len(x_CD)
    # without its mean, which no kernel shows after centring, rounding stays small
    x = x_CD - x_CD.mean(0, dtype=np.float64)
    k = x @ x.T
    np.fill_diagonal(k, 0.0)
    row = k.sum(0) / (size - 2)
    k = k - row - row[:, None] + k.sum() / ((size - 1) * (size - 2))
    np.fill_diagonal(k, 0.0)
    return k

"""Numbers as text for a page: little-endian bytes in base64, in the smallest type that keeps what is shown."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

NOT_A_NUMBER = 65535


def pack(values: np.ndarray, kind: str = "f4") -> dict[str, Any]:
    """Bytes of an array as they are (``f4``, ``u2`` or ``u1``), with their shape."""
    raw = np.ascontiguousarray(values, dtype=np.dtype(kind).newbyteorder("<"))
    return {"b": base64.b64encode(raw.tobytes()).decode(), "t": kind, "s": list(raw.shape)}


def pack_rounded(values: np.ndarray) -> dict[str, Any]:
    """Floats in 16 bits: 65,534 steps between the smallest and the largest, and one value for NaN."""
    values = np.asarray(values, np.float64)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    step = (high - low) / (NOT_A_NUMBER - 1) or 1.0
    whole = np.where(np.isfinite(values), np.rint((np.nan_to_num(values) - low) / step), NOT_A_NUMBER)
    return pack(whole.clip(0, NOT_A_NUMBER), "u2") | {"k": step, "o": low}

"""Names: what may stand in them, and their order."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

_REFUSED = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control characters, invisible ones, line breaks


def printable(text: Any, keep: str = "") -> str:
    """A text whose control characters (terminal sequences, line breaks, changes of direction) became ``_``.

    ``keep`` : characters that stay
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return "".join("_" if unicodedata.category(c) in _REFUSED and c not in keep else c for c in text)


def variable_name(text: Any) -> str:
    """A name for a variable: printable, and without ``.``, ``/`` and backslashes, which keys and files reserve."""
    return re.sub(r"[./\\]", "_", printable(text)) or "unnamed"


def words(values: Any) -> np.ndarray:
    """An array of a table with texts (and bytes, as HDF5 and C programs store them) made printable; numbers in the
    machine's own byte order.
    """
    values = np.asarray(values)
    if values.dtype.kind == "S":
        flat = [v.decode("utf-8", "replace") for v in values.ravel().tolist()]
        values = np.array(flat, dtype=np.str_).reshape(values.shape)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind == "U" and values.nbytes:
        codes = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint32)
        if codes.max() > 0x10FFFF:  # of a damaged file; Python cannot make a text of them
            values = (
                np.where(codes > 0x10FFFF, 0xFFFD, codes).astype(np.uint32).view(values.dtype).reshape(values.shape)
            )
            codes = np.frombuffer(values.tobytes(), np.uint32)
        if ((codes < 0x20) & (codes > 0)).any() or (codes >= 0x7F).any():
            values = np.array([printable(v) for v in values.ravel()], dtype=np.str_).reshape(values.shape)
    return values


def cleaned(names: Mapping[str, Any], clean: Any = printable) -> dict[str, str]:
    """What each name becomes under ``clean``; names that would become alike get a number."""
    out: dict[str, str] = {}
    for name in names:
        new, number = clean(name), 2
        while new in out.values():
            new, number = f"{clean(name)}_{number}", number + 1
        out[name] = new
    return out


def tree(value: Any) -> Any:
    """JSON-able facts with every text made printable (line breaks stay)."""
    if isinstance(value, str):
        return printable(value, keep="\n\t")
    if isinstance(value, Mapping):
        return {tree(k): tree(v) for k, v in value.items()}
    return [tree(v) for v in value] if isinstance(value, (list, tuple)) else value


def natural(text: Any) -> list[Any]:
    """A key that sorts ``trial_9`` before ``trial_10``."""
    parts = re.split(r"(\d+)", str(text))
    return [*((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts), (2, 0, str(text))]

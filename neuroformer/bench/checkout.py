"""A bare checkout that is not installed, as on a borrowed GPU machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import neuroformer

ROOT = Path(__file__).resolve().parents[2]


def make_importable() -> None:
    """In a bare checkout, the folder ``kernels`` beside this package is ``neuroformer.kernels``."""
    if importlib.util.find_spec("neuroformer.kernels") is None:
        neuroformer.__path__.append(str(ROOT))

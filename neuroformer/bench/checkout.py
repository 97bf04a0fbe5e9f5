"""Checkouts: a bare one that is not installed, as on a borrowed GPU machine, and another one to compare with."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import neuroformer
from neuroformer.config import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def make_importable() -> None:
    """In a bare checkout, the folder ``kernels`` beside this package is ``neuroformer.kernels``."""
    if importlib.util.find_spec("neuroformer.kernels") is None:
        neuroformer.__path__.append(str(ROOT))


def environment(root: Path) -> dict[str, str]:
    """The environment of a process that imports the package of a checkout.

    Raises
    ------
    ConfigError
        The folder holds no package.
    """
    if not (root / "neuroformer" / "__init__.py").exists():
        raise ConfigError(f"{root} holds no folder neuroformer; give the root of a checkout")
    path = os.pathsep.join(filter(None, (str(root.resolve()), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

"""Writing a bundle: its weights, and then the JSON that describes them."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import neuroformer
from neuroformer.bundle.bundle import FORMAT, FORMAT_OF_ONE, RecordingEntry, own_file
from neuroformer.bundle.checks import file_digest, tree_digest
from neuroformer.config import Config, to_dict
from neuroformer.files import replacing, write_atomic


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write one safetensors file, whole or not at all.

    Raises
    ------
    OSError
        It could not be written (the disk is full, say); the previous file is intact.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    try:
        with replacing(path) as part:
            save_file(tensors, part, metadata)
            os.umask(mask := os.umask(0))
            part.chmod(0o666 & ~mask)  # the library's files are for their owner alone
    except SafetensorError as e:  # the library's way to say that the disk refused
        raise OSError(f"{path} could not be written: {e}") from e


def save_weights(path: Path, model: torch.nn.Module) -> None:
    """Weights and buffers of a model to one safetensors file, atomically."""
    save_tensors(path, model.state_dict())


def save_cohort(folder: Path, objective: str, trunk: dict[str, Tensor], own: Iterable[dict[str, Tensor]] = ()) -> None:
    """The weights of an objective: what recordings share and, if there are several, what is each one's own."""
    own = iter(own)
    first = next(own, None)
    if first is not None:
        with replacing(folder / "weights" / objective) as part:
            for place, tensors in enumerate(itertools.chain([first], own)):
                save_tensors(part / f"{place}.safetensors", tensors)
    save_tensors(folder / "weights" / f"{objective}.safetensors", trunk)


def versions() -> dict[str, str]:
    """Versions of this code, Python and the numerical libraries."""
    libraries = {name: version(name) for name in ("torch", "numpy", "lightning", "safetensors")}
    return {"neuroformer": neuroformer.__version__, "python": platform.python_version(), **libraries}


def save_bundle(path: Path, config: Config, recordings: Sequence[RecordingEntry], metrics: dict[str, Any]) -> None:
    """Write ``bundle.json`` for the weights that already lie in ``path/weights``."""
    digests = {f.stem: file_digest(f) for f in sorted((path / "weights").glob("*.safetensors"))}
    trees = (vars(m) | {"normalization": m.normalization.to_dict()} for m in recordings)
    several = len(recordings) > 1
    tree = {
        "format": FORMAT if several else FORMAT_OF_ONE,
        "config": to_dict(config),
        "recordings": _save_entries(path, trees, list(digests)) if several else list(trees),
        "metrics": metrics,
        "versions": versions(),
        "weights_sha256": digests,
    }
    write_atomic(path / "bundle.json", json.dumps(tree | {"sha256": tree_digest(tree)}, indent=1).encode())


def _save_entries(path: Path, trees: Iterable[dict[str, Any]], objectives: list[str]) -> list[dict[str, Any]]:
    """Write what is known of each recording; gives the list of them, with digests."""
    listed = []
    with replacing(path / "recordings") as part:
        part.mkdir()
        for place, tree in enumerate(trees):
            text = json.dumps(tree).encode()
            (part / f"{place}.json").write_bytes(text)
            weights = {name: file_digest(own_file(path, name, place)) for name in objectives}
            listed.append({"name": tree["name"], "sha256": hashlib.sha256(text).hexdigest(), "weights": weights})
    return listed

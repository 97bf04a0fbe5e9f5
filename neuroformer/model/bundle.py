"""A trained model as one folder that describes itself: safetensors and JSON, never pickle.

``bundle.json``: format version, configuration, units, normalisation, split, metrics, versions, and the digest
of each weights file. ``weights/NAME.safetensors``: the best weights of each objective, kept apart.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import neuroformer
from neuroformer.config import Config, from_dict, to_dict
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.recording import Recording

FORMAT = 1
LIKELIHOOD = "likelihood"


class BundleError(ValueError):
    """A bundle that is absent, damaged, of another format, or of other units than the recording's."""


@dataclass
class Bundle:
    """What a bundle's JSON holds, and where it lies."""

    path: Path
    config: Config
    units: list[str]
    recording: str
    normalization: dict[str, Any]
    split: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    digests: dict[str, str]

    def __repr__(self) -> str:
        c = self.config
        values = "\n".join(
            f"    {k}: {v:.4g}" for k, v in self.metrics.items() if isinstance(v, (int, float))
        )
        versions = ", ".join(f"{k} {v}" for k, v in self.versions.items())
        return (
            f"Bundle {self.path}\n"
            f"  recording {self.recording}: {len(self.units)} units\n"
            f"  window    {c.window.current:g} s in bins of {c.window.dt:g} s, past {c.window.past:g} s, "
            f"frames {c.window.frames:g} s\n"
            f"  inputs    {', '.join(v.name for v in c.inputs) or 'none'}; "
            f"targets {', '.join(t.name for t in c.targets) or 'none'}\n"
            f"  model     width {c.model.width}, {c.model.heads} heads; weights {', '.join(self.digests)}\n"
            f"  split     by {c.split.by}, claims {c.split.claim}, sha256 {self.split['sha256'][:12]}\n"
            f"  audit     {self._audit()}\n"
            f"  versions  {versions}\n  metrics\n{values}"
        )

    def _audit(self) -> str:
        """What the audit found before training, in one line."""
        found = self.split.get("audit", {}).get("findings")
        if found is None:
            return "none was made"
        names = {s: sorted({f["name"] for f in found if f["severity"] == s}) for s in ("leak", "warning")}
        leaks = (
            f"THE SPLIT LEAKS ({', '.join(names['leak'])}), and this was allowed"
            if names["leak"]
            else "no leak"
        )
        return leaks + (f"; warnings: {', '.join(names['warning'])}" if names["warning"] else "")


def write_atomic(path: Path, data: bytes) -> None:
    """Write to a temporary name, sync, rename: a kill or a full disk leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_weights(path: Path, model: torch.nn.Module) -> None:
    """Weights and buffers of a model to one safetensors file, atomically."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, temporary)
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    return {
        "neuroformer": neuroformer.__version__, "torch": torch.__version__, "numpy": np.__version__,
        "python": platform.python_version(),
    }  # fmt: skip


def save_bundle(
    path: Path, config: Config, rec: Recording, normalization: dict, split: dict, metrics: dict[str, Any]
) -> None:
    """Write ``bundle.json`` for the weights that already lie in ``path/weights``."""
    digests = {f.stem: _digest(f) for f in sorted((path / "weights").glob("*.safetensors"))}
    tree = {
        "format": FORMAT, "config": to_dict(config), "recording": rec.name, "units": rec.unit_ids,
        "normalization": normalization, "split": split, "metrics": metrics, "versions": versions(),
        "weights_sha256": digests,
    }  # fmt: skip
    write_atomic(path / "bundle.json", json.dumps(tree, indent=1).encode())


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle's JSON.

    Raises
    ------
    BundleError
        No bundle there, not JSON, or of a newer format.
    """
    path = Path(path)
    file = path / "bundle.json"
    if not file.is_file():
        raise BundleError(
            f"no bundle at {path} (looked for {file}); train one with: neuroformer train --config ..."
        )
    try:
        tree = json.loads(file.read_text())
        if tree["format"] > FORMAT:
            raise BundleError(
                f"{file} has format {tree['format']}, this version reads up to {FORMAT}; update neuroformer"
            )
        return Bundle(
            path, from_dict(tree["config"]), tree["units"], tree["recording"], tree["normalization"],
            tree["split"], tree["metrics"], tree["versions"], tree["weights_sha256"],
        )  # fmt: skip
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as e:
        raise BundleError(f"{file} is damaged: {type(e).__name__} {e}") from None


def load_model(bundle: Bundle, objective: str = LIKELIHOOD) -> Neuroformer:
    """A working model on the CPU, in evaluation mode, with the best weights of one objective.

    Raises
    ------
    BundleError
        No such objective, or a weights file that is missing, truncated or not the one that was saved.
    """
    if objective not in bundle.digests:
        raise BundleError(
            f"{bundle.path} has no weights for '{objective}'; it has: {', '.join(bundle.digests)}"
        )
    file = bundle.path / "weights" / f"{objective}.safetensors"
    if not file.is_file():
        raise BundleError(f"{file} is missing")
    if _digest(file) != bundle.digests[objective]:
        raise BundleError(
            f"{file} is not the file that was saved (its SHA-256 differs): truncated or changed"
        )
    model = Neuroformer(bundle.config, len(bundle.units), bundle.normalization)
    try:
        model.load_state_dict(load_file(file))
    except (SafetensorError, RuntimeError) as e:
        raise BundleError(f"{file} does not fit the model that the bundle describes: {e}") from None
    return model.eval()


def check_units(bundle: Bundle, rec: Recording) -> None:
    """Refuse a recording whose units are not the bundle's.

    Raises
    ------
    BundleError
    """
    if rec.unit_ids == bundle.units:
        return
    theirs, ours = set(rec.unit_ids), set(bundle.units)
    missing = sorted(ours - theirs)[:5]
    detail = f"missing {', '.join(missing)}" if missing else "they come in another order or there are more"
    raise BundleError(
        f"recording '{rec.name}' has {rec.num_units} units, the bundle was trained on {len(bundle.units)} of "
        f"'{bundle.recording}' ({detail}); a model works on the units that it was trained on"
    )


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

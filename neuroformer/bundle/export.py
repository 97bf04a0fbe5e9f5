"""A bundle to be given to others: its weights and facts, without where files lay on this machine; and its check on arrival."""

from __future__ import annotations

import json
import ntpath
import posixpath
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuroformer.bundle.bundle import Bundle, checked_own_weights, checked_weights, entry_file, read_bundle
from neuroformer.bundle.checks import tree_digest

SCORES = "summary.json"


def export(bundle: Bundle, folder: Path) -> None:
    """Copy a bundle into an empty folder: ``bundle.json``, ``weights`` and, if there are some, its scores.

    Of every path in its configuration only the file's name is kept.

    Raises
    ------
    BundleError
        A weights file that is not the one that was saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in _files(bundle):
        place = folder / file.relative_to(bundle.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    tree = json.loads((bundle.path / "bundle.json").read_text())
    del tree["sha256"]
    tree["config"] = without_places(tree["config"])
    text = json.dumps(tree | {"sha256": tree_digest(tree)}, indent=1)
    (folder / "bundle.json").write_text(text)
    if (bundle.path / SCORES).is_file():
        shutil.copyfile(bundle.path / SCORES, folder / SCORES)


def without_places(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration, as nested mappings, whose paths are names of files alone; a copy."""
    config = json.loads(json.dumps(config))
    for entry in [config.get("recording"), *(config.get("recordings") or ())]:
        if not isinstance(entry, dict):
            continue
        _shorten(entry, "path")
        _shorten(entry.get("options"), "video")
        for source in entry.get("sources") or ():
            _shorten(source, "path", "times")
            _shorten(source.get("sync"), "ours", "theirs")
    encoder = (config.get("model") or {}).get("frame_encoder") or {}
    if posixpath.isabs(encoder.get("backbone") or ""):
        _shorten(encoder, "backbone")  # else it is a hub id
    return config


def _shorten(tree: Any, *keys: str) -> None:
    for key in keys:
        if isinstance(tree, dict) and isinstance(tree.get(key), str):
            tree[key] = posixpath.basename(ntpath.basename(tree[key]))


def check(folder: Path) -> Bundle:
    """Read a bundle that came from elsewhere, and compare every file with its digest.

    Raises
    ------
    BundleError
        Names the file that is missing or not as it was saved.
    """
    bundle = read_bundle(folder)
    for _ in _files(bundle):
        pass
    return bundle


def _files(bundle: Bundle) -> Iterator[Path]:
    """Every file of a bundle but its JSON, after checking its digest."""
    for objective in bundle.digests:
        yield checked_weights(bundle, objective)
    for place in range(len(bundle.recordings) if len(bundle.recordings) > 1 else 0):
        assert bundle.recordings[place]  # which checks its digest
        yield entry_file(bundle.path, place)
        for objective in bundle.digests:
            yield checked_own_weights(bundle, objective, place)

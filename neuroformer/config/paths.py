"""Where the paths of a configuration lead: made absolute as soon as it is known what they are relative to."""

from __future__ import annotations

import glob
import os
from pathlib import Path, PureWindowsPath
from typing import Any

from neuroformer.config.errors import ConfigError

SYNTHETIC = "synthetic:"
ADDRESSES = ("http://", "https://", "dandi://")


def place(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Nested mappings of a configuration whose relative paths of files and folders are those of ``folder``; a copy.

    These are the paths of recordings, their videos, and a backbone that is a folder there (else it is a hub id).
    ``synthetic:NAME`` is no path. What is not of the expected form is left to the schema.

    Raises
    ------
    ConfigError
        A path with control characters, or with the separators of another system.
    """
    tree = dict(tree)
    if "recording" in tree:
        tree["recording"] = _placed_entry(tree["recording"], folder, "recording")
    several = tree.get("recordings")
    if isinstance(several, str):
        tree["recordings"] = _placed(several, folder, "recordings")
    elif isinstance(several, (list, tuple)):
        tree["recordings"] = [_placed_entry(one, folder, f"recordings[{i}]") for i, one in enumerate(several)]
    model = tree.get("model")
    if isinstance(model, dict) and isinstance(model.get("frame_encoder"), dict):
        tree["model"] = model | {"frame_encoder": _placed_encoder(model["frame_encoder"], folder)}
    return tree


def _placed_encoder(encoder: dict[str, Any], folder: Path) -> dict[str, Any]:
    backbone = encoder.get("backbone")
    if not isinstance(backbone, str) or not backbone:
        return encoder
    there = Path(folder, os.path.expanduser(backbone))
    return encoder | {"backbone": str(there)} if there.is_dir() else encoder


def _placed_entry(entry: Any, folder: Path, key: str) -> Any:
    if isinstance(entry, str):  # in `recordings`, a path alone
        return _placed(entry, folder, key)
    if not isinstance(entry, dict):
        return entry
    entry, options = dict(entry), entry.get("options")
    if isinstance(entry.get("path"), str):
        entry["path"] = _placed(entry["path"], folder, f"{key}.path")
    if isinstance(options, dict) and isinstance(options.get("video"), str):
        entry["options"] = options | {"video": _placed(options["video"], folder, f"{key}.options.video")}
    render = entry.get("render")
    if isinstance(render, dict) and isinstance(render.get("images"), dict):
        images = {
            k: _placed(v, folder, f"{key}.render.images.{k}") if isinstance(v, str) else v
            for k, v in render["images"].items()
        }
        entry["render"] = render | {"images": images}
    if isinstance(entry.get("sources"), (list, tuple)):
        entry["sources"] = [_placed_source(s, folder, f"{key}.sources[{i}]") for i, s in enumerate(entry["sources"])]
    return entry


def _placed_source(source: Any, folder: Path, key: str) -> Any:
    """A second source with its paths: its own, and those of files with times or pulses."""
    if not isinstance(source, dict):
        return source
    source = dict(source)
    if isinstance(source.get("path"), str):
        source["path"] = _placed(source["path"], folder, f"{key}.path")
    if isinstance(source.get("times"), str):
        source["times"] = _placed_reference(source["times"], folder, f"{key}.times")
    if isinstance(source.get("sync"), dict):
        sync = source["sync"].items()
        source["sync"] = {
            k: _placed_reference(v, folder, f"{key}.sync.{k}") if isinstance(v, str) else v for k, v in sync
        }
    return source


def _placed_reference(text: str, folder: Path, key: str) -> str:
    """A name in a file, or FILE or FILE:NAME with the file's path; what is there as a file is one."""
    file, colon, name = text.rpartition(":")
    for path, rest in ((text, ""), (file, colon + name)):
        if path and ("/" in path or Path(path).suffix) and Path(folder, os.path.expanduser(path)).is_file():
            return _placed(path, folder, key) + rest
    return text


def _placed(path: str, folder: Path, key: str) -> str:
    if not path or path.startswith((SYNTHETIC, *ADDRESSES)):
        return path
    if any(ord(c) < 32 for c in path):
        raise ConfigError(
            f"{key} is {path!r}, which holds control characters; in double quotes YAML reads a backslash as the beginning of "
            "one, so write '/' between folders"
        )
    full = Path(folder, os.path.expanduser(path))
    if "\\" in path and os.sep == "/" and not full.exists():
        windows = PureWindowsPath(path)
        drive = f" ({windows.drive} is a drive of Windows: give the place that this system has for it)"
        raise ConfigError(
            f"{key} is {path!r}; expected '/' between folders, as every system understands: "
            f"{windows.as_posix()}{drive if windows.drive else ''}"
        )
    if glob.has_magic(path) and not Path(path).is_absolute() and not full.exists():
        return str(Path(glob.escape(str(folder)), path))  # the folder's own brackets are no pattern
    return str(full)

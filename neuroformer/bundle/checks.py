"""What is checked before anything of a bundle is used, since a folder may come from a stranger: the digests of its files,
and what its JSON holds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 28  # of a bundle.json; 10,000 units in ten recordings take 5 MB
MOST_UNITS = 1_000_000
PARTS = ("train", "valid", "test")


class BundleError(ValueError):
    """A bundle that is missing or damaged, has another format, or has other units than the recording."""


def file_digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def tree_digest(tree: dict[str, Any]) -> str:
    """SHA-256 of a bundle's JSON, without the digest itself."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def checked_file(file: Path, digest: str) -> Path:
    """The file, after checking its SHA-256.

    Raises
    ------
    BundleError
        It is missing, truncated or not the one that was saved.
    """
    if not file.is_file():
        raise BundleError(f"{file} is missing")
    if file_digest(file) != digest:
        raise BundleError(f"{file} is not the file that was saved (its SHA-256 differs): truncated or changed")
    return file


def check_tree(tree: dict[str, Any]) -> None:
    """Refuse values that no run writes, by their key.

    Names become names of files, so that none may lead out of the run's folder.

    Raises
    ------
    ValueError
        The first one found: its key, what it is, what was expected.
    """
    recordings = tree["recordings"]
    _expect(isinstance(recordings, list) and recordings, "recordings", recordings, "at least one recording")
    if len(recordings) == 1:
        check_recording(recordings[0], "recordings[0]", alone=True)
    else:
        _check_listed(recordings, tree["weights_sha256"])
    names = [entry["name"] for entry in recordings]
    _expect(len(set(names)) == len(names), "recordings", names, "recordings of different names")
    for key, kind in (("metrics", dict), ("versions", dict), ("weights_sha256", dict)):
        _expect(isinstance(tree[key], kind), key, tree[key], "keys and values")
    for name, digest in tree["weights_sha256"].items():
        _expect(is_file_name(name), "weights_sha256", name, "names of files within the folder of weights")
        _expect(isinstance(digest, str), f"weights_sha256.{name}", digest, "a digest")


def is_file_name(name: Any) -> bool:
    """Whether a name stays within the folder in which a file of that name is made."""
    wrong = {"/", "\\", "\0"}
    return isinstance(name, str) and name not in ("", ".", "..") and not wrong & set(name) and len(name) <= 200


def _check_listed(recordings: list[Any], objectives: Any) -> None:
    """What a bundle of several recordings says of each before its own file is read."""
    for i, entry in enumerate(recordings):
        _expect(isinstance(entry, dict), f"recordings[{i}]", entry, "keys and values")
        fits = is_file_name(entry["name"])
        _expect(fits, f"recordings[{i}].name", entry["name"], "a name without '/', which names a folder of the run")
    for i, entry in enumerate(recordings):
        _expect(isinstance(entry.get("sha256"), str), f"recordings[{i}].sha256", entry.get("sha256"), "a digest")
        weights = entry.get("weights")
        fits = isinstance(weights, dict) and all(isinstance(weights.get(name), str) for name in objectives)
        _expect(fits, f"recordings[{i}].weights", weights, "a digest for each objective")


def check_recording(entry: Any, key: str, *, alone: bool = False) -> None:
    """Refuse values of one recording's entry that no run writes."""
    _expect(isinstance(entry, dict), key, entry, "keys and values")
    name, units, split = entry["name"], entry["units"], entry["split"]
    expected = "a name without '/', which names a folder of the run"
    # where a run has one recording, its results lie in the run's own folder
    _expect(isinstance(name, str) if alone else is_file_name(name), f"{key}.name", name, expected)
    _expect(isinstance(units, list) and 0 < len(units) <= MOST_UNITS, f"{key}.units", units, "a list of unit ids")
    _expect(all(isinstance(u, str) for u in units), f"{key}.units", units, "ids that are texts")
    _expect(isinstance(split, dict), f"{key}.split", split, "keys and values")
    _expect(isinstance(split.get("sha256"), str), f"{key}.split.sha256", split.get("sha256"), "a digest")
    _expect(isinstance(split.get("claim"), str), f"{key}.split.claim", split.get("claim"), "what scores claim")
    for part in PARTS:
        intervals = split.get(part)
        fits = isinstance(intervals, list) and all(_is_list(i, _is_number, 2) for i in intervals)
        _expect(fits, f"{key}.split.{part}", intervals, "a list of [start, stop]")
    lacks = entry.get("lacks", [])
    _expect(_is_list(lacks, lambda x: isinstance(x, str)), f"{key}.lacks", lacks, "a list of names")
    _check_normalization(entry["normalization"], f"{key}.normalization", len(units))


def _check_normalization(scale: Any, key: str, num_units: int) -> None:
    _expect(isinstance(scale, dict), key, scale, "keys and values")
    for name in ("unit_rate", "unit_peak"):
        values = scale.get(name)
        fits = _is_list(values, lambda x: _is_number(x) and x > 0, num_units)
        _expect(fits, f"{key}.{name}", values, f"{num_units} numbers above 0, one per unit")
    for name in ("inputs", "targets"):
        for variable, of_one in (scale.get(name) or {}).items():
            _expect(isinstance(of_one, dict), f"{key}.{name}.{variable}", of_one, "keys and values")
            for field in ("mean", "std", "low", "high"):
                values = of_one.get(field, [])
                _expect(_is_list(values, _is_number), f"{key}.{name}.{variable}.{field}", values, "a list of numbers")


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 1e300 and math.isfinite(x)


def _is_list(values: Any, each: Callable[[Any], bool], length: int | None = None) -> bool:
    return isinstance(values, list) and (length is None or len(values) == length) and all(map(each, values))


def _expect(holds: Any, key: str, value: Any, expected: str) -> None:
    if not holds:
        shown = ascii(value)  # control characters never reach a terminal
        shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
        raise ValueError(f"{key} is {shown}; expected {expected}")

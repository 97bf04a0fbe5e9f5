"""Pose estimates: tables of DeepLabCut (.csv, .h5) and analysis files of SLEAP (.h5); one variable (x, y) a body part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording.formats import plain_pickle
from neuroformer.recording.formats.npz import UNREADABLE
from neuroformer.recording.sources.text import read_text
from neuroformer.recording.validation import RecordingError

LEAST_LIKELIHOOD = 0.6  # DeepLabCut's own pcutoff, below which it does not draw a point
_AXES = ("x", "y", "z")

Pose = tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]


def has_body_parts(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first rows of a text file are those of a DeepLabCut table."""
    return len(rows) > 2 and [row[0] for row in rows[:2]] in (["scorer", "bodyparts"], ["scorer", "individuals"])


def read_pose_csv(path: Path, rows: Sequence[Sequence[str]], notes: list[str]) -> Pose:
    """(images, 2 or 3) positions of each body part, of one animal or several; NaN where its likelihood is below 0.6."""
    levels = 4 if rows[1][0] == "individuals" else 3
    table = list(read_text(path, levels).values())[1:]  # the first column counts images
    head = [tuple(parts) for parts in zip(*(row[1:] for row in rows[1:levels]), strict=False)]
    return _of_columns(path, head, table, notes)


def read_pose_h5(path: Path, notes: list[str]) -> Pose | None:
    """As :func:`read_pose_csv`, of the table that DeepLabCut writes through pandas; None where a file has no such table.

    The names of its columns are a pickle, of which nothing is run.

    Raises
    ------
    RecordingError
        Such a table without body parts, or a damaged one.
    """
    import h5py

    try:
        with h5py.File(path, "r") as f:
            found = [g["table"] for g in f.values() if isinstance(g, h5py.Group) and "table" in g]
            found = [t for t in found if isinstance(t, h5py.Dataset) and "values_block_0_kind" in t.attrs]
            if not found:
                return None
            names: Any = found[0].attrs["values_block_0_kind"]
            head, values = plain_pickle.loads(bytes(names)), found[0]["values_block_0"]
        columns = [tuple(map(str, parts))[1:] for parts in head]  # the first is the scorer
        if values.ndim != 2 or values.shape[1] != len(columns) or not all(columns):
            raise ValueError(f"{len(columns)} names for values of {values.shape}")
    except UNREADABLE as e:
        raise RecordingError(f"{path} is not a readable table of DeepLabCut: {e}") from None
    return _of_columns(path, columns, list(values.T), notes)


def _of_columns(path: Path, head: Sequence[Sequence[str]], table: Sequence[np.ndarray], notes: list[str]) -> Pose:
    """Positions of columns, whose names are (individual,) body part and axis."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for (*who, axis), values in zip(head, table, strict=True):
        if values.dtype.kind in "fiu":
            parts.setdefault("_".join(w for w in who if w not in ("", "single")), {})[axis] = values
    found = positions(path.name, parts, notes)
    if not found:
        raise RecordingError(f"{path} has no positions of body parts")
    return {k: v for k, (v, _) in found.items()}, {k: labels for k, (_, labels) in found.items()}


def body_parts(table: Mapping[str, np.ndarray]) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Columns called ``PART_x``, ``PART_y``, ``PART_likelihood`` by part and axis, and all other columns."""
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name in table:
        part, _, axis = name.rpartition("_")
        if part and axis in (*_AXES, "likelihood") and {f"{part}_x", f"{part}_y"} <= table.keys():
            parts.setdefault(part, {})[axis] = table[name]
    taken = {f"{part}_{axis}" for part, axes in parts.items() for axis in axes}
    return parts, {k: v for k, v in table.items() if k not in taken}


def positions(
    what: str, parts: Mapping[str, Mapping[str, np.ndarray]], notes: list[str]
) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """(images, 2 or 3) positions of each part with the names of their columns; NaN where it is less than likely."""
    out, lost, total = {}, 0, 0
    for part, axes in parts.items():
        labels = tuple(a for a in _AXES if a in axes)
        if not labels:
            continue
        position = np.stack([axes[a] for a in labels], 1).astype(np.float64)
        unsure = axes["likelihood"] < LEAST_LIKELIHOOD if "likelihood" in axes else np.zeros(len(position), bool)
        lost += int((unsure & np.isfinite(position).all(1)).sum())
        total += len(position)
        position[unsure] = np.nan
        out[part] = (position, labels)
    if lost:
        notes.append(
            f"{what}: {lost} of {total} positions have a likelihood below {LEAST_LIKELIHOOD}, and count as missing"
        )
    return out


def read_sleap(path: Path, found: dict[str, np.ndarray], notes: list[str]) -> Pose:
    """(images, 2) positions of each node of each track, of the arrays in an analysis file."""
    tracks, nodes = found["tracks"], np.ravel(found["node_names"])
    if tracks.ndim != 4 or tracks.shape[2] != len(nodes):
        raise RecordingError(
            f"{path}: tracks have shape {tracks.shape} for {len(nodes)} nodes; expected (tracks, 2, nodes, images)"
        )
    animals = [str(n) for n in np.ravel(found.get("track_names", np.zeros(0, str)))]
    if len(animals) != len(tracks):
        animals = [str(i) for i in range(len(tracks))]
    arrays, columns = {}, {}
    for animal, track in zip(animals, tracks, strict=True):
        for node, position in zip(nodes, np.moveaxis(track, 1, 0), strict=True):
            name = f"{animal}_{node}" if len(tracks) > 1 else str(node)
            arrays[name], columns[name] = position.T, _AXES[: len(position)]
    return arrays, columns

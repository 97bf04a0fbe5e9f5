"""The panels of maps: who acts on whom, and where in the frames the model looks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from neuroformer.analysis.connectivity import agreement
from neuroformer.analysis.fields import centers, energies
from neuroformer.analysis.maps import Map, load_maps
from neuroformer.report.panels.pack import pack, pack_rounded

MAX_LAG_VALUES = 400_000  # pairs x lags of one map; larger maps go without their lags
MAX_PAIR_VALUES = 800_000  # pairs of all maps together
MAX_MATRIX_UNITS = 300  # more cannot be told apart on a screen, and a page of them would not open at once
MAX_FIELD_UNITS = 400
MAX_FRAMES = 200
MAX_FIELD_VALUES = 2_000_000  # pixels of receptive fields and most exciting inputs


def connectivity(maps: Mapping[str, Map], units: list[str], coupling) -> dict[str, Any] | None:
    """Every map of units by units; None without any.

    Of many units, those that act or are acted on most in the first map are shown: ``shown`` are their places in ``units``,
    ``left_out`` counts the others.
    """
    square = [m for m in maps.values() if m.square and set(m.rows) <= set(units)]
    if not square:
        return None
    square = [m for m in square if list(m.rows) == list(square[0].rows)]
    place = {name: u for u, name in enumerate(units)}
    mapped = np.array([place[name] for name in square[0].rows])  # of a large population, some
    few = _strongest(square[0], MAX_MATRIX_UNITS)
    maps_shown, total = [], 0
    for m in square:
        total += len(few) ** 2
        if total <= MAX_PAIR_VALUES or not maps_shown:
            maps_shown.append(_one(m, few))
    out: dict[str, Any] = {
        "units": [units[u] for u in mapped[few]],
        "maps": maps_shown,
        "orders": {"cluster": cluster_order(square[0].pairs()[np.ix_(few, few)])},
        "shown": mapped[few].tolist(),
        "left_out": len(units) - len(few),
    }
    if coupling is not None and np.any(coupling):
        coupling = np.asarray(coupling)[np.ix_(mapped, mapped)]
        out["truth"] = pack_rounded(coupling[np.ix_(few, few)])
        out["scores"] = [agreement(m, coupling) for m in square]
    return out


def _strongest(m: Map, most: int) -> np.ndarray:
    """Places, in order, of the units whose row and column of a map are largest together."""
    pairs = np.abs(np.nan_to_num(m.pairs().astype(np.float64)))
    np.fill_diagonal(pairs, 0)
    return np.sort(np.argsort(-(pairs**2).sum(0) - (pairs**2).sum(1), kind="stable")[:most])


def _one(m: Map, few: np.ndarray) -> dict[str, Any]:
    square = np.ix_(few, few)
    pairs = m.pairs()[square]
    made = {
        "name": m.name,
        "unit": m.unit,
        "pairs": pack_rounded(pairs),
        "signed": bool(np.nanmin(pairs) < 0),
    }
    if m.null_std is not None:
        passes = m.discoveries()
        made |= {"z": pack_rounded(m.z()[square]), "passes": pack(passes[square], "u1")}
        made["note"] = f"{m.passing()}."
    if m.lags_s is not None and m.values.size <= MAX_LAG_VALUES:
        made |= {"lags": pack_rounded(m.values[square]), "lags_s": np.round(m.lags_s, 6).tolist()}
    return made


def cluster_order(pairs: np.ndarray) -> list[int]:
    """Units of a matrix so that those that act alike lie together: average linkage of rows and columns."""
    pairs = np.nan_to_num(pairs.astype(np.float64))
    if len(pairs) < 3:
        return list(range(len(pairs)))
    np.fill_diagonal(pairs, 0)
    both = np.concatenate([pairs, pairs.T], 1)
    both = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
    return leaves_list(linkage(both, "average")).tolist()


def frames(path: Path, maps: Mapping[str, Map]) -> dict[str, Any] | None:
    """Frames of a stretch with the attention to each of their places, and each unit's own map."""
    if not path.exists():
        return None
    with np.load(path) as file:
        images, times, attention = (file[k][:MAX_FRAMES] for k in ("images", "times", "attention"))
        extent = file["extent"].tolist()
    made = {
        "images": pack(_bytes(images), "u1"),
        "times": np.round(times, 4).tolist(),
        "extent": extent,
        "grid": list(attention.shape[1:]),
        "attention": pack_rounded(attention.reshape(len(attention), -1)),
    }
    own = next((m for m in maps.values() if m.grid is not None and list(m.grid) == made["grid"]), None)
    if own is not None:
        values = own.values if own.values.ndim == 2 else _mean_of_known(own.values)
        made["units"] = {"names": list(own.rows), "values": pack_rounded(np.nan_to_num(values))}
    return made


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis of what is known; 0 if nothing is (a unit that did not fire)."""
    known = np.isfinite(values)
    return np.where(known, values, 0.0).sum(-1) / np.maximum(known.sum(-1), 1)


def _bytes(images: np.ndarray) -> np.ndarray:
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    return np.rint((images - low) / max(high - low, 1e-12) * 255)


def fields(folder: Path, truth: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Each unit's receptive field and most exciting input, as bytes; None where there are none.

    Parameters
    ----------
    truth : of the recording; ``rf_center`` (units, 2: x, y) of the units that are ``is_responsive``, where known
    """
    path = folder / "fields.npz"
    if not path.exists():
        return None
    field = load_maps(path)["frame sensitivity"]
    energy, center = energies(field), centers(field)
    clips, gain = _clips(folder / "mei.npz", list(field.rows))
    pixels = energy[0].size * (1 if clips is None else 1 + clips.shape[1])
    strength = energy.max((1, 2)) if gain is None else gain
    kept = min(MAX_FIELD_UNITS, max(1, MAX_FIELD_VALUES // pixels))
    shown = np.sort(np.argsort(-strength, kind="stable")[:kept])
    peak = np.maximum(energy.max((1, 2), keepdims=True), 1e-12)
    values = np.asarray(field.values, np.float64)
    by_lag = (values**2).sum(1)
    made = {
        "units": [field.rows[u] for u in shown],
        "fields": pack(np.rint(255 * energy / peak)[shown], "u1"),
        "lags": pack((by_lag / np.maximum(by_lag.sum(1, keepdims=True), 1e-12))[shown]),
        "lags_s": [] if field.lags_s is None else np.round(field.lags_s, 6).tolist(),
        "centers": np.round(center[shown], 2).tolist(),
        "left_out": len(energy) - len(shown),
    }
    if clips is not None and gain is not None:
        most = np.maximum(np.abs(clips).max((1, 2, 3), keepdims=True), 1e-12)
        made["clips"] = pack(np.rint(127.5 + 127.5 * clips / most)[shown], "u1")
        made["best"] = np.abs(clips).sum((2, 3)).argmax(1)[shown].tolist()
        made["gain"] = np.exp(gain)[shown].tolist()
    halves = _halves(folder / "halves.npz", list(field.rows))
    if halves is not None:
        made["halves"] = np.round(halves[shown], 3).tolist()
    if "rf_center" in truth:
        sees = truth["is_responsive"]
        made["truth"] = [np.round(truth["rf_center"][u], 3).tolist() if sees[u] else None for u in shown]
    return made


def _clips(path: Path, units: list[str]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Most exciting inputs, and how far each raises its unit's log rate above a gray screen."""
    if not path.exists():
        return None, None
    with np.load(path) as file:
        if [str(u) for u in file["unit_ids"]] != units:
            return None, None
        return file["contrast"], file["log_rate"] - file["gray"]


def _halves(path: Path, units: list[str]) -> np.ndarray | None:
    """(units, 2) r of each unit's field, and of its most exciting input, between models of two halves of the data."""
    if not path.exists():
        return None
    with np.load(path) as file:
        if [str(u) for u in file["unit_ids"]] != units:
            return None
        return np.stack([np.diagonal(file["fields"]), np.diagonal(file["clips"])], 1)

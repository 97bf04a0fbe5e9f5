"""One array type for every reading of who acts on whom, so that any two can be compared with one call.

Shape suffixes: R rows (what is acted on), C columns (what acts), L lags.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from neuroformer.files import save_npz
from neuroformer.shown import Shown, labelled


@dataclass(frozen=True, eq=False)
class Map(Shown):
    """How much each column acts on each row, according to one method.

    Attributes
    ----------
    name : str
        The method, e.g. ``knock-out``.
    values : (R, C) or (R, C, L) float
        Averages over occasions: sums divided by ``count``; NaN where there was no occasion.
    unit : str
        Unit of measure of the values, e.g. ``change of log-odds``.
    rows, columns : names: units that fire; units, patches or variables that act
    count : as ``values``, or (R, 1), (1, C), ...
        The normaliser: how often each pair could have been seen acting.
    lags_s : (L,) seconds, optional
        What the last axis means.
    grid : (height, width), optional
        Where columns are places of a frame: the first axis of lags is time, columns are row-major.
    null_mean, null_std : (R, C), optional
        Mean and spread of :meth:`pairs` under the null hypothesis; see :mod:`neuroformer.analysis.nulls`.
    p_values : (R, C), optional
        Two-sided P values under the null hypothesis, where its tails are known; else those of a Gaussian.
    null : what the null hypothesis is, in words, where the share of false discoveries depends on it
    """

    name: str
    values: np.ndarray
    unit: str
    rows: Sequence[str]
    columns: Sequence[str]
    count: np.ndarray
    lags_s: np.ndarray | None = None
    grid: tuple[int, int] | None = None
    null_mean: np.ndarray | None = None
    null_std: np.ndarray | None = None
    p_values: np.ndarray | None = None
    null: str = ""

    def __post_init__(self):
        shape = (len(self.rows), len(self.columns)) + (() if self.lags_s is None else (len(self.lags_s),))
        if self.values.shape != shape:
            raise ValueError(f"map '{self.name}' has values {self.values.shape}; expected {shape}")

    @property
    def square(self) -> bool:
        """Whether rows and columns are the same units."""
        return list(self.rows) == list(self.columns)

    def among(self, units: np.ndarray) -> Map:
        """The rows of some units; of a map of units by units, their columns as well."""
        both = self.square
        cut = lambda x, axis: x if x.shape[axis] == 1 else np.take(x, units, axis)
        values, count = cut(self.values, 0), cut(self.count, 0)
        if both:
            values, count = cut(values, 1), cut(count, 1)
        rows = [self.rows[u] for u in units]
        beside: dict[str, Any] = {}
        for name in ("null_mean", "null_std", "p_values"):
            x = getattr(self, name)
            beside[name] = None if x is None else cut(cut(x, 0), 1) if both else cut(x, 0)
        columns = rows if both else self.columns
        return dataclasses.replace(self, values=values, count=count, rows=rows, columns=columns, **beside)

    def pairs(self) -> np.ndarray:
        """(R, C) one number per pair: the signed value at the lag where its size is largest."""
        if self.values.ndim == 2:
            return self.values
        known = np.nan_to_num(self.values)
        place = np.abs(known).argmax(2)
        return np.take_along_axis(self.values, place[..., None], 2)[..., 0]

    def z(self) -> np.ndarray:
        """(R, C) distance from the null's mean, in its standard deviations.

        Raises
        ------
        ValueError
            No null was computed.
        """
        if self.null_mean is None or self.null_std is None:
            raise ValueError(f"map '{self.name}' has no null; see neuroformer.analysis.nulls")
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.pairs() - self.null_mean) / self.null_std

    def p(self) -> np.ndarray:
        """(R, C) two-sided P values; NaN on the diagonal of a square map."""
        if self.p_values is not None:
            return self.p_values
        p = 2 * stats.norm.sf(np.abs(self.z()))
        if self.square:
            np.fill_diagonal(p, np.nan)
        return p

    def discoveries(self, rate: float = 0.05) -> np.ndarray:
        """(R, C) bool: pairs that pass at this false-discovery rate (Benjamini & Hochberg 1995)."""
        p = self.p()
        known = np.isfinite(p)
        out = np.zeros(p.shape, bool)
        if known.any():
            out[known] = stats.false_discovery_control(p[known]) <= rate
        return out

    def passing(self) -> str:
        """How many pairs pass, in words: at a false-discovery rate of 5 %, or, where only another null is known, under it."""
        if self.p_values is not None and not np.nanmin(self.p(), initial=1.0) < 1:
            return "its tails are too heavy to tell single pairs from chance"
        passes = self.discoveries()
        many = passes.size - (len(passes) if self.square else 0)
        how = self.null or "at a false-discovery rate of 5 %"
        return f"{int(passes.sum()):,} of {many:,} pairs pass {how}"

    def with_null(self, mean: np.ndarray, std: np.ndarray) -> Map:
        """The same map beside another null, of Gaussian tails."""
        shape = self.values.shape[:2]
        return dataclasses.replace(
            self, null_mean=np.broadcast_to(mean, shape), null_std=np.broadcast_to(std, shape), p_values=None, null=""
        )

    def __repr__(self) -> str:
        lags = "" if self.lags_s is None else f" at {len(self.lags_s)} lags"
        known = self.pairs()[np.isfinite(self.pairs())]
        spread = f"{known.min():.3g} to {known.max():.3g}" if known.size else "nothing seen"
        text = f"Map '{self.name}': {len(self.rows)} x {len(self.columns)}{lags}, {spread} ({self.unit})"
        if self.null_std is not None:
            text += f"; {self.passing()}"
        return text

    def _html(self) -> str:
        top = "".join(
            f"<tr><td>{escape(self.columns[c])}</td><td>{escape(self.rows[r])}</td><td>{v:.3g}</td></tr>"
            for r, c, v in self.strongest(5)
        )
        return f"<p>{escape(repr(self))}</p><table><tr><th>acts</th><th>on</th><th>{escape(self.unit)}</th></tr>{top}</table>"

    def to_xarray(self) -> Any:
        """The values as an ``xarray.DataArray`` (acted_on, acts[, lag_s]); needs the extra ``xarray``."""
        coords = {"acted_on": list(self.rows), "acts": list(self.columns)}
        lags = {} if self.lags_s is None else {"lag_s": self.lags_s}
        return labelled(self.values, coords | lags, self.name, {"unit": self.unit})

    def strongest(self, num: int) -> list[tuple[int, int, float]]:
        """(row, column, value) of the largest values, without a square map's diagonal."""
        pairs = np.nan_to_num(self.pairs(), nan=-np.inf).copy()
        if self.square:
            np.fill_diagonal(pairs, -np.inf)
        best = np.argsort(-pairs, axis=None)[:num]
        found = zip(*np.unravel_index(best, pairs.shape), strict=True)
        return [(int(r), int(c), float(pairs[r, c])) for r, c in found if np.isfinite(pairs[r, c])]


def compare(maps: Sequence[Map]) -> tuple[list[str], np.ndarray]:
    """Names, and the rank correlation of every two maps over the pairs that both have, without diagonals."""
    flat = []
    for m in maps:
        pairs = m.pairs().copy()
        if m.square:
            np.fill_diagonal(pairs, np.nan)
        flat.append(pairs.ravel())
    if len({len(x) for x in flat}) > 1:
        raise ValueError("only maps of the same rows and columns compare; got " + ", ".join(map(repr, maps)))
    out = np.eye(len(maps))
    for i, a in enumerate(flat):
        for j in range(i):
            both = np.isfinite(a) & np.isfinite(flat[j])
            out[i, j] = out[j, i] = float(np.corrcoef(stats.rankdata(a[both]), stats.rankdata(flat[j][both]))[0, 1])
    return [m.name for m in maps], out


def save_maps(path: Path, maps: Sequence[Map]) -> None:
    """Write maps to one ``.npz``: arrays by place, and what describes them as JSON."""
    arrays, heads = {}, []
    for i, m in enumerate(maps):
        head = {"name": m.name, "unit": m.unit, "rows": list(m.rows), "columns": list(m.columns), "grid": m.grid}
        heads.append(head | {"null": m.null})
        for key in ("values", "count", "lags_s", "null_mean", "null_std", "p_values"):
            value = getattr(m, key)
            if value is not None:
                arrays[f"{i}_{key}"] = np.asarray(value, np.float64 if key == "lags_s" else np.float32)
    save_npz(path, {"head": json.dumps(heads)} | arrays)


def load_maps(path: Path) -> dict[str, Map]:
    """Maps by name, as :func:`save_maps` wrote them."""
    with np.load(path) as file:
        heads = json.loads(str(file["head"]))
        out = {}
        for i, h in enumerate(heads):
            arrays = {k.split("_", 1)[1]: file[k] for k in file.files if k != "head" and k.split("_", 1)[0] == str(i)}
            grid = tuple(h.pop("grid")) if h["grid"] else h.pop("grid")
            out[h["name"]] = Map(**h, grid=grid, **arrays)
        return out

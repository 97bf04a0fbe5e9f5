"""Whether units that lie near each other see near places: distances in what a model learnt against distances in the tissue.

Shape suffixes: U units of a recording, N units of all recordings, C coordinates, D features, P pairs of units of one recording.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.distance import pdist, squareform

from neuroformer.analysis.fields import centers, frame_sensitivity
from neuroformer.bundle.bundle import load_model
from neuroformer.bundle.opening import open_run
from neuroformer.config import ConfigError
from neuroformer.data.prepared import Prepared
from neuroformer.intervals import LEAST_TRIALS, left_out
from neuroformer.model.network import Neuroformer
from neuroformer.studies.unit_probes import (
    FIRING,
    NULLS,
    UnitProbe,
    UnitTable,
    firing,
    jackknife,
    learnt,
    names_of,
    stacked,
)

FIELD = "receptive-field centre"
WINDOWS = 64  # of the training part, over which receptive fields are averaged
MOST_UNITS = 1000  # of a recording: pairs grow with their square


def position_table(
    run: str | Path, columns: Sequence[str], overrides: Sequence[str] = (), recording: str = ""
) -> UnitTable:
    """What a run learnt of its units, beside where they lie; units without a place are left out.

    Where the run sees pixels, the first kind of features is the centre of each unit's receptive field, in pixels
    (:func:`neuroformer.analysis.fields.centers`).

    Parameters
    ----------
    columns : of the units table: the coordinates, in one unit of length

    Raises
    ------
    ConfigError
        No recording has the columns, they are no numbers, or fewer than six units have a place.
    """
    places, groups, fields, features, known = [], [], [], [], set()
    for number, name in enumerate(names_of(run, recording)):
        bundle, prepared = open_run(Path(run), overrides, name)
        units, model = prepared.rec.units, load_model(bundle)
        known |= set(units) - {"id"}
        if not all(c in units and np.ndim(units[c]) == 1 for c in columns):
            continue
        words = [c for c in columns if np.asarray(units[c]).dtype.kind not in "iuf"]
        if words:
            raise ConfigError(
                f"'{words[0]}' holds words; expected coordinates, or give this column alone to tell its classes"
            )
        places.append(np.stack([np.asarray(units[c], np.float64) for c in columns], 1))
        groups.append(np.full(prepared.rec.num_units, number))
        fields.append(_fields(model, prepared))
        features.append(learnt(model) | {FIRING: firing(prepared)})
    if not places:
        have = ", ".join(sorted(known)) or "none"
        raise ConfigError(f"no units table has all of the columns {', '.join(columns)}; there are: {have}")
    place_NC, group_N, (table, weights) = np.concatenate(places), np.concatenate(groups), stacked(features)
    if all(f is not None for f in fields):
        table = {FIELD: np.concatenate(fields)} | table
    keep = np.isfinite(place_NC).all(1) & _few(group_N)
    if keep.sum() < LEAST_TRIALS:
        raise ConfigError(f"{keep.sum()} units have a place in {', '.join(columns)}; expected {LEAST_TRIALS} or more")
    rows = {k: v[keep] for k, v in table.items()}
    return UnitTable(",".join(columns), place_NC[keep], group_N[keep], rows, int((~keep).sum()), weights)


def _fields(model: Neuroformer, prepared: Prepared) -> np.ndarray | None:
    """(U, 2) pixels; None of a run that does not see pixels."""
    if "frames" not in model.streams or prepared.builder.features is not None:
        return None
    train = prepared.windows("train")
    few = train[np.unique(np.linspace(0, len(train) - 1, WINDOWS).astype(int))]
    return centers(frame_sensitivity(model, prepared, few))


def _few(group_N: np.ndarray) -> np.ndarray:
    """At most :data:`MOST_UNITS` of each recording, at random."""
    keep, rng = np.zeros(len(group_N), bool), np.random.default_rng(0)
    for g in np.unique(group_N):
        rows = np.flatnonzero(group_N == g)
        keep[rng.permutation(rows)[:MOST_UNITS]] = True
    return keep


def probe_distances(table: UnitTable, seed: int = 0, nulls: int = NULLS) -> list[UnitProbe]:
    """For each kind of features, Pearson's r over pairs of units of one recording between how far apart they are in it and
    how far apart they lie. Nothing is fitted, so nothing is held out.

    ``null`` moves places among the units of a recording (Mantel 1967: pairs are not independent, units are), ``low`` and
    ``high`` leave out a third of the units. A centre keeps its pixels; other features are standardised.
    """
    rows = [np.flatnonzero(table.recording_N == g) for g in np.unique(table.recording_N)]
    rows = [r for r in rows if len(r) > 2]
    place = [pdist(table.label_N[r]) for r in rows]
    apart = {name: [pdist(_scaled(table, name)[r]) for r in rows] for name in table.features}
    rng, num = np.random.default_rng(seed), len(table.label_N)
    orders = [[rng.permutation(len(r)) for r in rows] for _ in range(nulls)]
    gone = left_out(num, seed)

    def without(name: str) -> np.ndarray:
        return np.array([_r(apart[name], place, [_pairs_of(~g[r]) for r in rows]) for g in gone])

    scores = {name: (_r(a, place), without(name)) for name, a in apart.items()}
    out = []
    for name, (score, parts) in scores.items():
        null = [_r(apart[name], [_moved(d, o) for d, o in zip(place, order, strict=True)]) for order in orders]
        beyond, others = score - scores[FIRING][0], scores[FIRING][1]
        ends = jackknife(score, parts, num), jackknife(beyond, parts - others, num)
        quantile = float(np.quantile(null, 0.95)) if null else float("nan")
        out.append(UnitProbe(name, table.features[name].shape[1], score, *ends[0], 0.0, quantile, beyond, *ends[1]))
    return out


def _scaled(table: UnitTable, name: str) -> np.ndarray:
    x = table.features[name]
    if name == FIELD:
        return x
    x = (x - x.mean(0)) / np.where(x.std(0) > 1e-12, x.std(0), 1.0)
    return x * table.weights.get(name, 1.0)


def _r(a: list[np.ndarray], b: list[np.ndarray], keep: list[np.ndarray] | None = None) -> float:
    """Over all pairs of a recording; of several recordings, the sums of squares and products about each one's own means."""
    keep = [np.ones(len(x), bool) for x in a] if keep is None else keep
    sums = np.zeros(3)
    for x, y, k in zip(a, b, keep, strict=True):
        if k.any():
            u, v = x[k] - x[k].mean(), y[k] - y[k].mean()
            sums += [u @ v, u @ u, v @ v]
    size = np.sqrt(sums[1] * sums[2])
    return float(sums[0] / size) if size > 0 else 0.0


def _pairs_of(keep_U: np.ndarray) -> np.ndarray:
    """(P,) pairs both of whose units are kept."""
    first, second = np.triu_indices(len(keep_U), 1)
    return keep_U[first] & keep_U[second]


def _moved(distance_P: np.ndarray, order_U: np.ndarray) -> np.ndarray:
    return squareform(squareform(distance_P)[np.ix_(order_U, order_U)], checks=False)

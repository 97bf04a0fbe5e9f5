"""What a model learnt of each unit, against what is known of it: its area, its type, its depth.

Shape suffixes: U units of a recording, N units of all recordings, D features, S spikes of a unit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.special import stdtrit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neuroformer.bundle.bundle import load_model, read_bundle
from neuroformer.bundle.opening import open_run
from neuroformer.config import ConfigError
from neuroformer.data.prepared import Prepared
from neuroformer.intervals import LEAST_TRIALS, left_out
from neuroformer.metrics import balanced_accuracy
from neuroformer.model.frames import SHARPNESS
from neuroformer.model.network import Neuroformer
from neuroformer.model.units import UnitRows
from neuroformer.shown import Shown

NUM_FOLDS = 5
LEAST_UNITS = 5  # of a class
MOST_CLASSES = 40
NULLS = 20
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # C of scikit-learn
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
EDGES_S = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # of the autocorrelogram
COUNTS_S = (0.1, 1.0)  # windows of Fano factors
FIRING, LEARNT = "firing statistics", "everything learnt"

# rows of units by the module that holds them; others are called by their module
NAMES = {
    "embedding.unit": "embedding (coupling out)",
    "observation.unit": "logits (coupling in)",
    "observation.rates.unit": "rate readout (coupling in)",
    "observation.own.rows": "own history",
    "observation.bias": "level of the logits",
    "observation.rates.bias": "level of the rate",
    "streams.frames.readout.where": "place in the frames",
    "streams.frames.readout.what": "features in the frames",
    "streams.frames.readout.weight": "energies in the frames",
}


def learnt(model: Neuroformer) -> dict[str, np.ndarray]:
    """(U, D) of every parameter that belongs to units (:class:`neuroformer.model.units.UnitRows`). A place in the frames is
    given as its centre (column, row; 0 to 1) and its spread (the entropy in nats)."""
    out = {}
    for name, module in model.named_modules():
        if isinstance(module, UnitRows) and len(module.weight) == model.num_units:  # not of patterns of units
            x = module.weight.detach().double().cpu().numpy()
            out[NAMES.get(name, name)] = x.reshape(len(x), -1)
    place = out.get(NAMES["streams.frames.readout.where"])
    if place is not None:
        out[NAMES["streams.frames.readout.where"]] = _centers(place, model)
    return out


def _centers(logits_UP: np.ndarray, model: Neuroformer) -> np.ndarray:
    _, rows, columns = model.frames.encoder.grid
    z = SHARPNESS * (logits_UP - logits_UP.max(1, keepdims=True))
    p_UP = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y, x = np.divmod(np.arange(rows * columns), columns)
    entropy = -(p_UP * np.log(np.maximum(p_UP, 1e-300))).sum(1)
    return np.stack([p_UP @ ((x + 0.5) / columns), p_UP @ ((y + 0.5) / rows), entropy], 1)


def firing(prepared: Prepared, part: str = "train") -> np.ndarray:
    """(U, D) statistics of each unit's spikes in one part: log rate, variation of intervals, log Fano factors, and the
    autocorrelogram (pairs at each lag over those of a Poisson train of the same rate)."""
    rec, spans = prepared.rec, prepared.split.intervals(part)
    seconds = float((spans[:, 1] - spans[:, 0]).sum())
    # intervals one after another, apart by more than any lag
    offset = np.concatenate([[0.0], np.cumsum(spans[:, 1] - spans[:, 0] + 10 * EDGES_S[-1])[:-1]]) - spans[:, 0]
    row = np.searchsorted(spans[:, 0], rec.spike_times, side="right") - 1
    inside = (row >= 0) & (rec.spike_times < spans[np.maximum(row, 0), 1])
    times, units = rec.spike_times[inside] + offset[row[inside]], rec.spike_units[inside]
    segment = row[inside]
    order = np.argsort(units, kind="stable")
    edges = np.searchsorted(units[order], np.arange(rec.num_units + 1))
    out = [_of_train(times[order[a:b]], segment[order[a:b]], seconds) for a, b in zip(edges, edges[1:], strict=False)]
    fano = np.stack([_fano(prepared, spans, width) for width in COUNTS_S], 1)
    return np.concatenate([np.array(out), np.log(fano)], 1)


def _of_train(t_S: np.ndarray, segment_S: np.ndarray, seconds: float) -> list[float]:
    rate = (len(t_S) + 0.5) / seconds
    gaps = np.diff(t_S)[np.diff(segment_S) == 0]
    cv = float(gaps.std() / gaps.mean()) if len(gaps) > 1 else 1.0
    # pairs of a spike with later ones, itself not counted
    upto = [int((np.searchsorted(t_S, t_S + e, side="right") - 1 - np.arange(len(t_S))).sum()) for e in EDGES_S]
    expected = np.diff(EDGES_S) * rate * max(len(t_S), 1)
    return [np.log(rate), cv, *(np.diff(upto) + 1.0) / (expected + 1.0)]


def _fano(prepared: Prepared, spans: np.ndarray, width: float) -> np.ndarray:
    """(U,) variance over mean of counts in windows of ``width`` seconds that tile the intervals; 1 where there are none."""
    rec = prepared.rec
    numbers = ((spans[:, 1] - spans[:, 0]) / width + 1e-9).astype(int)
    if numbers.sum() < 2:
        return np.ones(rec.num_units)
    row = np.searchsorted(spans[:, 0], rec.spike_times, side="right") - 1
    place = ((rec.spike_times - spans[np.maximum(row, 0), 0]) / width).astype(int)
    inside = (row >= 0) & (place < numbers[np.maximum(row, 0)])
    first = np.concatenate([[0], np.cumsum(numbers)[:-1]])
    cell = (first[row[inside]] + place[inside]) * rec.num_units + rec.spike_units[inside]
    counts = np.bincount(cell, minlength=int(numbers.sum()) * rec.num_units).reshape(-1, rec.num_units)
    mean = counts.mean(0)
    return np.where(mean > 0, np.maximum(counts.var(0, ddof=1), 1e-3) / np.maximum(mean, 1e-12), 1.0)


@dataclass(frozen=True, eq=False, repr=False)
class UnitTable(Shown):
    """Units of all recordings of a run that have the column.

    Attributes
    ----------
    column : its name
    label_N : words, or float64; of places, (N, C)
    recording_N : which recording
    features : by what they are, (N, D); the last one is :data:`FIRING`
    left_out : units without a label, or of a class that is too small
    weights : by what they are, (D,) of each standardised column; by default 1. All that was learnt is weighed so that each
        kind of parameters counts alike, however many numbers it has
    """

    column: str
    label_N: np.ndarray
    recording_N: np.ndarray
    features: dict[str, np.ndarray]
    left_out: int = 0
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        of = f"{len(self.label_N)} units of {len(np.unique(self.recording_N))} recording(s); {self.left_out} left out"
        classes = zip(*np.unique(self.label_N, return_counts=True), strict=True) if self.is_class else ()
        lines = [f"'{self.column}' of {of}", *(f"  {name:<24} {count} units" for name, count in classes)]
        return "\n".join(lines + [f"  {name}: {x.shape[1]} features" for name, x in self.features.items()])

    @property
    def is_class(self) -> bool:
        return self.label_N.dtype.kind == "U"


def unit_table(run: str | Path, column: str, overrides: Sequence[str] = (), recording: str = "") -> UnitTable:
    """What a run learnt of its units, and a column of their tables.

    Words, true and false, and whole numbers with few values are classes; other numbers are numbers. All parameters that the
    recordings share in kind are features; of a run of several recordings, the trunk is one, so that rows mean the same.

    Raises
    ------
    ConfigError
        No recording has the column, or it does not vary.
    """
    labels, groups, features, known = [], [], [], set()
    for place, name in enumerate(names_of(run, recording)):
        bundle, prepared = open_run(Path(run), overrides, name)
        units = prepared.rec.units
        known |= set(units) - {"id"}
        if column not in units or np.ndim(units[column]) != 1:
            continue
        labels.append(np.asarray(units[column]))
        groups.append(np.full(prepared.rec.num_units, place))
        features.append(learnt(load_model(bundle)) | {FIRING: firing(prepared)})
    if not labels:
        raise ConfigError(f"no units table has a column '{column}'; there are: {', '.join(sorted(known)) or 'none'}")
    table, weights = stacked(features)
    return replace(_cleaned(column, np.concatenate(labels), np.concatenate(groups), table), weights=weights)


def names_of(run: str | Path, recording: str = "") -> list[str]:
    """The recordings of a run, or the one that was asked for."""
    recordings = read_bundle(run).recordings
    return [recording] if recording or len(recordings) == 1 else [r.name for r in recordings]


def stacked(features: list[dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What recordings share in kind, (N, D) each, with everything learnt together before firing statistics; and weights."""
    shared = [k for k in features[0] if all(k in f and f[k].shape[1] == features[0][k].shape[1] for f in features)]
    table = {k: np.concatenate([f[k] for f in features]) for k in shared}
    own = [v for k, v in table.items() if k != FIRING]
    table = {k: v for k, v in table.items() if k != FIRING} | {LEARNT: np.concatenate(own, 1), FIRING: table[FIRING]}
    return table, {LEARNT: np.concatenate([np.full(v.shape[1], v.shape[1] ** -0.5) for v in own])}


def _cleaned(column: str, label_N: np.ndarray, recording_N: np.ndarray, features: dict[str, np.ndarray]) -> UnitTable:
    values = np.unique(label_N[label_N == label_N])
    if label_N.dtype.kind in "USb" or (label_N.dtype.kind in "iu" and len(values) <= MOST_CLASSES):
        label_N = label_N.astype(str)
        names, number = np.unique(label_N[(label_N != "") & (label_N != "nan")], return_counts=True)
        keep = np.isin(label_N, names[number >= LEAST_UNITS])
    else:
        label_N = label_N.astype(np.float64)
        keep = np.isfinite(label_N)
    found = label_N[keep]
    if len(np.unique(found)) < 2:
        raise ConfigError(
            f"'{column}' has {len(np.unique(found))} value(s) with {LEAST_UNITS} units or more; expected two values to tell apart"
        )
    rows = {k: v[keep] for k, v in features.items()}
    return UnitTable(column, found, recording_N[keep], rows, int((~keep).sum()))


@dataclass(frozen=True)
class UnitProbe:
    """How well one kind of features tells the column, on held-out units.

    Attributes
    ----------
    features, size : which, and how many numbers per unit
    score, low, high : balanced accuracy of classes, R2 of numbers, with the 95 % interval over units (over recordings, where
        there are six or more)
    chance : of a guess: 1 / classes, or 0
    null : 95 % of the scores with labels shuffled among the units of a recording lie below
    beyond, beyond_low, beyond_high : score less that of firing statistics, paired
    """

    features: str
    size: int
    score: float
    low: float
    high: float
    chance: float
    null: float
    beyond: float
    beyond_low: float
    beyond_high: float


def probe_units(table: UnitTable, seed: int = 0, nulls: int = NULLS) -> list[UnitProbe]:
    """Cross-validated logistic regression (of numbers: ridge), scikit-learn's, from each kind of features to the column.

    Folds hold out whole recordings where there are three or more, else units at random; the strength is chosen by inner
    folds. Features are standardised on training units, and classes are balanced.
    """
    scored = {name: _Scored.of(table, name, seed) for name in table.features}
    rng = np.random.default_rng(seed)
    orders = [_shuffled(table.recording_N, rng) for _ in range(nulls)]
    out = []
    for name, x in table.features.items():
        mine = scored[name]
        null = [mine.again(table, name, order) for order in orders]
        low, high = mine.ends(mine.without)
        high = min(high, 1.0)
        beyond = scored[FIRING]
        beyond_low, beyond_high = mine.ends(mine.without - beyond.without, mine.score - beyond.score)
        chance = 1 / len(np.unique(table.label_N)) if table.is_class else 0.0
        quantile = float(np.quantile(null, 0.95)) if null else float("nan")
        out.append(
            UnitProbe(
                name,
                x.shape[1],
                mine.score,
                low,
                high,
                chance,
                quantile,
                mine.score - beyond.score,
                beyond_low,
                beyond_high,
            )
        )
    return out


@dataclass(frozen=True, eq=False)
class _Scored:
    """A score, what it is without a third of the units (or recordings), and the settings that inner folds chose."""

    score: float
    without: np.ndarray
    independent: int
    settings: list[float]
    folds: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, table: UnitTable, name: str, seed: int) -> _Scored:
        folds = list(_folds(table, seed))
        guess_N, settings = _held_out(table, name, table.label_N, folds, seed)
        places = np.unique(table.recording_N)
        by_recording = len(places) >= LEAST_TRIALS
        independent = len(places) if by_recording else len(table.label_N)
        without = []
        for gone in left_out(independent, seed):
            keep = ~np.isin(table.recording_N, places[gone]) if by_recording else ~gone
            without.append(_score(table, table.label_N[keep], guess_N[keep]))
        return cls(_score(table, table.label_N, guess_N), np.array(without), independent, settings, folds)

    def again(self, table: UnitTable, name: str, order: np.ndarray) -> float:
        """With labels in another order, and the settings as they were."""
        guess_N, _ = _held_out(table, name, table.label_N[order], self.folds, 0, self.settings)
        return _score(table, table.label_N[order], guess_N)

    def ends(self, without: np.ndarray, value: float | None = None) -> tuple[float, float]:
        value = self.score if value is None else value
        return jackknife(value, without, self.independent)


def jackknife(value: float, without: np.ndarray, independent: int) -> tuple[float, float]:
    """The 95 % interval from values without a third of what is independent; NaN of too few."""
    if independent < LEAST_TRIALS or not np.isfinite(without).all() or np.ptp(without) == 0:
        return float("nan"), float("nan")
    gone = independent // 3
    error = np.sqrt((independent - gone) / gone) * without.std(ddof=1)
    half = float(stdtrit(independent - 1, 0.975) * error)
    return value - half, value + half


def _folds(table: UnitTable, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    number = len(np.unique(table.recording_N))
    rows = np.arange(len(table.label_N))
    if number >= 3:
        yield from GroupKFold(min(NUM_FOLDS, number)).split(rows, groups=table.recording_N)
    elif table.is_class:
        yield from StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed).split(rows, table.label_N)
    else:
        yield from KFold(NUM_FOLDS, shuffle=True, random_state=seed).split(rows)


def _held_out(
    table: UnitTable, name: str, label_N: np.ndarray, folds, seed: int, settings: Sequence[float] = ()
) -> tuple[np.ndarray, list[float]]:
    """(N,) what each unit is taken for, by a model that has not seen it; and the setting of every fold."""
    guess_N, chosen = np.empty_like(label_N), []
    x_ND, weight = table.features[name], table.weights.get(name)
    for k, (train, test) in enumerate(folds):
        if table.is_class:
            model, key, grid = (
                LogisticRegression(class_weight="balanced", max_iter=300),
                "logisticregression__C",
                STRENGTHS,
            )
        else:
            model, key, grid = Ridge(), "ridge__alpha", PENALTIES
        x_N, seen = _turned(x_ND[train], x_ND[test], weight)
        pipe = make_pipeline(model)
        if len(np.unique(label_N[train])) == 1:
            guess_N[test] = label_N[train][0]
            chosen.append(grid[0])
            continue
        if not settings:
            few = min(3, *np.unique(label_N[train], return_counts=True)[1]) if table.is_class else 3
            inner = StratifiedKFold(max(few, 2), shuffle=True, random_state=seed) if table.is_class else 3
            scoring = "balanced_accuracy" if table.is_class else "r2"
            search = GridSearchCV(pipe, {key: grid}, cv=inner, scoring=scoring)
        else:
            search = pipe.set_params(**{key: settings[k]})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.simplefilter("ignore", UserWarning)
            search.fit(x_N, label_N[train])
        chosen.append(settings[k] if settings else search.best_params_[key])  # pyright: ignore[reportAttributeAccessIssue]
        guess_N[test] = search.predict(seen)
    return guess_N, chosen


def _turned(x_ND: np.ndarray, seen_MD: np.ndarray, weight_D: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Both standardised by the first, and weighed; of more features than units, their coordinates in the space of these units: penalties of
    squared weights are blind to the rest."""
    scale = StandardScaler().fit(x_ND)
    x, seen = (np.asarray(scale.transform(v)) for v in (x_ND, seen_MD))
    if weight_D is not None:
        x, seen = x * weight_D, seen * weight_D
    if x.shape[1] <= len(x):
        return x, seen
    basis = np.linalg.svd(x, full_matrices=False)[2]
    return x @ basis.T, seen @ basis.T


def _score(table: UnitTable, label_N: np.ndarray, guess_N: np.ndarray) -> float:
    if table.is_class:
        return balanced_accuracy(label_N, guess_N).score
    power = ((label_N - label_N.mean()) ** 2).sum()
    return float(1 - ((label_N - guess_N) ** 2).sum() / power) if power > 0 else float("nan")


def _shuffled(recording_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) rows in another order within each recording."""
    order = np.arange(len(recording_N))
    for place in np.unique(recording_N):
        rows = np.flatnonzero(recording_N == place)
        order[rows] = rng.permutation(rows)
    return order

"""Which features explain the units of a run's recording: every source, layer by layer, by every measure.

Shape suffixes: S subsets, N moments, U units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from neuroformer.bundle.bundle import load_model
from neuroformer.bundle.opening import open_run
from neuroformer.comparison.features import Layer, layers_of
from neuroformer.comparison.measures import Measured, Target, predictivity, similarity
from neuroformer.comparison.responses import ComparedMoments, moments_of
from neuroformer.comparison.tuning import TuningRow, TuningTable
from neuroformer.config import ConfigError
from neuroformer.data.prepared import Prepared
from neuroformer.intervals import LEAST_TRIALS, SUBSETS
from neuroformer.shown import Shown

METRICS = ("ridge", "pls", "rsa", "cka")
LATENCIES = (0.0, 0.05, 0.1, 0.15)
NULLS = {"ridge": 20, "pls": 20}  # shuffles; of similarity, which is quick, OTHER_NULLS
OTHER_NULLS = 100
LEAST_UNITS = 5  # of an area
MOST_BYTES = 2 << 30  # of responses


@dataclass(frozen=True)
class Score:
    """One row of the comparison.

    Attributes
    ----------
    source, layer, sees, features : what is compared: where it comes from, what it is made of, how many numbers per moment
    metric : ``ridge`` or ``pls`` (median r over units), ``rsa_correlation``, ``rsa_euclidean``, ``rsa_crossnobis``, ``cka``
    units, num_units : which group of units
    score, low, high : with its 95 % interval over units and stimuli
    ceiling : what a perfect, noiseless prediction can be expected to score; NaN where nothing repeats
    normalized, normalized_low, normalized_high : (score / ceiling)^2 with the score's sign; of regressions, the median over
        units; the ceiling is taken as known
    null : 95 % of the scores of shuffled stimuli lie below
    p : share of scores of shuffled stimuli, the true one included, that are at least as high
    beyond, beyond_low, beyond_high : score less that of the first layer of all, paired
    latency_s : of the responses; the most frequent one over units
    """

    source: str
    layer: str
    sees: str
    features: int
    metric: str
    units: str
    num_units: int
    score: float
    low: float
    high: float
    ceiling: float
    normalized: float
    normalized_low: float
    normalized_high: float
    null: float
    p: float
    beyond: float
    beyond_low: float
    beyond_high: float
    latency_s: float


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Shown):
    """Scores, and what they are of.

    Attributes
    ----------
    scores : list of Score
    facts : the part of the split and its claim, moments, their width, repeats, stimuli, units left out, latencies
    unit_ids : of the recording
    tuning : rows of recorded units and of layers, where it was asked for
    per_unit : by (source, layer, metric, units), (U,) scores of single units of the recording; NaN outside the group
    """

    scores: list[Score]
    facts: dict[str, Any]
    unit_ids: list[str]
    tuning: list[TuningRow] = field(default_factory=list)
    per_unit: dict[tuple[str, str, str, str], np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Of each source and metric the best layer, over all units."""
        best: dict[tuple[str, str], Score] = {}
        for one in self.scores:
            key = one.source, one.metric
            if one.units == "all" and (key not in best or one.score > best[key].score):
                best[key] = one
        lines = [
            f"Compared at {self.facts['moments']:,} moments: each source's best layer (95 % interval), and the ceiling"
        ]
        for (source, metric), one in best.items():
            lines.append(
                f"  {source:<12} {one.layer:<16} {metric:<16} {one.score:.3f} ({one.low:.3f} to {one.high:.3f}), {one.ceiling:.3f}"
            )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        rows = {"scores": self.scores, "tuning": self.tuning}
        return {"facts": self.facts} | {k: [dataclasses.asdict(r) for r in v] for k, v in rows.items()}


def compare(
    run: str | Path,
    sources: Sequence[str] = ("pixels", "gabor", "model"),
    metrics: Sequence[str] = ("ridge", "rsa", "cka"),
    overrides: Sequence[str] = (),
    *,
    recording: str = "",
    split: str = "test",
    latencies: Sequence[float] = LATENCIES,
    by: str = "area",
    tuning: str = "",
    seed: int = 0,
    say: Callable[[str], object] = lambda line: None,
) -> Comparison:
    """Compare the units of a trained run's recording with features of any kind.

    >>> found = neuroformer.compare("runs/demo", ["pixels", "gabor", "model"], ["ridge"])
    >>> max(found.scores, key=lambda s: s.score).layer

    1. Moments: bins of one window of the run, of the stimuli that the part of the split repeats; a single image is one
       moment; where nothing repeats, all windows (:func:`neuroformer.comparison.responses.moments_of`).
    2. Responses: counts a latency after each moment, averaged over repeats.
    3. Features: :func:`neuroformer.comparison.features.layers_of` names the sources.
    4. Scores, ceilings, nulls: :mod:`neuroformer.comparison.measures`. Folds hold out stimuli; the penalty and the latency
       of a fold are chosen on the others.
    5. Intervals leave out a third of the blocks of stimuli and of the units at once, a hundred times. (The bootstrap would
       repeat stimuli, whose distance from themselves is zero.)

    Parameters
    ----------
    run : folder
    sources : the first one is what the others are held against
    metrics : of :data:`METRICS`
    split : "test" or "valid"; "train" only without ``model``, whose weights were fitted there
    latencies : seconds, among which training folds choose
    by : a column of the units table; each of its values with five units or more is a group of its own, beside all
    tuning : NAME or NAME:PERIOD of a behavior variable or a column of the trials, to which units and features are tuned
        (:func:`neuroformer.comparison.tuning.tuning`), e.g. "speed" or "direction:360"
    say : called with a line for every layer that is done

    Raises
    ------
    ConfigError
        An unknown source or metric, or a recording of traces.
    """
    unknown = [m for m in metrics if m not in METRICS]
    if unknown:
        raise ConfigError(f"'{unknown[0]}' is no metric; expected some of {', '.join(METRICS)}")
    if split == "train" and "model" in sources:
        raise ConfigError("the run's own network was fitted to the training part; compare it on test or valid")
    bundle, prepared = open_run(Path(run), overrides, recording)
    if prepared.config.traces.likelihood != "none":
        raise ConfigError("the run models traces; responses are compared as spike counts, so give a run on spikes")
    moments = moments_of(prepared, split, latencies)
    targets = _targets(prepared, moments, latencies, by)
    model = load_model(bundle)
    tuned = TuningTable(tuning, prepared.rec, moments, _responses(prepared, moments, targets[0])) if tuning else None
    made = _Made(moments, targets, prepared.rec.num_units, tuple(latencies), seed)
    for source in sources:
        for layer in layers_of(source, model, prepared, moments, bundle.results / "simulated.npz"):
            made.add(layer, metrics)
            if tuned is not None:
                tuned.add(layer.source, layer.name, layer.x_ND)
            say(f"{layer.source}, {layer.name}: {layer.x_ND.shape[1]} features")
    return Comparison(
        made.scores,
        _facts(prepared, moments, targets, split, latencies),
        prepared.rec.unit_ids,
        [] if tuned is None else tuned.rows,
        made.per_unit,
    )


def _responses(prepared: Prepared, moments: ComparedMoments, target: Target) -> np.ndarray:
    """(N, U) mean responses of every unit, at the latency at which they repeat best."""
    reliable = np.nan_to_num(target.reliability_LU).mean(1)
    y_NU = np.zeros((len(moments), prepared.rec.num_units))
    y_NU[:, target.rows] = target.mean_LNU[int(reliable.argmax())]
    return y_NU


def _targets(prepared: Prepared, moments: ComparedMoments, latencies: Sequence[float], by: str) -> list[Target]:
    rec = prepared.rec
    size = len(latencies) * moments.start_RN.size * rec.num_units * 2
    if size > MOST_BYTES:
        raise ConfigError(
            f"the responses of {rec.num_units} units at {moments.start_RN.size} moments and {len(latencies)} latencies take "
            f"{size / 1e9:.1f} GB, more than {MOST_BYTES / 1e9:.1f} GB; give fewer latencies"
        )
    y_LRNU = [moments.counts(rec, latency) for latency in latencies]
    varies = np.logical_or.reduce([y.max((0, 1)) > y.min((0, 1)) for y in y_LRNU])
    if varies.sum() < 2:
        raise ConfigError(f"{varies.sum()} units of '{rec.name}' respond at the moments compared; expected 2 or more")
    groups = {"all": np.flatnonzero(varies)}
    column = rec.units.get(by)
    if column is not None and column.ndim == 1:
        words = column.astype(str)
        named = {w: np.flatnonzero(varies & (words == w)) for w in np.unique(words) if w not in ("", "nan")}
        named = {w: rows for w, rows in named.items() if len(rows) >= LEAST_UNITS}
        groups |= named if len(named) > 1 else {}
    return [Target(name, rows, [y[:, :, rows] for y in y_LRNU], moments) for name, rows in groups.items()]


def _facts(prepared: Prepared, moments: ComparedMoments, targets, split: str, latencies) -> dict[str, Any]:
    return {
        "split": split,
        "claim": prepared.config.split.claim,
        "moments": len(moments),
        "moment_s": round(moments.width, 9),
        "repeats": moments.repeats,
        "stimuli": int(moments.stimulus_N.max()) + 1 if moments.repeats > 1 else 0,
        "folds": "stimuli" if moments.by_stimulus else "contiguous",
        "units": {t.name: len(t.rows) for t in targets},
        "units_without_responses": prepared.rec.num_units - len(targets[0].rows),
        "latencies_s": list(latencies),
    }


class _Made:
    """Scores as they come, and the first layer's, which the others are held against."""

    def __init__(
        self, moments: ComparedMoments, targets: list[Target], num_units: int, latencies: tuple[float, ...], seed: int
    ):
        self.targets, self.num_units, self.latencies, self.seed = targets, num_units, latencies, seed
        self.scores: list[Score] = []
        self.per_unit: dict[tuple[str, str, str, str], np.ndarray] = {}
        self.first: dict[tuple[str, str], tuple[float, np.ndarray]] = {}
        self.blocks = np.unique(moments.block_N)

    def add(self, layer: Layer, metrics: Sequence[str]) -> None:
        for metric in metrics:
            for target, measured in self._measured(layer, metric):
                self.scores.append(self._score(layer, target, measured))

    def _measured(self, layer: Layer, metric: str) -> Iterator[tuple[Target, Measured]]:
        if metric in NULLS:
            yield from predictivity(layer.x_ND, self.targets, metric)
        else:
            for target in self.targets:
                yield from ((target, m) for m in similarity(layer.x_ND, target, metric))

    def _score(self, layer: Layer, target: Target, measured: Measured) -> Score:
        num_units = len(target.rows)
        score, normalized = measured.of(None, None)
        rng = np.random.default_rng(self.seed)
        parts_S2 = np.array([measured.of(*self._subset(rng, num_units)) for _ in range(SUBSETS)])
        key = (measured.metric, target.name)
        of_first, first_S = self.first.setdefault(key, (score, parts_S2[:, 0]))
        degrees = min(len(self.blocks), num_units) - 1
        low, high = _ends(score, parts_S2[:, 0], degrees)
        normal_low, normal_high = _ends(normalized, parts_S2[:, 1], degrees)
        beyond = score - of_first
        beyond_low, beyond_high = _ends(beyond, parts_S2[:, 0] - first_S, degrees)
        rng = np.random.default_rng(self.seed + 1)
        nulls = np.array([measured.null(rng) for _ in range(NULLS.get(measured.metric, OTHER_NULLS))])
        if measured.per_unit is not None:
            each = np.full(self.num_units, np.nan)
            each[target.rows] = measured.per_unit
            self.per_unit[(layer.source, layer.name, *key)] = each
        return Score(
            source=layer.source,
            layer=layer.name,
            sees=layer.sees,
            features=layer.x_ND.shape[1],
            metric=measured.metric,
            units=target.name,
            num_units=num_units,
            score=score,
            low=low,
            high=high,
            ceiling=measured.ceiling,
            normalized=normalized,
            normalized_low=normal_low,
            normalized_high=normal_high,
            null=float(np.quantile(nulls, 0.95)),
            p=float((1 + (nulls >= score).sum()) / (1 + len(nulls))),
            beyond=beyond,
            beyond_low=beyond_low,
            beyond_high=beyond_high,
            latency_s=self.latencies[measured.latency],
        )

    def _subset(self, rng: np.random.Generator, num_units: int) -> tuple[np.ndarray, np.ndarray]:
        """Two thirds of the blocks and of the units; the same ones for every layer."""
        blocks = rng.permutation(self.blocks)[: len(self.blocks) - len(self.blocks) // 3]
        return blocks, np.sort(rng.permutation(num_units)[: num_units - num_units // 3])


def _ends(value: float, parts_S: np.ndarray, degrees: int) -> tuple[float, float]:
    """The 95 % interval from values without a third of blocks and units (a jackknife: Shao and Wu 1989); NaN of too few."""
    if degrees + 1 < LEAST_TRIALS or not np.isfinite(parts_S).all():
        return float("nan"), float("nan")
    half = float(stdtrit(degrees, 0.975) * np.sqrt(2) * parts_S.std(ddof=1))
    return (value - half, value + half) if half > 0 else (float("nan"), float("nan"))

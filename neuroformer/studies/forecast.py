"""Forecasts of a trained run: what it expects some time ahead, beside simple predictors and what repeats of a stimulus say.

Shape suffixes: N moments, H horizons, U units.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroformer.baselines.forecasts import (
    PENALTIES,
    RIDGE_PENALTIES,
    Activity,
    activity,
    autoregression,
    autoregressive_glm,
    naive,
)
from neuroformer.config import ConfigError
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows, tile
from neuroformer.generation.forecast import affordable, expected_ahead
from neuroformer.intervals import over_time
from neuroformer.model.network import Neuroformer
from neuroformer.shown import Shown
from neuroformer.simulation_scores.forecasts import bits_terms, by_group, trace_scores, unit_statistics, with_intervals
from neuroformer.simulation_scores.poisson_simulators import psth_poisson
from neuroformer.simulation_scores.psth import stimulus_of_trials
from neuroformer.simulation_scores.recorded import recorded_trials

HORIZONS = (0.05, 0.1, 0.25, 0.5, 1.0)
MOST_MOMENTS = 1_000  # of the held-out part, evenly spaced
PENALTIES_TRIED = {"glm": len(PENALTIES), "autoregression": len(RIDGE_PENALTIES)}  # at each horizon, a fit each
_PRIOR = 1.0  # repeats that the mean rate is worth where repeats forecast a repeat


@dataclass(repr=False)
class Forecast(Shown):
    """A forecast, and its scores.

    Attributes
    ----------
    times : (N,) seconds of the moments up to which the past is known
    horizons : (H,) seconds from the moment to the end of the predicted bin, which is as long as the shortest horizon
    true_NHU : what came in each bin: counts, or means of traces
    expected : by candidate, (N, H, U)
    scores : ready for JSON; see :func:`forecast`
    """

    times: np.ndarray
    horizons: list[float]
    true_NHU: np.ndarray
    expected: dict[str, np.ndarray]
    scores: dict[str, Any]

    def __repr__(self) -> str:
        """The first score of every candidate at each horizon."""
        candidates = self.scores["candidates"]
        key = next(iter(candidates["model"]))
        ahead = ", ".join(f"{h:g}" for h in self.horizons)
        lines = [f"Forecast of {len(self.times):,} moments, {ahead} s ahead: {key.replace('_', ' ')}"]
        lines += [
            f"  {name:<14}" + "".join(f"{at[0]:>9.3f}" for at in each[key])
            for name, each in candidates.items()
            if key in each
        ]
        return "\n".join(lines)


def forecast(
    model: Neuroformer,
    prepared: Prepared,
    horizons: Sequence[float] = HORIZONS,
    *,
    samples: int = 0,
    part: str = "test",
    baselines: bool = True,
    say: Callable[[str], object] = lambda line: None,
) -> Forecast:
    """What a model expects some time ahead of held-out moments, given the true past up to each, and how good that is.

    The bin that ends ``horizon`` after the moment is predicted; bins are as long as the shortest horizon. The model is read by
    :func:`neuroformer.generation.forecast.expected_ahead`. Beside it, each tuned on training or validation moments:
    ``last_value`` and ``running_mean`` (a share of what the last bin, or the last seconds, had; the rest the training mean),
    ``glm``, a Poisson GLM on the past of all units fitted for each horizon (``autoregression``, ridge, of traces); where trials
    repeat a stimulus ``psth``, the smoothed PSTH of the training repeats, and as a ceiling of what the stimulus tells
    ``repeats``, the mean of all other repeats, held-out ones included. Behavior inputs and frames up to the predicted bin are
    given to the model and the GLM alike: they are exogenous.

    Parameters
    ----------
    horizons : seconds, whole multiples of ``window.dt``
    samples : continuations of each moment that later windows are averaged over; 0: 16, or fewer where the population is so
        active that these would take long (:func:`neuroformer.generation.forecast.affordable`; moments may be fewer then, too)
    part : of the split
    baselines : whether the GLM (or autoregression) is fitted; the others cost nothing
    say : called with a line before each step

    Returns
    -------
    Forecast
        Of the units that were observed throughout. ``scores``: ``candidates``, by name and score, one ``[value, low, high]`` a horizon
        (:func:`neuroformer.simulation_scores.forecasts.forecast_scores`; of traces ``trace_scores``, without ends); ``minus``,
        by baseline, bits/spike of the model minus its own, paired over held-out time; ``units``, at the shortest horizon, by
        unit (:func:`~neuroformer.simulation_scores.forecasts.unit_statistics`); ``groups``, the same by area or another
        column of the units table; ``seconds`` that each side took, and ``fits``, how many regressions were fitted for it.

    Raises
    ------
    ConfigError
        A horizon that the clock does not have, or blocks too short for the longest.
    """
    spans = _spans(prepared, horizons)
    parts = {p: _moments(prepared, spans, p) for p in ("train", "valid", part)}
    number, samples = affordable(prepared, min(MOST_MOMENTS, len(parts[part])), spans, samples)
    test = parts[part][:: max(1, -(-len(parts[part]) // max(1, number)))]
    if len(test) == 0:
        raise ConfigError(
            f"the longest horizon is {max(horizons):g} s, and no block of the '{part}' part is long enough for it behind a "
            f"window's past of {prepared.builder.shape.reach * prepared.split.dt:g} s; ask for a shorter one"
        )
    of = activity(prepared)
    truth = np.stack([of.values(test, *span) for span in spans], 1)
    expected, seconds = _candidates(model, prepared, parts | {part: test}, part, spans, samples, baselines, say)
    say("scores and intervals")
    kept = _observed(prepared, parts | {part: test}, spans)
    if not kept.all():
        say(f"{int(kept.sum())} of {len(kept)} units were observed throughout; the others are not scored")
        truth, expected = truth[..., kept], {name: values[..., kept] for name, values in expected.items()}
    times = test.starts(prepared.index)
    scores = {
        "horizons_s": list(horizons),
        "bin_s": min(horizons),
        "moments": len(test),
        "samples": samples,
        "part": part,
    }
    scores |= _scores(prepared, kept, test, spans, truth, expected) | {"seconds": seconds}
    scores["fits"] = {name: PENALTIES_TRIED[name] * len(spans) for name in expected if name in PENALTIES_TRIED}
    return Forecast(times, list(horizons), truth, expected, scores)


def _candidates(
    model: Neuroformer,
    prepared: Prepared,
    parts: dict[str, Windows],
    part: str,
    spans: list[tuple[int, int]],
    samples: int,
    baselines: bool,
    say: Callable[[str], object],
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """By candidate, (N, H, U) expected activity, and the seconds that it took."""
    expected: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    test, counts = parts[part], prepared.builder.traces is None

    def add(make: Callable[[], dict[str, np.ndarray]], what: str) -> None:
        say(what)
        began = time.perf_counter()
        found = make()
        expected.update(found)
        seconds.update(dict.fromkeys(found, time.perf_counter() - began))

    ahead = f"the model, {len(test):,} moments, {samples} continuations of each"
    add(lambda: {"model": expected_ahead(model, prepared, test, spans, samples)}, ahead)
    add(lambda: naive(prepared, parts["train"], test, spans), "last value and running mean")
    if baselines:
        name, fit = ("glm", autoregressive_glm) if counts else ("autoregression", autoregression)
        add(lambda: {name: fit(prepared, parts["train"], parts["valid"], test, spans)}, f"{name}, one a horizon")
    if counts and _by_trials(prepared):
        add(lambda: _psth(prepared, part, test, spans), "PSTH of the training repeats")
        add(lambda: _repeats(prepared, activity(prepared), test, spans), "all other repeats")
    return expected, seconds


def _spans(prepared: Prepared, horizons: Sequence[float]) -> list[tuple[int, int]]:
    """The predicted bins of each horizon, in ticks after the moment."""
    dt = prepared.split.dt
    if not horizons or min(horizons) <= 0:
        raise ConfigError(f"horizons are {list(horizons)}; expected seconds above 0, such as 0.05,0.1,0.25")
    stops = [round(h / dt) for h in horizons]
    wrong = [h for h, stop in zip(horizons, stops, strict=True) if stop < 1 or abs(stop * dt - h) > 1e-6]
    if wrong:
        raise ConfigError(f"a horizon is {wrong[0]:g} s; expected whole multiples of window.dt, {dt:g} s")
    return [(stop - min(stops), stop) for stop in stops]


def _moments(prepared: Prepared, spans, part: str) -> Windows:
    """Windows that tile a part, all predicted bins of which lie in their block."""
    shape = prepared.builder.shape
    ahead = max(0, max(stop for _, stop in spans) - shape.current, shape.ahead)
    # whole windows are continued
    ahead = -(-ahead // shape.current) * shape.current
    return tile(prepared.split.blocks[part], dataclasses.replace(shape, ahead=ahead))


def _by_trials(prepared: Prepared) -> bool:
    rec = prepared.rec
    return rec.num_trials > 0 and len(prepared.split.segments) == rec.num_trials


def _observed(prepared: Prepared, parts: dict[str, Windows], spans) -> np.ndarray:
    """(U,) units that were observed in every predicted bin of training, validation and scoring.

    Raises
    ------
    ConfigError
        There is none.
    """
    kept = np.ones(prepared.index.num_units, bool)
    observed = prepared.index.observed
    if observed is not None:
        for windows in parts.values():
            first = windows.bins(prepared.index)
            kept &= observed.throughout(first, first + max(stop for _, stop in spans)).all(0)
    if not kept.any():
        raise ConfigError(
            "no unit was observed throughout; forecasts are scored of units that were, choose some of them"
        )
    return kept


def _psth(prepared: Prepared, part: str, test: Windows, spans) -> dict[str, np.ndarray]:
    """``psth``, (N, H, U) from the training repeats; nothing where no stimulus repeats."""
    recorded = recorded_trials(prepared.rec, prepared.split, part)
    found = psth_poisson(recorded.train, recorded.valid)
    if found is None:
        return {}
    stimulus, longest = stimulus_of_trials(prepared.rec), int(prepared.index.num_ticks.max())
    upto = {}
    for s in np.unique(stimulus[test.segment]):
        rates_BU = found.rates(int(s), longest)
        upto[s] = np.concatenate([np.zeros((1, rates_BU.shape[1])), rates_BU.cumsum(0)])
    of = lambda s, tick: [upto[s][tick + stop] - upto[s][tick + start] for start, stop in spans]
    each = [of(stimulus[segment], tick) for segment, tick in zip(test.segment, test.tick, strict=True)]
    return {"psth": np.array(each)}


def _repeats(prepared: Prepared, of: Activity, test: Windows, spans) -> dict[str, np.ndarray]:
    """``repeats``, (N, H, U) the mean of all other repeats of the stimulus, with a prior at the mean rate; nothing where one
    has no other."""
    stimulus, length = stimulus_of_trials(prepared.rec), prepared.index.num_ticks
    longest, out = max(stop for _, stop in spans), []
    for segment, tick in zip(test.segment, test.tick, strict=True):
        others = np.flatnonzero((stimulus == stimulus[segment]) & (length >= tick + longest))
        others = others[others != segment]
        if len(others) == 0:
            return {}
        at = Windows(others, np.full(len(others), tick))
        pull = [_PRIOR * of.expected(stop - start) for start, stop in spans]
        sums = [of.values(at, *span).sum(0) for span in spans]
        out.append([(total + p) / (len(others) + _PRIOR) for total, p in zip(sums, pull, strict=True)])
    return {"repeats": np.array(out)}


def _scores(prepared: Prepared, kept: np.ndarray, test: Windows, spans, truth, expected) -> dict[str, Any]:
    candidates: dict[str, dict[str, list]] = {}
    width = spans[0][1] - spans[0][0]
    is_traces = prepared.builder.traces is not None
    copied = activity(prepared).values(test, -width, 0)
    for name, expected_NHU in expected.items():
        for h in range(len(spans)):
            if is_traces:
                found = {
                    k: [v, np.nan, np.nan] for k, v in trace_scores(truth[:, h], expected_NHU[:, h], copied).items()
                }
            else:
                found = with_intervals(truth[:, h], expected_NHU[:, h], f"{name}, horizon {h + 1}")
            for key, value in found.items():
                candidates.setdefault(name, {}).setdefault(key, []).append(value)
    out: dict[str, Any] = {"candidates": candidates}
    if is_traces:
        return out
    out["minus"] = {
        name: [_minus(truth[:, h], expected["model"][:, h], other[:, h], name) for h in range(len(spans))]
        for name, other in expected.items()
        if name != "model"
    }
    units = unit_statistics(truth[:, 0], expected["model"][:, 0])
    out["units"] = {name: values.tolist() for name, values in units.items()}
    groups = [g for g, k in zip(_groups(prepared), kept, strict=False) if k]
    out["groups"] = by_group(groups, units, width * prepared.split.dt) if groups else []
    return out


def _minus(counts_NU, ours_NU, theirs_NU, name: str) -> list[float]:
    """Bits/spike of ours minus theirs, and the ends of its paired interval."""
    difference = bits_terms(counts_NU, ours_NU).minus(bits_terms(counts_NU, theirs_NU))
    found = over_time(difference, f"bits/spike, model minus {name}")
    return [float(found.value_S[0]), *(float(x) for x in found.ends()[:, 0])]


def _groups(prepared: Prepared) -> list[str]:
    """The area of each unit, or its group in another column of words with few values."""
    columns = {k: v for k, v in prepared.rec.units.items() if k != "id" and np.asarray(v).dtype.kind in "UO"}
    for name in sorted(columns, key=lambda k: k != "area"):
        values = [str(x) for x in columns[name]]
        if 1 < len(set(values)) <= 40:
            return values
    return []


def flat_scores(scores: dict[str, Any]) -> dict[str, float]:
    """For a flat summary: ``forecast_<score>_<horizon>s`` with ``_low`` and ``_high`` of the model, ``..._<candidate>`` of the
    others, and ``forecast_minus_<candidate>_<horizon>s`` with its paired interval."""
    out: dict[str, float] = {}
    for name, each in scores["candidates"].items():
        for key, values in each.items():
            for horizon, ends in zip(scores["horizons_s"], values, strict=True):
                out |= _three(f"forecast_{key}_{horizon:g}s" + ("" if name == "model" else f"_{name}"), ends)
    for name, values in scores.get("minus", {}).items():
        for horizon, ends in zip(scores["horizons_s"], values, strict=True):
            out |= _three(f"forecast_minus_{name}_{horizon:g}s", ends)
    return out


def _three(key: str, ends: Sequence[float]) -> dict[str, float]:
    named = zip((key, f"{key}_low", f"{key}_high"), ends, strict=True)
    return {k: v for k, v in named if np.isfinite(v)}

"""A recording with some of its units, and what is measured of each to choose them by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from neuroformer.recording.glance import Glance
from neuroformer.recording.recording import Recording
from neuroformer.recording.series import ObservedIntervals, Traces
from neuroformer.recording.units.conditions import Condition
from neuroformer.recording.validation import RecordingError

PIECES = 100  # of a recording's time, in which a unit that is present spikes
REFRACTORY_S = 1.5e-3


def choose_units(rec: Recording, where: str = "", limit: int = 0) -> Recording:
    """The recording with the units for which a condition holds; the notes say why the others are not there.

    Parameters
    ----------
    where : a condition on columns of the units table (see :mod:`neuroformer.recording.units.conditions`) and on what is
        measured of each unit, over the whole recording: ``rate`` (spikes per second in which it was observed),
        ``presence`` (:func:`presence`) and ``refractory`` (:func:`refractory`). Empty: all units
    limit : at most so many units, those with the most spikes (the first of equals); 0: no limit

    Raises
    ------
    RecordingError
        No condition, a column that is not there, or no unit is left.
    """
    keep, notes = np.ones(rec.num_units, bool), []
    if where.strip():
        condition = Condition(where)
        holds = condition.holds(_table(rec, condition.columns(), notes))
        keep = holds.all(0)
        if not keep.any():
            counts = [f"{int(h.sum())} units with {term}" for term, h in zip(condition.terms(), holds, strict=True)]
            raise RecordingError(
                f"no unit of '{rec.name}' is left by {where!r}: of {rec.num_units} units there are "
                f"{', '.join(counts)}; change the condition"
            )
        notes += _reasons(condition.terms(), holds)
    if limit and keep.sum() > limit:
        order = np.lexsort((np.arange(rec.num_units), -rec.unit_spikes(), ~keep))
        notes.append(f"{int(keep.sum()) - limit} of the rest have fewer spikes than the {limit} with the most")
        keep = np.zeros(rec.num_units, bool)
        keep[order[:limit]] = True
    if keep.all():
        return rec
    told = f"{int(keep.sum())} of {rec.num_units} units are kept: {'; '.join(notes)}"
    return with_units(rec, np.flatnonzero(keep), told)


def needs_spikes(where: str) -> bool:
    """Whether a condition asks for more than columns of the units table and numbers of spikes."""
    return bool(where.strip()) and any(name in MEASURES and name != "rate" for name in Condition(where).columns())


def presence(rec: Recording) -> np.ndarray:
    """(units,) share of 100 equal pieces of the domain in which a unit spikes; only pieces in whose middle it was
    observed count, and it is 0 where there is none.
    """
    lengths = rec.domain[:, 1] - rec.domain[:, 0]
    before = np.cumsum(lengths) - lengths
    edges = np.linspace(0, lengths.sum(), PIECES + 1)
    row = np.searchsorted(rec.domain[:, 0], rec.spike_times, side="right") - 1
    inside = (row >= 0) & (rec.spike_times < rec.domain[np.maximum(row, 0), 1])
    at = before[row[inside]] + rec.spike_times[inside] - rec.domain[row[inside], 0]
    piece = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, PIECES - 1)
    there = np.zeros((rec.num_units, PIECES), bool)
    there[rec.spike_units[inside], piece] = True
    observed = np.ones((rec.num_units, PIECES), bool)
    if rec.observed is not None:
        middle = (edges[1:] + edges[:-1]) / 2
        part = np.searchsorted(before, middle, side="right") - 1
        middle = rec.domain[part, 0] + middle - before[part]
        for unit in range(rec.num_units):
            spans = rec.observed.of(unit)
            observed[unit] = ((spans[:, :1] <= middle) & (middle < spans[:, 1:])).any(0)
    return (there & observed).sum(1) / np.maximum(observed.sum(1), 1)


def refractory(rec: Recording) -> np.ndarray:
    """(units,) share of the intervals between a unit's spikes that are shorter than 1.5 ms; 0 without an interval."""
    order = np.argsort(rec.spike_units, kind="stable")
    units, steps = rec.spike_units[order], np.diff(rec.spike_times[order])
    same = units[1:] == units[:-1]
    short = np.bincount(units[1:][same & (steps < REFRACTORY_S)], minlength=rec.num_units)
    return short / np.maximum(np.bincount(units[1:][same], minlength=rec.num_units), 1)


MEASURES: dict[str, Callable[[Recording], np.ndarray]] = {
    "rate": Recording.rates,
    "presence": presence,
    "refractory": refractory,
}


def _table(rec: Recording, asked: list[str], notes: list[str]) -> dict[str, np.ndarray]:
    """The units' columns and the measures, of which only those that are asked for are computed."""
    out = dict(rec.units)
    for name, measure in MEASURES.items():
        if name in asked and name in rec.units:
            notes.append(f"'{name}' is measured here, and not the column of that name")
        out[name] = measure(rec) if name in asked else np.zeros(rec.num_units)
    return out


def _reasons(terms: list[str], holds: np.ndarray) -> list[str]:
    """How many units each term takes away of those that the terms before it left; only terms that take any."""
    left = np.logical_and.accumulate(np.concatenate([np.ones_like(holds[:1]), holds]))
    gone = (left[:-1] & ~holds).sum(1)
    taken = [(int(count), term) for term, count in zip(terms, gone, strict=True) if count]
    return [f"{count} more are not {term}" if i else f"{count} are not {term}" for i, (count, term) in enumerate(taken)]


def with_units(rec: Recording, rows: np.ndarray, note: str) -> Recording:
    """The recording with some rows of its units table."""
    place = np.full(rec.num_units, -1, np.int32)
    place[rows] = np.arange(len(rows), dtype=np.int32)
    units = place[rec.spike_units]
    mine = units >= 0
    changed: dict[str, Any] = {}
    if rec.traces is not None:
        changed["traces"] = Traces(rec.traces.times, rec.traces.values[:, rows], rec.traces.unit)
    if rec.observed is not None:
        changed["observed"] = ObservedIntervals.from_units([rec.observed.of(r) for r in rows])
    if isinstance(rec, Glance):
        changed["counted"] = rec.counted[rows]
    notes = [*rec.meta.get("notes", ()), note]
    if rec.truth:
        notes.append("what the generator knows (truth) was left out: it is about all units")
    return dataclasses.replace(
        rec,
        spike_times=rec.spike_times[mine],
        spike_units=units[mine],
        units={k: v[rows] for k, v in rec.units.items()},
        truth={},
        meta={**rec.meta, "notes": notes},
        checked_spikes=None,
        **changed,
    )

"""Does the audit name leaks that are planted, and nothing in recordings without any? On seeds that no threshold was set by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from neuroformer.audit import Audit, audit, audit_together
from neuroformer.config import from_dict
from neuroformer.recording import BehaviorVariable, FrameSeries, Recording
from neuroformer.recording.derive import with_speed

SECONDS, DT, UNITS = 240.0, 0.01, 16
GRID = np.arange(0, SECONDS, DT)
FRAME = 5  # bins that a frame is shown
NAMES = ("input_from_spikes", "input_is_target", "input_sees_ahead", "duplicated_units", "same_session")
FIRST_SEED = 1_000  # the tests have lower ones


class Case(NamedTuple):
    """Recordings of one run, and what of them the model is to have."""

    recs: Sequence[Recording]
    inputs: Sequence[str] = ()
    targets: Sequence[dict[str, Any]] = ()
    frames: float = 0.0


def run(recordings: int = 20) -> dict[str, Any]:
    """Audit so many recordings of each kind.

    Returns
    -------
    dict
        ``planted``: by kind, the finding that it should raise, and in how many recordings it did; ``clean``: by kind, in
        how many any of these findings was raised. ``checked``: in all, and in none.
    """
    seeds = range(FIRST_SEED, FIRST_SEED + recordings)
    planted = {
        kind: {"finding": finding, "named": sum(finding in _found(make(seed)) for seed in seeds)}
        for kind, (finding, make) in PLANTED.items()
    }
    clean = {kind: sum(bool(_found(make(seed))) for seed in seeds) for kind, make in CLEAN.items()}
    return {
        "bench": "leaks",
        "checked": all(p["named"] == recordings for p in planted.values()) and not any(clean.values()),
        "recordings": recordings,
        "planted": planted,
        "clean": clean,
    }


def table(result: dict[str, Any]) -> str:
    number = result["recordings"]
    lines = [f"{'planted':<44}{'finding':<20}named, of {number}"]
    lines += [f"{kind:<44}{p['finding']:<20}{p['named']}" for kind, p in result["planted"].items()]
    lines += ["", f"{'clean':<44}{'':<20}any of these, of {number}"]
    lines += [f"{kind:<44}{'':<20}{wrong}" for kind, wrong in result["clean"].items()]
    return "\n".join(lines)


def _found(case: Case) -> set[str]:
    """The findings on the last recording of a run that speak of leaks through inputs, copies and sessions."""
    tree: dict[str, Any] = {"window": {"frames": case.frames}, "split": {"block": 16.0, "gap": 2.0}}
    config = from_dict(tree | {"inputs": [{"name": n} for n in case.inputs], "targets": list(case.targets)})
    audits: Sequence[Audit] = [audit(rec, config) for rec in case.recs]
    if len(audits) > 1:
        audits = audit_together(audits, case.recs)
    return {f.name for f in audits[-1].findings} & set(NAMES)


# -- recordings ----------------------------------------------------------------------------------------------


def _spikes(rates_NU: np.ndarray, rng: np.random.Generator, name: str = "r", **fields: Any) -> Recording:
    """Poisson spikes of rates (Hz) in bins of ``DT``."""
    counts = rng.poisson(np.broadcast_to(rates_NU, (len(GRID), rates_NU.shape[-1])) * DT)
    row, unit = np.nonzero(counts)
    row, unit = np.repeat(row, counts[row, unit]), np.repeat(unit, counts[row, unit])
    times = (row + rng.uniform(0, 1, len(row))) * DT
    order = np.argsort(times)
    ids = {"id": np.arange(counts.shape[1]).astype(str)}
    domain = np.array([[0.0, SECONDS]])
    return Recording(name, times[order], unit[order].astype(np.int32), ids, domain, **fields)


def _independent(rng: np.random.Generator) -> Recording:
    return _spikes(rng.uniform(2, 10, (1, UNITS)), rng)


def _counts(rec: Recording) -> np.ndarray:
    flat = (rec.spike_times / DT).astype(int) * rec.num_units + rec.spike_units
    return np.bincount(flat, minlength=len(GRID) * rec.num_units).reshape(len(GRID), -1).astype(float)


def _smooth(rng: np.random.Generator, seconds: float, columns: int = 1) -> np.ndarray:
    x = gaussian_filter1d(rng.standard_normal((len(GRID), columns)), seconds / DT, axis=0)
    return x / x.std(0)


def _with(rec: Recording, **series: np.ndarray) -> Recording:
    return replace(rec, behavior={name: BehaviorVariable(GRID, x) for name, x in series.items()})


def _images(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 255, (len(GRID) // FRAME, 8, 8)).astype(np.uint8)


def _shown(images: np.ndarray) -> FrameSeries:
    return FrameSeries(images, np.arange(len(images)) * FRAME * DT, np.arange(len(images)))


# -- planted -------------------------------------------------------------------------------------------------


def _smoothed_counts(seed: int) -> Case:
    """An input that is the counts of some units, smoothed both ways, with noise."""
    rng = np.random.default_rng(seed)
    rec = _independent(rng)
    x = gaussian_filter1d(_counts(rec), rng.uniform(0.03, 0.4) / DT, axis=0)[:, : rng.integers(1, UNITS)].sum(1)
    return Case([_with(rec, x=x + 0.2 * x.std() * rng.standard_normal(len(x)))], ["x"])


def _counts_in_frames(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    rec, images = _independent(rng), _images(rng)
    counts = _counts(rec).reshape(-1, FRAME, UNITS).sum(1)
    images[:, rng.integers(8), :] = np.minimum(50 * counts[:, :8], 255)
    return Case([replace(rec, frames=_shown(images))], frames=0.1)


def _target_renamed(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    y = _smooth(rng, rng.uniform(0.2, 1.0))[:, 0]
    return Case(
        [_with(_independent(rng), y=y, copy=np.tanh(y) + 0.05 * rng.standard_normal(len(y)))], ["copy"], [{"name": "y"}]
    )


def _smoothed_speed(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    rec = _with(_independent(rng), x=np.cumsum(rng.standard_normal(len(GRID))))
    return Case([with_speed(rec, "speed", "x", rng.uniform(0.05, 0.5))], ["speed"])


def _copies(jitter: float, lag: float) -> Callable[[int], Case]:
    def make(seed: int) -> Case:
        rng = np.random.default_rng(seed)
        rec = _independent(rng)
        mine = rec.spike_units < 3
        moved = rec.spike_times[mine] + lag + jitter * rng.standard_normal(mine.sum())
        times = np.clip(np.r_[rec.spike_times, moved], 0, SECONDS - 1e-6)
        units = np.r_[rec.spike_units, rec.spike_units[mine] + UNITS]
        order = np.argsort(times)
        ids = {"id": np.arange(UNITS + 3).astype(str)}
        return Case([replace(rec, spike_times=times[order], spike_units=units[order].astype(np.int32), units=ids)])

    return make


def _session_cropped(seed: int) -> Case:
    """A part of the first session on another clock, its units in another order, spikes lost."""
    rng = np.random.default_rng(seed)
    one = _driven_together(rng)
    start, stop = rng.uniform(20, 60), rng.uniform(150, 220)
    inside = (one.spike_times > start) & (one.spike_times < stop) & (rng.random(one.num_spikes) < 0.9)
    shift, order = rng.uniform(-20, 20), rng.permutation(one.num_units)
    part = replace(
        one,
        name="part",
        spike_times=one.spike_times[inside] + shift,
        spike_units=order[one.spike_units[inside]].astype(np.int32),
        domain=np.array([[start, stop]]) + shift,
    )
    return Case([one, part])


# -- clean ---------------------------------------------------------------------------------------------------


def _driven(seed: int) -> Case:
    """Units that an input and frames drive, strongly and at once; a target that shares half of the input."""
    rng = np.random.default_rng(seed)
    x, own = _smooth(rng, rng.uniform(0.02, 0.6))[:, 0], _smooth(rng, 0.3)[:, 0]
    images = _images(rng)
    drive = np.repeat(images.reshape(len(images), -1) @ rng.standard_normal((64, UNITS)) / 600, FRAME, 0)
    rates = np.minimum(6 * np.exp(x[:, None] * rng.uniform(-1, 1, UNITS) + drive), 150)
    shared = gaussian_filter1d(x, 30)
    rec = _with(_spikes(rates, rng), x=x, y=shared / shared.std() + own)
    return Case([replace(rec, frames=_shown(images))], ["x"], [{"name": "y"}], frames=0.1)


def _drifting(seed: int) -> Case:
    """Units that share a slow drift, which an input beside them follows with noise."""
    rng = np.random.default_rng(seed)
    slow, x = _smooth(rng, 10.0)[:, 0], _smooth(rng, 0.5)[:, 0]
    rates = 5 * np.exp(0.6 * slow[:, None] * rng.uniform(0.3, 1.5, UNITS))
    return Case([_with(_spikes(rates, rng), arousal=slow + 0.3 * x, x=x)], ["arousal"], [{"name": "x"}])


def _moved_by_spikes(seed: int) -> Case:
    """A cursor that the spikes before the window move, as with a brain-computer interface."""
    rng = np.random.default_rng(seed)
    rec = _independent(rng)
    kernel, delay = np.exp(-np.arange(60) * DT / rng.uniform(0.05, 0.3)), 12
    x = np.convolve(_counts(rec) @ rng.standard_normal(UNITS), kernel)[: len(GRID)]
    return Case([_with(rec, cursor=np.r_[np.zeros(delay), x[:-delay]])], ["cursor"])


def _driven_together(rng: np.random.Generator, drive_NU: np.ndarray | None = None) -> Recording:
    drive_NU = _smooth(rng, 0.03, UNITS) if drive_NU is None else drive_NU
    return _spikes(np.minimum(5 * np.exp(drive_NU), 80), rng)


def _same_stimulus(seed: int) -> Case:
    """Two sessions that saw the same stimulus."""
    rng = np.random.default_rng(seed)
    drive = 0.6 * _smooth(rng, 0.1, UNITS)
    return Case([_driven_together(rng, drive), replace(_driven_together(rng, drive), name="other")])


def _flashed(seed: int) -> Case:
    """Units that a fast stimulus drives together."""
    rng = np.random.default_rng(seed)
    flash = 4 + 60 * (_smooth(rng, 0.02) > 1.0)
    return Case([_spikes(np.repeat(flash, UNITS, 1), rng)])


PLANTED: dict[str, tuple[str, Callable[[int], Case]]] = {
    "input: counts smoothed both ways": ("input_from_spikes", _smoothed_counts),
    "frames: counts of the window in a row": ("input_from_spikes", _counts_in_frames),
    "input: the target under another name": ("input_is_target", _target_renamed),
    "input: a speed smoothed both ways": ("input_sees_ahead", _smoothed_speed),
    "units copied, exactly": ("duplicated_units", _copies(0.0, 0.0)),
    "units copied, 2 ms of jitter": ("duplicated_units", _copies(0.002, 0.0)),
    "units copied, 2 ms of jitter, 13 ms later": ("duplicated_units", _copies(0.002, 0.013)),
    "the same session, cropped, on another clock": ("same_session", _session_cropped),
}
CLEAN: dict[str, Callable[[int], Case]] = {
    "driven by an input and frames": _driven,
    "sharing a drift": _drifting,
    "a cursor moved by earlier spikes": _moved_by_spikes,
    "two sessions of one stimulus": _same_stimulus,
    "flashes for all units": _flashed,
}

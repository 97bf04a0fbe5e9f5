"""What a run simulated beside what was recorded: rasters, PSTHs and the scores of the simulation."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from neuroformer.files import for_json
from neuroformer.recording import Recording, open_recording
from neuroformer.report.panels.pack import pack, pack_rounded
from neuroformer.report.run import Missing, Run
from neuroformer.simulation_scores.psth import WIDTH_S, compare_psth

MAX_SPIKES = 600_000  # recorded and simulated, in the raster panel
MAX_UNITS = 64  # PSTHs of so many units, the most active ones

# of the scores of a simulation, in a few words; neuroformer.simulation_scores.statistics.compare defines them
MEANINGS = {
    "rate_ratio": "population rate, simulated over recorded",
    "rate_r": "r of log rates over units",
    "rate_error": "rates differ by so many octaves, median",
    "fano": "Fano factor, median",
    "fano_error": "Fano factors differ by, median",
    "cv": "variation of intervals, median",
    "cv_error": "variation of intervals differs by, median",
    "isi_distance": "distance of interval distributions",
    "pair_r": "r of pair correlations",
    "pair_error": "pair correlations differ by, root mean square",
    "lagged_r": "r of lagged pair correlations",
    "spectrum_error": "population spectra differ by, dB",
    "population_kl": "divergence of the population's count in a bin, nats",
    "isi_mean_error": "mean intervals differ by, root mean square, s",
    "isi_std_error": "deviations of intervals differ by, root mean square, s",
    "psth_r": "r of PSTHs, median",
    "single_trial_r": "r with single trials, mean",
    "rate_bits": "bits/spike of mean samples as rates; needs many samples",
    "rate_bits_per_unit": "the same, averaged over units",
    "feve": "explainable variance explained",
    "feve_units": "units that FEVE is of",
    "classifier": "accuracy in telling it from data; 0.5 is perfect",
}


def _simulated(run: Run) -> Recording:
    path = run.folder / "simulated.npz"
    if not path.exists():
        raise Missing("This run has not been simulated yet.", f"neuroformer generate --run {run.shell}")
    if run.rec is None:
        raise Missing("The recording that this run was trained on is not at hand, so there is nothing to compare with.")
    return open_recording(path)


def rasters(run: Run) -> dict[str, Any]:
    """Spikes of held-out trials, recorded and simulated."""
    simulated = _simulated(run)
    rec = run.rec
    assert rec is not None
    intervals = simulated.trial_intervals
    sources = np.asarray(simulated.trials["source_start"], np.float64)
    trials, total, left_out = [], 0, 0
    for start in dict.fromkeys(sources.tolist()):
        rows = np.flatnonzero(sources == start)
        length = float((intervals[rows, 1] - intervals[rows, 0]).min())
        found = [_stretch(rec, start, length), *(_stretch(simulated, intervals[r, 0], length) for r in rows)]
        total += sum(len(units) for _, units in found)
        if total > MAX_SPIKES and trials:
            left_out += 1
            continue
        packed = [{"time": pack(t, "u2"), "unit": pack(u, "u2")} for t, u in found]
        name = f"{len(trials) + 1}: {length:.0f} s from {start:.0f} s"
        trials.append({"name": name, "length": length, "recorded": packed[0], "samples": packed[1:]})
    return {"trials": trials, "num_units": rec.num_units, "orders": unit_orders(rec), "left_out": left_out}


def _stretch(rec: Recording, start: float, length: float) -> tuple[np.ndarray, np.ndarray]:
    """Times in 65,535ths of the stretch, and units."""
    lo, hi = np.searchsorted(rec.spike_times, [start, start + length])
    return np.rint((rec.spike_times[lo:hi] - start) / length * 65535), rec.spike_units[lo:hi]


def unit_orders(rec: Recording) -> dict[str, list[int]]:
    """Ways to sort units: by rate, as they come, and by each column of the units table with few values."""
    orders = {"rate": np.argsort(-rec.rates(), kind="stable"), "unit": np.arange(rec.num_units)}
    orders |= {name: np.argsort(np.array(g), kind="stable") for name, g in unit_groups(rec).items()}
    return {k: v.tolist() for k, v in orders.items()}


def unit_groups(rec: Recording) -> dict[str, list[str]]:
    """The group of every unit by each column of the units table with few values, such as its area."""
    groups = {k: v.astype(str) for k, v in rec.units.items() if k != "id" and v.ndim == 1}
    return {k.replace("_", " "): v.tolist() for k, v in groups.items() if 1 < len(np.unique(v)) <= 40}


def psth(run: Run) -> dict[str, Any]:
    """Mean responses to repeated stimuli, held out and simulated."""
    simulated = _simulated(run)
    assert run.rec is not None and run.split is not None
    c = compare_psth(run.rec, run.split, simulated, run.bundle.config.generate.split)
    if c is None:
        raise Missing("No stimulus was repeated, so there are no PSTHs.")
    units = np.argsort(-np.nanmean(c.held_out_BU, 0))[:MAX_UNITS]
    with np.errstate(invalid="ignore", divide="ignore"):
        r = [float(np.corrcoef(c.held_out_BU[:, u], c.simulated_BU[:, u])[0, 1]) for u in units]
    return {
        "units": [run.rec.unit_ids[u] for u in units],
        "r": [v if np.isfinite(v) else None for v in r],
        "width_s": WIDTH_S,
        "held_out": pack_rounded(c.held_out_BU[:, units]),
        "simulated": pack_rounded(c.simulated_BU[:, units]),
        "num_held_out": c.num_held_out,
        "num_simulated": c.num_simulated,
        "median": c.r,
        "ceiling": c.ceiling,
    }


def statistics(run: Run) -> dict[str, Any]:
    """Scores of the simulation, with what each means."""
    path = run.folder / "simulation_scores.json"
    if not path.exists():
        raise Missing("The simulation has not been scored yet.", f"neuroformer generate --run {run.shell} --score")
    return for_json(json.loads(path.read_text())) | {"meanings": MEANINGS}

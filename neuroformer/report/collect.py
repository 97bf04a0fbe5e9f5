"""The content of a run's folder, panel by panel, ready for the page; a panel without data names the command that
makes it.
"""

from __future__ import annotations

import json
import shlex
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from neuroformer.analysis.maps import load_maps
from neuroformer.bundle.bundle import Bundle
from neuroformer.config import ConfigError, to_dict
from neuroformer.data.recordings import open_one
from neuroformer.data.splits import Split
from neuroformer.recording import Recording, RecordingError, open_recording
from neuroformer.report.charts import decoded_charts, fewshot_charts, learning_charts
from neuroformer.report.comparison import comparison
from neuroformer.report.forecast import forecast_charts
from neuroformer.report.identity import identity
from neuroformer.report.pack import pack, pack_rounded
from neuroformer.report.seeing import connectivity, fields, frames
from neuroformer.report.summary import summary
from neuroformer.simulation_scores.psth import WIDTH_S, compare_psth

DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    json.JSONDecodeError,
    RecordingError,
)  # by a kill, or a full disk
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


@dataclass
class Run:
    """A run's folder and its opened parts; ``rec`` is None if the recording cannot be found."""

    folder: Path
    bundle: Bundle
    rec: Recording | None
    split: Split | None

    @property
    def shell(self) -> str:
        """The run, as a command line takes it."""
        if self.bundle.results == self.bundle.path:
            return shlex.quote(str(self.folder))
        return f"{shlex.quote(str(self.bundle.path))} --recording {shlex.quote(self.bundle.recording)}"

    @property
    def values(self) -> dict[str, Any]:
        path = self.folder / "summary.json"
        return json.loads(path.read_text()) if path.exists() else {}


class Missing(Exception):
    """A panel's data are absent: why, and the command that makes them."""

    def __init__(self, why: str, command: str = ""):
        self.why, self.command = why, command


def collect(run: Run) -> list[dict[str, Any]]:
    """Every panel in the page's order: id, title, note, and ``data`` or ``missing``."""
    out = []
    for key, title, note, gather in PANELS:
        panel: dict[str, Any] = {"id": key, "title": title, "note": note}
        try:
            panel["data"] = gather(run)
        except Missing as m:
            panel["missing"] = {"why": m.why, "command": m.command}
        except DAMAGED as e:
            panel["missing"] = {"why": f"A file of it is damaged ({e}); make it again.", "command": ""}
        out.append(panel)
    return out


def _summary(run: Run) -> dict[str, Any]:
    if not run.values:
        raise Missing("No summary.json in this run yet.", "neuroformer train --config ...")
    return summary(run.values, [t.name for t in run.bundle.config.targets])


def _audit(run: Run) -> dict[str, Any]:
    split = run.bundle.split
    parts = {p: split[p] for p in ("train", "valid", "test")}
    seconds = {p: float(sum(b - a for a, b in i)) for p, i in parts.items()}
    out: dict[str, Any] = {"split": parts, "seconds": seconds, "claim": split.get("claim", "time")}
    if "audit" not in split:
        why = "This run was trained without an audit of its split."
        return out | {"findings": [], "missing": {"why": why, "command": "neuroformer train --config ..."}}
    return out | {"findings": plain(split["audit"].get("findings", []))}


def _learning(run: Run) -> dict[str, Any]:
    path = run.bundle.path / "log" / "metrics.csv"
    if not path.exists():
        raise Missing("No training log in this run.", "neuroformer train --config ...")
    return learning_charts(path)


def _simulated(run: Run) -> Recording:
    path = run.folder / "simulated.npz"
    if not path.exists():
        raise Missing("This run has not been simulated yet.", f"neuroformer generate --run {run.shell}")
    if run.rec is None:
        raise Missing("The recording that this run was trained on is not at hand, so there is nothing to compare with.")
    return open_recording(path)


def _rasters(run: Run) -> dict[str, Any]:
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


def _psth(run: Run) -> dict[str, Any]:
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


def _statistics(run: Run) -> dict[str, Any]:
    path = run.folder / "simulation_scores.json"
    if not path.exists():
        raise Missing("The simulation has not been scored yet.", f"neuroformer generate --run {run.shell} --score")
    return plain(json.loads(path.read_text())) | {"meanings": MEANINGS}


def _decoding(run: Run) -> dict[str, Any]:
    found = decoded_charts(run.folder, run.bundle, run.values)
    if not found["targets"]:
        why = "Nothing has been decoded yet." if run.bundle.config.targets else "This run declares no targets."
        raise Missing(why, f"neuroformer decode --run {run.shell}" if run.bundle.config.targets else "")
    return plain(found)


def _forecast(run: Run) -> dict[str, Any]:
    path = run.folder / "forecast.json"
    if not path.exists():
        raise Missing("Nothing has been forecast yet.", f"neuroformer forecast --run {run.shell}")
    return plain(forecast_charts(path))


def _fewshot(run: Run) -> dict[str, Any]:
    charts = fewshot_charts(run.folder)
    if not charts:
        if run.bundle.config.targets:
            why = "This run saw the labels; a few-shot curve is of one that was pretrained without them."
            raise Missing(why, "neuroformer train --config ... --run ... targets=[]")
        raise Missing("No few-shot curve in this run.", f"neuroformer fewshot --run {run.shell} --target ...")
    return plain({"charts": charts})


def _setup(run: Run) -> dict[str, Any]:
    b = run.bundle
    facts = {"recording": b.recording, "units": str(len(b.units)), "split, SHA-256": b.split["sha256"][:16]}
    facts |= {f"version of {k}": v for k, v in b.versions.items()}
    facts |= {f"weights for {k}, SHA-256": v[:16] for k, v in b.digests.items()}
    return {"facts": facts, "config": yaml.safe_dump(plain(to_dict(b.config)), sort_keys=False)}


def _connectivity(run: Run) -> dict[str, Any]:
    maps = _maps(run)
    rec = run.rec
    made = connectivity(maps, run.bundle.units, None if rec is None else rec.truth.get("coupling"))
    if made is None:
        raise Missing("No map of units by units in this run.", f"neuroformer attend --run {run.shell}")
    known = {"unit": list(range(len(run.bundle.units)))} if rec is None else unit_orders(rec)
    groups = {} if rec is None else unit_groups(rec)
    shown = made.pop("shown")
    place = {unit: i for i, unit in enumerate(shown)}
    known = {name: [place[u] for u in order if u in place] for name, order in known.items()}
    groups = {name: [of[u] for u in shown] for name, of in groups.items()}
    return made | {"orders": made["orders"] | known, "groups": groups}


def _frames(run: Run) -> dict[str, Any]:
    if run.bundle.config.window.frames <= 0:
        raise Missing("This run has no frames.")
    made = frames(run.folder / "frame_attention.npz", _maps(run))
    if made is None:
        raise Missing("No attention to frames in this run.", f"neuroformer attend --run {run.shell}")
    return made


def _fields(run: Run) -> dict[str, Any]:
    if run.bundle.config.window.frames <= 0:
        raise Missing("This run has no frames.")
    made = fields(run.folder, {} if run.rec is None else run.rec.truth)
    if made is None:
        raise Missing("No receptive fields in this run.", f"neuroformer fields --run {run.shell}")
    return made


def _comparison(run: Run) -> dict[str, Any]:
    made = comparison(run.folder)
    if made is None:
        raise Missing(
            "This run has not been compared with other features yet.", f"neuroformer compare --run {run.shell}"
        )
    return made


def _identity(run: Run) -> dict[str, Any]:
    made = identity((run.bundle.path, run.folder))
    if made is None:
        raise Missing(
            "What this run learnt of each unit has not been probed yet.",
            f"neuroformer probe --run {run.shell} --unit area",
        )
    return made


def _maps(run: Run):
    path = run.folder / "maps.npz"
    if not path.exists():
        raise Missing("No maps in this run yet.", f"neuroformer attend --run {run.shell}")
    return load_maps(path)


def plain(value: Any) -> Any:
    """As JSON can hold it: NaN and infinity become null, tuples become lists."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def open_parts(bundle: Bundle, config) -> tuple[Recording | None, Split | None]:
    """The recording and its split; None if the file cannot be found any more."""
    from neuroformer.data.splits import make_split

    try:
        rec = open_one(config.recording)
    except (ConfigError, RecordingError, OSError):
        return None, None
    if rec.unit_ids != bundle.units:
        return None, None
    return rec, make_split(rec, config)


PANELS = (
    (
        "summary",
        "Summary",
        "Every score beside its baselines, its control without spikes, and its ceiling. Bars are 95 % intervals.",
        _summary,
    ),
    ("audit", "Audit", "Training, validation and test data, and what the audit of this split found.", _audit),
    ("learning", "Learning", "Loss terms are unweighted. Click a name to hide its line.", _learning),
    (
        "rasters",
        "Rasters",
        "A held-out trial as it was recorded, and as the model simulated it in closed loop: the model saw its own spikes, never the recorded ones.",
        _rasters,
    ),
    (
        "psth",
        "PSTHs",
        "Mean response to the repeated stimuli in bins of 50 ms: held-out repeats, and simulated ones. The fewer the repeats, the lower the ceiling.",
        _psth,
    ),
    (
        "statistics",
        "Statistics",
        "The simulation beside data against data (its ceiling) and two Poisson simulators. For the classifier, 0.5 is perfect.",
        _statistics,
    ),
    (
        "forecast",
        "Forecast",
        "What is expected some time ahead, given the true past up to now: the model, simple predictors, and what repeats of a stimulus say. Bands are 95 % intervals.",
        _forecast,
    ),
    (
        "decoding",
        "Decoding",
        "Behavior along the held-out stretches: recorded, decoded by the model, decoded by ridge regression. Below, how large the error is where.",
        _decoding,
    ),
    (
        "fewshot",
        "Few labels",
        "Score against labelled seconds: pretrained, from scratch, and baselines on the same draws. Bands are 95 % intervals.",
        _fewshot,
    ),
    (
        "connectivity",
        "Connectivity",
        "Columns act on rows. The knock-out is the causal reading of the model: one unit's past spikes are removed and the change of every other unit's predicted log-odds is measured.",
        _connectivity,
    ),
    (
        "frames",
        "Frames",
        "Where the model looks in the video: attention of the current spikes to each place of the frames.",
        _frames,
    ),
    (
        "fields",
        "Fields",
        "What each unit sees, according to the model: its receptive field (mean squared gradient of its log-odds to every pixel) and its most exciting input (gradient ascent on its predicted rate).",
        _fields,
    ),
    (
        "comparison",
        "Comparison",
        "How well features explain the units of the held-out part, layer by layer. Bars are 95 % intervals over units and stimuli; what sees past spikes sees those of the very trials that it is compared with.",
        _comparison,
    ),
    (
        "identity",
        "Identity",
        "How well a linear probe of what the run learnt of each unit tells what is known of it, on held-out units, beside firing statistics. Bars are 95 % intervals.",
        _identity,
    ),
    ("setup", "Setup", "The configuration and versions that made this run, and that would repeat it.", _setup),
)

"""The Neural Latents Benchmark: its HDF5 tensors become a recording, and a run's rates become its submission.

Nothing of ``nlb_tools`` is needed here; with it one makes the tensors from the NWB files (``make_train_input_tensors`` and
``make_eval_input_tensors``, saved as HDF5).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from benchmarks.public.decoding import train_once
from benchmarks.public.source import Source
from neuroformer.bundle.bundle import load_model
from neuroformer.bundle.opening import open_run
from neuroformer.data.windows import SpikeIndex, Windows, tile
from neuroformer.files import replacing_hdf5, save_npz
from neuroformer.simulation_scores.nlb import behavior_r2
from neuroformer.studies.cosmoothing import Readout, cosmooth, held_out_units

ABOUT = Source(
    title="Neural Latents Benchmark '21 (MC_Maze and its smaller versions, MC_RTT, Area2_Bump, DMFC_RSG)",
    where="dandiarchive.org, dandisets 000128 to 000140 (NWB); tensors by nlb_tools.make_tensors, saved as HDF5",
    licence="CC BY 4.0 (each dandiset says so)",
    citation="Pei et al., NeurIPS 2021 (datasets and benchmarks)",
    split="the benchmark's: its eval trials, whose held-out units only its server knows; of the train trials one in five "
    "validates and one in five is scored here",
    published=(
        "Pei et al., NeurIPS 2021 (datasets and benchmarks), table 2, has co-bps of smoothed spikes, GPFA, SLDS, NDT and AutoLFADS",
    ),
)
PARTS = ("train", "train", "train", "valid", "test")  # of the train trials; eval trials come behind them
HELD_IN, HELD_OUT = "held in", "held out"


def read(train: Path, evaluation: Path | None, bin_s: float) -> dict[str, np.ndarray]:
    """The arrays of a recording: all units, of which those held out are not observed in eval trials; the column ``part``.

    Trials follow each other on one clock with a bin between them. Behavior of train trials is ``behavior``.

    Parameters
    ----------
    train, evaluation : HDF5 files with ``train_spikes_heldin``, ``train_spikes_heldout`` (trials, bins, units) and perhaps
        ``train_behavior``; and with ``eval_spikes_heldin``
    bin_s : seconds per bin of the tensors

    Raises
    ------
    KeyError
        A tensor that is not there.
    """
    with h5py.File(train) as file:
        held_in, held_out = (_tensor(file, f"train_spikes_held{side}") for side in ("in", "out"))
        behavior = _tensor(file, "train_behavior") if "train_behavior" in file else None
    each = [np.concatenate([held_in, held_out], 2)]
    if evaluation is not None:
        with h5py.File(evaluation) as file:
            seen = _tensor(file, "eval_spikes_heldin")
        each.append(np.concatenate([seen, np.zeros((*seen.shape[:2], held_out.shape[2]))], 2))
    lengths = np.concatenate([np.full(len(x), x.shape[1]) for x in each])
    first = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
    counts = np.zeros((int((lengths + 1).sum()), each[0].shape[2]))
    for start, trial in zip(first, (t for x in each for t in x), strict=True):
        counts[start : start + len(trial)] = np.nan_to_num(trial)
    number, units = len(each[0]), counts.shape[1]
    part = np.array([*(PARTS[n % len(PARTS)] for n in range(number)), *["eval"] * (len(lengths) - number)])
    where = np.repeat([HELD_IN, HELD_OUT], [held_in.shape[2], held_out.shape[2]])
    out = {
        "spikes": np.rint(counts.T).astype(np.int64),
        "spikes_dt": np.array(bin_s),
        "domain": np.stack([first, first + lengths], 1) * bin_s,
        "trials_start": first * bin_s,
        "trials_stop": (first + lengths) * bin_s,
        "trials_part": part,
        "unit_benchmark": where,
    }
    if len(each) > 1:
        ends = np.where(where == HELD_IN, out["trials_stop"][-1], out["trials_stop"][number - 1])
        out |= {"observed_intervals": np.stack([np.zeros(units), ends], 1), "observed_units": np.arange(units)}
    if behavior is not None:
        at = first[:number, None] + np.arange(behavior.shape[1]) + 0.5
        out |= {"behavior": behavior.reshape(-1, behavior.shape[2]), "behavior_times": at.ravel() * bin_s}
    return out


def _tensor(file: Any, name: str) -> np.ndarray:
    if name not in file:
        raise KeyError(f"{file.filename} has no '{name}'; it has {', '.join(file)}")
    return np.asarray(file[name], np.float64)


def configuration(path: Path, bin_s: float, with_eval: bool) -> dict[str, Any]:
    """The network sees held-in units alone; whole trials train, validate and are scored; eval trials are in no part."""
    pattern = ["none"] * with_eval + ["test", "train", "valid"]  # of the parts in the order of the alphabet
    return {
        "recording": {"path": str(path), "units": {"where": f"benchmark == '{HELD_IN}'"}},
        "window": {"frames": 0.0, "dt": bin_s},
        "split": {"by": "trials", "hold_out": "part", "pattern": pattern},
    }


def submission(run: Path, name: str, out: Path) -> dict[str, np.ndarray]:
    """The benchmark's dictionary of a trained run, also written as HDF5 under the data set's name (``mc_maze_small``):
    ``train_rates_heldin``, ``..._heldout``, ``eval_rates_heldin``, ``..._heldout``, (trials, bins, units) expected counts per bin.
    """
    bundle, prepared = open_run(run)
    model, rec = load_model(bundle), held_out_units(prepared)
    index = SpikeIndex.from_recording(rec, prepared.split.segments, prepared.split.dt)
    readout, part = Readout(model, prepared, index, True), np.asarray(prepared.rec.trials["part"]).astype(str)
    rates = {}
    for side, trials in (("train", np.flatnonzero(part != "eval")), ("eval", np.flatnonzero(part == "eval"))):
        if not len(trials):
            continue
        bins = int(prepared.index.num_ticks[trials].min())
        blocks = np.stack([trials, np.zeros_like(trials), np.full_like(trials, bins)], 1)
        windows = tile(blocks, prepared.builder.shape, reach=0)
        current = prepared.builder.shape.current
        if len(windows) * current != len(trials) * bins:
            raise ValueError(
                f"a trial has {bins} bins and a window {current}; rates of every bin need window.current to divide the trial"
            )
        shaped = lambda x, trials=trials, bins=bins: x.reshape(len(trials), bins, -1)
        rates[f"{side}_rates_heldin"] = shaped(_own_rates(model, prepared, windows))
        rates[f"{side}_rates_heldout"] = shaped(readout.rates(windows))
    with replacing_hdf5(out) as file:
        for key, values in rates.items():
            file[f"{name}/{key}"] = values
    return rates


@torch.no_grad()
def _own_rates(model, prepared, windows: Windows) -> np.ndarray:
    batches = prepared.batches(windows, 256, model.device)
    return np.concatenate([model.expected(b).exp().flatten(0, 1).double().cpu().numpy() for b in batches])


def behavior_score(model, prepared) -> float:
    """The benchmark's behavior R2: ridge from the rates of all units, fitted on the training trials, scored on the last ones."""
    index = SpikeIndex.from_recording(held_out_units(prepared), prepared.split.segments, prepared.split.dt)
    readout, bins = Readout(model, prepared, index, True), prepared.builder.shape.current
    variable, sides = prepared.rec.variable("behavior"), []
    for part in ("train", "test"):
        windows = readout.windows(part)
        middle = (windows.starts(prepared.index)[:, None] + (np.arange(bins) + 0.5) * prepared.split.dt).ravel()
        near = np.clip(np.searchsorted(variable.times, middle - 0.5 * prepared.split.dt), 0, len(variable.times) - 1)
        known = np.abs(variable.times[near] - middle) < 0.5 * prepared.split.dt
        behavior = np.where(known[:, None], variable.values[near], np.nan)
        sides += [np.concatenate([_own_rates(model, prepared, windows), readout.rates(windows)], 1), behavior]
    return behavior_r2(*sides)


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Train on ``train.h5`` of a folder and score held-out units of its last train trials; with ``eval.h5`` beside it, write
    ``submission.h5``. The bin is 5 ms, or that of ``window.dt`` among the overrides."""
    given = [o.split("=")[1] for o in overrides if o.startswith("window.dt=")]
    bin_s, evaluation = float(given[-1]) if given else 0.005, data / "eval.h5"
    folder.mkdir(parents=True, exist_ok=True)
    save_npz(folder / "recording.npz", read(data / "train.h5", evaluation if evaluation.exists() else None, bin_s))
    train_once(configuration(folder / "recording.npz", bin_s, evaluation.exists()), folder / "run", overrides)
    bundle, prepared = open_run(folder / "run")
    model = load_model(bundle)
    scores = cosmooth(model, prepared).scores
    if "behavior" in prepared.rec.behavior:
        scores["behavior_r2"] = behavior_score(model, prepared)
    if evaluation.exists():
        submission(folder / "run", data.name, folder / "submission.h5")
    lines = [str(ABOUT), "", *(f"{key}: {value:.4g}" for key, value in scores.items())]
    return {"scores": scores, "table": "\n".join(lines)}

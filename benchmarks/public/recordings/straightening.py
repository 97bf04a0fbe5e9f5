"""Images of one movie held out: macaque V1. Each image was shown for 200 ms in random order among ten movies, at two scales, as filmed,
as a cross-fade of its ends, and (four movies) at eleven contrasts. For every movie in turn a model is trained without it, on 40 or
50 images of each of the others, one of which validates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from benchmarks.public.source import Source, found_folder
from neuroformer.bundle.bundle import STIMULUS
from neuroformer.config import Config, apply_overrides, from_dict
from neuroformer.intervals import mean_interval
from neuroformer.recording import FrameSeries, Recording
from neuroformer.recording.series import ObservedIntervals
from neuroformer.training.scoring.rates import HeldOutRates, held_out_rates
from neuroformer.training.train import load_best, train

ABOUT = Source(
    title="macaque V1, Utah arrays: natural and synthetic image sequences, 42 to 70 units",
    where="--data is a folder with V1_responses of github.com/wongyoJung/Primary-visual-cortex-straightens-natural-video-trajectories "
    "and images/acute/stimulus_fullfield of github.com/olivierhenaff/neural-straightening",
    licence="none stated",
    citation="Hénaff et al., Primary visual cortex straightens natural video trajectories, Nature Communications 12:5982 (2021)",
    split="every movie in turn tests, another validates",
)
SESSIONS = ("ay4_u006", "ay3_u002")
REPEATS = 50  # of each image, at most
SLOT = 0.3  # seconds from one image to the next; 0.2 s of them on screen
LATENCY, COUNTED = 0.04, 0.2  # seconds after onset: where the counts were taken
KINDS = ("natural", "synthetic", "contrast")
MOVIES = 10
CONFIG: dict[str, Any] = {  # all that differs from the defaults
    "window": {"dt": SLOT, "current": SLOT, "past": 0.0, "frames": SLOT},
    "split": {"by": "trials", "hold_out": "movie", "claim": "stimuli"},
}


def recording(responses: Path, images: Path, session: str, *, repeats: int = 50, size: int = 128) -> Recording:
    """Every presentation a trial of one frame, with as many spikes as were counted, evenly over the time of counting.

    Parameters
    ----------
    responses, images : the folders ``V1_responses`` and ``stimulus_fullfield``
    session : such as ``ay4_u006``
    repeats : at most, of each image
    size : pixels of a side that images are averaged down to (of 512)
    """
    with h5py.File(responses / f"{session}_image_sequences.mat") as f:
        counts = np.asarray(f["naturalStruct/sortedResponses"], np.float32)[
            :repeats
        ]  # repeat, unit, frame, movie, kind, scale
    there = np.asarray(np.isfinite(counts).any(axis=1))
    there[:, 10, :, 2] = False  # of contrasts there are ten files
    where = np.argwhere(there)
    where = where[np.random.default_rng(0).permutation(len(where))]  # the order of presentations is not in the file
    bank: dict[tuple[int, str, int, int], int] = {}
    shown = [_image(*row[1:].tolist()) for row in where]
    index = np.array([bank.setdefault(key, len(bank)) for key in shown])
    pixels = np.stack([_read(images, key, size) for key in bank])
    k, frame, movie, kind, scale = where.T
    each = counts[k, :, frame, movie, kind, scale]  # presentation, unit
    start = np.arange(len(where)) * SLOT
    number = np.nan_to_num(each).astype(int)
    trial, unit = np.nonzero(number)
    times = [
        start[t] + LATENCY + (np.arange(n) + 0.5) / n * COUNTED for t, n in zip(trial, number[trial, unit], strict=True)
    ]
    units = np.repeat(unit, number[trial, unit])
    flat = np.concatenate(times)
    order = np.argsort(flat, kind="stable")
    return Recording(
        name=session,
        spike_times=flat[order],
        spike_units=units[order].astype(np.int32),
        units={"id": np.array([f"u{i:02d}" for i in range(counts.shape[1])])},
        domain=np.array([[0.0, len(where) * SLOT]]),
        trials={
            "start": start,
            "stop": start + SLOT,
            "movie": movie,
            "kind": np.array(KINDS)[kind],
            "scale": scale + 1,
        },
        frames=FrameSeries(pixels, start, index),
        observed=_observed(np.isfinite(each), start),
    )


def _image(frame: int, movie: int, kind: int, scale: int) -> tuple[int, str, int, int]:
    """Which file was shown: a cross-fade begins and ends with images as filmed."""
    name = "natural" if KINDS[kind] == "synthetic" and frame in (0, 10) else KINDS[kind]
    return scale, name, movie, frame


def _read(images: Path, key: tuple[int, str, int, int], size: int) -> np.ndarray:
    scale, name, movie, frame = key
    file = images / f"stimSelected-zoom{scale + 1}x" / f"movie{movie + 1}" / f"{name}{frame + 1:02d}.png"
    return np.asarray(Image.open(file).convert("L").resize((size, size), Image.Resampling.BOX))


def _observed(there: np.ndarray, start: np.ndarray) -> ObservedIntervals | None:
    """Runs of presentations in which each unit was counted; None if all were throughout."""
    if there.all():
        return None
    by_unit = []
    for seen in there.T:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], seen, [False]]).astype(int)))
        first, last = edges[::2], edges[1::2]
        by_unit.append(np.stack([start[first], start[last - 1] + SLOT], 1))
    return ObservedIntervals.from_units(by_unit)


def config(movie: int, overrides: list[str]) -> Config:
    """The configuration with one movie held out."""
    role = {movie: "test", (movie + MOVIES // 2) % MOVIES: "valid"}
    split = CONFIG["split"] | {"pattern": [role.get(m, "train") for m in range(MOVIES)]}
    return from_dict(apply_overrides({**CONFIG, "split": split}, overrides))


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Both sessions; a movie that ``folder`` already holds is not trained again.

    Returns
    -------
    dict
        By session :func:`held_out_movies`.
    """
    responses, images = found_folder(data, "V1_responses"), found_folder(data, "stimulus_fullfield")
    out: dict[str, Any] = {}
    for session in SESSIONS:
        rec = recording(responses, images, session, repeats=REPEATS)
        print(rec, flush=True)
        out[session] = held_out_movies(rec, folder / session, list(overrides))
    return out | {"table": f"{ABOUT}\n\n{json.dumps(out, indent=1)}"}


def held_out_movies(rec: Recording, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Train without each movie, and score the held-out images of all of them together.

    Returns
    -------
    dict
        ``median`` over units of every score (:meth:`neuroformer.training.scoring.rates.HeldOutRates.scores`); ``minus_ridge``: r of the
        model minus that of the ridge, paired over units: mean and ends of its 95 % interval; ``units``, ``images``.
    """
    parts = []
    for movie in range(MOVIES):
        file = folder / f"movie_{movie}" / "rates.npz"
        if not file.exists():
            prepared, metrics = train(rec, config(movie, overrides), file.parent, progress=False)
            held = held_out_rates(load_best(file.parent, STIMULUS), prepared)
            np.savez(file, mean=held.mean_GU, noise=held.noise_GU, **held.expected)  # pyright: ignore[reportArgumentType]
            print(f"{metrics['train_steps']} steps, {metrics['train_seconds']:.0f} s", flush=True)
        with np.load(file) as x:
            expected = {name: x[name] for name in x.files if name not in ("mean", "noise")}
            parts.append(HeldOutRates(x["mean"], x["noise"], expected))
        print(f"without movie {movie + 1}: {_medians(parts[-1].scores())}", flush=True)
    together = HeldOutRates.join(parts)
    scores = together.scores()
    better = mean_interval((scores["model"] - scores["energy_ridge"]).tolist())
    return {
        "units": rec.num_units,
        "images": len(together.mean_GU),
        "median": _medians(scores),
        "minus_ridge": [round(x, 4) for x in better],
    }


def _medians(scores: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: round(float(np.nanmedian(x)), 4) for name, x in scores.items()}

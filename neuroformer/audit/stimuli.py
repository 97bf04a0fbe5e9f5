"""Which stimuli training and test share, how similar the others are, and whether the animal moves them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from neuroformer.audit.findings import Finding
from neuroformer.config import Config
from neuroformer.data.splits import Split
from neuroformer.recording import FrameSeries, Recording
from neuroformer.recording.clock import nanoseconds

_MOST_BYTES = 512 << 20  # of images that are hashed; of a larger bank, images spread evenly over it
ENOUGH_TO_LEARN, ENOUGH_FOR_ENERGIES = 5000, 200  # distinct images
STIMULUS_COLUMNS = (
    "movie",
    "stimulus",
    "clip",
    "image",
    "scene",
    "condition",
    "stimulus_id",
    "stimulus_name",
    "stim",
)


def stimulus_findings(rec: Recording, config: Config, split: Split, facts: dict[str, Any]) -> list[Finding | None]:
    """Findings on shared and near-by stimuli and on closed loops; ``facts["stimuli"]`` is filled."""
    out: list[Finding | None] = []
    train = split.intervals("train")
    test = np.concatenate([split.intervals(p) for p in ("valid", "test")])
    stimuli: dict[str, Any] = {}
    shared: dict[str, float] = {}
    if rec.frames is not None and config.window.frames > 0:
        shown = {k: shown_images(rec.frames, t) for k, t in (("train", train), ("test", test))}
        if all(len(s) for s in shown.values()):
            same, looked = shared_images(rec.frames, shown["train"], shown["test"])
            shared["frames"] = float(same.mean())
            stimuli = {"test_frames": len(shown["test"]), "also_in_train": shared["frames"], "images_compared": looked}
            if not same.all():
                near = nearest_distance(rec.frames, shown["train"], shown["test"][~same])
                stimuli["distance_of_the_others"] = near
                out.append(_near(near, config))
        out += [_within_window(config), moves_stimulus(rec, config), _few_images(shown["train"], config)]
    shared |= {f"trials' {k}": v for k, v in _shared_trials(rec, train, test).items()}
    if "trial_time" in [v.name for v in config.inputs] and "frames" not in shared and len(shared) == 0:
        shared["trial_time, the only stimulus that the model knows"] = 1.0
    facts |= {"stimuli": stimuli | {"shared": shared}} if shared or stimuli else {}
    return [_shared(shared, config), *out]


def shown_images(frames: FrameSeries, intervals: np.ndarray) -> np.ndarray:
    """(shown,) image of every frame whose onset lies in the intervals; those of different parts may overlap."""
    lo, hi = np.searchsorted(nanoseconds(frames.times), nanoseconds(intervals)).T
    return np.concatenate([frames.index[a:b] for a, b in zip(lo, hi, strict=True)] or [frames.index[:0]])


def shared_images(frames: FrameSeries, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, int]:
    """(test,) whether each shown image is among the training images, by place in the bank or by content.

    Blank images (of one value) count as shared by place only: gray screens between stimuli are no stimulus.
    Also how many images were hashed.
    """
    same = np.isin(test, train)
    rest, known = np.unique(test[~same]), np.unique(train)
    each = int(np.prod(frames.images.shape[1:])) * np.dtype(frames.images.dtype).itemsize
    most = max(2, _MOST_BYTES // max(each, 1))
    if len(rest) + len(known) > most:
        rest, known = (_spread(x, max(1, most * len(x) // (len(rest) + len(known)))) for x in (rest, known))
    if len(rest) == 0:
        return same, len(known)
    of_train = set(_digests(frames, known)) - {b""}
    again = rest[[d in of_train for d in _digests(frames, rest)]]
    return same | np.isin(test, again), len(rest) + len(known)


def _digests(frames: FrameSeries, images: np.ndarray) -> list[bytes]:
    out: list[bytes] = []
    for part in np.array_split(images, max(1, len(images) // 256)):
        for image in np.asarray(frames.images[part]):
            blank = image.size == 0 or image.min() == image.max()
            out.append(b"" if blank else hashlib.blake2b(image.tobytes(), digest_size=16).digest())
    return out


def nearest_distance(frames: FrameSeries, train: np.ndarray, test: np.ndarray) -> float:
    """Median over test images of the distance to the nearest training image, in units of the median distance.

    Root mean square difference of images shrunk to 16 x 16 at most; 0 is a copy, 1 is any other image.
    """
    train, test = _spread(np.unique(train), 2000), _spread(np.unique(test), 200)
    a, b = _small(frames, test), _small(frames, train)
    square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    distance = np.sqrt(np.maximum(square, 0))
    usual = float(np.median(distance))
    return float(np.median(distance.min(1)) / usual) if usual > 0 else 0.0


def _small(frames: FrameSeries, images: np.ndarray) -> np.ndarray:
    height, width = frames.images.shape[1:]
    rows, columns = (np.linspace(0, n, min(n, 16) + 1).astype(int)[:-1] for n in (height, width))
    out = []
    for part in np.array_split(images, max(1, len(images) // 256)):
        x = np.asarray(frames.images[part], np.float32)
        x = np.add.reduceat(np.add.reduceat(x, rows, axis=1), columns, axis=2)
        out.append(x.reshape(len(part), -1))
    return np.concatenate(out)


def _spread(x: np.ndarray, most: int) -> np.ndarray:
    return x[np.unique(np.linspace(0, len(x) - 1, min(len(x), most)).astype(int))] if len(x) else x


def _shared_trials(rec: Recording, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
    """Share of test trials whose stimulus, as a column of the trials names it, trains too; by column."""
    if not rec.trials:
        return {}
    middle = rec.trial_intervals.mean(1)
    inside = lambda t: ((middle[:, None] >= t[:, 0]) & (middle[:, None] < t[:, 1])).any(1)
    of_train, of_test = inside(train), inside(test)
    out = {}
    for name, values in rec.trials.items():
        if name.lower() in STIMULUS_COLUMNS and values.ndim == 1 and of_train.any() and of_test.any():
            out[name] = float(np.isin(values[of_test], values[of_train]).mean())
    return out


def _shared(shared: Mapping[str, float], config: Config) -> Finding | None:
    claim = config.split.claim
    if not shared:
        return None
    said = "; ".join(f"{s:.1%} of the held-out {k}" for k, s in shared.items())
    if max(shared.values()) <= 0.001:
        if claim != "repeats":
            return None
        return Finding(
            "no_repeats",
            "warning",
            f"{said} were shown in training",
            "split.claim says 'repeats', but no held-out stimulus is a repeat; the claim is 'stimuli'",
            dict(shared),
        )
    if claim == "stimuli":
        return Finding(
            "shared_stimulus",
            "leak",
            f"{said} were shown in training",
            "split.claim says 'stimuli': hold out whole stimuli (split.by: trials and split.hold_out, a column that "
            "names them), or claim 'repeats'",
            dict(shared),
        )
    return Finding(
        "shared_stimulus",
        "note",
        f"{said} were shown in training",
        f"split.claim is '{claim}': scores generalise to new repeats of known stimuli, not to new stimuli",
        dict(shared),
    )


def _near(distance: float, config: Config) -> Finding | None:
    if distance > 0.1 or config.split.claim != "stimuli":
        return None
    return Finding(
        "near_stimuli",
        "warning",
        f"held-out images are {distance:.2f} of the usual distance from their nearest training image",
        "neighboring frames of one movie are no new stimuli; hold out whole movies",
        {"distance": distance},
    )


def _few_images(train: np.ndarray, config: Config) -> Finding | None:
    """Whether the distinct images that train can teach what reads them: a fixed encoder needs hundreds, a learnt one tens of
    thousands (Klindt et al. 2017 and Lurz et al. 2021 train theirs on 5,000 and more, with thousands of units)."""
    encoder, distinct = config.model.frame_encoder, len(np.unique(train))
    learns = encoder.kind in ("conv3d", "patches") or encoder.finetune
    enough = ENOUGH_TO_LEARN if learns else ENOUGH_FOR_ENERGIES
    few = distinct < enough
    how = f"model.frame_encoder.kind: {encoder.kind} " + ("learns its filters" if learns else "has fixed filters")
    advice = f"{how}, for which {enough:,} are about enough"
    if few:
        advice = f"{how} and wants about {enough:,}; " + (
            "use kind: energy, whose filters are fixed"
            if learns
            else "expect known images to be predicted, and little of new ones"
        )
    severity = "warning" if few and config.split.claim == "stimuli" else "note"
    return Finding(
        "distinct_images",
        severity,
        f"{distinct:,} distinct images train",
        advice,
        {"distinct": distinct, "enough": enough},
    )


def _within_window(config: Config) -> Finding | None:
    if config.window.frames_until == "start":
        return None
    return Finding(
        "frames_within_window",
        "note",
        f"an early bin of a window may see a frame that comes on up to {config.window.current * 1e3:g} ms later "
        "(window.frames_until: stop)",
        "no matter for a stimulus that runs by itself; with window.frames_until: start no such frame is seen",
        {"ahead_s": config.window.current},
    )


def moves_stimulus(rec: Recording, config: Config) -> Finding | None:
    """Whether behavior drives the change of frames, as in closed-loop virtual reality.

    Only where most images are shown once: a movie that repeats does not follow the animal. The measure is the
    rank correlation of the change between neighboring frames with the absolute value of each column of
    behavior, against the same with behavior shifted in time.
    """
    frames = rec.frames
    if frames is None or len(frames.times) < 400 or len(np.unique(frames.index)) < 0.5 * len(frames.index):
        return None
    some = np.arange(min(len(frames.times), 6000))
    small = _small_in_order(frames, frames.index[some])
    change = np.abs(np.diff(small, axis=0)).mean(1)
    step = np.diff(frames.times[some])
    change[step > 3 * np.median(step)] = np.nan
    at = frames.times[some][1:]
    best, name = 0.0, ""
    for label, variable in rec.behavior.items():
        values = np.abs(variable.interpolate(at))
        speed = np.abs(np.gradient(values, axis=0)) if len(values) > 2 else values
        for column in np.concatenate([values, speed], 1).T[:16]:
            r, chance = _shifted_correlation(change, column)
            if r > max(0.3, 2 * chance) and r > best:
                best, name = r, label
    if not name:
        return None
    until = config.window.frames_until
    return Finding(
        "behavior_moves_stimulus",
        "warning" if until == "stop" else "note",
        f"frames change with '{name}' (rank correlation {best:.2f}, and most images are shown once): the animal "
        "seems to move its stimulus",
        "use window.frames_until: start, else a window's frames tell of the behavior, and so of the spikes, within it"
        if until == "stop"
        else "frames end where the window starts, as they should",
        {"variable": name, "rank_correlation": best},
    )


def _small_in_order(frames: FrameSeries, index: np.ndarray) -> np.ndarray:
    bank, inverse = np.unique(index, return_inverse=True)
    return _small(frames, bank)[inverse]


def _shifted_correlation(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Rank correlation, and its largest size over nine circular shifts of b (slow signals agree by chance)."""
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 200:
        return 0.0, 0.0
    rank = lambda x: np.argsort(np.argsort(x)).astype(float)
    x, y = rank(a[both]), rank(b[both])
    if np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return 0.0, 0.0
    shifts = [np.roll(y, k * len(y) // 10) for k in range(1, 10)]
    return float(np.corrcoef(x, y)[0, 1]), max(abs(float(np.corrcoef(x, s)[0, 1])) for s in shifts)

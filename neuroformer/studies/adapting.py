"""A new animal joins trained runs with ever more of its data: what their trunks save it.

Shape suffix: W windows.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroformer.bundle.bundle import Bundle
from neuroformer.config import Config, ConfigError
from neuroformer.data.splits import make_split
from neuroformer.intervals import FewBlocksWarning, over_time, ratio_terms
from neuroformer.recording import Recording
from neuroformer.training.adapt import Start, Trains
from neuroformer.training.scoring.scores import NLL, NULL, NUMBER, SEGMENT, TICK, score
from neuroformer.training.train import load_best, train_several

SCRATCH = "scratch"
WAYS: tuple[Trains, ...] = ("new", "all")


@dataclass(frozen=True)
class Point:
    """Held-out bits of one training on so many seconds.

    Attributes
    ----------
    way : "scratch", or the name of a run and what of it was trained: "NAME new" (rows of units alone), "NAME all"
    bits : bits/spike (traces: bits/sample) of the test part, which is the same for every amount; ``low``, ``high``: 95 %
        interval over held-out time (:func:`neuroformer.intervals.over_time`), NaN where there is none
    more : bits that it has more than training from scratch on the same seconds, with its paired interval
    """

    seconds: float
    way: str
    bits: float
    low: float
    high: float
    more: float = float("nan")
    more_low: float = float("nan")
    more_high: float = float("nan")


def adapting_curve(
    runs: Mapping[str, Bundle],
    rec: Recording,
    config: Config,
    seconds: Sequence[float],
    folder: Path,
    *,
    ways: Sequence[Trains] = WAYS,
    progress: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> list[Point]:
    """Train from each run and from scratch on the first seconds of a recording, and score all on its test part.

    Parameters
    ----------
    runs : trained runs by name, of one window and one network
    config : of :func:`neuroformer.training.adapt.adapted_config`
    seconds : of training and validation data together, as the split deals them
    folder : a run for each; a second call goes on where the first one stopped

    Raises
    ------
    ConfigError
        An amount that the recording does not have, or that leaves a part without a window.
    """
    split = make_split(rec, dataclasses.replace(config, recording=dataclasses.replace(config.recording, share=1.0)))
    there = split.seconds("train") + split.seconds("valid")
    points = []
    for amount in sorted(seconds):
        if not 0 < amount <= there:
            raise ConfigError(
                f"{amount:g} s of '{rec.name}' were asked for; it has {there:g} s to train and validate by"
            )
        one = dataclasses.replace(
            config, recording=dataclasses.replace(config.recording, share=min(1.0, amount / there))
        )
        found = {SCRATCH: _windows(rec, one, folder / f"{amount:g}s_{SCRATCH}", None, progress)}
        for name, bundle in runs.items():
            for way in ways:
                say(f"{amount:g} s: {name}, {way}")
                start = Start(bundle, way)
                place = folder / f"{amount:g}s_{name}_{way}"
                found[f"{name} {way}"] = _windows(rec, one, place, start, progress)
        points += [_point(amount, way, windows, found[SCRATCH]) for way, windows in found.items()]
    return points


def _windows(rec: Recording, config: Config, folder: Path, start: Start | None, progress: bool) -> np.ndarray:
    """(W, 6) held-out windows in time order, see :class:`~neuroformer.training.scoring.scores.Scores`."""
    if start is not None:
        config = start.config_for(rec, config)
    (prepared,), _ = train_several([rec], config, folder, progress=progress, resume=True, start=start)
    windows = np.concatenate(score(load_best(folder), prepared.opened, "test").windows)
    return windows[np.lexsort((windows[:, TICK], windows[:, SEGMENT]))]


def _point(amount: float, way: str, windows: np.ndarray, scratch: np.ndarray) -> Point:
    bits = _bits(windows[:, NULL] - windows[:, NLL], windows[:, NUMBER])
    return Point(
        amount, way, *bits, *(_bits(scratch[:, NLL] - windows[:, NLL], windows[:, NUMBER]) if way != SCRATCH else ())
    )


def _bits(nats_W: np.ndarray, number_W: np.ndarray) -> tuple[float, float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewBlocksWarning)  # NaN says it
        found = over_time(ratio_terms(nats_W, number_W, 1 / np.log(2)), "bits")
    low, high = found.ends()[:, 0]
    return float(found.value_S[0]), float(low), float(high)

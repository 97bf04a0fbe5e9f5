"""Whether what units see is a matter of the data: two models, each trained on half of the training data, and how alike their
receptive fields and most exciting inputs are.

Shape suffixes: U units, F frames, H rows, X columns.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroformer.analysis.fields import frame_sensitivity
from neuroformer.analysis.mei import most_exciting
from neuroformer.bundle.bundle import STIMULUS, read_bundle
from neuroformer.config import Config, ConfigError
from neuroformer.data.prepared import Prepared
from neuroformer.training.train import load_best, train


@dataclass(frozen=True)
class Agreement:
    """Pearson's r between both halves, over all places and lags.

    Attributes
    ----------
    unit_ids : list of str
    field_UU, clip_UU : receptive fields, and most exciting inputs, of every unit of one half (rows) and every unit of the other;
        off the diagonal is what any two units have in common
    """

    unit_ids: list[str]
    field_UU: np.ndarray
    clip_UU: np.ndarray

    def summary(self) -> dict[str, float]:
        """Medians over units, and over pairs of different units."""
        out = {}
        for name, r_UU in (("fields", self.field_UU), ("mei", self.clip_UU)):
            out[f"{name}_halves_r_median"] = float(np.median(np.diagonal(r_UU)))
            if len(r_UU) > 1:
                other = ~np.eye(len(r_UU), dtype=bool)
                out[f"{name}_halves_r_of_others_median"] = float(np.median(r_UU[other]))
        return out


def half_config(config: Config, half: int) -> Config:
    """The configuration with every other training stretch (or trial, or value of ``split.hold_out``) left out.

    Raises
    ------
    ConfigError
        ``half`` is neither 0 nor 1.
    """
    if half not in (0, 1):
        raise ConfigError(f"half {half} does not exist; there are 0 and 1")
    pattern, number = [], 0
    for part in config.split.pattern * 2:  # twice: a pattern may hold an odd number of training stretches
        pattern.append("none" if part == "train" and number % 2 != half else part)
        number += part == "train"
    return dataclasses.replace(config, split=dataclasses.replace(config.split, pattern=tuple(pattern)))


def agreement(
    prepared: Prepared, folder: Path, *, windows: int = 128, starts: int = 2, steps: int = 60, progress: bool = True
) -> Agreement:
    """Train on either half, and compare what the models see.

    Fields of both are taken over the same training windows, and both climbs to a most exciting input start from the same
    noise. A half that ``folder`` already holds, of the same configuration, is not trained again.

    Parameters
    ----------
    prepared : the recording with its whole training data
    folder : ``half_1`` and ``half_2`` go there
    windows, starts, steps : of :func:`~neuroformer.analysis.fields.frame_sensitivity` and
        :func:`~neuroformer.analysis.mei.most_exciting`
    """
    every = prepared.windows("train")
    rng = np.random.default_rng(prepared.config.seed)
    few = every[np.sort(rng.permutation(len(every))[:windows])]
    fields, clips = [], []
    for half in (0, 1):
        model = _trained(prepared, half_config(prepared.config, half), folder / f"half_{half + 1}", progress)
        fields.append(np.asarray(frame_sensitivity(model, prepared, few).values).reshape(model.num_units, -1))
        best = most_exciting(model, prepared, every, starts=starts, steps=steps, seed=prepared.config.seed)
        clips.append(best.contrast.reshape(model.num_units, -1))
    return Agreement(list(prepared.rec.unit_ids), _r(*fields), _r(*clips))


def _trained(prepared: Prepared, config: Config, folder: Path, progress: bool):
    done = (folder / "bundle.json").exists() and read_bundle(folder).config == config
    if not done:
        train(prepared.rec, config, folder, progress=progress)
    return load_best(folder, STIMULUS)


def _r(a_UN: np.ndarray, b_UN: np.ndarray) -> np.ndarray:
    """(U, U) Pearson's r between rows; 0 where one is constant."""
    a, b = (x - x.mean(1, keepdims=True) for x in (a_UN.astype(np.float64), b_UN.astype(np.float64)))
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-20) for x in (a, b))
    return a @ b.T

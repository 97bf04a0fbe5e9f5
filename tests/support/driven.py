"""Units that speed drives, and a network of them: shared by the tests of fine-tuning, few-shot curves and folds."""

import dataclasses

import numpy as np
import torch
from helpers import small_config, small_recording

from neuroformer.config import TargetConfig, TuneConfig
from neuroformer.data.prepared import prepare
from neuroformer.model.network import Neuroformer
from neuroformer.recording import BehaviorVariable

TUNE = TuneConfig(steps=10)
SPEED, PLACE, CHOICE = TargetConfig("speed"), TargetConfig("place"), TargetConfig("choice", "classification")


def driven_recording(seconds=60.0):
    """Units whose rates follow speed, one up and one down; a choice that is speed's sign."""
    rng = np.random.default_rng(0)
    t = np.arange(0, seconds, 0.05)
    speed = np.sin(t * 1.3) + np.sin(t * 0.47)
    rates = np.exp(np.stack([2.5 + 0.8 * speed, 2.5 - 0.8 * speed, 2.0 + 0 * speed], 1))
    counts = rng.poisson(rates * 0.05)
    row, unit = np.nonzero(counts)
    rec = small_recording(num_units=3, seconds=seconds, frames=False)
    behavior = {
        "speed": BehaviorVariable(t, speed),
        "choice": BehaviorVariable(t, (speed > 0).astype(float)),
        "place": BehaviorVariable(t, np.stack([speed, 5 - 3 * speed], 1)),
        "pupil": rec.behavior["pupil"],
    }
    times = t[row] + rng.uniform(0, 0.05, len(row))
    order = np.argsort(times)
    return dataclasses.replace(rec, spike_times=times[order], spike_units=unit[order], behavior=behavior)


def pretrained(targets=(), **model):
    config = small_config(
        model={"width": 16, "heads": 2, "dropout": 0.0} | model,
        window={"frames": 0.0},
        targets=list(targets),
        loss={"contrast": []},
        decode={"lags": [0.2]},
    )
    rec = driven_recording()
    prepared = prepare(rec, config)
    torch.manual_seed(0)
    return Neuroformer(config, rec.num_units, prepared.normalization).eval(), prepared

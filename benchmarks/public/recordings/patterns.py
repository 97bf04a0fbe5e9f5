"""Patterns on four cells of macaque V1: calcium, averaged over repeats, of 9,500 images in no order of time."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.public.source import Source, found_folder
from neuroformer.bundle.bundle import STIMULUS
from neuroformer.config import Config, apply_overrides, from_dict
from neuroformer.recording import FrameSeries, Recording
from neuroformer.recording.series import Traces
from neuroformer.training.scoring.rates import held_out_rates
from neuroformer.training.train import load_best, train

ABOUT = Source(
    title="four cells of macaque V1: 9,500 binary patterns, mean calcium responses, by two-photon imaging",
    where="github.com/leelabcnbc/Fixed_Kernel_CNN: --data is a clone, or a folder with its data/neurons and data/stimuli/pattern",
    licence="none stated",
    citation="Wu et al., Complex sparse code priors improve the statistical models of neurons in primate primary visual "
    "cortex, arXiv:1911.08241 (2020)",
    split="every fifth image tests and every fifth validates, in random order",
)
CELLS = (75, 255, 381, 504)
SLOT = 0.1  # seconds of an image: there is no time in the files
MIDDLE, SHRINK = 80, 2  # pixels of the middle that is shown, and how many become one
CONFIG: dict[str, Any] = {  # all that differs from the defaults
    "window": {"dt": SLOT, "current": SLOT, "past": 0.0, "frames": SLOT},
    "split": {"by": "trials", "hold_out": "image", "claim": "stimuli"},
    "traces": {"likelihood": "gaussian"},
}
WIDTH, EPOCHS, PATIENCE = 24, 60, 8  # of the convolutional network that is fitted to pixels


def recording(data: Path) -> Recording:
    """Every image a trial of one frame and of one sample of every cell."""
    cells = [np.load(file).ravel() for file in (found_folder(data, "neurons") / f"neu{c}.npy" for c in CELLS)]
    values = np.stack(cells, 1)
    folder = found_folder(data, "pattern")
    order = np.random.default_rng(0).permutation(len(values))
    pixels = np.stack([_read(folder / f"{k + 1}.png") for k in order])
    start = np.arange(len(order)) * SLOT
    # some patterns differ only outside the middle: they are one image, and in one part of the split
    _, same = np.unique(pixels.reshape(len(pixels), -1), axis=0, return_inverse=True)
    same = np.unique(same.ravel(), return_index=True)[1][same.ravel()]
    return Recording(
        name="patterns",
        spike_times=np.zeros(0),
        spike_units=np.zeros(0, np.int32),
        units={"id": np.array([f"cell{c}" for c in CELLS])},
        domain=np.array([[0.0, len(order) * SLOT]]),
        trials={"start": start, "stop": start + SLOT, "image": same},
        frames=FrameSeries(pixels, start, np.arange(len(order))),
        traces=Traces(start + SLOT / 2, values[order].astype(np.float32), "dF/F"),
    )


def _read(file: Path) -> np.ndarray:
    image = np.asarray(Image.open(file).convert("L"), np.float32)
    first = [(n - MIDDLE) // 2 for n in image.shape]
    image = image[first[0] : first[0] + MIDDLE, first[1] : first[1] + MIDDLE]
    small = image.reshape(MIDDLE // SHRINK, SHRINK, MIDDLE // SHRINK, SHRINK).mean((1, 3))
    return np.rint(small).astype(np.uint8)


def _part(rec: Recording) -> np.ndarray:
    """(images,) place in the split's pattern, of five, that each image has."""
    return np.unique(rec.trials["image"], return_inverse=True)[1] % 5


def convolutional(rec: Recording) -> np.ndarray:
    """(test images, cells) what a convolutional network expects that is trained on pixels from scratch: two layers and a
    linear readout, AdamW on squared errors, the weights of the epoch whose correlation is best on validation images."""
    assert rec.frames is not None and rec.traces is not None
    part = _part(rec)
    x = torch.from_numpy(np.asarray(rec.frames.images, np.float32))[:, None]
    y = torch.from_numpy(rec.traces.values)
    fits, valid, test = (torch.from_numpy(np.flatnonzero(np.isin(part, p))) for p in ((0, 1, 2), 3, 4))
    x, y = (x - x[fits].mean()) / x[fits].std(), (y - y[fits].mean(0)) / y[fits].std(0)
    torch.manual_seed(0)
    size = (x.shape[2] - 8) // 2 - 4
    net = nn.Sequential(
        *(nn.Conv2d(1, WIDTH, 9), nn.BatchNorm2d(WIDTH), nn.ELU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(WIDTH, WIDTH, 5), nn.BatchNorm2d(WIDTH), nn.ELU(), nn.Flatten(), nn.Dropout(0.5)),
        nn.Linear(WIDTH * size**2, y.shape[1]),
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.1)
    best, kept, stale = -1.0, net.state_dict(), 0
    for _ in range(EPOCHS):
        for some in fits[torch.randperm(len(fits))].split(64):
            loss = (net.train()(x[some]) - y[some]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        r = float(_r(_expected(net, x[valid]), y[valid].numpy()).mean())
        stale += 1
        if r > best:
            best, kept, stale = r, copy.deepcopy(net.state_dict()), 0
        if stale == PATIENCE:
            break
    net.load_state_dict(kept)
    return _expected(net, x[test])


@torch.no_grad()
def _expected(net: nn.Module, x: torch.Tensor) -> np.ndarray:
    return torch.cat([net.eval()(part) for part in x.split(500)]).numpy()


def _r(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)])


def config(overrides: Sequence[str]) -> Config:
    return from_dict(apply_overrides(CONFIG, list(overrides)))


def run(data: Path, folder: Path, lookahead: float = 0.0, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """By cell, Pearson's r with the responses to images never seen, of the model and its baselines."""
    rec = recording(data)
    assert rec.traces is not None
    prepared, _ = train(rec, config(overrides), folder, progress=False)
    held = held_out_rates(load_best(folder, STIMULUS), prepared)
    scores = held.scores()
    pixels = folder / "convolutional.npy"
    if not pixels.exists():
        np.save(pixels, convolutional(rec))
    scores["convolutional"] = _r(np.load(pixels), rec.traces.values[_part(rec) == 4])
    out = {name: np.round(x, 3).tolist() for name, x in scores.items()}
    return out | {"table": f"{ABOUT}\n\n{json.dumps(out, indent=1)}"}

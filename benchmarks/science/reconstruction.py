"""Whether an encoder that must also reconstruct its images predicts neurons better, and the other way round.

The claim of DAE-NR (Ran et al., *Deep auto-encoder with neural response*, arXiv:2111.15309): trained on both at once, images are
reconstructed better than by the autoencoder alone, and its units are more like neurons. Here the features that every unit's
receptive field reads are also read by a decoder of pixels, through few channels a place; one encoder is trained on neurons alone,
one on pixels alone, one on both, from the same weights and the same windows.

Shape suffixes: R repeats, N moments (distinct clips), U units, K units of the network, F frames, H rows, X columns.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import stdtr
from scipy.stats import false_discovery_control
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from neuroformer.comparison.ceilings import reliability
from neuroformer.comparison.responses import ComparedMoments, moments_of
from neuroformer.config import Config, apply_overrides, from_dict, to_dict
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.data.recordings import open_only
from neuroformer.files import write_atomic
from neuroformer.intervals import mean_interval
from neuroformer.metrics import bits_per_spike_rates, pearson
from neuroformer.model.frames import READ, FactorizedReadout
from neuroformer.model.network import Neuroformer
from neuroformer.model.spikes import poisson_nll
from neuroformer.training.module import learning_rate, parameter_groups
from neuroformer.training.scoring.rates import expected_counts
from neuroformer.training.steps import StepSampler
from neuroformer.training.train import initial_cohort, prepare_recordings

CONFIG: dict[str, Any] = {  # frames are all that the network sees; whole movies are held out
    "recording": {"path": "synthetic:demo", "options": {"num_movies": 4, "num_trials": 12, "trial_s": 108.0}},
    "window": {"dt": 0.05, "current": 0.05, "past": 0.0, "frames": 0.15},
    "split": {"by": "trials", "hold_out": "movie", "pattern": ["train", "train", "valid", "test"], "claim": "stimuli"},
    "model": {
        "width": 32,
        "dropout": 0.1,
        "blocks": [{"attend": "frames", "layers": 1}],
        "frame_encoder": {"kind": "conv3d", "kernel": [1, 9, 9], "stride": [1, 3, 3], "channels": 64, "layers": 0},
    },
    "train": {"steps": 400, "batch_size": 128, "lr": 4e-3, "weight_decay": 0.1, "jitter": False},
}
CHANNELS = 4  # of each place that the decoder may read: a quarter as many numbers as pixels
WAYS = {
    "neurons": (1.0, 0.0),
    "pixels": (0.0, 1.0),
    "both": (1.0, 1.0),
}  # weights of nats per spike and of squared error
SHIFTS = 99  # circular, against which the largest correlation of a neuron is held
LEVEL = 0.05


class PixelDecoder(nn.Module):
    """The last frame from what units read at its places: few channels a place, each place painting its own patch."""

    def __init__(self, model: Neuroformer):
        super().__init__()
        encoder = model.frames.encoder
        _, h, w = (int(k) for k in encoder.kernel)
        width = model.config.model.width
        self.paint = nn.Sequential(
            nn.Linear(READ, CHANNELS), nn.Linear(CHANNELS, width), nn.GELU(), nn.Linear(width, h * w)
        )
        self.patch, self.stride = (h, w), tuple(int(s) for s in encoder.stride[1:])

    def forward(self, read_GhwR: Tensor, size: tuple[int, int]) -> Tensor:
        """(G, H, X) standardised pixels; where patches overlap, their mean."""
        patches = self.paint(read_GhwR).flatten(1, 2).mT
        fold = lambda x: F.fold(x, size, self.patch, stride=self.stride)[:, 0]
        return fold(patches) / fold(torch.ones_like(patches[:1])).clamp_min(1)


def read_features(model: Neuroformer, batch: Batch) -> Tensor:
    """(G, h, w, R) of the last frame of every clip."""
    clips, stream = batch.clips, model.frames
    assert clips is not None and isinstance(stream.readout, FactorizedReadout)
    return stream.readout.local(stream.encoder.local(clips.images_GFHW, clips.num_missing_G))[:, -1]


def last_frames(model: Neuroformer, batch: Batch) -> Tensor:
    """(G, H, X) standardised."""
    assert batch.clips is not None
    encoder = model.frames.encoder
    return (batch.clips.images_GFHW[:, -1].to(model.first.dtype) - encoder.mean) / encoder.std


def loss(model: Neuroformer, decoder: PixelDecoder, batch: Batch, neurons: float, pixels: float) -> Tensor:
    """Nats a spike of the expected counts, and the squared error of standardised pixels."""
    total = model.first.new_zeros(())
    if neurons:
        total = total + neurons * poisson_nll(batch, model.expected(batch)).sum() / batch.current.total
    if pixels:
        true = last_frames(model, batch)
        total = total + pixels * F.mse_loss(decoder(read_features(model, batch), true.shape[1:]), true)
    return total


def train(prepared: Prepared, config: Config, weights: tuple[float, float]) -> tuple[Neuroformer, PixelDecoder]:
    """From the weights and windows that the seed draws, whatever the weights of the loss."""
    cohort = initial_cohort([prepared], config)
    model, decoder, t = cohort[0], PixelDecoder(cohort[0]), config.train
    groups = parameter_groups(cohort, t)
    groups.append({"params": list(decoder.parameters()), "weight_decay": 0.0, "peak_lr": t.lr})
    optimizer = torch.optim.AdamW(groups, lr=t.lr, betas=(0.9, 0.98))
    cohort.train()
    for step, (piece,) in zip(range(t.steps), StepSampler([prepared]), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * learning_rate(step, t)
        optimizer.zero_grad()
        loss(model, decoder, prepared.builder(piece.windows), *weights).backward()
        optimizer.step()
    return model.eval(), decoder.eval()


# -- scores ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def scores(
    model: Neuroformer, decoder: PixelDecoder, prepared: Prepared, weights: tuple[float, float]
) -> dict[str, float]:
    """Of the held-out movie: images where pixels were trained, neurons where these were, units alike in any case."""
    moments = moments_of(prepared, "test")
    y_RNU = moments.counts(prepared.rec, 0.0)
    seen, true, guess = [], [], []
    for batch in prepared.batches(moments.first_repeat()):
        assert batch.clips is not None
        read, frames = read_features(model, batch), last_frames(model, batch)
        seen.append(read[batch.clips.index_W].flatten(1))
        true.append(frames[batch.clips.index_W])
        guess.append(decoder(read, frames.shape[1:])[batch.clips.index_W])
    out = alike(torch.cat(seen).double().numpy(), y_RNU.mean(0, dtype=np.float64), moments)
    if weights[0]:
        rates = expected_counts(model, prepared, moments.first_repeat())
        every = np.tile(rates, (moments.repeats, 1))
        out["bits_per_spike"] = float(bits_per_spike_rates(y_RNU.reshape(every.shape).astype(float), every).pooled)
        out["unit_r"] = float(np.nanmedian(pearson(y_RNU.mean(0, dtype=np.float64), rates)))
        out["unit_r_ceiling"] = float(np.nanmedian(np.sqrt(reliability(y_RNU))))
    if weights[1]:
        a, b = torch.cat(guess)[:, None].double(), torch.cat(true)[:, None].double()
        span = float(b.max() - b.min())
        out["mse"] = float(F.mse_loss(a, b))
        out["psnr"] = float(peak_signal_noise_ratio(a, b, data_range=span))
        out["ssim"] = float(structural_similarity_index_measure(a, b, data_range=span))  # pyright: ignore[reportArgumentType]
    return out


def alike(x_NK: np.ndarray, y_NU: np.ndarray, moments: ComparedMoments, seed: int = 0) -> dict[str, float]:
    """How many neurons have a unit of the network whose activity is like theirs.

    ``alike``: as the paper counts, those with any correlation at P < 0.05, each taken as if it were the only one and as if
    moments were independent; ``alike_by_chance``: the same where responses are shifted around the movies, so that nothing is alike;
    ``alike_corrected``: those whose largest correlation is beyond that of shifted responses (a P for each neuron from
    :data:`SHIFTS` shifts), at a false-discovery rate of 5 % over neurons; ``largest_r``: the median over neurons.
    """
    rng, num = np.random.default_rng(seed), len(y_NU)
    least = np.floor(0.1 * num)
    shifted = [np.roll(y_NU, int(rng.integers(least, num - least)), 0) for _ in range(SHIFTS)]
    x = _standard(x_NK)
    largest_SU = np.stack([np.abs(x.T @ _standard(y) / num).max(0) for y in [y_NU, *shifted]])
    t = largest_SU * np.sqrt((num - 2) / np.maximum(1 - largest_SU**2, 1e-12))
    single = 2 * stdtr(num - 2, -t) < LEVEL
    p_U = (largest_SU >= largest_SU[0]).mean(0)
    return {
        "alike": float(single[0].mean()),
        "alike_by_chance": float(single[1:].mean()),
        "alike_corrected": float((false_discovery_control(p_U) <= LEVEL).mean()),
        "largest_r": float(np.median(largest_SU[0])),
    }


def _standard(x_N: np.ndarray) -> np.ndarray:
    x = x_N - x_N.mean(0)
    spread = x.std(0)
    return np.divide(x, spread, out=np.zeros_like(x), where=spread > 1e-12)


# -- the study -------------------------------------------------------------------------------------------------


def run(folder: Path | None, seeds: int, overrides: list[str]) -> dict[str, Any]:
    """Train and score every way from every seed (in ``folder`` those that are not there yet), and pair them over seeds.

    Returns
    -------
    dict
        ``scores``: by way and score, a value a seed; ``minus``: by score, ``both`` less the one that was trained on it alone
        (of likeness: less ``pixels``), mean and 95 % interval (Student's t over seeds).
    """
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed in range(seeds):
        config, rec = open_only(from_dict(apply_overrides(to_dict(from_dict(CONFIG)), [*overrides, f"seed={seed}"])))
        (prepared,) = prepare_recordings([rec], config)
        for way, weights in WAYS.items():
            done = None if folder is None else folder / f"{way}-{seed}.json"
            if done is not None and done.exists():
                found[way].append(json.loads(done.read_text()))
                continue
            found[way].append(scores(*train(prepared, config, weights), prepared, weights))
            if done is not None:
                done.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(done, json.dumps(found[way][-1]).encode())
    values = {way: {k: [one[k] for one in each] for k in each[0]} for way, each in found.items()}
    against = {
        k: "neurons" if k in values["neurons"] and k not in values["pixels"] else "pixels" for k in values["both"]
    }
    minus = {k: _paired(values["both"][k], values[other][k]) for k, other in against.items() if k != "unit_r_ceiling"}
    return {
        "bench": "reconstruction",
        "checked": True,
        "seeds": seeds,
        "scores": values,
        "against": against,
        "minus": minus,
        "machine": platform.machine(),
        "torch": torch.__version__,
    }


def _paired(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    apart = [a - b for a, b in zip(ours, theirs, strict=True)]
    return mean_interval(apart) if len(apart) > 1 else (apart[0], float("nan"), float("nan"))


def table(result: dict[str, Any]) -> str:
    """The result as text: means over seeds."""
    lines = [f"{'':<18}" + "".join(f"{way:>10}" for way in WAYS) + "   both minus the one alone, paired (95 %)"]
    for key in result["scores"]["both"]:
        cells = [result["scores"][way].get(key) for way in WAYS]
        line = f"{key:<18}" + "".join(f"{np.mean(c):>10.4f}" if c else f"{'':>10}" for c in cells)
        if key in result["minus"]:
            mean, low, high = result["minus"][key]
            line += f"   {mean:+.4f} ({low:+.4f} to {high:+.4f}), of {result['against'][key]}"
        lines.append(line)
    return "\n".join(lines)

"""How well expected counts (of traces: expected samples) follow what units answered to stimuli, beside what the same frames tell a regression, and what
repeats leave to tell.

Shape suffixes: W windows, G distinct clips, U units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neuroformer.baselines.energy.components import energy_components
from neuroformer.baselines.energy.regression import fit_ridge
from neuroformer.baselines.energy.responses import clip_r
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.model.network import Neuroformer
from neuroformer.model.traces import TraceObservation
from neuroformer.training.scoring.scores import mean_answers

MIN_EXPLAINABLE = 0.15  # of the variance of means; less has no meaningful FEVE


@torch.no_grad()
def expected_counts(model: Neuroformer, prepared: Prepared, windows: Windows) -> np.ndarray:
    """(W, U) expected counts of windows, without any of their own spikes; of traces, their expected mean samples."""
    was_training = model.training
    model.eval()
    parts = []
    for batch in prepared.batches(windows, device=model.device):
        found = model.expected(batch)
        parts.append(mean_answers(model, found).cpu())
    model.train(was_training)
    return torch.cat(parts).double().numpy()


@dataclass
class HeldOutRates:
    """Held-out counts (of traces: mean samples) and what was expected of them, over distinct clips of frames.

    Attributes
    ----------
    mean_GU : mean counts of all windows that saw a clip (its repeats); NaN where a unit was not observed
    noise_GU : variance of that mean over repeats; NaN where there are none
    expected : by predictor, (G, U): ``model``, ``energy_ridge`` (a ridge regression on the principal components of the
        frames' Gabor energies, :func:`~neuroformer.baselines.energy.regression.fit_ridge`) and, of spikes,
        ``energy_poisson`` (a Poisson regression on the same)
    """

    mean_GU: np.ndarray
    noise_GU: np.ndarray
    expected: dict[str, np.ndarray]

    @classmethod
    def join(cls, parts: Sequence[HeldOutRates]) -> HeldOutRates:
        """Of several trainings, each of which held out other clips."""
        expected = {k: np.concatenate([p.expected[k] for p in parts]) for k in parts[0].expected}
        return cls(np.concatenate([p.mean_GU for p in parts]), np.concatenate([p.noise_GU for p in parts]), expected)

    def scores(self) -> dict[str, np.ndarray]:
        """By unit: Pearson's r of every predictor with the mean counts over clips; and, where clips repeat, ``ceiling``, the r
        of the true expectation (the square root of the share of the means' variance that is not noise, Schoppe et al.
        2016), and ``feve``, the share of that variance that the model explains (Cadena et al. 2019), NaN in units with
        less than 0.15 of it.
        """
        out = {name: clip_r(self.mean_GU, x) for name, x in self.expected.items()}
        again = np.isfinite(self.noise_GU).all(1)
        if again.sum() < 3:
            return out
        mean_GU = self.mean_GU[again]
        noise_U, total_U = self.noise_GU[again].mean(0), mean_GU.var(0, ddof=1)
        signal_U = np.maximum(total_U - noise_U, 0.0)
        wrong_U = ((mean_GU - self.expected["model"][again]) ** 2).mean(0) - noise_U
        with np.errstate(divide="ignore", invalid="ignore"):
            out["ceiling"] = np.nan_to_num(np.sqrt(signal_U / total_U))
            out["feve"] = np.where(signal_U > MIN_EXPLAINABLE * total_U, 1 - wrong_U / signal_U, np.nan)
        return out


def held_out_rates(model: Neuroformer, prepared: Prepared, *, part: str = "test") -> HeldOutRates:
    """What a model and the regressions on energies, fitted on training clips, expect of the clips of a part."""
    components = energy_components(prepared)
    train, valid, held = components.train, components.valid, components.responses(prepared, part)
    expected = {
        "model": held.averaged(expected_counts(model, prepared, held.windows)),
        "energy_ridge": fit_ridge(train, valid).expected(held.x_GK),
    }
    if not isinstance(model.observation, TraceObservation):
        expected["energy_poisson"] = components.poisson.expected(held.x_GK)
    return HeldOutRates(held.mean_GU, held.noise_GU(), expected)


def rate_scores(model: Neuroformer, prepared: Prepared, *, part: str = "test") -> dict[str, float]:
    """Medians over units of :meth:`HeldOutRates.scores`, as flat scores: ``stimulus_r`` is the model's."""
    found = held_out_rates(model, prepared, part=part).scores()
    names = {"model": "stimulus_r", "feve": "stimulus_feve"}
    return {
        names.get(name, f"stimulus_r_{name}"): float(np.nanmedian(x))
        for name, x in found.items()
        if np.isfinite(x).any()
    }

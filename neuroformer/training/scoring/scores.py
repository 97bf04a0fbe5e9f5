"""Likelihoods of windows and decoded values, from which held-out scores follow."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from neuroformer.baselines.energy.responses import answers, clip_r
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import spread
from neuroformer.intervals import over_time, ratio_terms
from neuroformer.metrics import target_score
from neuroformer.model.network import Neuroformer, Output
from neuroformer.model.spikes import SpikeObservation
from neuroformer.model.targets import TargetHead
from neuroformer.model.traces import ObservedTraces, TraceObservation

MOST_CELLS = 2**23  # windows x units that are compared clip by clip
NULL, NLL, RATES, NUMBER, SEGMENT, TICK = range(6)


@dataclass
class Scores:
    """Scores of windows that do not overlap.

    Attributes
    ----------
    windows : list of (W, 6) arrays
        A row per window: nats under the null model, under the network and under its expected counts as a Poisson model (NaN
        of traces); spikes or known samples; segment and first bin.
    predicted, true : decoded values by target, in the windows' order
    clips : where they are asked for, of each batch the key of the clip that every window saw, and (W, U) what units answered, the
        share of the window in which they were observed, and what was expected of them
    """

    windows: list[np.ndarray] = field(default_factory=list)
    predicted: dict[str, list[np.ndarray]] = field(default_factory=dict)
    true: dict[str, list[np.ndarray]] = field(default_factory=dict)
    clips: list[list[np.ndarray]] | None = None

    def add(self, model: Neuroformer, batch: Batch, output: Output) -> None:
        of, observed = model.observation, output.observed
        nll, null = of.nll(batch, observed), of.null_nll(batch)  # pyright: ignore[reportArgumentType]
        spikes = isinstance(of, SpikeObservation)
        rates = of.rates_nll(batch, observed) if spikes else torch.full_like(nll, torch.nan)  # pyright: ignore[reportArgumentType]
        columns = [null, nll, rates, of.number(batch), batch.segment_W, batch.tick_W]
        self.windows.append(torch.stack([x.double() for x in columns], 1).cpu().numpy())
        for name, raw in output.targets.items():
            head = model.targets[name]
            assert isinstance(head, TargetHead)
            self.predicted.setdefault(name, []).append(head.decoded(raw.float()).flatten(0, 1).cpu().numpy())
            self.true.setdefault(name, []).append(batch.targets[name].flatten(0, 1).cpu().numpy())
        if self.clips is not None and batch.clips is not None and self.num_windows * model.num_units <= MOST_CELLS:
            of = output.observed
            expected_WU = mean_answers(model, of.parameters_WBUP if isinstance(of, ObservedTraces) else of.log_rate_WBU)
            found = batch.clips.key_W, *answers(batch, model.num_units), expected_WU.float()
            self.clips.append([x.cpu().numpy() for x in found])

    @property
    def num_windows(self) -> int:
        return sum(len(x) for x in self.windows)

    @property
    def number(self) -> int:
        """Spikes, or known samples of traces."""
        return int(sum(x[:, NUMBER].sum() for x in self.windows))

    def bits(self) -> float:
        """Bits per spike, or per sample of traces: what validation compares.

        ``(log2 P_model - log2 P_null) / number``. The null model of spikes is homogeneous Poisson units with their training
        rates (:func:`neuroformer.metrics.bits_per_spike`), that of traces each unit's own distribution of the same family.
        Samples of the gamma above zero have densities, whose unit of measure leaves the difference.
        """
        return self._bits(NLL)

    def bits_of_rates(self) -> float:
        """Bits per spike of the expected counts as a Poisson model, which knows no spike of the window. NLB's null is
        another: :func:`neuroformer.metrics.bits_per_spike_rates`.
        """
        return self._bits(RATES)

    def stimulus_r(self) -> float:
        """Mean over units of Pearson's r over distinct clips, between mean answers and what was expected on average; NaN
        without three clips."""
        if not self.clips:
            return float("nan")
        key_W, answer_WU, seen_WU, expected_WU = (np.concatenate(x) for x in zip(*self.clips, strict=True))
        _, clip_W = np.unique(key_W, return_inverse=True)
        total = lambda x_WU: np.stack([np.bincount(clip_W, x) for x in x_WU.T], 1)
        seen_GU = total(seen_WU)
        with np.errstate(invalid="ignore"):
            mean_GU, expected_GU = total(answer_WU) / seen_GU, total(expected_WU * seen_WU) / seen_GU
        return float(clip_r(mean_GU, expected_GU).mean()) if len(mean_GU) > 2 else float("nan")

    def interval(self) -> tuple[float, float]:
        """95 % interval of :meth:`bits` over held-out time, see :func:`neuroformer.intervals.over_time`."""
        windows = np.concatenate(self.windows)
        windows = windows[np.lexsort((windows[:, TICK], windows[:, SEGMENT]))]
        gain = windows[:, NULL] - windows[:, NLL]
        low, high = over_time(ratio_terms(gain, windows[:, NUMBER], 1 / np.log(2)), "bits").ends()[:, 0]
        return float(low), float(high)

    def _bits(self, which: int) -> float:
        nats = sum(float((x[:, NULL] - x[:, which]).sum()) for x in self.windows)
        return nats / max(self.number, 1) / float(np.log(2))

    def decoded(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(values, columns) predicted and true values of a target, in its own unit; class labels for classes."""
        return np.concatenate(self.predicted[name]), np.concatenate(self.true[name])

    @classmethod
    def merge(cls, parts: list[Scores]) -> Scores:
        """Merge the scores of all processes, which took the batches in turn."""
        out = cls([x for p in parts for x in p.windows])
        out.clips = None if parts[0].clips is None else [x for p in parts for x in p.clips or ()]
        for name in parts[0].predicted:
            for mine, theirs in ((out.predicted, "predicted"), (out.true, "true")):
                dealt = itertools.zip_longest(*(getattr(p, theirs).get(name, []) for p in parts))
                mine[name] = [x for turn in dealt for x in turn if x is not None]
        return out

    def target_score(self, head: TargetHead, name: str) -> float:
        """By the target's kind, see :func:`neuroformer.metrics.target_score`; higher is better."""
        predicted, true = self.decoded(name)
        return target_score(head.kind, true, predicted, head.period)


def mean_answers(model: Neuroformer, expected: Tensor) -> Tensor:
    """(W, U) expected counts of windows, or of traces their expected mean samples, from what
    :meth:`neuroformer.model.network.Neuroformer.expected` gives."""
    if isinstance(model.observation, TraceObservation):
        return model.observation.mean(expected).mean(1)
    return expected.exp().sum(1)


@torch.no_grad()
def score(model: Neuroformer, prepared: Prepared, part: str, most: int = 0) -> Scores:
    """Scores of a model over the windows that tile one part of the split, or over ``most`` of them, spread evenly."""
    scores, windows = Scores(), prepared.windows(part)
    windows = windows[spread(len(windows), most or len(windows))]
    was_training = model.training
    model.eval()
    for batch in prepared.batches(windows, device=model.device):
        scores.add(model, batch, model(batch))
    model.train(was_training)
    return scores

"""Sums over windows from which likelihood and decoding scores follow; they add up over batches."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import torch

from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.intervals import over_time, ratio_terms
from neuroformer.losses import poisson_nll
from neuroformer.metrics import target_score
from neuroformer.model.neuroformer import Neuroformer
from neuroformer.model.state import Output
from neuroformer.model.targets import TargetHead


@dataclass
class Scores:
    """Log-likelihoods in nats over windows that do not overlap, and decoded values in their order.

    ``trace_windows`` holds nats over the null, samples, segment and first bin of each window of traces.
    ``null`` and ``rates`` leave out ``log k!``; ``log_factorial`` holds its sum (token likelihoods are of
    ordered counts and carry none).
    """

    unit_rate: np.ndarray
    tokens: float = 0.0
    rates: float = 0.0
    null: float = 0.0
    log_factorial: float = 0.0
    spikes: int = 0
    windows: int = 0
    traces: float = 0.0
    traces_null: float = 0.0
    samples: int = 0
    trace_windows: list[np.ndarray] = field(default_factory=list)
    predicted: dict[str, list[np.ndarray]] = field(default_factory=dict)
    true: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, model: Neuroformer, batch: Batch, output: Output) -> None:
        self.tokens -= float(output.dt_nll_T.double().sum() + output.id_nll_S.double().sum())
        self.rates -= float(poisson_nll(batch, output.log_rate_WBU.double()))
        num_bins = batch.num_windows * model.num_bins
        self.null += float(np.log(self.unit_rate)[batch.unit_T.cpu().numpy()].sum() - num_bins * self.unit_rate.sum())
        self.log_factorial += float(_log_factorial(batch))
        self.spikes += batch.num_spikes
        self.windows += batch.num_windows
        if output.traces_WBUP is not None and model.traces is not None and batch.traces is not None:
            values = batch.traces.current_WBU
            nll, null = model.traces.nll(output.traces_WBUP, values).double(), model.traces.null_nll(values)
            self.traces -= float(nll.sum())
            self.traces_null -= float(null.double().sum())
            self.samples += len(nll)
            row = torch.nonzero(torch.isfinite(values))[:, 0]
            both = torch.stack([null.double() - nll, torch.ones_like(nll)], 1)
            sums = both.new_zeros(batch.num_windows, 2).index_add(0, row, both)
            place = torch.stack([batch.segment_W, batch.tick_W], 1)
            self.trace_windows.append(torch.cat([sums, place], 1).cpu().numpy())
        for name, raw in output.targets.items():
            head = model.targets[name]
            assert isinstance(head, TargetHead)
            self.predicted.setdefault(name, []).append(head.decoded(raw.float()).flatten(0, 1).cpu().numpy())
            self.true.setdefault(name, []).append(batch.targets[name].flatten(0, 1).cpu().numpy())

    def bits_per_spike(self) -> float:
        """Of the tokens, against the null model: :func:`neuroformer.metrics.bits_per_spike`."""
        return self._bits(self.tokens - (self.null - self.log_factorial))

    def bits_per_spike_rate_readout(self) -> float:
        """Of the rate readout as a Poisson model, against the same null, which knows the training rates; NLB's null is
        another: :func:`neuroformer.metrics.bits_per_spike_rates`.
        """
        return self._bits(self.rates - self.null)

    def bits_per_sample(self) -> float:
        """For traces: ``(log2 P_model - log2 P_marginal) / samples``, over held-out windows that tile time.

        The marginal is each unit's own distribution of the same family, fitted on training blocks. Samples of
        the gamma above zero have densities, whose unit of measure leaves the difference.
        """
        return (self.traces - self.traces_null) / max(self.samples, 1) / float(np.log(2))

    def bits_per_sample_interval(self) -> tuple[float, float]:
        """95 % interval of :meth:`bits_per_sample` over held-out time, see :func:`neuroformer.intervals.over_time`."""
        windows = np.concatenate(self.trace_windows)
        gain, number, _, _ = windows[np.lexsort((windows[:, 3], windows[:, 2]))].T
        low, high = over_time(ratio_terms(gain, number, 1 / np.log(2)), "bits_per_sample").ends()[:, 0]
        return float(low), float(high)

    def likelihood(self) -> float:
        """The score that validation compares: bits/sample if traces are modelled, else bits/spike."""
        return self.bits_per_sample() if self.samples else self.bits_per_spike()

    def _bits(self, nats: float) -> float:
        return nats / max(self.spikes, 1) / float(np.log(2))

    def decoded(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(values, columns) predicted and true values of a target, in its own unit; class labels for classes."""
        return np.concatenate(self.predicted[name]), np.concatenate(self.true[name])

    @classmethod
    def merge(cls, parts: list[Scores]) -> Scores:
        """Merge the scores of all processes, which took the batches in turn."""
        out = cls(parts[0].unit_rate)
        for name in (
            "tokens",
            "rates",
            "null",
            "log_factorial",
            "spikes",
            "windows",
            "traces",
            "traces_null",
            "samples",
        ):
            setattr(out, name, sum(getattr(p, name) for p in parts))
        out.trace_windows = [x for p in parts for x in p.trace_windows]
        for name in parts[0].predicted:
            for mine, theirs in ((out.predicted, "predicted"), (out.true, "true")):
                dealt = itertools.zip_longest(*(getattr(p, theirs).get(name, []) for p in parts))
                mine[name] = [x for turn in dealt for x in turn if x is not None]
        return out

    def target_score(self, head: TargetHead, name: str) -> float:
        """By the target's kind, see :func:`neuroformer.metrics.target_score`; higher is better."""
        predicted, true = self.decoded(name)
        return target_score(head.kind, true, predicted, head.period)


def _log_factorial(batch: Batch) -> float:
    """Sum of log k! over the cells (window, bin, unit) of a batch."""
    if batch.num_spikes == 0:
        return 0.0
    cells = torch.stack([batch.current.row_T, batch.tick_T, batch.unit_T], 1)
    _, counts = torch.unique_consecutive(cells, dim=0, return_counts=True)
    return float(torch.lgamma(counts.double() + 1).sum())


@torch.no_grad()
def score(model: Neuroformer, prepared: Prepared, part: str) -> Scores:
    """Scores of a model over the windows that tile one part of the split."""
    scores = Scores(np.asarray(prepared.normalization.unit_rate))
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    for batch in prepared.batches(prepared.windows(part), device=device):
        scores.add(model, batch, model(batch))
    model.train(was_training)
    return scores

"""The terms of the loss, each in its own unit, and their weighted sum."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroformer.config import Config, ContrastConfig
from neuroformer.data.batch import Batch
from neuroformer.model.network import Neuroformer, Output
from neuroformer.model.spikes import SpikeObservation, at_least_float32
from neuroformer.model.targets import TargetHead

Gather = Callable[[Tensor], tuple[Tensor, int]]
"""The rows of all processes, one after another, with gradient; and where this process's own begin."""


def observed_name(model: Neuroformer) -> str:
    """What the likelihood of a model counts; a run may have models of both."""
    return "spikes" if isinstance(model.observation, SpikeObservation) else "samples"


def denominators(model: Neuroformer, batch: Batch) -> dict[str, Tensor]:
    """The number of items that each term of :func:`loss_terms` is a mean over: ``spikes``, or known ``samples`` of traces, known
    values, aligned windows.

    Added up over the processes and pieces of one step, they make the terms of the pieces add up to those of the whole.
    """
    number = model.observation.number(batch).sum()
    counts = {observed_name(model): number}
    for name, head in model.targets.items():
        assert isinstance(head, TargetHead)
        counts[name] = head.known(batch.targets[name]).sum()
    for contrast in model.config.loss.contrast:
        keep = _with_spikes(batch, contrast.pair)
        num = torch.full_like(number, batch.num_windows) if keep is None else keep.sum()
        counts[contrast_name(contrast)] = num
    return counts


def loss_terms(
    model: Neuroformer,
    batch: Batch,
    output: Output,
    totals: dict[str, Tensor] | None = None,
    gather: Gather | None = None,
) -> dict[str, Tensor]:
    """Every term, unweighted.

    ``dt`` and ``id`` are nats per spike of the batch (the end of a window counts into ``dt``), so that their sum
    is the negative log-likelihood of the counts per spike: dividing each by its own number of tokens would
    weigh them against each other by how many spikes a window has. ``rates`` is the Poisson negative
    log-likelihood per spike, without the factorial; ``traces``, nats per sample. Targets: by
    :meth:`TargetHead.loss`; missing values are left out. ``contrast_*``: symmetric InfoNCE in nats.

    Parameters
    ----------
    totals : dict, optional
        Sums of :func:`denominators` where this batch is one piece of a larger one; the terms are then this
        piece's share.
    gather : optional
        Lets alignment see the windows of all processes.
    """
    totals = denominators(model, batch) if totals is None else totals
    number = totals[observed_name(model)].clamp_min(1)
    found = model.observation.losses(batch, output.observed)  # pyright: ignore[reportArgumentType]
    terms = {name: nats / number for name, nats in found.items()}
    for name, predicted in output.targets.items():
        head = model.targets[name]
        assert isinstance(head, TargetHead)
        terms[name] = head.loss(at_least_float32(predicted), batch.targets[name], totals[name])
    for i, (contrast, (a, b)) in enumerate(zip(model.config.loss.contrast, output.features, strict=True)):
        same = batch.clips.key_W if batch.clips is not None and "frames" in contrast.pair else None
        scale = model.alignment.log_scale[i].exp().clamp(max=100.0)
        name = contrast_name(contrast)
        total = info_nce_sum(a, b, scale, same, _with_spikes(batch, contrast.pair), gather)
        terms[name] = total / totals[name].clamp_min(1)
    return terms


def contrast_name(contrast: ContrastConfig) -> str:
    return "contrast_" + "_".join(contrast.pair)


def total_loss(config: Config, terms: dict[str, Tensor]) -> Tensor:
    """The weighted sum that is minimised."""
    weights = dict.fromkeys(("dt", "id", "traces"), config.loss.likelihood) | {"rates": config.loss.rates}
    weights |= {t.name: t.weight for t in config.targets}
    weights |= {contrast_name(c): c.weight for c in config.loss.contrast}
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def _with_spikes(batch: Batch, pair: tuple[str, str]) -> Tensor | None:
    if "neural" not in pair:
        return None
    return (batch.past.lengths_B + batch.current.lengths_B) > 0


def info_nce_sum(
    a_WE: Tensor,
    b_WE: Tensor,
    scale: Tensor,
    same_W: Tensor | None,
    keep_W: Tensor | None,
    gather: Gather | None = None,
) -> Tensor:
    """Symmetric InfoNCE (CLIP, Radford et al. 2021, figure 3), summed over the (W,) windows of a batch, in nats.

    With ``gather``, the sum is over this process's windows, and the negatives are those of all processes.

    Windows with equal ``same`` (they show the same clip) are masked from each other's negatives; windows
    without ``keep`` (no spikes at all) leave the loss.
    """
    every = gather or (lambda x: (x, 0))
    (all_a, first), (all_b, _) = every(a_WE), every(b_WE)
    target = torch.arange(len(a_WE), device=a_WE.device) + first
    hidden = torch.zeros(len(a_WE), len(all_a), dtype=torch.bool, device=a_WE.device)
    if same_W is not None:
        hidden = same_W[:, None] == every(same_W)[0]
    if keep_W is not None:
        hidden = hidden | ~keep_W[:, None] | ~every(keep_W)[0]
    hidden = hidden.scatter(1, target[:, None], False)
    each = 0.5 * sum(
        F.cross_entropy((scale * x @ y.T).masked_fill(hidden, float("-inf")), target, reduction="none")
        for x, y in ((a_WE, all_b), (b_WE, all_a))
    )
    assert isinstance(each, Tensor)
    return each.sum() if keep_W is None else (each * keep_W).sum()

"""The terms of the loss, each in its own unit, and their weighted sum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from neuroformer.config import Config
from neuroformer.data.batch import Batch
from neuroformer.model.neuroformer import Neuroformer, Output
from neuroformer.model.targets import TargetHead


def loss_terms(model: Neuroformer, batch: Batch, output: Output) -> dict[str, Tensor]:
    """Every term, unweighted.

    ``dt`` and ``id`` are nats a spike of the batch (the end of a window counts into ``dt``), so that their sum
    is the negative log-likelihood of the counts per spike: dividing each by its own number of tokens would
    weigh them against each other by how many spikes a window has. ``rates`` is the Poisson negative
    log-likelihood per spike, without the factorial. Targets: by
    :meth:`TargetHead.loss`; missing values are left out. Where traces are modelled, ``traces`` (nats a
    sample) stands in for all spike terms. ``contrast_*``: symmetric InfoNCE in nats.
    """
    num_spikes = max(batch.num_spikes, 1)
    terms = {
        "dt": output.dt_nll_T.sum() / num_spikes,
        "id": output.id_nll_S.sum() / num_spikes,
        "rates": poisson_nll(batch, output.log_rate_WBU) / num_spikes,
    }
    if output.traces_WBUP is not None and model.traces is not None and batch.traces is not None:
        nll = model.traces.nll(output.traces_WBUP, batch.traces.current_WBU)
        terms = {"traces": nll.sum() / max(len(nll), 1)}
    for name, predicted in output.targets.items():
        head = model.targets[name]
        assert isinstance(head, TargetHead)
        terms[name] = head.loss(predicted, batch.targets[name])
    for i, (contrast, (a, b)) in enumerate(zip(model.config.loss.contrast, output.features, strict=True)):
        same = batch.clips.index_W if batch.clips is not None and "frames" in contrast.pair else None
        scale = model.contrast_scale[i].exp().clamp(max=100.0)
        terms["contrast_" + "_".join(contrast.pair)] = info_nce(
            a, b, scale, same, _with_spikes(batch, contrast.pair)
        )
    return terms


def total_loss(config: Config, terms: dict[str, Tensor]) -> Tensor:
    """The weighted sum that is minimised."""
    weights = {"dt": config.loss.dt, "id": config.loss.id, "rates": config.loss.rates, "traces": 1.0}
    weights |= {t.name: t.weight for t in config.targets}
    weights |= {"contrast_" + "_".join(c.pair): c.weight for c in config.loss.contrast}
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def poisson_nll(batch: Batch, log_rate_WBU: Tensor) -> Tensor:
    """Summed Poisson negative log-likelihood of the batch's counts, without ``log k!`` (constant in the model)."""
    row, tick, unit = batch.current.row_T, batch.tick_T, batch.unit_T
    return log_rate_WBU.exp().sum() - log_rate_WBU[row, tick, unit].sum()


def _with_spikes(batch: Batch, pair: tuple[str, str]) -> Tensor | None:
    if "neural" not in pair:
        return None
    return (batch.past.lengths_B + batch.current.lengths_B) > 0


def info_nce(
    a_WE: Tensor, b_WE: Tensor, scale: Tensor, same_W: Tensor | None, keep_W: Tensor | None
) -> Tensor:
    """Symmetric InfoNCE (CLIP, Radford et al. 2021, figure 3) over the windows of a batch.

    Windows with equal ``same`` (they show the same clip) are masked from each other's negatives; windows
    without ``keep`` (no spikes at all) leave the loss.
    """
    logits = scale * a_WE @ b_WE.T
    hidden = torch.zeros_like(logits, dtype=torch.bool)
    if same_W is not None:
        hidden = same_W[:, None] == same_W
    if keep_W is not None:
        hidden = hidden | ~keep_W | ~keep_W[:, None]
    hidden = hidden & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(hidden, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    each = 0.5 * (
        F.cross_entropy(logits, target, reduction="none")
        + F.cross_entropy(logits.T, target, reduction="none")
    )
    if keep_W is None:
        return each.mean()
    return (each * keep_W).sum() / keep_W.sum().clamp_min(1)

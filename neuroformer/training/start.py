"""What a network knows before its first step: what units see in the energies of frames, as a convex fit finds it, and in which
directions a busy or a large population varies together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from neuroformer.baselines.energy.components import energy_components
from neuroformer.baselines.energy.regression import fit_ridge
from neuroformer.baselines.patterns import unit_patterns
from neuroformer.bundle.cohort import Cohort
from neuroformer.data.prepared import Prepared
from neuroformer.model.embed import EMBEDDING_STD
from neuroformer.model.frames import EnergyReadout
from neuroformer.model.network import Neuroformer
from neuroformer.model.spikes import SpikeObservation
from neuroformer.model.streams import PastSpikes
from neuroformer.model.targets import TargetHead
from neuroformer.model.traces import TraceObservation

PATTERN_S = 0.25  # of spikes together that tell which units vary together
SEEN = 1024  # windows that tell how much of a pattern is noise


def start_from_data(
    recordings: Sequence[Prepared],
    cohort: Cohort,
    *,
    trained: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """:func:`start_from_patterns`, unless the trunk was ``trained`` before, on embeddings of its own, :func:`start_heads`, and
    :func:`start_from_energies`."""
    if not trained:
        start_from_patterns(recordings, cohort)
    for i, prepared in enumerate(recordings):
        start_heads(cohort[i], prepared, list(cohort[i].targets))
    start_from_energies(recordings, cohort, say, trained=trained)


def start_from_energies(
    recordings: Sequence[Prepared],
    cohort: Cohort,
    say: Callable[[str], object] = lambda line: None,
    *,
    trained: bool = False,
) -> None:
    """Give every recording's readout of frames its components and its first weights, and say so in a line.

    Recordings without frames and encoders without an energy pyramid are left as they are.
    """
    for i, prepared in enumerate(recordings):
        model = cohort[i]
        if "frames" not in model.streams or not isinstance(model.frames.readout, EnergyReadout):
            continue
        components = energy_components(prepared.opened)
        readout, few = model.frames.readout, components.basis_FK.shape[1]
        with torch.no_grad():
            readout.basis[:, :few] = components.basis_FK
            readout.shift[:few] = components.shift_K
        train, valid = components.train, components.valid
        traces = isinstance(model.observation, TraceObservation)
        gaussian = traces and model.config.traces.likelihood == "gaussian"
        fit = fit_ridge(train, valid, calibrate=True) if gaussian else components.poisson
        unit_U, level_U = _scale(model)
        with torch.no_grad():
            curve = fit.curve
            assert curve is not None
            readout.weight.weight[:, :few] = (fit.weight_KU / unit_U).T
            readout.center.copy_((curve.center_U - fit.intercept_U) / unit_U)
            readout.spread.copy_(curve.spread_U / unit_U)
            readout.curve.weight.copy_(curve.coefficient_4U.T / unit_U[:, None])
            readout.curve.weight[:, 0] -= level_U / unit_U
            # what is not fitted begins at nothing, so that the fit is what there is; rows of a trained run stay
            if isinstance(model.observation, SpikeObservation) and not trained:
                model.observation.rates.unit.weight.zero_()
        say(
            f"frames of {prepared.name!r}: {len(train.x_GK):,} distinct clips train {few} energy components, shrunk by "
            f"{fit.penalty:.2g} a presentation"
        )


def start_from_patterns(recordings: Sequence[Prepared], cohort: Cohort) -> None:
    """Let half of the columns of units' embeddings start as the population's leading patterns, where the past is summed in bins.

    Such sums are then the patterns' activity, from the first step on; of random embeddings it takes the network hundreds of steps
    to find what all units share. Columns keep the size of the random ones.
    """
    for i, prepared in enumerate(recordings):
        model = cohort[i]
        past = dict(model.streams.items()).get("past")
        if not (isinstance(past, PastSpikes) and past.by_bin):
            continue
        weight_UD, blocks = model.embedding.unit.weight, prepared.split.blocks["train"]
        few = weight_UD.shape[1] // 2
        found = unit_patterns(prepared.opened.index, blocks, model.num_bins, few, prepared.config.seed)
        pattern_UQ = torch.from_numpy(found).to(weight_UD)
        size_Q = (past.unit_rate @ pattern_UQ.square() / past.unit_rate.sum()).sqrt()
        with torch.no_grad():
            weight_UD[:, : pattern_UQ.shape[1]] = pattern_UQ * (EMBEDDING_STD / size_Q)


@torch.no_grad()
def start_heads(model: Neuroformer, prepared: Prepared, names: Sequence[str]) -> None:
    """Let the heads of these targets see the population's leading patterns, if they see patterns at all.

    Each is as large as the share of its variance that two halves of the units have in common in validation windows, where nothing
    was fitted; together they have a spread of one. Strong patterns are learnt from first then, and noise is not.
    """
    known = [head for name, head in model.targets.items() if name in names and isinstance(head, TargetHead)]
    heads = [head for head in known if head.counts.pattern is not None]
    if not heads:
        return
    width, rank = max(model.num_bins, round(PATTERN_S / prepared.config.window.dt)), heads[0].counts.num_channels
    found = unit_patterns(prepared.opened.index, prepared.split.blocks["train"], width, rank, prepared.config.seed)
    windows = prepared.windows("valid")
    windows = windows[np.unique(np.linspace(0, len(windows) - 1, min(len(windows), SEEN)).round().astype(int))]
    for head in heads:
        pattern_UQ, every, half = head.counts.pattern, [], []
        assert pattern_UQ is not None
        pattern_UQ.zero_()[:, : found.shape[1]] = torch.from_numpy(found).to(pattern_UQ)
        whole_UQ = pattern_UQ.clone()
        for batch in prepared.batches(windows, 256, model.device):
            every.append(head.counted(batch))
            pattern_UQ[1::2] = 0
            half.append(head.counted(batch))
            pattern_UQ.copy_(whole_UQ)
        every_VQK, half_VQK = (torch.cat(parts) for parts in (every, half))
        every_VQK, half_VQK = every_VQK - every_VQK.mean(0), half_VQK - half_VQK.mean(0)
        common_Q = 4 * (half_VQK * (every_VQK - half_VQK)).sum((0, 2))
        share_Q = (common_Q / every_VQK.square().sum((0, 2)).clamp_min(1e-12)).clamp(0, 1)
        pattern_UQ *= share_Q / (every_VQK * share_Q[:, None]).square().mean().sqrt().clamp_min(1e-6)


def _scale(model: Neuroformer) -> tuple[Tensor, Tensor]:
    """(U,) one unit of what streams add to, in the answers' own; and where it stands before they add anything."""
    of = model.observation
    if isinstance(of, SpikeObservation):
        level_U = of.rates.bias.weight + float(np.log(of.num_bins))
        return torch.ones_like(level_U), level_U
    level_U = of.marginal_UP[:, 0]
    return (of.scale.level if of.likelihood == "gaussian" else torch.ones_like(level_U)), level_U

"""What a network knows before its first step: what units see in the energies of frames, as a convex fit finds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from neuroformer.baselines.energy import EnergyComponents, fit_poisson
from neuroformer.bundle.cohort import Cohort
from neuroformer.data.prepared import Prepared
from neuroformer.model.frames import EnergyReadout
from neuroformer.model.spikes import SpikeObservation


def start_from_energies(
    recordings: Sequence[Prepared], cohort: Cohort, say: Callable[[str], object] = lambda line: None
) -> None:
    """Give every recording's readout of frames its components and its first weights, and say so in a line.

    Recordings without frames, encoders without an energy pyramid, and traces are left as they are.
    """
    for i, prepared in enumerate(recordings):
        model = cohort[i]
        if "frames" not in model.streams or not isinstance(model.frames.readout, EnergyReadout):
            continue
        components = EnergyComponents(prepared)
        readout, few = model.frames.readout, components.basis_FK.shape[1]
        with torch.no_grad():
            readout.basis[:, :few] = components.basis_FK
            readout.shift[:few] = components.shift_K
        if not isinstance(model.observation, SpikeObservation):
            continue
        train, valid = (components.responses(prepared, part) for part in ("train", "valid"))
        fit = fit_poisson(train, valid)
        with torch.no_grad():
            curve = fit.curve
            assert curve is not None
            readout.weight.weight[:, :few] = fit.weight_KU.T
            readout.center.copy_(curve.center_U - fit.intercept_U)
            readout.spread.copy_(curve.spread_U)
            readout.curve.weight.copy_(curve.coefficient_4U[1:].T)
            bins = torch.tensor(float(model.observation.num_bins))
            model.observation.rates.bias.weight.copy_(curve.coefficient_4U[0] - bins.log())
        say(
            f"frames of {prepared.rec.name!r}: {len(train.x_GK):,} distinct clips train {few} energy components, shrunk by "
            f"{fit.penalty:.2g} a presentation"
        )

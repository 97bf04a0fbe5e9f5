"""A new recording joins a trained model: the shared trunk is reused, and its units get their own rows."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from neuroformer.bundle.bundle import LIKELIHOOD, Bundle, checked_weights, load_model
from neuroformer.bundle.cohort import POSITION, Cohort, own_names, same_axis, same_period, shared_names
from neuroformer.bundle.saving import save_bundle, save_cohort
from neuroformer.config import (
    Config,
    ConfigError,
    RecordingConfig,
    apply_overrides,
    from_dict,
    member_config,
    to_dict,
)
from neuroformer.data.recordings import absent
from neuroformer.data.scales import VariableScale
from neuroformer.data.windows import spread
from neuroformer.model.frames import FrameEncoder
from neuroformer.model.network import Neuroformer
from neuroformer.model.targets import TargetHead
from neuroformer.model.units import UnitRows
from neuroformer.recording import Recording

Trains = Literal["new", "all"]
MOST_ASKED = 16  # recordings of a run, spread over all, whose units' rows a new unit's are the mean of


def _rows(model: Neuroformer) -> dict[str, UnitRows]:
    """Everything that has a row for each unit, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, UnitRows)}


def adapted_config(trained: Config, overrides: Sequence[str]) -> Config:
    """A trained run's configuration for another recording; ``recording`` is the new one's.

    Raises
    ------
    ConfigError
        An override of what the trained weights fix.
    """
    one = RecordingConfig(speeds=(trained.recordings or (trained.recording,))[0].speeds)
    base = replace(trained, recordings=(), recording=one)
    config = from_dict(apply_overrides(to_dict(base), overrides))
    if config.recordings:
        raise ConfigError("one recording joins at a time: give recording.path, not recordings")
    fixed = [
        ("model", base.model, replace(config.model, dropout=base.model.dropout)),
        ("loss.contrast", base.loss.contrast, config.loss.contrast),
    ]
    fixed += [(key, getattr(base, key), getattr(config, key)) for key in ("window", "inputs", "targets", "traces")]
    for key, was, asked in fixed:
        if was != asked:
            raise ConfigError(f"'{key}' was fixed by training and cannot be overridden here; train another run with it")
    return config


@dataclass
class Start:
    """The weights that a run starts from, and which of them are trained.

    Attributes
    ----------
    bundle : Bundle
        A run of one or several recordings, whose trunk is used.
    train : "new": what belongs to the new recording (its units' rows and heads); "all": the trunk, too
    """

    bundle: Bundle
    train: Trains = "new"

    def config_for(self, rec: Recording, config: Config) -> Config:
        """The configuration (:func:`adapted_config`) without what the new recording lacks."""
        return member_config(config, 0, absent(rec, config))

    def begin(self, cohort: Cohort) -> dict[str, Any]:
        """Put the trunk into a cohort of one recording, and freeze it if only the new parts train.

        Returns
        -------
        dict
            What a checkpoint must agree with: ``start``.

        Raises
        ------
        ConfigError
            A parameter of another shape than the trained one's; names it.
        BundleError
            Weights that are missing or changed.
        """
        tensors = load_file(checked_weights(self.bundle, LIKELIHOOD))
        model = cohort[0]
        names = [name for name, _ in model.named_parameters()]
        keys, own = shared_names(names, self.bundle.config, model.config), own_names(model)
        for name, p in model.named_parameters():
            key = keys[name]
            if name in own or key not in tensors or not self._same_meaning(name, model):
                continue
            if tensors[key].shape != p.shape:
                raise ConfigError(
                    f"'{key}' has shape {tuple(tensors[key].shape)} in {self.bundle.path} and would have "
                    f"{tuple(p.shape)} for the new recording; keep 'model' and 'window' as they were trained"
                )
            with torch.no_grad():
                p.copy_(tensors[key])
            p.requires_grad_(self.train == "all")
        self._start_rows(model)
        digest = hashlib.sha256(json.dumps([self.bundle.digests[LIKELIHOOD], self.train]).encode()).hexdigest()
        return {"start": digest}

    @torch.no_grad()
    def _start_rows(self, model: Neuroformer) -> None:
        """Let every new unit start as the mean of the units that were trained: what they have in common, a minute of data need not
        tell again. (What firing statistics and areas say of rows beyond that did not help; see the lab notes.)"""
        names = self.bundle.names
        asked = [names[i] for i in spread(len(names), MOST_ASKED)] if len(names) > 1 else [""]
        trained = [_rows(load_model(self.bundle, recording=name)) for name in asked]
        for name, rows in _rows(model).items():
            if rows.from_data or not self._same_meaning(f"{name}.weight", model):
                continue
            known: list[Tensor] = [one[name].weight for one in trained if name in one]
            if known and all(x.shape[1:] == rows.weight.shape[1:] for x in known):
                rows.weight.copy_(torch.cat(known).mean(0).expand_as(rows.weight))

    def _same_meaning(self, name: str, model: Neuroformer) -> bool:
        """Whether a parameter has the same meaning for the new recording as for the earlier ones."""
        parts = name.split(".")
        known = (m.normalization for m in self.bundle.recordings)  # of many, each is read only if it is asked for
        if parts[0] == "targets":
            entry = next((n.targets[parts[1]] for n in known if parts[1] in n.targets), VariableScale())
            head = model.targets[parts[1]]
            assert isinstance(head, TargetHead)
            return (head.classes, head.words) == (entry.classes, entry.words)
        scale = next((n.frames for n in known if n.frames is not None), None)
        if scale is None or not name.startswith("streams.frames.encoder."):
            return True
        frames, encoder = model.frames, model.frames.encoder
        filters = name.startswith("streams.frames.encoder.filter")
        if filters and encoder.kernel[0] > 1 and not same_period(frames.period, scale.period):
            raise ConfigError(
                f"the run was trained on a frame every {scale.period:g} s, the new recording shows one every "
                f"{frames.period:g} s, and model.frame_encoder takes {encoder.kernel[0]} at once: resample the frames"
            )
        filters = filters and encoder.pyramid is not None
        if not filters and not name.startswith(POSITION):
            return True
        trained = FrameEncoder(self.bundle.config.model, scale)
        if filters:
            return trained.features == encoder.features
        grid = trained.grid
        return same_axis(frames, grid, scale.period, int(parts[-1]))


def join(trained: Bundle, adapted: Bundle, folder: Path) -> None:
    """Write one bundle of a run's recordings and one that was adapted to it with a frozen trunk. It has only the
    weights that are best for the likelihood, since the new rows were trained with that trunk.

    Raises
    ------
    ConfigError
        Another trunk or split than the run's, or a name that is taken.
    """
    new = adapted.entry
    if new.name in trained.names:
        raise ConfigError(f"{trained.path} has a recording '{new.name}' already; adapt with another recording.name")
    ours, theirs = _reads(trained.config), _reads(adapted.config)
    new = replace(new, lacks=[name for name in ours if name not in theirs])
    ones = trained.config.recordings or (trained.config.recording,)
    config = replace(trained.config, recording=RecordingConfig(), recordings=(*ones, adapted.config.recording))
    if config.split != adapted.config.split:
        raise ConfigError("'split' was overridden for the new recording; recordings of one bundle share it")
    alone = {name: p.clone() for name, p in load_model(adapted).named_parameters()}
    models = itertools.chain((load_model(trained, recording=name) for name in trained.names), [load_model(adapted)])
    cohort = Cohort(models, [*trained.names, new.name], config)
    for name, p in cohort[len(cohort) - 1].named_parameters():
        if not torch.equal(p, alone[name]):
            raise ConfigError(
                f"'{name}' is not as in {trained.path}: only a recording adapted with --train new joins it"
            )
    save_cohort(folder, LIKELIHOOD, cohort.trunk(), (cohort.own(i) for i in range(len(cohort))))
    save_bundle(folder, config, [*trained.recordings, new], {"joined": new.name})


def _reads(config: Config) -> list[str]:
    return ["frames"] * (config.window.frames > 0) + [v.name for v in (*config.inputs, *config.targets)]

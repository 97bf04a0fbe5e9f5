"""Labels of the targets in each part of a split: what cannot be learnt, chosen by or scored."""

from __future__ import annotations

import numpy as np

from neuroformer.audit.findings import Finding
from neuroformer.audit.split import merged
from neuroformer.config import Config, TargetConfig
from neuroformer.data.normalization import fit_inputs, fit_targets
from neuroformer.data.scales import Normalization, VariableScale
from neuroformer.data.splits import PARTS, Split
from neuroformer.recording import BehaviorVariable, Recording
from neuroformer.recording.clock import interval_of


def target_findings(
    rec: Recording, config: Config, split: Split, fitted: Normalization | None = None
) -> list[Finding | None]:
    """Targets that do not vary in a part, and classes that training does not have.

    Parameters
    ----------
    fitted : the normalisation of this split; without it, what is needed of it is fitted

    Raises
    ------
    ConfigError
        As training would: a variable is of another kind or period than declared.
    """
    cut = [p for p in PARTS if len(split.blocks[p])]
    values = {
        v.name: {p: _values(rec.variable(v.name), split.intervals(p)) for p in cut}
        for v in (*config.inputs, *config.targets)
    }
    # without a value in training, a variable is a finding here and a reason for training to refuse the run
    taught = [name for name, parts in values.items() if len(parts.get("train", ()))]
    targets = [t for t in config.targets if t.name in taught]
    if fitted is None:
        fit_inputs(rec, split, [v for v in config.inputs if v.name in taught])
        scales = fit_targets(rec, split, targets)
    else:
        scales = fitted.targets
    out = [_unvarying(t.name, values[t.name]) for t in config.targets]
    for target in targets:
        if target.kind == "classification":
            out.append(_untrained(target, values[target.name], scales[target.name]))
    return out


def _values(variable: BehaviorVariable, intervals: np.ndarray) -> np.ndarray:
    """(N, C) the samples within intervals that are not missing."""
    values = variable.values[interval_of(variable.times, merged(intervals)) >= 0]
    return values[np.isfinite(values).all(1)]


def _unvarying(name: str, parts: dict[str, np.ndarray]) -> Finding | None:
    """A target without two different values in a part."""
    found = {
        part: "one value" if len(values) else "no value"
        for part, values in parts.items()
        if len(values) == 0 or (values == values[0]).all()
    }
    if not found:
        return None
    return Finding(
        "target_does_not_vary",
        "warning",
        f"'{name}' has " + ", ".join(f"{what} in '{part}'" for part, what in found.items()),
        "cut the recording otherwise (split.block, split.pattern, split.by), so that it varies in every part",
        {"variable": name, "parts": found},
    )


def _untrained(target: TargetConfig, parts: dict[str, np.ndarray], scale: VariableScale) -> Finding | None:
    """A class of a held-out part that training does not have."""
    found = {}
    for part, values in parts.items():
        new = np.setdiff1d(values, scale.classes)
        for label in new:
            found.setdefault(scale.word(label), {})[part] = float((values == label).mean())
    if not found:
        return None
    said = "; ".join(
        f"{word} is " + ", ".join(f"{share:.0%} of '{part}'" for part, share in where.items())
        for word, where in found.items()
    )
    return Finding(
        "class_not_in_training",
        "warning",
        f"'{target.name}' has classes that 'train' has no label of: {said}",
        "no decoder can name them; cut the recording otherwise (split.block, split.pattern, split.by)",
        {"variable": target.name, "classes": found},
    )

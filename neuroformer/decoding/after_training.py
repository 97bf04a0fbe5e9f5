"""After joint training, the heads of behavior go on learning from labelled windows alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuroformer.bundle.bundle import LIKELIHOOD, load_model, read_bundle
from neuroformer.bundle.saving import save_bundle, save_weights
from neuroformer.data.prepared import Prepared
from neuroformer.decoding.decode import decode_windows, every_window, predict_targets, score_of, true_values
from neuroformer.decoding.finetune import fit_heads


def fit_heads_on(folder: Path, prepared: Prepared, report: Callable[[str], object]) -> dict[str, Any]:
    """Fit the heads of a run on labels of its training part; a target's weights are replaced where that decodes the
    validation part better.

    Parameters
    ----------
    folder : of a run on one recording, ended
    prepared : that recording
    report : called with a line per target

    Returns
    -------
    dict
        ``valid_fitted_<target>``: its score on the validation part, with the weights that are kept.
    """
    config, bundle = prepared.config, read_bundle(folder)
    windows, held = every_window(prepared, ("train",)), decode_windows(prepared, "valid")
    fitted = fit_heads(load_model(bundle, LIKELIHOOD), prepared, windows, config.targets, config.tune, config.seed)
    true, after = true_values(prepared, held), predict_targets(fitted, prepared, held)
    out, better = {}, []
    for target in config.targets:
        name, score = target.name, score_of(target)
        trained = predict_targets(load_model(bundle, name), prepared, held)[name]
        before, now = score(true[name], trained), score(true[name], after[name])
        report(f"{name}, head fitted on: validation {before:.3f} -> {now:.3f}{'' if now > before else ', not kept'}")
        better += [name] * (now > before)
        out[f"valid_fitted_{name}"] = max(before, now)
    for name in better:
        save_weights(folder / "weights" / f"{name}.safetensors", fitted)
    save_bundle(folder, config, bundle.recordings, bundle.metrics | out)
    return out

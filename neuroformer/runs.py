"""What the commands do, in Python: a run is trained, decoded and looked into, and its numbers are returned.

Scoring is :func:`neuroformer.training.evaluation.evaluate`, simulation :class:`neuroformer.simulator.Simulator`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.analysis import attend as analysis
from neuroformer.analysis.attend import Attended, windows_between
from neuroformer.audit import Audit
from neuroformer.baselines.decoders import FAST
from neuroformer.bundle.bundle import Bundle, load_model, read_bundle
from neuroformer.bundle.checks import BundleError
from neuroformer.bundle.opening import open_run
from neuroformer.config import Config, ConfigError, TargetConfig, load_config
from neuroformer.data.prepared import Prepared
from neuroformer.data.stored import StoredRecording, recordings_to_train
from neuroformer.decoding.after_training import fit_heads_on
from neuroformer.decoding.decode import Decoded, at_samples, measure
from neuroformer.decoding.run import decode_run
from neuroformer.recording import Recording
from neuroformer.shown import NamedValues, Shown, labelled
from neuroformer.training.adapt import Start
from neuroformer.training.train import is_first_process, train_several


@dataclass(frozen=True, repr=False)
class Trained(Shown):
    """A run that was trained: its folder, the numbers of its training, and the recordings as the model saw them."""

    folder: Path
    metrics: dict[str, Any]
    prepared: list[Prepared]

    def __repr__(self) -> str:
        names = ", ".join(p.name for p in self.prepared)
        said = lambda v: f"{v:.4g}" if isinstance(v, float) else str(v)
        return f"Trained {self.folder} on {names}\n" + "\n".join(f"  {k}: {said(v)}" for k, v in self.metrics.items())


def train(
    config: Config | str | Path,
    folder: str | Path,
    overrides: Sequence[str] = (),
    *,
    recordings: Sequence[Recording | StoredRecording] | None = None,
    resume: bool = False,
    progress: bool = False,
    start: Start | None = None,
    tell: Callable[[Audit], None] | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Trained:
    """Train a model into a folder, in place of any run that it holds; afterwards the folder is a run.

    >>> neuroformer.train("configs/demo.yaml", "runs/demo", ["train.steps=100"])
    >>> neuroformer.evaluate("runs/demo")["bits_per_spike"]

    Parameters
    ----------
    config : a configuration, or the path of a YAML file
    overrides : settings that replace the file's, as on the command line
    recordings : one for each entry of the configuration; by default they are opened
    resume : continue the run in the folder
    start : initial weights in place of random ones
    tell : called with the audit of each recording, in the first process
    say : called with a line on what the network starts from, and for each head that is fitted after training
        (``tune.after_training``)

    Returns
    -------
    Trained
        ``metrics``: seconds, steps, windows and tokens per second, parameters, the best validation scores
        (``valid_best_<objective>``) and what the audit found.

    Raises
    ------
    ConfigError, RecordingError
        An impossible run, or a split that leaks.
    Stopped
        A signal asked to stop; the run was saved, ``resume`` continues it.
    """
    folder = Path(folder)
    if not isinstance(config, Config):
        config = load_config(Path(config), overrides)
    if recordings is None:
        config, recordings = recordings_to_train(config)
    fits_heads = config.tune.after_training and bool(config.targets)
    if fits_heads and len(recordings) > 1:
        raise ConfigError(
            f"tune.after_training fits heads of one recording, and this run has {len(recordings)}; set it to false"
        )
    if is_first_process() and not resume:
        clear(folder)
    prepared, metrics = train_several(
        recordings, config, folder, progress=progress, resume=resume, start=start, tell=tell, say=say
    )
    if is_first_process() and fits_heads:
        metrics = metrics | fit_heads_on(folder, prepared[0], say)
    return Trained(folder, metrics, prepared)


def clear(folder: Path) -> None:
    """Remove what an earlier run left in a folder, so that old and new numbers never mix."""
    try:
        bundle = read_bundle(folder)
        places = [bundle.of(name).results for name in bundle.names]
    except (BundleError, ConfigError):  # no bundle, or one that cannot be read
        places = []
    for place in (folder, *places):
        for name in ("summary.json", "simulated.npz"):
            (place / name).unlink(missing_ok=True)
    for name in ("bundle.json", "checkpoint.safetensors", "log/metrics.csv"):
        (folder / name).unlink(missing_ok=True)
    for name in ("weights", "recordings", "rows"):
        shutil.rmtree(folder / name, ignore_errors=True)


# -- decoding ------------------------------------------------------------------------------------------------


@dataclass(repr=False)
class DecodedTarget(Shown):
    """A target of a run, decoded: its values by decoder, its flat scores, and everything as arrays to be saved."""

    target: TargetConfig
    decoded: Decoded
    scores: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def __repr__(self) -> str:
        what = measure(self.target)
        said = {"r2": "R2", "accuracy": "balanced accuracy"}[what]
        lines = [f"Decoded '{self.target.name}': {len(self.decoded.times):,} held-out values; {said} (95 % interval)"]
        main = f"decode_{self.target.name}_{what}"
        for name in (*self.decoded.predicted, "control"):
            key = main if name == "model" else f"{main}_{name}"
            if key in self.scores:
                low, high = (self.scores.get(f"{key}_{end}", np.nan) for end in ("low", "high"))
                interval = f" ({low:.3f} to {high:.3f})" if np.isfinite(low) and np.isfinite(high) else ""
                lines.append(f"  {name:<12} {self.scores[key]:.3f}{interval}")
        return "\n".join(lines)

    def to_xarray(self) -> Any:
        """The values as an ``xarray.DataArray`` (decoder, time, column), the recorded ones among them; needs the extra ``xarray``."""
        d = self.decoded
        values = {"recorded": d.true_VC} | d.predicted
        columns = [str(c) for c in range(d.true_VC.shape[1])]
        coords = {"decoder": list(values), "time": d.times, "column": columns}
        return labelled(np.stack(list(values.values())), coords, d.name, {"unit": d.unit})


def decode(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    recording: str = "",
    baselines: Sequence[str] = FAST,
    folder: str | Path | None = None,
    progress: bool = False,
) -> dict[str, DecodedTarget]:
    """Decode every target of a run on held-out data, beside tuned baselines and controls; by the target's name.

    >>> neuroformer.decode("runs/demo")["speed"].scores["decode_speed_r2"]

    Parameters
    ----------
    overrides : as on the command line, e.g. ``["decode.split=valid"]``
    recording : its name, in a run of several
    baselines : names of :data:`neuroformer.baselines.decoders.ALL`
    folder : where the control model without spikes is trained (default: where the run's results go)

    Raises
    ------
    ConfigError
        A run without targets, or a recording that is not the run's.
    """
    bundle, prepared = open_run(Path(run), overrides, recording)
    place = bundle.results if folder is None else Path(folder)
    found = decode_opened(bundle, prepared, place, baselines=baselines, progress=progress)
    return NamedValues((one.target.name, one) for one in found)


def decode_opened(
    bundle: Bundle, prepared: Prepared, folder: Path, *, baselines: Sequence[str] = FAST, progress: bool = False
) -> Iterator[DecodedTarget]:
    """The targets of an opened run, one after another, as :func:`decode` gives them."""
    refuse_without_targets(bundle, prepared)
    for target, decoded, scores in decode_run(bundle, prepared, folder, baselines=baselines, progress=progress):
        arrays = {"times": decoded.times, "true": decoded.true_VC, **decoded.predicted}
        if decoded.spread_VC is not None:
            arrays["model_spread"] = decoded.spread_VC
        arrays |= at_samples(decoded, target, prepared)
        scale = prepared.normalization.targets[target.name]
        if scale.words:
            arrays["words"] = np.array(scale.words)
        yield DecodedTarget(target, decoded, scores, arrays)


def refuse_without_targets(bundle: Bundle, prepared: Prepared) -> None:
    """Refuse to decode where nothing is declared.

    Raises
    ------
    ConfigError
        The recording has no target of the run, or the run declares none.
    """
    if prepared.config.targets:
        return
    declared = bundle.whole.config.targets if bundle.whole else ()
    raise ConfigError(
        f"recording '{prepared.rec.name}' has none of the run's targets ({', '.join(t.name for t in declared)}); name "
        "another with --recording"
        if declared
        else f"the run in {bundle.results} declares no targets; add targets: to its configuration and train, or teach it "
        "some with neuroformer finetune"
    )


# -- maps ----------------------------------------------------------------------------------------------------


def attend(
    run: str | Path,
    overrides: Sequence[str] = (),
    *,
    recording: str = "",
    split: str = "test",
    interval: tuple[float, float] | None = None,
    pool: Sequence[str | Path] = (),
    **options: Any,
) -> Attended:
    """Map who acts on whom in a run: see :func:`neuroformer.analysis.attend.attend`, which takes the ``options``.

    >>> neuroformer.attend("runs/demo", num_windows=500, num_knock_out=200).summary["coupling_auroc_knock_out"]

    Parameters
    ----------
    recording : its name, in a run of several
    split : the part whose windows are looked at: "train", "valid" or "test"
    interval : in its place, (start, stop) seconds of the recording
    pool : further runs on the same recording with other seeds; maps are averaged over all, and each pair's spread over
        them is its null

    Raises
    ------
    ConfigError
        No window in the interval, or a pooled run of other units.
    """
    each, first = [], None
    for folder in (run, *pool):
        bundle, prepared = open_run(Path(folder), overrides, recording)
        first = first or prepared
        if prepared.rec.unit_ids != first.rec.unit_ids:
            raise ConfigError(
                f"{folder} was trained on other units than {run}; maps can be averaged over the same units only"
            )
        windows = windows_between(prepared, *interval) if interval else prepared.windows(split)
        each.append(analysis.attend(load_model(bundle), prepared, windows, **options))
    assert first is not None
    return analysis.pooled(each, first)

"""A configuration as a whole, and what its sections must have in common."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import yaml

from neuroformer.config.errors import require
from neuroformer.config.recording_sections import RecordingConfig
from neuroformer.config.schema import (
    DecodeConfig,
    GenerateConfig,
    InputConfig,
    LossConfig,
    ModelConfig,
    SplitConfig,
    TargetConfig,
    TraceConfig,
    TrainConfig,
    TuneConfig,
    WindowConfig,
)
from neuroformer.config.setting import setting
from neuroformer.config.values import check_section
from neuroformer.shown import Shown


@dataclass(frozen=True, repr=False)
class Config(Shown):
    """One run, whole.

    Raises
    ------
    ConfigError
        A value of a wrong type or out of its bounds, or an impossible combination; the first one found.
    """

    name: str = setting("", "runs/<name>; empty: the name of the YAML file")
    seed: int = setting(0, "of the weights, the order of the data and the simulation", least=0, most=2**32 - 1)
    recording: RecordingConfig = RecordingConfig()
    recordings: tuple[RecordingConfig, ...] = setting(
        (), "in place of recording: a list of such entries, a list of paths, or a glob; they share one model"
    )
    window: WindowConfig = WindowConfig()
    inputs: tuple[InputConfig, ...] = setting((), "what conditions the model besides spikes and frames")
    targets: tuple[TargetConfig, ...] = setting((), "what is decoded")
    traces: TraceConfig = TraceConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    generate: GenerateConfig = GenerateConfig()
    decode: DecodeConfig = DecodeConfig()
    tune: TuneConfig = TuneConfig()

    def __post_init__(self):
        check_section(self)
        _check_recordings(self)
        _check_window(self)
        _check_variables(self)
        _check_streams(self)
        _check_traces(self)

    def __repr__(self) -> str:
        changed = yaml.safe_dump(_plain(_changed(self, Config())), sort_keys=False, default_flow_style=None, width=110)
        return f"Configuration '{self.name}', where it differs from the defaults\n{changed}".rstrip()

    @property
    def input_groups(self) -> list[str]:
        """Names of the behavior groups, in the order of their first variable."""
        return list(dict.fromkeys(v.group for v in self.inputs))


def _changed(value: Any, default: Any) -> Any:
    """What of a section is not as it is by default."""
    if type(value) is not type(default) or not dataclasses.is_dataclass(value):
        return value
    pairs = {f.name: (getattr(value, f.name), getattr(default, f.name)) for f in dataclasses.fields(value)}
    return {name: _changed(*pair) for name, pair in pairs.items() if pair[0] != pair[1]}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        defaults = {f.name: f.default for f in dataclasses.fields(value)}
        each = ((name, getattr(value, name), default) for name, default in defaults.items())
        return {name: _plain(v) for name, v, default in each if v != default}
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _check_recordings(c: Config) -> None:
    if c.recordings:
        require(c.recording == RecordingConfig(), "recording", c.recording.path, "nothing where recordings are given")


def _check_window(c: Config) -> None:
    w = c.window
    for name in ("current", "past", "lookahead") + ("target_past",) * bool(c.targets):
        value = getattr(w, name)
        expected = f"a whole multiple of window.dt = {w.dt}, such as {max(1, round(value / w.dt)) * w.dt:.10g}"
        require(abs(value / w.dt - round(value / w.dt)) < 1e-6, f"window.{name}", value, expected)


def _check_variables(c: Config) -> None:
    """A behavior variable is one input or one target."""
    for what, ones in (("inputs", c.inputs), ("targets", c.targets)):
        names = [one.name for one in ones]
        for i, name in enumerate(names):
            require(name not in names[:i], f"{what}[{i}].name", name, "a variable that is not already in the list")
    inputs, num_bins = [v.name for v in c.inputs], round(c.window.current / c.window.dt)
    for i, name in enumerate(inputs):
        require(name != "frames", f"inputs[{i}].name", name, "a behavior variable (frames are seen with window.frames)")
    for i, target in enumerate(c.targets):
        what = "nothing, where window.frames is above 0: a network that sees frames has nothing to decode"
        require(target.name != "frames" or c.window.frames == 0, f"targets[{i}].name", "frames", what)
        require(target.name not in inputs, f"targets[{i}].name", target.name, "a variable that is not also an input")
        expected = f"a divisor of the window's {num_bins} bins"
        require(num_bins % target.samples == 0, f"targets[{i}].samples", target.samples, expected)


def _check_streams(c: Config) -> None:
    """What blocks attend to and what is aligned must be there."""
    taken = ("neural", "current", "past", "frames")
    for i, v in enumerate(c.inputs):
        require(v.group not in taken, f"inputs[{i}].group", v.group, f"another name than {', '.join(taken)}")
    frames = ["frames"] * (c.window.frames != 0)
    if c.model.frame_encoder.follow:
        _one_of([v.name for v in c.inputs], "model.frame_encoder.follow", c.model.frame_encoder.follow)
    known = ["current"] + ["past"] * (c.window.past > 0) + frames + c.input_groups
    for i, block in enumerate(c.model.blocks):
        _one_of(known, f"model.blocks[{i}].attend", block.attend)
    for i, contrast in enumerate(c.loss.contrast):
        for side in contrast.pair:
            _one_of(["neural", *frames, *c.input_groups], f"loss.contrast[{i}].pair", side)


def _one_of(known: list[str], key: str, got: Any) -> None:
    require(got in known, key, got, f"one of {', '.join(known)} (what this run has)")


def _check_traces(c: Config) -> None:
    if c.traces.likelihood == "none":
        return
    require(not c.targets, "targets", [t.name for t in c.targets], "none where traces are modelled")
    require(not c.loss.contrast, "loss.contrast", "given", "nothing where traces are modelled")
    require(c.train.past_noise == 0, "train.past_noise", c.train.past_noise, "0 where traces are modelled")
    something = c.window.past > 0 or c.window.frames != 0 or bool(c.inputs)
    expected = "above 0, where there are neither frames nor inputs: traces are predicted from something"
    require(something, "window.past", c.window.past, expected)

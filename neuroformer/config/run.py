"""A configuration as a whole, and what its sections must have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neuroformer.config.errors import require
from neuroformer.config.schema import (
    DecodeConfig,
    GenerateConfig,
    InputConfig,
    LossConfig,
    ModelConfig,
    RecordingConfig,
    SplitConfig,
    TargetConfig,
    TraceConfig,
    TrainConfig,
    TuneConfig,
    WindowConfig,
)
from neuroformer.config.setting import setting
from neuroformer.config.values import check_section


@dataclass(frozen=True)
class Config:
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
        _check_surprise(self)
        _check_traces(self)

    @property
    def input_groups(self) -> list[str]:
        """Names of the behavior groups, in the order of their first variable."""
        return list(dict.fromkeys(v.group for v in self.inputs))

    @property
    def surprise(self) -> float:
        """``model.surprise`` in seconds: where -1 leaves it open, half a second or the past if that is shorter, if frames
        go through an encoder of our own one by one; 0 otherwise.
        """
        m, w, e = self.model, self.window, self.model.frame_encoder
        if m.surprise >= 0:
            return m.surprise
        seen = w.frames > 0 and m.frame_readout > 0 and self.traces.likelihood == "none"
        return min(0.5, w.past) if seen and e.kind != "backbone" and e.stride[0] == 1 else 0.0


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
    for i, target in enumerate(c.targets):
        require(target.name not in inputs, f"targets[{i}].name", target.name, "a variable that is not also an input")
        expected = f"a divisor of the window's {num_bins} bins"
        require(num_bins % target.samples == 0, f"targets[{i}].samples", target.samples, expected)


def _check_streams(c: Config) -> None:
    """What blocks attend to and what is aligned must be there."""
    taken = ("neural", "current", "past", "frames")
    for i, v in enumerate(c.inputs):
        require(v.group not in taken, f"inputs[{i}].group", v.group, f"another name than {', '.join(taken)}")
    frames = ["frames"] * (c.window.frames > 0)
    known = ["current"] + ["past"] * (c.window.past > 0) + frames + c.input_groups
    for i, block in enumerate(c.model.blocks):
        _one_of(known, f"model.blocks[{i}].attend", block.attend)
    for i, contrast in enumerate(c.loss.contrast):
        for side in contrast.pair:
            _one_of(["neural", *frames, *c.input_groups], f"loss.contrast[{i}].pair", side)


def _one_of(known: list[str], key: str, got: Any) -> None:
    require(got in known, key, got, f"one of {', '.join(known)} (what this run has)")


def _check_surprise(c: Config) -> None:
    """What compares frames with spikes needs both, and frames one by one; what is sparse, a weight for every pair."""
    m, w = c.model, c.window
    if m.surprise not in (-1, 0) and w.frames > 0 and m.frame_readout:
        expected = f"0 to window.past = {w.past:g} s, or -1 (as long as is useful)"
        require(m.surprise <= w.past, "model.surprise", m.surprise, expected)
        step = 1 if m.frame_encoder.kind == "backbone" else m.frame_encoder.stride[0]
        require(step == 1, "model.frame_encoder.stride", m.frame_encoder.stride, "1 in time for model.surprise")
    sparse = c.train.sparsity == 0 or (m.coupling > 0 and m.coupling_rank == 0)
    require(sparse, "train.sparsity", c.train.sparsity, "0, or above 0 with model.coupling and model.coupling_rank 0")


def _check_traces(c: Config) -> None:
    if c.traces.likelihood == "none":
        return
    require(not c.targets, "targets", [t.name for t in c.targets], "none where traces are modelled")
    require(not c.loss.contrast, "loss.contrast", "given", "nothing where traces are modelled")
    require(c.train.past_noise == 0, "train.past_noise", c.train.past_noise, "0 where traces are modelled")
    require(c.window.past > 0, "window.past", 0, "above 0: traces are predicted from their past")

"""Every setting of a run, in the order in which data flow; a strict loader of YAML and overrides.

The dataclasses are the schema. An unknown key, a wrong type or an impossible combination is a
:class:`ConfigError` that names the key, what was got and what was expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml


class ConfigError(ValueError):
    """A configuration that cannot be run: says which key, what was got and what was expected."""


# -- what is read, and how time is cut -----------------------------------------------------------------


@dataclass(frozen=True)
class RecordingConfig:
    """Which recording."""

    path: str = "synthetic:demo"  # a file, a folder, or synthetic:NAME
    options: dict[str, Any] = field(default_factory=dict)  # handed to the reader or generator


@dataclass(frozen=True)
class WindowConfig:
    """How time is cut (seconds). All but frames are whole multiples of dt."""

    dt: float = 0.01  # width of a bin: the resolution of spike times
    current: float = 0.05  # the window whose spikes are predicted
    past: float = 0.25  # spikes before it that the model sees
    frames: float = 0.2  # frames whose onset lies in [t + current - frames, t + current); 0: no frames
    frames_until: Literal["stop", "start"] = "stop"  # "start": no frame from inside the window
    max_tokens: int = 0  # cap on spikes a window, 0: none; what it drops is counted and reported


@dataclass(frozen=True)
class InputConfig:
    """One behavior variable that conditions the model; `trial_time` exists wherever trials do."""

    name: str = ""
    group: str = "behavior"  # groups are cross-attended one after another
    samples: int = 1  # values a window, evenly spaced, each the last sample known then
    encoding: Literal["linear", "fourier"] = "linear"
    period: float = 0.0  # of the slowest Fourier feature, in the variable's unit; 0: the training range
    frequencies: int = 16  # number of Fourier features, harmonics of the period


@dataclass(frozen=True)
class TargetConfig:
    """One behavior variable that is predicted, and therefore never an input."""

    name: str = ""
    kind: Literal["regression", "classification"] = "regression"
    weight: float = 1.0


@dataclass(frozen=True)
class SplitConfig:
    """Which stretch trains, validates and tests."""

    by: Literal["blocks", "trials"] = "blocks"
    block: float = 60.0  # seconds a block (by: blocks)
    pattern: tuple[str, ...] = ("train", "train", "train", "valid", "test")  # repeated over blocks or trials
    gap: float = -1.0  # seconds between blocks; -1: the longest reach of a window
    claim: Literal["time", "repeats", "stimuli"] = "time"  # what the score claims to generalise over


# -- the model -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameEncoderConfig:
    """From (frames, height, width) to frame tokens."""

    kind: Literal["conv3d", "patches"] = "conv3d"
    kernel: tuple[int, ...] = (2, 6, 6)  # frames, rows, columns (conv3d)
    stride: tuple[int, ...] = (1, 4, 4)  # likewise; for patches this is the patch
    channels: int = 0  # of a second, pointwise layer after the convolution; 0: none
    layers: int = 0  # self-attention blocks over frame tokens


@dataclass(frozen=True)
class BlockConfig:
    """A stretch of the fusion: `layers` blocks that attend to one thing."""

    attend: str = "current"  # current (causal), past, frames, or the name of a behavior group
    layers: int = 1


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    width: int = 64
    heads: int = 4
    mlp_ratio: int = 4
    dropout: float = 0.1  # on embeddings and residuals
    time_features: int = 16  # Fourier features of spike, frame and sample times
    blocks: tuple[BlockConfig, ...] = ()  # empty: one each of current, past, frames, every group, current
    frame_encoder: FrameEncoderConfig = FrameEncoderConfig()
    factorization: Literal["conditional", "independent"] = "conditional"  # id given dt, or the original's
    history_filters: int = (
        8  # temporal filters under which past spikes are counted (sums, not averages); 0: none
    )
    coupling: float = 0.1  # seconds after a spike in which it changes rates at exact lags
    history_rank: int = 16  # of the map from counted spikes to log rates
    history_dropout: float = 0.0  # on the counted spikes
    frame_readout: int = 32  # local features that each unit reads at its own place in the frames; 0: none
    rate_anchor: bool = True  # dt and id logits start from the Poisson process of the rate readout


@dataclass(frozen=True)
class ContrastConfig:
    """Symmetric InfoNCE between two pooled features: neural, frames, or a behavior group."""

    pair: tuple[str, str] = ("neural", "frames")
    weight: float = 0.1
    width: int = 32  # of the shared space
    scale: float = 10.0  # initial inverse temperature, learnt, capped at 100


@dataclass(frozen=True)
class LossConfig:
    """Weights; every term is logged unweighted."""

    dt: float = 1.0
    id: float = 1.0
    rates: float = 0.2  # Poisson NLL of the rate readout, in nats a spike
    contrast: tuple[ContrastConfig, ...] = ()


# -- training, simulation, decoding ------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation with AdamW, linear warm-up and cosine decay."""

    steps: int = 2000
    batch_size: int = 256  # windows
    lr: float = 2e-3
    frame_lr: float = (
        2.5  # times lr, for the frame encoder and readout: receptive fields are far from their start
    )
    min_lr: float = 0.02  # share of lr at the end
    warmup: int = 100  # steps
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0  # norm of the gradient
    average: float = 0.0  # decay of the moving average of weights that is evaluated and kept; 0: none
    jitter: bool = True  # windows start anywhere on the bin grid, else tile time
    evaluate_every: int = 200  # steps
    patience: int = 0  # evaluations without a better validation loss before stopping; 0: never
    threads: int = 0  # CPU threads; 0: PyTorch's choice
    workers: int = 0  # processes that build batches
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    wandb: bool = False  # also log to Weights & Biases


@dataclass(frozen=True)
class GenerateConfig:
    """Closed-loop simulation."""

    split: Literal["train", "valid", "test"] = "test"
    samples: int = 1  # simulated copies of every trial
    temperature_dt: float = 1.0
    temperature_id: float = 1.0
    top_p_dt: float = 1.0
    top_p_id: float = 1.0
    max_tokens: int = 1000  # guard on spikes a window; hits are counted and reported
    batch_size: int = 512  # sequences at once
    max_seconds: float = 0.0  # simulate at most so much of each interval; 0: all of it


@dataclass(frozen=True)
class DecodeConfig:
    """Behavior along a recording, and its baselines."""

    split: Literal["valid", "test"] = "test"
    lags: tuple[float, ...] = (
        0.25,
        0.5,
        1.0,
        2.0,
    )  # seconds of past spikes that ridge may see; validation chooses
    bootstrap_block: float = 5.0  # seconds a block of the bootstrap
    bootstraps: int = 1000


@dataclass(frozen=True)
class Config:
    """One run, whole."""

    name: str = ""  # runs/<name>; empty: the name of the YAML file
    seed: int = 0
    recording: RecordingConfig = RecordingConfig()
    window: WindowConfig = WindowConfig()
    inputs: tuple[InputConfig, ...] = ()
    targets: tuple[TargetConfig, ...] = ()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    generate: GenerateConfig = GenerateConfig()
    decode: DecodeConfig = DecodeConfig()

    def __post_init__(self):
        check(self)

    @property
    def input_groups(self) -> list[str]:
        """Names of the behavior groups, in the order of their first variable."""
        return list(dict.fromkeys(v.group for v in self.inputs))


# -- combinations that cannot be -----------------------------------------------------------------------------


def check(c: Config) -> None:
    """Refuse impossible combinations.

    Raises
    ------
    ConfigError
        The first one found.
    """
    _check_window(c.window)
    _check_streams(c)
    _check_model(c)
    for i, part in enumerate(c.split.pattern):
        known = ("train", "valid", "test", "none")
        _require(part in known, f"split.pattern[{i}]", part, "train, valid, test or none")
    for part in ("train", "valid", "test"):
        _require(part in c.split.pattern, "split.pattern", list(c.split.pattern), f"at least one '{part}'")
    _check_amounts(c)


def _check_window(w: WindowConfig) -> None:
    for name in ("dt", "current"):
        _require(getattr(w, name) > 0, f"window.{name}", getattr(w, name), "seconds above 0")
    for name in ("past", "frames"):
        _require(getattr(w, name) >= 0, f"window.{name}", getattr(w, name), "seconds, 0 or more")
    for name in ("current", "past"):
        value, expected = getattr(w, name), f"a whole multiple of window.dt = {w.dt}"
        _require(abs(value / w.dt - round(value / w.dt)) < 1e-6, f"window.{name}", value, expected)


def _check_streams(c: Config) -> None:
    """Inputs, targets, and what is aligned with what."""
    inputs = [v.name for v in c.inputs]
    for i, target in enumerate(c.targets):
        key = f"targets[{i}].name"
        _require(bool(target.name), key, "nothing", "the name of a behavior variable")
        _require(target.name not in inputs, key, target.name, "a variable that is not also an input")
    for i, v in enumerate(c.inputs):
        _require(bool(v.name), f"inputs[{i}].name", "nothing", "the name of a behavior variable")
        _require(v.samples >= 1, f"inputs[{i}].samples", v.samples, "1 or more")
    sides = ["neural"] + ["frames"] * (c.window.frames > 0) + c.input_groups
    for i, contrast in enumerate(c.loss.contrast):
        for side in contrast.pair:
            expected = f"one of {', '.join(sides)} (what this run has)"
            _require(side in sides, f"loss.contrast[{i}].pair", side, expected)


def _check_model(c: Config) -> None:
    m, w = c.model, c.window
    _require(m.width % m.heads == 0, "model.width", m.width, f"a multiple of model.heads = {m.heads}")
    _require(0 <= m.dropout < 1, "model.dropout", m.dropout, "a share in [0, 1)")
    known = ["current"] + ["past"] * (w.past > 0) + ["frames"] * (w.frames > 0) + c.input_groups
    for i, block in enumerate(m.blocks):
        expected = f"one of {', '.join(known)} (what this run has)"
        _require(block.attend in known, f"model.blocks[{i}].attend", block.attend, expected)
    for name in ("kernel", "stride"):
        value = getattr(m.frame_encoder, name)
        _require(len(value) == 3, f"model.frame_encoder.{name}", value, "three numbers")


def _check_amounts(c: Config) -> None:
    """Counts, temperatures and shares."""
    g, t = c.generate, c.train
    counts = {"train.steps": t.steps, "train.batch_size": t.batch_size, "generate.samples": g.samples}
    counts |= {"generate.batch_size": g.batch_size, "generate.max_tokens": g.max_tokens}
    for key, value in counts.items():
        _require(value >= 1, key, value, "1 or more")
    for key in ("temperature_dt", "temperature_id"):
        _require(getattr(g, key) >= 0, f"generate.{key}", getattr(g, key), "0 (greedy) or more")
    for key in ("top_p_dt", "top_p_id"):
        _require(0 < getattr(g, key) <= 1, f"generate.{key}", getattr(g, key), "a share in (0, 1]")


def _require(ok: bool, key: str, got: Any, expected: str) -> None:
    if not ok:
        raise ConfigError(f"{key} is {got!r}; expected {expected}")


# -- loading ---------------------------------------------------------------------------------------------------


def load_config(path: str | Path | None = None, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a YAML file and apply ``key.sub=value`` overrides (values are YAML; lists by ``inputs.0.name=...``).

    Raises
    ------
    ConfigError
        Unreadable file, unknown key, wrong type, impossible combination.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        path = Path(path)
        if not path.is_file():
            raise ConfigError(f"no configuration file at {path}")
        try:
            tree = yaml.load(path.read_text(), Loader=_Loader) or {}
        except yaml.YAMLError as e:
            raise ConfigError(f"{path} is not valid YAML: {e}") from None
        if not isinstance(tree, dict):
            raise ConfigError(f"{path} holds {type(tree).__name__}; expected keys and values")
        tree.setdefault("name", path.stem)
    return from_dict(apply_overrides(tree, overrides))


def apply_overrides(tree: dict[str, Any], overrides: typing.Sequence[str]) -> dict[str, Any]:
    """``key.sub=value`` items set in a nested mapping, in place; returns it."""
    for item in overrides:
        _override(tree, item)
    return tree


def from_dict(tree: typing.Mapping[str, Any]) -> Config:
    """A configuration from nested mappings; the inverse of :func:`to_dict`."""
    return _build(Config, tree, "")


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain mappings, every field named, ready for YAML or JSON."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: `2e-3` is a number, as everybody expects."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    __import__("re").compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)


def _override(tree: dict[str, Any], item: str) -> None:
    key, sign, text = item.partition("=")
    if not sign or not key:
        raise ConfigError(f"override {item!r} is not understood; expected key.sub=value")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        value = text
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        if isinstance(node, list):
            node = node[_list_place(node, part, key)]
        else:
            node = node.setdefault(part, {})
        if not isinstance(node, (dict, list)):
            raise ConfigError(f"override {key}: '{part}' is a value, not a section")
    if isinstance(node, list):
        node[_list_place(node, last, key)] = value
    else:
        node[last] = value


def _list_place(node: list, part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(
            f"override {key}: '{part}' is not a place in a list of {len(node)} (0 to {len(node) - 1})"
        )
    return int(part)


def _build(cls: type, tree: Any, where: str) -> Any:
    if not isinstance(tree, typing.Mapping):
        raise ConfigError(
            f"{where or 'the configuration'} is {tree!r}; expected a section with keys and values"
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in tree.items():
        full = f"{where}.{key}" if where else str(key)
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise ConfigError(f"unknown key '{full}'; {hint}{cls.__name__} has: {', '.join(fields)}")
        values[key] = _convert(hints[key], value, full)
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, where)
    if origin is Literal:
        value = str(value) if value not in args and str(value) in args else value
        if value not in args:
            raise ConfigError(f"{where} is {value!r}; expected one of {', '.join(map(repr, args))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} is {value!r}; expected a list")
        if len(args) == 2 and args[1] is not Ellipsis and len(value) != 2:
            raise ConfigError(f"{where} has {len(value)} entries; expected 2")
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        return tuple(
            _convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is dict or isinstance(hint, types.GenericAlias):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}; expected keys and values")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} is {value!r} ({type(value).__name__}); expected {hint.__name__}")
    return value

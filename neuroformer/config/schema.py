"""The sections of a configuration, in the order in which data flow: what each setting is, and what it may be.

Defaults, comments and order of ``configs/reference.yaml`` come from here (:mod:`neuroformer.config.reference`); what
concerns several sections at once is checked in :mod:`neuroformer.config.run`. What is read is in
:mod:`neuroformer.config.recording_sections`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neuroformer.config.errors import require
from neuroformer.config.setting import setting

# -- how time is cut -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WindowConfig:
    """How time is cut (seconds). All but frames are whole multiples of dt."""

    dt: float = setting(0.01, "width of a bin: the resolution of spike times", above=0, unit="seconds")
    current: float = setting(0.05, "the window whose spikes are predicted", above=0, unit="seconds")
    past: float = setting(0.25, "how far back the model sees spikes before it", least=0, unit="seconds")
    lookahead: float = setting(
        0.0,
        "how long after a decoded moment its value may use spikes (spike prediction never does); 0: causal",
        least=0,
        unit="seconds",
    )
    target_past: float = setting(
        2.0, "how long before a decoded moment target heads see spikes; 0: as past", least=0, unit="seconds"
    )
    frames: float = setting(
        -1.0,
        "frames whose onset lies in [t + current - frames, t + current); 0: no frames; -1: 0.2 s where there are frames",
        least=0,
        also=-1,
        unit="seconds",
    )
    frames_until: Literal["stop", "start"] = setting("stop", '"start": no frame from inside the window')


@dataclass(frozen=True)
class InputConfig:
    """One behavior variable that conditions the model; `trial_time` exists wherever trials do."""

    name: str = setting("", "of the variable", name=True)
    group: str = setting("behavior", "groups are cross-attended one after another", name=True)
    samples: int = setting(1, "values per window, evenly spaced; each is the last sample known at its time", least=1)
    encoding: Literal["linear", "fourier"] = setting("linear", "fourier: sines and cosines of the value")
    period: float = setting(
        0.0, "period of the slowest Fourier feature, in the variable's unit; 0: the training range", least=0
    )
    frequencies: int = setting(
        0,
        "number of Fourier features, harmonics of the period; 0: 16, and of trial_time as many as tell windows apart",
        least=0,
    )

    def check(self, where: str) -> None:
        require(bool(self.name), f"{where}.name", "nothing", "the name of a behavior variable")


@dataclass(frozen=True)
class TargetConfig:
    """One behavior variable that is predicted, and therefore never an input."""

    name: str = setting("", "of the variable", name=True)
    kind: Literal["regression", "classification", "circular"] = setting("regression", "circular: an angle or a phase")
    noise: Literal["squared", "gaussian", "student"] = setting(
        "squared", "for a regression; the latter two learn a scale"
    )
    period: float = setting(0.0, "for a circular variable, in its unit; 0: 2 pi", least=0)
    samples: int = setting(1, "values per window, evenly spaced, the last at its end", least=1)
    weight: float = setting(1.0, "of its loss", least=0)

    def check(self, where: str) -> None:
        require(bool(self.name), f"{where}.name", "nothing", "the name of a behavior variable")
        expected = f"squared (a {self.kind} has a noise model of its own)"
        require(self.kind == "regression" or self.noise == "squared", f"{where}.noise", self.noise, expected)


@dataclass(frozen=True)
class TraceConfig:
    """Model continuous activity (calcium traces) in place of spikes; the recording needs traces."""

    likelihood: Literal["none", "gaussian", "gamma"] = setting(
        "none", "gamma: zero-inflated, for values of zero or more"
    )


@dataclass(frozen=True)
class SplitConfig:
    """Which data train, validate and test."""

    by: Literal["blocks", "trials"] = setting("blocks", "stretches of one length, or whole trials")
    block: float = setting(
        0.0,
        "seconds per block (by: blocks); 0: 60, less where the pattern would not go round twice",
        least=0,
        unit="seconds",
    )
    pattern: tuple[str, ...] = setting(
        ("train", "train", "train", "valid", "test"), "repeated over blocks or trials; none: left out"
    )
    hold_out: str = setting(
        "", "by: trials: a column of them; the pattern runs over its values, so that all trials of one are in one part"
    )
    gap: float = setting(
        -1.0, "seconds between blocks; -1: the longest reach of a window", least=0, also=-1, unit="seconds"
    )
    claim: Literal["time", "repeats", "stimuli"] = setting("time", "what the score claims to generalise over")
    allow_leak: bool = setting(False, "train although the audit finds a leak; written into the bundle and every report")

    def check(self, where: str) -> None:
        for i, part in enumerate(self.pattern):
            known = ("train", "valid", "test", "none")
            require(part in known, f"{where}.pattern[{i}]", part, "train, valid, test or none")
        for part in ("train", "valid", "test"):
            require(part in self.pattern, f"{where}.pattern", list(self.pattern), f"at least one '{part}'")


# -- the model -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameEncoderConfig:
    """How frames (frames, height, width) become tokens."""

    kind: Literal["energy", "conv3d", "patches", "backbone"] = setting(
        "energy",
        "energy: fixed space-time Gabor energies; conv3d and patches are learnt; backbone: a pretrained network",
    )
    kernel: tuple[int, ...] = setting((2, 6, 6), "frames, rows, columns (conv3d)", least=1)
    stride: tuple[int, ...] = setting((1, 4, 4), "likewise; for patches this is the patch", least=1)
    channels: int = setting(0, "channels of a second, pointwise layer after the convolution; 0: none", least=0)
    layers: int = setting(0, "self-attention blocks over frame tokens", least=0)
    backbone: str = setting("", "pretrained network: a folder or a hub id that transformers' AutoModel loads")
    resize: tuple[int, ...] = setting(
        (), "rows and columns that frames are resized to for a backbone; empty: not resized", least=1
    )
    finetune: bool = setting(
        False, "train the backbone, too; otherwise its features are computed once and kept on disk"
    )
    follow: str = setting("", "input of two columns, where the eye looks: frames move with it, as far as is learnt")
    shift_noise: float = setting(
        0.0,
        "standard deviation by which a training clip is moved at random, in both directions",
        unit="pixels",
        least=0,
    )

    def check(self, where: str) -> None:
        named = (self.kind == "backbone") == bool(self.backbone)
        require(named, f"{where}.backbone", self.backbone, "a folder or a hub id, with kind: backbone")
        require(len(self.resize) in (0, 2), f"{where}.resize", self.resize, "[rows, columns], or nothing")
        if self.kind == "backbone" and not self.finetune:
            still = "nothing, where a frozen backbone's features are computed once"
            require(not self.follow, f"{where}.follow", self.follow, still)
            require(not self.shift_noise, f"{where}.shift_noise", self.shift_noise, still)
        for name in ("kernel", "stride"):
            require(len(getattr(self, name)) == 3, f"{where}.{name}", getattr(self, name), "three numbers")
        if self.kind == "energy":
            for name in ("kernel", "stride", "channels"):
                default = getattr(FrameEncoderConfig, name)
                require(
                    getattr(self, name) == default,
                    f"{where}.{name}",
                    getattr(self, name),
                    "kind: conv3d or patches with it",
                )


@dataclass(frozen=True)
class BlockConfig:
    """`layers` fusion blocks that attend to one thing."""

    attend: str = setting("current", "current (causal), past, frames, or the name of a behavior group")
    layers: int = setting(1, "number of blocks", least=0)


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    width: int = setting(64, "of every token, a multiple of heads", least=1)
    heads: int = setting(4, "of attention", least=1)
    dropout: float = setting(0.1, "on embeddings and residuals", least=0, below=1)
    blocks: tuple[BlockConfig, ...] = setting(
        (), "which fusion blocks, in order; empty: one each of current, past, frames, every group, current"
    )
    frame_encoder: FrameEncoderConfig = FrameEncoderConfig()

    def check(self, where: str) -> None:
        require(
            self.width % self.heads == 0, f"{where}.width", self.width, f"a multiple of {where}.heads = {self.heads}"
        )


@dataclass(frozen=True)
class ContrastConfig:
    """Symmetric InfoNCE between two pooled features: neural, frames, or a behavior group."""

    pair: tuple[str, str] = setting(("neural", "frames"), "what is aligned")
    weight: float = setting(0.1, "of this loss", least=0)


@dataclass(frozen=True)
class LossConfig:
    """Weights; every term is logged unweighted."""

    likelihood: float = setting(1.0, "of spikes (when, then who) or traces, in nats per spike or sample", least=0)
    rates: float = setting(0.2, "Poisson NLL of the rate readout, in nats per spike", least=0)
    contrast: tuple[ContrastConfig, ...] = setting((), "what is aligned with what")


# -- training, simulation, decoding ------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation with AdamW, linear warm-up and cosine decay."""

    steps: int = setting(
        0, "most steps; early stopping may end before; 0: 2,000, down to 500 where spikes are many", least=0
    )
    batch_size: int = setting(
        0, "windows per step, over all processes; 0: 256, down to 32 where windows hold many spikes", least=0
    )
    balance: Literal["windows", "equal"] = setting(
        "windows", "with several recordings, how often each is drawn: by its number of windows, or equally"
    )
    accumulate: int = setting(
        0,
        "number of pieces in which a process computes its share of a batch, to save memory; 0: as few as fit into what is free, on a CPU into 1 GB",
        least=0,
    )
    lr: float = setting(2e-3, "largest learning rate", above=0)
    weight_decay: float = setting(0.05, "AdamW's", least=0)
    average: float = setting(
        0.99, "decay of the moving average of weights, which is then evaluated and kept; 0: none", least=0, below=1
    )
    past_noise: float = setting(
        0.0, "share of past spikes that is dropped; as many are added elsewhere", least=0, below=1
    )
    jitter: bool = setting(True, "windows start at any bin; otherwise they tile time")
    evaluate_every: int = setting(
        0, "steps; 0: two passes through the training data, between 20 and 200 steps", least=0
    )
    patience: int = setting(10, "evaluations in which no validation score gains 1 % before stopping; 0: never", least=0)
    workers: int = setting(0, "extra processes that build batches", least=0)
    precision: Literal["32", "bf16-mixed", "16-mixed"] = setting(
        "32", "of the network; losses and weights keep 32 bits"
    )
    accelerator: Literal["auto", "cpu", "gpu"] = setting("auto", "auto: a GPU where there is one")
    devices: int = setting(1, "processes per node, one for each GPU", least=1)
    nodes: int = setting(1, "machines", least=1)
    checkpoint_every: float = setting(
        300.0, "seconds between checkpoints, the most that a kill can cost", least=0, unit="seconds"
    )
    wandb: bool = setting(False, "also log to Weights & Biases")


@dataclass(frozen=True)
class InterventionConfig:
    """One change of the experiment, lasting from `start` to `stop` seconds after the loop closed."""

    do: Literal[
        "silence",
        "clamp",
        "drive",
        "replace_frames",
        "shift_frames",
        "freeze_frames",
        "blank_frames",
        "set_behavior",
    ] = setting("silence", "the change")
    units: tuple[int, ...] = setting((), "rows of the units table, for silence, clamp and drive", least=0)
    behavior: str = setting("", "name of the variable, for set_behavior")
    value: float = setting(
        0.0,
        "clamp: fires at so many Hz instead (-1: as recorded); drive: so many Hz more; replace_frames: frames from so many "
        "seconds of the recording on; shift_frames: so many seconds later; set_behavior: the value",
    )
    start: float = setting(0.0, "since the loop closed", least=0, unit="seconds since the loop closed")
    stop: float = setting(0.0, "0: to the end", least=0, unit="seconds since the loop closed")

    def check(self, where: str) -> None:
        on_units = self.do in ("silence", "clamp", "drive")
        expected = "units for silence, clamp or drive only"
        require(bool(self.units) == on_units, f"{where}.units", list(self.units), expected)
        needs_name = self.do == "set_behavior"
        require(bool(self.behavior) == needs_name, f"{where}.behavior", self.behavior, "a name for set_behavior only")
        if on_units:
            allowed = self.value >= 0 or (self.do == "clamp" and self.value == -1)
            require(allowed, f"{where}.value", self.value, "spikes per second, 0 or more (clamp: or -1, as recorded)")
        later = self.stop == 0 or self.stop > self.start
        require(later, f"{where}.stop", self.stop, "0 (to the end) or a time after start")


@dataclass(frozen=True)
class GenerateConfig:
    """Closed-loop simulation."""

    split: Literal["train", "valid", "test"] = setting("test", "the part of the split that is simulated")
    interval: tuple[float, ...] = setting((), "[start, stop] seconds of the recording, in place of a part of the split")
    past_from: float = setting(
        -1.0, "every sequence starts from the spikes before this second; -1: before its own start"
    )
    interventions: tuple[InterventionConfig, ...] = setting((), "changes of the experiment")
    samples: int = setting(1, "simulated copies of each trial", least=1)
    temperature: float = setting(1.0, "of times and units of spikes; 0: the likeliest", least=0)
    top_p: float = setting(1.0, "only the likeliest values that together have this probability", above=0, most=1)
    max_tokens: int = setting(1000, "most spikes in a window, as a guard; hits are counted and reported", least=1)
    batch_size: int = setting(0, "sequences at once; 0: as many as fit into memory, at most 512", least=0)
    max_seconds: float = setting(
        0.0, "most seconds to simulate of each interval; 0: all of it", least=0, unit="seconds"
    )

    def check(self, where: str) -> None:
        ordered = len(self.interval) in (0, 2) and list(self.interval) == sorted(self.interval)
        require(ordered, f"{where}.interval", list(self.interval), "[start, stop] in seconds, or nothing")


@dataclass(frozen=True)
class MovingConfig:
    """Use labels only while a variable (say, smoothed speed) is above a threshold, in training and in scores."""

    variable: str = setting("", "empty: all labels are used")
    above: float = setting(0.0, "in the variable's unit")


@dataclass(frozen=True)
class DecodeConfig:
    """Behavior along a recording, and its baselines."""

    split: Literal["valid", "test"] = setting("test", "the part of the split that is decoded")
    moving: MovingConfig = MovingConfig()
    lags: tuple[float, ...] = setting(
        (0.25, 0.5, 1.0, 2.0),
        "seconds of past spikes that baselines may see; cross-validation chooses",
        above=0,
        unit="seconds",
    )

    def check(self, where: str) -> None:
        require(bool(self.lags), f"{where}.lags", [], "at least one number of seconds above 0")


@dataclass(frozen=True)
class TuneConfig:
    """How a trained model learns behavior from labels: `neuroformer finetune`, `fewshot`, `folds`."""

    train: Literal["head", "top", "all", "adapters"] = setting("head", "what is trained beside the heads")
    steps: int = setting(400, "most steps; early stopping decides", least=0)
    lr: float = setting(2e-3, "learning rate of the heads and adapters", above=0)
    after_training: bool = setting(
        False, "`train` ends by training the heads alone for `steps`, and keeps those that validation prefers"
    )

"""Every setting of a run, in the order in which data flow: the dataclasses are the schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from neuroformer.config.checks import check

# -- what is read, and how time is cut -----------------------------------------------------------------


@dataclass(frozen=True)
class SpeedConfig:
    """How fast a recorded variable changes: the norm of its derivative, smoothed by a Gaussian."""

    name: str = "speed"
    of: str = "position"
    smooth: float = 0.25  # seconds, standard deviation of the Gaussian


@dataclass(frozen=True)
class RecordingConfig:
    """Which recording."""

    path: str = "synthetic:demo"  # a file, a folder, or synthetic:NAME; of several (recordings), also a glob
    name: str = ""  # what it is called; empty: what the file says
    options: dict[str, Any] = field(default_factory=dict)  # handed to the reader or generator
    speeds: tuple[SpeedConfig, ...] = ()  # variables that are computed from recorded ones
    share: float = 1.0  # of the training and of the validation stretches that is used, from their start


@dataclass(frozen=True)
class WindowConfig:
    """How time is cut (seconds). All but frames are whole multiples of dt."""

    dt: float = 0.01  # width of a bin: the resolution of spike times
    current: float = 0.05  # the window whose spikes are predicted
    past: float = 0.25  # spikes before it that the model sees
    lookahead: float = (
        0.0  # after a decoded moment, whose spikes its value (never a spike) may see; 0: causal
    )
    target_past: float = 0.0  # before a decoded moment, that target heads see; 0: as past
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
    kind: Literal["regression", "classification", "circular"] = "regression"
    noise: Literal["squared", "gaussian", "student"] = (
        "squared"  # of a regression; the latter two learn a scale
    )
    period: float = 0.0  # of a circular variable, in its unit; 0: 2 pi
    samples: int = 1  # values a window, evenly spaced, the last at its end
    weight: float = 1.0
    closed: float = 0.25  # share of the readout in closed form in the values of `neuroformer folds`


@dataclass(frozen=True)
class TraceConfig:
    """Continuous activity (calcium traces) as what is modelled, in place of spikes; needs traces in the recording."""

    likelihood: Literal["none", "gaussian", "gamma"] = (
        "none"  # gamma: zero-inflated, for values of zero or more
    )


@dataclass(frozen=True)
class SplitConfig:
    """Which stretch trains, validates and tests."""

    by: Literal["blocks", "trials"] = "blocks"
    block: float = 60.0  # seconds a block (by: blocks)
    pattern: tuple[str, ...] = ("train", "train", "train", "valid", "test")  # repeated over blocks or trials
    gap: float = -1.0  # seconds between blocks; -1: the longest reach of a window
    claim: Literal["time", "repeats", "stimuli"] = "time"  # what the score claims to generalise over
    allow_leak: bool = (
        False  # train although the audit finds a leak; written into the bundle and every report
    )


# -- the model -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameEncoderConfig:
    """From (frames, height, width) to frame tokens."""

    kind: Literal["conv3d", "patches", "backbone"] = "conv3d"
    kernel: tuple[int, ...] = (2, 6, 6)  # frames, rows, columns (conv3d)
    stride: tuple[int, ...] = (1, 4, 4)  # likewise; for patches this is the patch
    channels: int = 0  # of a second, pointwise layer after the convolution; 0: none
    layers: int = 0  # self-attention blocks over frame tokens
    backbone: str = ""  # pretrained network: a folder or a hub id that transformers' AutoModel loads
    resize: tuple[int, ...] = ()  # rows and columns of the frames that a backbone sees; empty: as they are
    finetune: bool = (
        False  # a backbone's weights train, too; else its features are computed once and kept on disk
    )


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
    time_features: int = 16  # Fourier features of the times of spikes and samples, 0: none
    blocks: tuple[BlockConfig, ...] = ()  # empty: one each of current, past, frames, every group, current
    frame_encoder: FrameEncoderConfig = FrameEncoderConfig()
    factorization: Literal["conditional", "independent"] = "conditional"  # id given dt, or the original's
    history_filters: int = (
        8  # temporal filters under which past spikes are counted (sums, not averages); 0: none
    )
    coupling: float = 0.1  # seconds after a spike in which it changes log rates at exact lags; 0: none
    coupling_rank: int = 8  # patterns in which units drive each other; 0: a weight for every pair and lag
    most_drive: float = 2.0  # what past spikes may add to a log rate, at most
    history_rank: int = 16  # of the map from counted spikes to log rates
    history_dropout: float = 0.0  # on the counted spikes
    surprise: float = 0.0  # s of past spikes that are compared with what the frame readout expected
    unit_dropout: float = 0.0  # share of the units whose past a training window does not see
    frame_readout: int = 32  # local features that each unit reads at its own place in the frames; 0: none
    target_filters: int = 6  # temporal filters of the spikes around a decoded moment; 0: none
    # recurrent networks over the spikes around a decoded moment, each a readout of its own; 0: none
    target_networks: int = 0
    # labelled moments on which a kernel readout rests at most, that fine-tuning may fit in closed form; 0: none
    target_kernel: int = 0
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
    batch_size: int = 256  # windows a step, over all processes
    # of several recordings, how often each is drawn: by its number of windows, or all alike
    balance: Literal["windows", "equal"] = "windows"
    accumulate: int = 1  # pieces in which a process computes its share of a batch, to save memory
    lr: float = 2e-3
    # times lr, for the frame encoder, the places in the frames and the coupling, which end far from their start
    readout_lr: float = 2.5
    min_lr: float = 0.02  # share of lr at the end
    warmup: int = 100  # steps
    weight_decay: float = 0.05
    # times the learning rate, by which every weight of a coupling of pairs (model.coupling_rank: 0) shrinks a step
    sparsity: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0  # norm of the gradient
    average: float = 0.0  # decay of the moving average of weights that is evaluated and kept; 0: none
    past_noise: float = 0.0  # share of past spikes that are dropped, and as many that are added elsewhere
    jitter: bool = True  # windows start anywhere on the bin grid, else tile time
    evaluate_every: int = 200  # steps
    patience: int = 0  # evaluations without a better validation loss before stopping; 0: never
    threads: int = 0  # CPU threads; 0: PyTorch's choice
    workers: int = 0  # processes that build batches
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    backbone_lr: float = 0.02  # times lr, for a backbone that is fine-tuned
    features_gb: float = 10.0  # disk space for features of frozen backbones, in the user's cache folder
    recompute: bool = False  # what blocks compute is not kept but computed again for gradients: less memory
    compile: bool = False  # torch.compile the blocks, once for all lengths
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1  # processes a node, one for each GPU
    nodes: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"  # of several processes; fsdp: each holds a piece of the weights
    checkpoint_every: float = 300.0  # seconds between checkpoints: what a kill can cost at most
    wandb: bool = False  # also log to Weights & Biases


@dataclass(frozen=True)
class InterventionConfig:
    """One change of the experiment, from `start` to `stop` seconds after the loop closed (stop 0: to the end)."""

    do: Literal[
        "silence", "clamp", "drive",
        "replace_frames", "shift_frames", "freeze_frames", "blank_frames", "set_behavior",
    ] = "silence"  # fmt: skip
    units: tuple[int, ...] = ()  # rows of the units table, for silence, clamp and drive
    behavior: str = ""  # name of the variable, for set_behavior
    # clamp: fires at so many Hz instead (-1: as recorded); drive: so many Hz more; replace_frames: frames from
    # so many seconds of the recording on; shift_frames: so many seconds later; set_behavior: the value
    value: float = 0.0
    start: float = 0.0
    stop: float = 0.0


@dataclass(frozen=True)
class GenerateConfig:
    """Closed-loop simulation."""

    split: Literal["train", "valid", "test"] = "test"
    interval: tuple[
        float, ...
    ] = ()  # [start, stop] seconds of the recording, in place of a part of the split
    past_from: float = (
        -1.0
    )  # every sequence starts from the spikes before this second; -1: before its own start
    interventions: tuple[InterventionConfig, ...] = ()
    samples: int = 1  # simulated copies of every trial
    temperature_dt: float = 1.0
    temperature_id: float = 1.0
    top_p_dt: float = 1.0
    top_p_id: float = 1.0
    max_tokens: int = 1000  # guard on spikes a window; hits are counted and reported
    top_k_dt: int = 0  # so many likeliest values, 0: all
    top_k_id: int = 0
    batch_size: int = 0  # sequences at once; 0: as many as the memory at hand holds, at most 512
    max_seconds: float = 0.0  # simulate at most so much of each interval; 0: all of it
    cuda_graph: bool = True  # on a GPU: capture a step's kernels once and replay them


@dataclass(frozen=True)
class MovingConfig:
    """Labels count only while a variable (smoothed speed) is above a threshold, in training and in scores."""

    variable: str = ""  # empty: labels always count
    above: float = 0.0  # in the variable's unit


@dataclass(frozen=True)
class DecodeConfig:
    """Behavior along a recording, and its baselines."""

    split: Literal["valid", "test"] = "test"
    moving: MovingConfig = MovingConfig()
    lags: tuple[float, ...] = (
        0.25,
        0.5,
        1.0,
        2.0,
    )  # seconds of past spikes that baselines may see; cross-validation chooses
    bootstrap_block: float = 5.0  # seconds a block of the bootstrap
    bootstraps: int = 1000


@dataclass(frozen=True)
class TuneConfig:
    """How a trained model learns behavior from labels: `neuroformer finetune`, `fewshot`, `folds`."""

    train: Literal["head", "top", "all", "adapters"] = "head"  # what changes beside the heads
    blocks: int = 2  # fusion blocks that train (top)
    rank: int = 4  # of the adapters
    steps: int = 400  # at most; early stopping decides
    batch_size: int = 64  # windows
    lr: float = 2e-3  # of the heads and adapters
    trunk_lr: float = 0.1  # times lr, for what of the trunk trains
    weight_decay: float = 0.1
    average: float = 0.95  # decay of the moving average of weights that is kept
    evaluate_every: int = 20  # steps
    patience: int = 5  # evaluations without a better score before stopping
    valid: float = 0.2  # contiguous share of the labels to stop by
    after_training: bool = (
        False  # `train` ends with the heads alone learning for `steps`, where validation gains by it
    )


@dataclass(frozen=True)
class Config:
    """One run, whole."""

    name: str = ""  # runs/<name>; empty: the name of the YAML file
    seed: int = 0
    recording: RecordingConfig = RecordingConfig()
    recordings: tuple[RecordingConfig, ...] = ()  # in place of recording: several that share one trunk
    window: WindowConfig = WindowConfig()
    inputs: tuple[InputConfig, ...] = ()
    targets: tuple[TargetConfig, ...] = ()
    traces: TraceConfig = TraceConfig()
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    generate: GenerateConfig = GenerateConfig()
    decode: DecodeConfig = DecodeConfig()
    tune: TuneConfig = TuneConfig()

    def __post_init__(self):
        check(self)

    @property
    def input_groups(self) -> list[str]:
        """Names of the behavior groups, in the order of their first variable."""
        return list(dict.fromkeys(v.group for v in self.inputs))

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

    path: str = "synthetic:demo"  # a file, a folder, or synthetic:NAME; in `recordings`, also a glob
    name: str = ""  # its name in the model; empty: as in the file
    options: dict[str, Any] = field(default_factory=dict)  # options of the reader or generator
    speeds: tuple[SpeedConfig, ...] = ()  # variables that are computed from recorded ones
    share: float = 1.0  # share of the training and of the validation data that is used, from the start


@dataclass(frozen=True)
class WindowConfig:
    """How time is cut (seconds). All but frames are whole multiples of dt."""

    dt: float = 0.01  # width of a bin: the resolution of spike times
    current: float = 0.05  # the window whose spikes are predicted
    past: float = 0.25  # how far back the model sees spikes before it
    lookahead: float = (
        0.0  # how long after a decoded moment its value may use spikes (spike prediction never does); 0: causal
    )
    target_past: float = 2.0  # how long before a decoded moment target heads see spikes; 0: as past
    frames: float = 0.2  # frames whose onset lies in [t + current - frames, t + current); 0: no frames
    frames_until: Literal["stop", "start"] = "stop"  # "start": no frame from inside the window
    max_tokens: int = 0  # most spikes in a window, 0: no limit; dropped spikes are counted and reported


@dataclass(frozen=True)
class InputConfig:
    """One behavior variable that conditions the model; `trial_time` exists wherever trials do."""

    name: str = ""
    group: str = "behavior"  # groups are cross-attended one after another
    samples: int = 1  # values per window, evenly spaced; each is the last sample known at its time
    encoding: Literal["linear", "fourier"] = "linear"
    # period of the slowest Fourier feature, in the variable's unit; 0: the training range
    period: float = 0.0
    frequencies: int = 16  # number of Fourier features, harmonics of the period


@dataclass(frozen=True)
class TargetConfig:
    """One behavior variable that is predicted, and therefore never an input."""

    name: str = ""
    kind: Literal["regression", "classification", "circular"] = "regression"
    # for a regression; the latter two learn a scale
    noise: Literal["squared", "gaussian", "student"] = "squared"
    period: float = 0.0  # for a circular variable, in its unit; 0: 2 pi
    samples: int = 1  # values per window, evenly spaced, the last at its end
    weight: float = 1.0
    closed: float = 0.25  # weight of the closed-form readout in the values of `neuroformer folds`


@dataclass(frozen=True)
class TraceConfig:
    """Model continuous activity (calcium traces) in place of spikes; the recording needs traces."""

    # gamma: zero-inflated, for values of zero or more
    likelihood: Literal["none", "gaussian", "gamma"] = "none"


@dataclass(frozen=True)
class SplitConfig:
    """Which data train, validate and test."""

    by: Literal["blocks", "trials"] = "blocks"
    block: float = 60.0  # seconds per block (by: blocks)
    pattern: tuple[str, ...] = ("train", "train", "train", "valid", "test")  # repeated over blocks or trials
    # by: trials: a column of them; the pattern runs over its values, so that all trials of one are in one part
    hold_out: str = ""
    gap: float = -1.0  # seconds between blocks; -1: the longest reach of a window
    claim: Literal["time", "repeats", "stimuli"] = "time"  # what the score claims to generalise over
    # train although the audit finds a leak; written into the bundle and every report
    allow_leak: bool = False


# -- the model -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameEncoderConfig:
    """How frames (frames, height, width) become tokens."""

    kind: Literal["conv3d", "patches", "backbone"] = "conv3d"
    kernel: tuple[int, ...] = (2, 6, 6)  # frames, rows, columns (conv3d)
    stride: tuple[int, ...] = (1, 4, 4)  # likewise; for patches this is the patch
    channels: int = 0  # channels of a second, pointwise layer after the convolution; 0: none
    layers: int = 0  # self-attention blocks over frame tokens
    backbone: str = ""  # pretrained network: a folder or a hub id that transformers' AutoModel loads
    # rows and columns that frames are resized to for a backbone; empty: not resized
    resize: tuple[int, ...] = ()
    # train the backbone, too; otherwise its features are computed once and kept on disk
    finetune: bool = False


@dataclass(frozen=True)
class BlockConfig:
    """`layers` fusion blocks that attend to one thing."""

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
    history_filters: int = 8  # temporal filters that sum past spikes; 0: none
    coupling: float = 0.1  # seconds for which a spike changes log rates, at exact lags; 0: none
    coupling_rank: int = 8  # rank of the coupling between units; 0: a weight for every pair and lag
    most_drive: float = 2.0  # largest amount that past spikes may add to a log rate
    history_rank: int = 16  # rank of the map from filtered counts to log rates
    history_dropout: float = 0.0  # dropout on the filtered counts
    # seconds of past spikes that are compared with what the frame readout predicts; 0: none, -1: see Config.surprise
    surprise: float = -1.0
    unit_dropout: float = 0.0  # share of the units whose past a training window does not see
    # local image features that each unit reads at its own place in the frames; 0: none
    frame_readout: int = 32
    target_filters: int = 6  # temporal filters for spikes around a decoded moment; 0: none
    # recurrent networks over the spikes around a decoded moment, each with its own readout; 0: none
    target_networks: int = 0
    # most centers (labelled moments) of the kernel readout that fine-tuning fits in closed form; 0: no kernel
    target_kernel: int = 0
    rate_anchor: bool = True  # dt and id logits start from the Poisson process that the rate readout gives


@dataclass(frozen=True)
class ContrastConfig:
    """Symmetric InfoNCE between two pooled features: neural, frames, or a behavior group."""

    pair: tuple[str, str] = ("neural", "frames")
    weight: float = 0.1
    width: int = 32  # width of the shared space
    scale: float = 10.0  # initial inverse temperature; learnt, at most 100


@dataclass(frozen=True)
class LossConfig:
    """Weights; every term is logged unweighted."""

    dt: float = 1.0
    id: float = 1.0
    rates: float = 0.2  # Poisson NLL of the rate readout, in nats per spike
    contrast: tuple[ContrastConfig, ...] = ()


# -- training, simulation, decoding ------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation with AdamW, linear warm-up and cosine decay."""

    steps: int = 2000
    batch_size: int = 256  # windows per step, over all processes
    # with several recordings, how often each is drawn: by its number of windows, or equally
    balance: Literal["windows", "equal"] = "windows"
    accumulate: int = 1  # number of pieces in which a process computes its share of a batch, to save memory
    lr: float = 2e-3
    # times lr, for the frame encoder, the places in the frames and the coupling, which end far from where they start
    readout_lr: float = 2.5
    min_lr: float = 0.02  # final lr, as a share of lr
    warmup: int = 100  # steps
    weight_decay: float = 0.05
    # times the learning rate: how far every pair weight (model.coupling_rank: 0) shrinks in a step
    sparsity: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0  # largest norm of the gradient
    average: float = 0.99  # decay of the moving average of weights, which is then evaluated and kept; 0: none
    past_noise: float = 0.0  # share of past spikes that is dropped; as many are added elsewhere
    jitter: bool = True  # windows start at any bin; otherwise they tile time
    evaluate_every: int = 0  # steps; 0: two passes through the training data, between 20 and 200 steps
    patience: int = 10  # evaluations without any better validation score before stopping; 0: never
    threads: int = 0  # CPU threads; 0: PyTorch's choice
    workers: int = 0  # extra processes that build batches
    precision: Literal["32", "bf16-mixed", "16-mixed"] = "32"
    backbone_lr: float = 0.02  # times lr, for a fine-tuned backbone
    # disk space for features of frozen backbones, in the user's cache folder (gigabytes)
    features_gb: float = 10.0
    # compute activations again for the gradients instead of keeping them: less memory, more time
    recompute: bool = False
    compile: bool = False  # torch.compile the blocks, once for all lengths
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1  # processes per node, one for each GPU
    nodes: int = 1
    strategy: Literal["ddp", "fsdp"] = "ddp"  # for several processes; fsdp: each holds a piece of the weights
    checkpoint_every: float = 300.0  # seconds between checkpoints, the most that a kill can cost
    wandb: bool = False  # also log to Weights & Biases


@dataclass(frozen=True)
class InterventionConfig:
    """One change of the experiment, lasting from `start` to `stop` seconds after the loop closed (stop 0: to the end)."""

    do: Literal[
        "silence",
        "clamp",
        "drive",
        "replace_frames",
        "shift_frames",
        "freeze_frames",
        "blank_frames",
        "set_behavior",
    ] = "silence"
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
    # [start, stop] seconds of the recording, in place of a part of the split
    interval: tuple[float, ...] = ()
    # every sequence starts from the spikes before this second; -1: before its own start
    past_from: float = -1.0
    interventions: tuple[InterventionConfig, ...] = ()
    samples: int = 1  # simulated copies of each trial
    temperature_dt: float = 1.0
    temperature_id: float = 1.0
    top_p_dt: float = 1.0
    top_p_id: float = 1.0
    max_tokens: int = 1000  # most spikes in a window, as a guard; hits are counted and reported
    top_k_dt: int = 0  # only this many of the likeliest values; 0: all
    top_k_id: int = 0
    batch_size: int = 0  # sequences at once; 0: as many as fit into memory, at most 512
    max_seconds: float = 0.0  # most seconds to simulate of each interval; 0: all of it
    cuda_graph: bool = True  # on a GPU: capture the kernels of a step once and replay them


@dataclass(frozen=True)
class MovingConfig:
    """Use labels only while a variable (say, smoothed speed) is above a threshold, in training and in scores."""

    variable: str = ""  # empty: all labels are used
    above: float = 0.0  # in the variable's unit


@dataclass(frozen=True)
class DecodeConfig:
    """Behavior along a recording, and its baselines."""

    split: Literal["valid", "test"] = "test"
    moving: MovingConfig = MovingConfig()
    # seconds of past spikes that baselines may see; cross-validation chooses
    lags: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    bootstrap_block: float = 5.0  # seconds per block of the bootstrap
    bootstraps: int = 1000


@dataclass(frozen=True)
class TuneConfig:
    """How a trained model learns behavior from labels: `neuroformer finetune`, `fewshot`, `folds`."""

    train: Literal["head", "top", "all", "adapters"] = "head"  # what is trained beside the heads
    blocks: int = 2  # number of fusion blocks that train (top)
    rank: int = 4  # rank of the adapters
    steps: int = 400  # most steps; early stopping decides
    batch_size: int = 64  # windows
    lr: float = 2e-3  # learning rate of the heads and adapters
    trunk_lr: float = 0.1  # times lr, for the trained parts of the trunk
    weight_decay: float = 0.1
    average: float = 0.95  # decay of the moving average of weights, which is kept
    evaluate_every: int = 20  # steps
    patience: int = 5  # evaluations without a better score before stopping
    valid: float = 0.2  # share of the labels, in contiguous stretches, for early stopping
    # `train` ends by training the heads alone for `steps`, and keeps those that validation prefers
    after_training: bool = False


@dataclass(frozen=True)
class Config:
    """One run, whole."""

    name: str = ""  # runs/<name>; empty: the name of the YAML file
    seed: int = 0
    recording: RecordingConfig = RecordingConfig()
    recordings: tuple[RecordingConfig, ...] = ()  # in place of recording: several that share one model
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

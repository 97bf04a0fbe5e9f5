"""From the frames of a clip to tokens: a fixed energy pyramid, a 3-D convolution, raw patches or a pretrained network, with
space-time position.

Shape suffixes: G clips, F frames, H rows, W columns, N tokens of a clip, D width.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from neuroformer.config import Config, ConfigError, FrameEncoderConfig, ModelConfig
from neuroformer.data.backbone import empty_backbone
from neuroformer.data.batch import Batch, Clips
from neuroformer.data.scales import BackboneScale, FrameScale, VariableScale
from neuroformer.model.attention import Block, Context, prepend
from neuroformer.model.embed import SpikeEmbedding
from neuroformer.model.layers import Dropout, Linear
from neuroformer.model.streams import Encoded
from neuroformer.model.units import UnitRows
from neuroformer.ops import Ragged, linear
from neuroformer.ops.energy import EnergyPyramid, Feature, component_count

# A place is found by moving logits far, and an optimiser's step is small: the logits are this many times
# the parameter.
SHARPNESS = 30.0
READ = 32  # local features that each unit reads at its place
PACE = 2.5  # places and what is seen there end far from where they start
POOL = 2  # places of the energy pyramid along a side that become one token
CACHED_TOKENS = 1024  # tokens whose activations fit into a processor's cache


class FrameEncoder(nn.Module):
    """Frames to tokens.

    Parameters
    ----------
    config : ModelConfig
    scale : dict
        ``mean``, ``std``, ``shape`` and ``count`` of the training frames.

    Raises
    ------
    ConfigError
        A kernel larger than the clip, or patches that do not divide it.
    """

    def __init__(self, config: ModelConfig, scale: FrameScale):
        super().__init__()
        c = config.frame_encoder
        size = (scale.count, *scale.shape)
        kernel, stride = _three(c.stride if c.kind == "patches" else c.kernel), _three(c.stride)
        self.kernel: tuple[float, ...] = kernel  # frames, rows and columns that a token stands for
        self.stride: tuple[float, ...] = stride
        self.backbone, self.pyramid, self.pace = None, None, PACE
        self.point = nn.Identity()
        if c.kind == "energy":
            self._set_up_pyramid(config.width, size)
        elif c.kind == "backbone":
            assert scale.backbone is not None
            self._set_up_backbone(config, scale.backbone, size)
        else:
            _check(c, size, kernel)
            self.grid = tuple((n - k) // s + 1 for n, k, s in zip(size, kernel, stride, strict=True))
            if c.kind == "conv3d":
                channels = c.channels or config.width
                self.filter = nn.Conv3d(1, channels, kernel, stride)
                self.point = nn.Sequential(nn.GELU(), Linear(channels, config.width))
            else:
                self.filter = Linear(math.prod(kernel), config.width)
        self.position = nn.ParameterList(nn.Parameter(torch.randn(n, config.width) * 0.1) for n in self.grid)
        self.blocks = nn.ModuleList(Block("self", config.width, config.heads, config.dropout) for _ in range(c.layers))
        self.null = nn.Parameter(torch.zeros(config.width))
        self.dropout = Dropout(config.dropout)
        self.register_buffer("mean", torch.tensor(scale.mean))
        self.register_buffer("std", torch.tensor(scale.std))
        self.mean: Tensor
        self.std: Tensor

    @property
    def features(self) -> list[Feature]:
        """What the energy pyramid measures, if there is one."""
        return [] if self.pyramid is None else self.pyramid.features

    def _set_up_pyramid(self, width: int, size: tuple[int, ...]) -> None:
        self.pyramid = EnergyPyramid(*size)
        _, h, w = self.pyramid.grid
        self.pooled = (-(-h // POOL), -(-w // POOL))
        self.grid = (size[0], *self.pooled)
        self.kernel = self.stride = (1, *(n / g for n, g in zip(size[1:], self.pooled, strict=True)))
        self.filter = Linear(len(self.pyramid.features), width)

    def _set_up_backbone(self, config: ModelConfig, found: BackboneScale, size: tuple[int, ...]) -> None:
        c = config.frame_encoder
        self.grid = tuple(found.grid)
        self.kernel = self.stride = tuple(n / g for n, g in zip(size, self.grid, strict=True))
        self.backbone = empty_backbone(found, c.resize) if c.finetune else None
        self.filter = Linear(len(found.mean), config.width)
        self.register_buffer("feature_mean", torch.tensor(found.mean))
        self.register_buffer("feature_std", torch.tensor(found.std))
        self.feature_mean: Tensor
        self.feature_std: Tensor

    def local(self, images_GFHW: Tensor, num_missing_G: Tensor) -> Tensor:
        """(G, t, h, w, D) features of every place of the grid, without position. The input may be features of a
        frozen backbone. Of an energy pyramid, its own features, at every place of its own grid.
        """
        if images_GFHW.ndim == 5:
            return self._project(images_GFHW.to(self.mean.dtype), num_missing_G)
        x = (images_GFHW.to(self.mean.dtype) - self.mean) / self.std
        # a frame that was not shown is gray
        shown = torch.arange(x.shape[1], device=x.device) >= num_missing_G[:, None]
        x = x * shown[:, :, None, None]
        if self.pyramid is not None:
            return self.pyramid(x)
        if self.backbone is not None:
            return self._project(self.backbone(x), num_missing_G)
        # of one channel and a few places, a convolution is one product of matrices
        for axis, (size, step) in enumerate(zip(self.kernel, self.stride, strict=True), 1):
            x = x.unfold(axis, int(size), int(step))
        return self.point(linear(x.flatten(-3), self.filter.weight.flatten(1), self.filter.bias))

    def _project(self, features_GthwC: Tensor, num_missing_G: Tensor) -> Tensor:
        """Features of a backbone, standardised, into the model's width; a frame that was not shown has none."""
        x = (features_GthwC - self.feature_mean) / self.feature_std
        last = torch.arange(1, x.shape[1] + 1, device=x.device) * self.stride[0]
        return self.point(self.filter(x * (last > num_missing_G[:, None])[:, :, None, None, None]))

    def forward(
        self, local_GthwD: Tensor, num_missing_G: Tensor, host_missing_G: np.ndarray | None = None
    ) -> tuple[Tensor, Ragged]:
        """Packed tokens of every clip, oldest first, after one null token; and their layout. On a GPU the host goes on at
        once if it knows the numbers of missing frames (``host_missing_G``).
        """
        time, row, column = self.position
        x = local_GthwD if self.pyramid is None else self.filter(self._pooled(local_GthwD))
        x = x + time[:, None, None] + row[:, None] + column
        x = self.dropout(rearrange(x, "g t h w d -> (g t h w) d"))
        layout = self._layout(len(local_GthwD), x.device)
        host_missing_G = num_missing_G.cpu().numpy() if host_missing_G is None else host_missing_G
        if host_missing_G.any():
            x, layout = self._drop_missing(x, num_missing_G, torch.from_numpy(host_missing_G))
        x = self._among_each_other(x, layout)
        return prepend(x, layout, self.null.expand(len(layout), -1))

    def _pooled(self, x_GthwC: Tensor) -> Tensor:
        """Means over ``POOL`` x ``POOL`` places: tokens are fewer than the places that units read."""
        x = rearrange(x_GthwC, "g t h w c -> (g t) c h w")
        x = F.avg_pool2d(x, POOL, ceil_mode=True, count_include_pad=False)
        return rearrange(x, "(g t) c h w -> g t h w c", t=self.grid[0])

    def _among_each_other(self, x: Tensor, layout: Ragged) -> Tensor:
        """Self-attention over each clip's tokens. Without gradients, and if clips have equal lengths, a few clips at
        a time go through all blocks: activations then stay in the processor's cache.
        """
        size = layout.max_length
        few = max(1, CACHED_TOKENS // max(size, 1)) * size
        whole = torch.is_grad_enabled() or x.is_cuda or layout.total != len(layout) * size
        parts = [x] if whole or len(x) <= few else list(x.split(few))
        for i, part in enumerate(parts):
            here = layout if len(parts) == 1 else self._layout_of(len(part) // size, size, x.device)
            for block in self.blocks:
                part = block(part, here)
            parts[i] = part
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _layout(self, num_clips: int, device) -> Ragged:
        return self._layout_of(num_clips, self.grid[0] * self.grid[1] * self.grid[2], device)

    @staticmethod
    def _layout_of(num_clips: int, size: int, device) -> Ragged:
        return Ragged(torch.arange(num_clips + 1, device=device) * size, size, num_clips * size)

    def _drop_missing(self, x: Tensor, num_missing_G: Tensor, host_missing_G: Tensor) -> tuple[Tensor, Ragged]:
        """Leave out tokens all of whose frames are missing: the first ones of their clips."""
        size = len(x) // len(num_missing_G)
        host = self._num_kept(host_missing_G)
        offsets = F.pad(self._num_kept(num_missing_G).cumsum(0), (1, 0))
        layout = Ragged(offsets, int(host.max()), int(host.sum()))
        row_T = layout.row_T
        place_T = torch.arange(layout.total, device=x.device) - offsets[1:][row_T] + (row_T + 1) * size
        return x.index_select(0, place_T), layout

    def _num_kept(self, num_missing_G: Tensor) -> Tensor:
        """(G,) tokens of each clip that show a frame."""
        steps, rows, columns = self.grid
        last_frame = torch.arange(steps, device=num_missing_G.device) * self.stride[0] + self.kernel[0]
        return (last_frame > num_missing_G[:, None]).sum(1) * (rows * columns)


class FactorizedReadout(nn.Module):
    """Each unit's own place in the frames, and what it looks for there (Klindt et al., NeurIPS 2017).

    Attention has a few heads; a population has as many receptive fields as units. This readout gives every
    unit a distribution over the grid's places and a weight for each local feature at each lag, and adds the
    result to its log rate.
    """

    def __init__(self, encoder: FrameEncoder, num_units: int, config: ModelConfig):
        super().__init__()
        steps, rows, columns = encoder.grid
        self.feature = nn.Sequential(nn.GELU(), Linear(config.width, READ), nn.GELU())
        self.where = UnitRows(num_units, rows * columns, std=0.1 / SHARPNESS, pace=PACE)
        self.what = UnitRows(num_units, steps, READ, std=0.01, pace=PACE)
        with (
            torch.no_grad()
        ):  # a common sign: a unit that starts against its own place moves away from it, and stays away
            self.what.weight.add_(0.1 / READ)
        self.dropout = Dropout(config.dropout)

    def forward(self, local_GthwD: Tensor) -> Tensor:
        """(G, U) additions to the log rates."""
        return self.read(self.local(local_GthwD))

    def local(self, local_GthwD: Tensor) -> Tensor:
        """(G, t, h, w, R) the features that are read at every place."""
        return self.dropout(self.feature(local_GthwD))

    def read(self, f_GthwR: Tensor) -> Tensor:
        seen_GtRU = linear(f_GthwR.flatten(2, 3).mT, (SHARPNESS * self.where.weight).softmax(1))
        return torch.einsum("gtru,utr->gu", seen_GtRU, self.what.weight)


class EnergyReadout(nn.Module):
    """What each unit sees in the energies of a clip: a weight for each of their principal components, and a static nonlinearity
    of the sum, a cubic polynomial that is held still beyond three spreads.

    The components are those of the training clips, and the weights start as a Poisson regression on them whose shrinkage
    validation has chosen (:mod:`neuroformer.baselines.energy`): few images then cost nothing but what they cannot tell.
    """

    def __init__(self, pyramid: EnergyPyramid, num_units: int):
        super().__init__()
        size = math.prod(pyramid.grid) * len(pyramid.features)
        self.register_buffer("basis", torch.zeros(size, component_count(size)))
        self.register_buffer("shift", torch.zeros(component_count(size)))
        self.basis: Tensor
        self.shift: Tensor
        self.weight = UnitRows(num_units, component_count(size), from_data=True)
        self.curve = UnitRows(num_units, 4, from_data=True)
        with torch.no_grad():
            self.curve.weight[:, 1] = 1.0
        self.register_buffer("center", torch.zeros(num_units))
        self.register_buffer("spread", torch.ones(num_units))
        self.center: Tensor
        self.spread: Tensor

    def forward(self, local_GthwC: Tensor) -> Tensor:
        """(G, U) additions to the log rates (of traces: to their means, in standard deviations)."""
        z_GU = linear(local_GthwC.flatten(1), self.basis.T, -self.shift) @ self.weight.weight.T
        s_GU = ((z_GU - self.center) / self.spread).clamp(-3.0, 3.0)
        level, first, second, third = self.curve.weight.unbind(1)
        return level + s_GU * (first + s_GU * (second + s_GU * third))


class Gaze(nn.Module):
    """Moves each window's clip by where the eye looks, times a learnt matrix (the shifter of Walker et al. 2019; Lurz et al. 2021,
    which moves the units' places instead); in training also each clip at random, by what the eye does unseen.

    The matrix starts at zero; an entry of 1 is ``REACH`` of the frame's side for one standard deviation of gaze.

    Raises
    ------
    ConfigError
        ``follow`` has other than two columns.
    """

    REACH = 0.125

    def __init__(self, config: FrameEncoderConfig, inputs: dict[str, VariableScale], gray: float):
        super().__init__()
        self.follow, self.noise, self.gray = config.follow, config.shift_noise, gray
        if not self.follow:
            return
        scale = inputs[self.follow]
        if len(scale.mean) != 2:
            got = f"{self.follow}, which has {len(scale.mean)} column(s)"
            raise ConfigError(f"model.frame_encoder.follow is {got}; expected an input of two columns")
        self.matrix = nn.Parameter(torch.zeros(2, 2))
        self.register_buffer("center", torch.tensor(scale.mean))
        self.register_buffer("spread", torch.tensor(scale.std))
        self.center: Tensor
        self.spread: Tensor

    def forward(self, batch: Batch) -> Clips:
        """The clips as the eye sees them: one for each window where it is followed; where gaze is missing, as they are shown."""
        clips = batch.clips
        assert clips is not None
        if self.follow:
            every = torch.arange(batch.num_windows, device=clips.index_W.device)
            host = clips.host_missing_G if clips.host_missing_G is None else clips.host_missing_G[clips.index_W.cpu()]
            images, missing = clips.images_GFHW[clips.index_W], clips.num_missing_G[clips.index_W]
            looks_W2 = ((batch.inputs[self.follow].to(self.matrix.dtype) - self.center) / self.spread).nanmean(1)
            moved = shifted(images, self.REACH * looks_W2.nan_to_num() @ self.matrix.T, self.gray)
            clips = dataclasses.replace(
                clips, images_GFHW=moved, num_missing_G=missing, index_W=every, host_missing_G=host
            )
        if self.noise and self.training:
            images = clips.images_GFHW
            side_2 = torch.tensor(images.shape[:-3:-1], device=images.device)
            by_G2 = self.noise * torch.randn(len(images), 2, device=images.device) / side_2
            clips = dataclasses.replace(clips, images_GFHW=shifted(images, by_G2, self.gray))
        return clips


def shifted(images_GFHW: Tensor, by_G2: Tensor, gray: float) -> Tensor:
    """Clips moved right and down by parts (x, y) of the frame's sides, gray where nothing was shown."""
    theta_G23 = torch.eye(2, device=by_G2.device).expand(len(by_G2), 2, 2)
    theta_G23 = torch.cat([theta_G23, -2 * by_G2[:, :, None]], 2)
    x = images_GFHW.to(by_G2.dtype) - gray
    grid = F.affine_grid(theta_G23, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False) + gray


class FrameStream(nn.Module):
    """Frames: their tokens, how old the last of them is, and what each unit sees in them.

    Parameters
    ----------
    config : Config
    num_units : int
    scale : of the frames, from the normalisation
    inputs : of the behavior variables that are inputs, one of which may be where the eye looks
    """

    def __init__(self, config: Config, num_units: int, scale: FrameScale, inputs: dict[str, VariableScale]):
        super().__init__()
        m = config.model
        self.gaze = Gaze(m.frame_encoder, inputs, scale.mean)
        self.encoder = FrameEncoder(m, scale)
        pyramid = self.encoder.pyramid
        self.readout = (
            FactorizedReadout(self.encoder, num_units, m) if pyramid is None else EnergyReadout(pyramid, num_units)
        )
        self.age = Linear(2, m.width, bias=False)
        self.period = scale.period

    def missing(self, batch: Batch) -> Tensor:
        """How many frames each clip lacks, of the clips that tokens are made of: those of the batch, or one for each window where
        gaze is followed."""
        clips = batch.clips
        assert clips is not None
        return clips.num_missing_G[clips.index_W] if self.gaze.follow else clips.num_missing_G

    def forward(self, batch: Batch, embedding: SpikeEmbedding) -> Encoded:
        clips = self.gaze(batch)
        local_GthwD = self.encoder.local(clips.images_GFHW, clips.num_missing_G)
        x_SD, layout = self.encoder(local_GthwD, clips.num_missing_G, clips.host_missing_G)
        age_W = clips.age_W / self.period
        first_WD = self.age(torch.stack([age_W, age_W.square()], 1).to(x_SD.dtype))
        linear_WU = self.readout(local_GthwD).index_select(0, clips.index_W)
        return Encoded(Context(x_SD, layout, clips.index_W), first_WD, linear_WU[:, None])


def _three(x: tuple[int, ...]) -> tuple[int, int, int]:
    a, b, c = x
    return a, b, c


def _check(c: FrameEncoderConfig, size: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    for name, n, k in zip(("frames", "rows", "columns"), size, kernel, strict=True):
        if k > n:
            key = "stride" if c.kind == "patches" else "kernel"
            longer = ", or a longer window.frames (seconds)" if name == "frames" else ""
            raise ConfigError(
                f"model.frame_encoder takes {k} {name} at once, but a clip has {n}; give "
                f"model.frame_encoder.{key}={[min(a, b) for a, b in zip(size, kernel, strict=True)]}{longer}"
            )
    if c.kind == "patches":
        for name, n, k in zip(("frames", "rows", "columns"), size, kernel, strict=True):
            if n % k:
                raise ConfigError(
                    f"model.frame_encoder.stride cuts patches of {k} {name}, which do not divide the clip's {n}"
                )

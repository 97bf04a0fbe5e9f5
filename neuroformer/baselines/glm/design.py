"""The design matrix of the GLM baselines: spike history, behavior inputs and frames, bin by bin.

Shape suffixes: W windows, B bins per window, R = W * B rows, L bins back, K basis functions, U units, Q patterns,
F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neuroformer.baselines.glm.clips import ClipComponents, ClipEnergies
from neuroformer.baselines.glm.spikes import counts_around, of_units, patterns_around
from neuroformer.baselines.patterns import unit_patterns
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import NANOSECONDS, SpikeIndex, Windows, WindowShape, nanoseconds

Variant = Literal["past", "every", "same_bin"]
FULL_UNITS = 256  # with more, a population enters through its patterns
MOST_PATTERNS = 96
_ENERGIES = 10.0  # times the penalty of pixels: there are hundreds of components
_MOST_PIXELS = 2_000_000_000  # of all windows' clips, whose energies are taken
_GROUP = 32  # units that share a design matrix, where a population enters through its patterns
_CELLS = 500_000  # windows x bins x units that are looked at together


@dataclass(frozen=True)
class Choice:
    """What validation chooses.

    Attributes
    ----------
    history : features are filtered counts, or their square roots (which a burst does not blow up)
    num_basis : raised cosines of history per unit
    reach : share of ``window.past`` that they span
    rank : patterns over units, in a large population
    harmonics : of every Fourier input
    clips : how a clip of frames enters: by components of its pixels, up to a bin's end, or of its energies, up to the window's
    components : of the pixels
    squares : also squared components and squared linear inputs
    input_penalty : penalty of inputs and frames relative to that of history
    same_bin_penalty : likewise of the spikes of the bin itself
    penalty : inverse prior variance of a standardised history weight
    """

    history: Literal["counts", "sqrt"] = "sqrt"
    num_basis: int = 3
    reach: float = 1.0
    rank: int = 32
    harmonics: int = 48
    clips: Literal["pixels", "energies"] = "pixels"
    components: int = 32
    squares: bool = True
    input_penalty: float = 0.1
    same_bin_penalty: float = 0.3
    penalty: float = 1000.0


@dataclass
class FeatureBlock:
    """Features of one kind.

    Attributes
    ----------
    relative : penalty relative to that of history
    x_RF : their values
    allowed_FU : 1 where a unit of the group may use a feature, else 0; None: all may use all
    together : 0, or every so many features share a spread: patterns keep their sizes, so that a penalty shrinks weak
        ones more, as it would with the units themselves
    """

    relative: float
    x_RF: Tensor
    allowed_FU: Tensor | None = None
    together: int = 0


def raised_cosines(num_lags: int, num_basis: int) -> np.ndarray:
    """(num_lags, num_basis) bumps over lags 1 to num_lags, evenly spaced in log lag, each summing to 1.

    After Pillow et al., Nature 2008, methods. As many functions as lags are the lags themselves; a bump so
    narrow that it falls between two lags is left out.
    """
    if num_basis >= num_lags:
        return np.eye(num_lags)
    x = np.log(np.arange(1, num_lags + 1) + 1.0)
    centres = np.linspace(x[0], x[-1], num_basis) if num_basis > 1 else x[:1]
    width = centres[1] - centres[0] if num_basis > 1 else x[-1] - x[0] + 1e-9
    distance = np.abs(x[:, None] - centres) / width
    bumps = np.where(distance < 1, 0.5 * (1 + np.cos(np.pi * distance)), 0.0)
    bumps = bumps[:, bumps.sum(0) > 1e-9]
    return bumps / bumps.sum(0)


def history_filters(shape: WindowShape, choice: Choice, variant: Variant) -> Tensor:
    """(L, B, K): weight of each bin of ``[t - past, t + current)`` in the features of each current bin.

    The basis is evaluated at the distance to the predicted bin. ``past`` zeroes the bins from t on, the others
    those from the predicted one on.
    """
    length, bins = shape.past + shape.current, shape.current
    num_lags = max(1, round(choice.reach * shape.past)) + bins - 1
    basis = raised_cosines(num_lags, choice.num_basis)
    place, bin_ = np.arange(length)[:, None], np.arange(bins)
    lag = shape.past + bin_ - place
    seen = (lag >= 1) & (lag <= num_lags)
    if variant == "past":
        seen &= place < shape.past
    filters = np.where(seen[..., None], basis[np.clip(lag - 1, 0, num_lags - 1)], 0.0)
    return torch.from_numpy(filters.astype(np.float32))


def _transformed(x: Tensor, choice: Choice) -> Tensor:
    """Filtered counts as features, in place; NumPy's root, since PyTorch's is slow where most counts are zero."""
    if choice.history == "sqrt":
        np.sqrt(x.clamp_min_(0).numpy(), out=x.numpy())
    return x


def filtered(seen_WLU: Tensor, filters_LBK: Tensor) -> Tensor:
    """(R, U * K) counts (or patterns) around windows under the filters of each bin."""
    _, bins, num_basis = filters_LBK.shape
    x = (seen_WLU.transpose(1, 2) @ filters_LBK.flatten(1)).unflatten(2, (bins, num_basis))
    return x.transpose(1, 2).flatten(2).flatten(0, 1)


def _affordable(prepared: Prepared) -> bool:
    """Whether the energies of every window's clip may be taken: of days of video the GLM sees pixels only."""
    scale = prepared.normalization.frames
    assert scale is not None
    windows = sum(len(prepared.windows(part)) for part in ("train", "valid", "test"))
    return windows * scale.count * int(np.prod(scale.shape)) <= _MOST_PIXELS


class Design:
    """Rows of features for windows, given a choice; every row is one bin of one window.

    Up to ``FULL_UNITS`` units see each other one by one (``form`` "full", a single group of units). In a larger
    population each unit sees its own history, and the history of the population's patterns ("patterns"; groups of
    units, so that their own histories fit into one design matrix). For ``same_bin``, units also see the counts that
    units of lower index have in the bin itself: one by one, beyond the group through the patterns.

    Parameters
    ----------
    prepared : the recording
    variant : what of the spikes a bin sees
    most_components : components of frames that a choice may ask for
    like : of another variant of the same recording, whose components of frames are taken
    """

    def __init__(self, prepared: Prepared, variant: Variant, most_components: int, like: Design | None = None):
        self.index = prepared.index
        self.variant: Variant = variant
        self.shape = prepared.builder.shape
        num_units = self.index.num_units
        self.form = "full" if num_units <= FULL_UNITS else "patterns"
        size = num_units if self.form == "full" else _GROUP
        self.groups = [(i, min(i + size, num_units)) for i in range(0, num_units, size)]
        self.pattern_UQ = torch.zeros(num_units, 0)
        if self.form == "patterns":
            width = max(1, self.shape.current)
            found = unit_patterns(self.index, prepared.split.blocks["train"], width, MOST_PATTERNS)
            self.pattern_UQ = torch.from_numpy(found.astype(np.float32))
        scale = prepared.normalization.inputs
        self.inputs = [(v, prepared.rec.variable(v.name), scale[v.name]) for v in prepared.config.inputs]
        self.clips, self.energies = None, None
        if like is not None:
            self.clips, self.energies = like.clips, like.energies
        elif prepared.config.window.frames > 0 and prepared.rec.frames is not None:
            self.clips = ClipComponents(prepared, most_components)
            self.energies = ClipEnergies(prepared) if _affordable(prepared) else None
        self._own: tuple[SpikeIndex, list[SpikeIndex]] | None = None

    @property
    def chunk(self) -> int:
        """Windows whose rows are made at once."""
        wide = self.index.num_units if self.form == "full" else MOST_PATTERNS
        return max(16, _CELLS // ((self.shape.past + self.shape.current) * wide))

    @property
    def has_history(self) -> bool:
        return self.shape.past > 0 or (self.variant != "past" and self.shape.current > 1)

    @property
    def has_own(self) -> bool:
        """Whether groups of units have features of their own (:meth:`of_group`)."""
        return self.variant == "same_bin" or (self.has_history and self.form == "patterns")

    @property
    def has_fourier(self) -> bool:
        return any(v.encoding == "fourier" for v, _, _ in self.inputs)

    @property
    def has_linear(self) -> bool:
        return any(v.encoding == "linear" for v, _, _ in self.inputs)

    def counts(self, windows: Windows, group: int, index: SpikeIndex | None = None) -> Tensor:
        """(R, U) counts of a group's units in the windows' own bins."""
        return counts_around(self._group(group, index), windows, 0, self.shape.current).flatten(0, 1)

    def hidden(self, windows: Windows, group: int) -> Tensor | None:
        """(R, U) bool, which of a group's units were not observed in the windows' own bins: no count is expected there.
        None where all were observed."""
        seen_WBU = self._group(group, None).observed_in(windows, 0, self.shape.current)
        return None if seen_WBU is None else torch.from_numpy(~seen_WBU).flatten(0, 1)

    def shared(self, windows: Windows, choice: Choice, index: SpikeIndex | None = None) -> Iterator[FeatureBlock]:
        """Features that all units have. ``index`` replaces the recording's spikes."""
        index = self.index if index is None else index
        shape = self.shape
        if self.has_history:
            together = min(choice.rank, self.pattern_UQ.shape[1]) if self.form == "patterns" else 0
            yield FeatureBlock(1.0, self._population(windows, choice, index), together=together)
        if self.variant == "past":
            # how much of a bin's history is hidden depends on its place in the window
            yield FeatureBlock(choice.input_penalty, torch.eye(shape.current).repeat(len(windows), 1))
        yield from self.exogenous(windows, choice)

    def exogenous(self, windows: Windows, choice: Choice) -> Iterator[FeatureBlock]:
        """Behavior inputs and frames of the windows' own bins."""
        for x in self._inputs(windows, choice):
            yield FeatureBlock(choice.input_penalty, x)
        if self.energies is not None and choice.clips == "energies":
            x = self.energies(windows).repeat_interleave(self.shape.current, 0)
            yield FeatureBlock(_ENERGIES * choice.input_penalty, x, together=x.shape[1])
        elif self.clips is not None:
            x = self.clips(windows, choice.components)
            yield FeatureBlock(choice.input_penalty, torch.cat([x, x**2], 1) if choice.squares else x)

    def _population(self, windows: Windows, choice: Choice, index: SpikeIndex) -> Tensor:
        """(R, U * K) histories of all units, or (R, K * Q) of their patterns."""
        filters, shape = history_filters(self.shape, choice, self.variant), self.shape
        pattern_UQ, parts = self.pattern_UQ[:, : choice.rank], []
        size = max(1, _CELLS // ((shape.past + shape.current) * index.num_units))
        for i in range(0, max(1, len(windows)), size):
            seen_WLU = counts_around(index, windows[i : i + size], shape.past, shape.current)
            if self.form == "full":
                parts.append(_transformed(filtered(seen_WLU, filters), choice))
            else:
                x = _transformed(filters.flatten(1).T @ seen_WLU, choice) @ pattern_UQ
                parts.append(x.view(-1, filters.shape[2] * pattern_UQ.shape[1]))
        return torch.cat(parts)

    def of_group(
        self, windows: Windows, choice: Choice, group: int, index: SpikeIndex | None = None
    ) -> Iterator[FeatureBlock]:
        """Features that only one group of units has."""
        start, stop = self.groups[group]
        mine = self._group(group, index)
        each = torch.eye(stop - start)
        if self.has_history and self.form == "patterns":
            filters = history_filters(self.shape, choice, self.variant)
            x = filtered(counts_around(mine, windows, self.shape.past, self.shape.current), filters)
            x = _transformed(x, choice)
            yield FeatureBlock(1.0, x, each.repeat_interleave(filters.shape[2], 0))
        if self.variant == "same_bin":
            x = counts_around(mine, windows, 0, self.shape.current).flatten(0, 1)
            yield FeatureBlock(choice.same_bin_penalty, _transformed(x, choice), torch.ones_like(each).triu(1))
            if start:
                index = self.index if index is None else index
                pattern_UQ = self.pattern_UQ[:start, : choice.rank]
                x = patterns_around(index, windows, 0, self.shape.current, pattern_UQ).flatten(0, 1)
                yield FeatureBlock(choice.same_bin_penalty, x, together=x.shape[1])

    def _group(self, group: int, index: SpikeIndex | None) -> SpikeIndex:
        """The spikes of one group of units."""
        index = self.index if index is None else index
        if len(self.groups) == 1:
            return index
        if self._own is None or self._own[0] is not index:
            self._own = (index, [of_units(index, *units) for units in self.groups])
        return self._own[1][group]

    def _inputs(self, windows: Windows, choice: Choice) -> Iterator[Tensor]:
        """Inputs at each bin's centre: the last sample known then; the mean where there is none."""
        centre = (np.arange(self.shape.current) + 0.5) * float(nanoseconds(self.index.dt)) / NANOSECONDS
        at = (windows.starts(self.index)[:, None] + centre).ravel()
        for v, variable, scale in self.inputs:
            values = variable.hold(at).astype(np.float64)
            low, high = np.array(scale.low), np.array(scale.high)
            if v.encoding == "fourier":
                period = np.full(len(low), v.period) if v.period > 0 else np.where(high > low, high - low, 1.0)
                phase = 2 * np.pi * values[:, :, None] / period[:, None] * np.arange(1, choice.harmonics + 1)
                x = np.concatenate([np.sin(phase), np.cos(phase)], 2).reshape(len(at), -1)
            else:
                x = (values - np.array(scale.mean)) / np.array(scale.std)
                x = np.concatenate([x, x**2], 1) if choice.squares else x
            yield torch.from_numpy(np.nan_to_num(x).astype(np.float32))

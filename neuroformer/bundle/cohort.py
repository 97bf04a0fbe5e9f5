"""Several recordings, one trunk: one model for each recording; everything that does not belong to units is shared.

Rows of units (:class:`UnitRows`) are a recording's own, and so is every buffer (its normalisation). The rest is one set of
parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from neuroformer.config import Config, ConfigError
from neuroformer.config.members import kept_blocks, kept_contrasts
from neuroformer.model.frames import FrameStream
from neuroformer.model.network import Neuroformer
from neuroformer.model.targets import TargetHead
from neuroformer.model.units import UnitRows

_PLACE = re.compile(r"(blocks|alignment\.(?:projections|log_scale))\.(\d+)")
POSITION = "streams.frames.encoder.position."
FILTER = "streams.frames.encoder.filter."
_ALIKE = 0.01  # relative difference below which two frame periods are one


class Cohort(nn.Module):
    """One :class:`Neuroformer` for each recording; shared parameters are the same objects in all of them.

    Parameters
    ----------
    members : the models, each of its recording's own configuration (:func:`member_config`)
    names : of the recordings, for messages
    config : Config
        Of the whole run.

    Raises
    ------
    ConfigError
        Something that would be shared does not fit two of the recordings; names both.
    """

    def __init__(self, members: Sequence[Neuroformer], names: Sequence[str] = (), config: Config | None = None):
        super().__init__()
        self.config = members[0].config if config is None else config
        self.members = nn.ModuleList(members)
        self.names = list(names) or [str(i) for i in range(len(members))]
        self._keys = [self._keys_of(i, model) for i, model in enumerate(members)]
        self._share()

    def __getitem__(self, place: int) -> Neuroformer:
        model = self.members[place]
        assert isinstance(model, Neuroformer)
        return model

    def __len__(self) -> int:
        return len(self.members)

    def named(self) -> dict[str, nn.Parameter]:
        """Every parameter once, by its name in a file."""
        pairs = zip(self._keys, self.members, strict=True)
        return {keys[name]: p for keys, model in pairs for name, p in model.named_parameters()}

    def tensors(self) -> dict[str, Tensor]:
        """The content of a file: every parameter once, and the buffers of every recording."""
        pairs = zip(self._keys, self.members, strict=True)
        return {keys[name]: x for keys, model in pairs for name, x in model.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`tensors`, in place."""
        for keys, model in zip(self._keys, self.members, strict=True):
            model.load_state_dict({name: tensors[key] for name, key in keys.items()})

    def _keys_of(self, place: int, model: Neuroformer) -> dict[str, str]:
        """Names in a file, by name in a member's model."""
        names = list(model.state_dict())
        if len(self.members) == 1:
            return {name: name for name in names}
        own = {name for name, _ in model.named_buffers()} | own_names(model) | set(self._differing(model, names))
        shared = shared_names(names, self.config, model.config)
        return {name: own_name(name, place) if name in own else shared[name] for name in names}

    def _differing(self, model: Neuroformer, names: Iterable[str]) -> Iterable[str]:
        """What is a recording's own because its frames or its classes are not those of the first that has any."""
        first = next((m for m in self.members if isinstance(m, Neuroformer) and "frames" in m.streams), model)
        alike = "frames" not in model.streams or first.frames.encoder.features == model.frames.encoder.features
        where = {axis for axis in range(3) if not _same_axis(first, model, axis)}
        for name in names:
            parts = name.split(".")
            if name.startswith(POSITION) and int(parts[-1]) in where:
                yield name
            if name.startswith(FILTER) and not alike:
                yield name
            if parts[0] == "targets" and self._classes(parts[1]) != _classes(model, parts[1]):
                yield name

    def _classes(self, target: str) -> list:
        having = [m for m in self.members if isinstance(m, Neuroformer) and target in m.targets]
        return _classes(having[0], target)

    def _share(self) -> None:
        known: dict[str, tuple[str, nn.Parameter]] = {}
        for name, keys, model in zip(self.names, self._keys, self.members, strict=True):
            assert isinstance(model, Neuroformer)
            for local, p in list(model.named_parameters()):
                first, kept = known.setdefault(keys[local], (name, p))
                if kept.shape != p.shape:
                    raise ConfigError(
                        f"'{first}' and '{name}' cannot share '{keys[local]}': it has shape {tuple(kept.shape)} in one "
                        f"and {tuple(p.shape)} in the other; the recordings must agree in what this part of the model reads"
                    )
                owner, _, attribute = local.rpartition(".")
                setattr(model.get_submodule(owner), attribute, kept)
        self._refuse_time_filter()

    def _refuse_time_filter(self) -> None:
        """One filter over several frames cannot serve frames that come at different rates."""
        every = zip(self.names, (self[i] for i in range(len(self))), strict=True)
        having = [(name, model.frames) for name, model in every if "frames" in model.streams]
        for name, frames in having[1:]:
            (first, other), at_once = having[0], frames.encoder.kernel[0]
            if at_once > 1 and not same_period(other.period, frames.period):
                raise ConfigError(
                    f"'{first}' shows a frame every {other.period:g} s, '{name}' every {frames.period:g} s, "
                    f"and model.frame_encoder takes {at_once} frames at once: one filter cannot serve both; "
                    "set the first entry of the kernel to 1, or resample the frames"
                )


def own_name(name: str, place: int) -> str:
    """The name, in a file of several recordings, of what belongs to one of them."""
    return f"recordings.{place}.{name}"


def own_names(model: Neuroformer) -> set[str]:
    """The parameters that belong to a recording's units."""
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, UnitRows)}


def shared_names(names: Iterable[str], whole: Config, member: Config) -> dict[str, str]:
    """A member's names to those of the whole run, which may have more blocks and alignments."""
    blocks, contrasts = kept_blocks(whole, member), kept_contrasts(whole, member)

    def whole_place(found: re.Match) -> str:
        kept = blocks if found[1] == "blocks" else contrasts
        return f"{found[1]}.{kept[int(found[2])]}"

    return {name: _PLACE.sub(whole_place, name, count=1) if _PLACE.match(name) else name for name in names}


def of_recording(tensors: Mapping[str, Tensor], model: Neuroformer, whole: Config, place: int) -> dict[str, Tensor]:
    """The tensors of one recording's model, from the file of several.

    Raises
    ------
    KeyError
        The file lacks a tensor.
    """
    shared = shared_names(model.state_dict(), whole, model.config)
    return {
        name: tensors[own if (own := own_name(name, place)) in tensors else shared[name]] for name in model.state_dict()
    }


def _classes(model: Neuroformer, target: str) -> list:
    """The labels of a head, and the words that they stand for."""
    head = model.targets[target]
    assert isinstance(head, TargetHead)
    return [head.classes, head.words]


def same_period(a: float, b: float) -> bool:
    """Whether two frame periods in seconds are one."""
    return abs(a / b - 1) < _ALIKE


def same_axis(frames: FrameStream, grid: Sequence[float], period: float, axis: int) -> bool:
    """Whether places along an axis (time, rows, columns) of a model's frames mean the same as on another grid, whose
    frames come every ``period`` seconds."""
    return frames.encoder.grid[axis] == grid[axis] and (axis > 0 or same_period(frames.period, period))


def _same_axis(a: Neuroformer, b: Neuroformer, axis: int) -> bool:
    if "frames" not in a.streams or "frames" not in b.streams:
        return True
    return same_axis(a.frames, b.frames.encoder.grid, b.frames.period, axis)

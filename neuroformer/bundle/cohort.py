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

_OWN = re.compile(r"recordings\.\d+\.")
_PLACE = re.compile(r"(blocks|alignment\.(?:projections|log_scale))\.(\d+)")
POSITION = "streams.frames.encoder.position."
FILTER = "streams.frames.encoder.filter."
_ALIKE = 0.01  # relative difference below which two frame periods are one


class Cohort(nn.Module):
    """One :class:`Neuroformer` for each recording; shared parameters are the same objects in all of them.

    Parameters
    ----------
    members : the models, each of its recording's own configuration (:func:`member_config`), made one after another if they are
        an iterator: what is shared is then in memory once
    names : of the recordings, for messages
    config : Config
        Of the whole run.

    Attributes
    ----------
    num_parameters : of all recordings together

    Raises
    ------
    ConfigError
        Something that would be shared does not fit two of the recordings; names both.
    """

    def __init__(self, members: Iterable[Neuroformer], names: Sequence[str] = (), config: Config | None = None):
        super().__init__()
        if not names:
            members = list(members)
            names = [str(i) for i in range(len(members))]
        self.names, self.members = list(names), nn.ModuleList()
        self._keys: list[dict[str, str]] = []
        self._known: dict[str, tuple[str, nn.Parameter]] = {}
        for place, model in enumerate(members):
            self.config = config = model.config if config is None else config
            self.members.append(model)
            self._keys.append(self._keys_of(place, model))
            self._share(place, model)
        self.num_parameters = sum(p.numel() for _, p in self._known.values())
        self._refuse_time_filter()

    def __getitem__(self, place: int) -> Neuroformer:
        model = self.members[place]
        assert isinstance(model, Neuroformer)
        return model

    def __len__(self) -> int:
        return len(self.members)

    def named(self) -> dict[str, nn.Parameter]:
        """Every parameter once, by its name in a file."""
        return {key: p for key, (_, p) in self._known.items()}

    def trunk(self) -> dict[str, Tensor]:
        """What is shared (with one recording: everything), by its name in a file."""
        if len(self) == 1:
            return self._of(0)
        return {key: p for key, (_, p) in self._known.items() if _OWN.match(key) is None}

    def own(self, place: int) -> dict[str, Tensor]:
        """What is one recording's own, parameters and buffers themselves, by name in its model; nothing with one recording."""
        prefix = own_name("", place)
        found = {key: x for key, x in self._of(place).items() if key.startswith(prefix)}
        return {key.removeprefix(prefix): x for key, x in found.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Every parameter once, and the buffers of every recording."""
        return {key: x.detach() for i in range(len(self)) for key, x in self._of(i).items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`tensors`, in place."""
        for keys, model in zip(self._keys, self.members, strict=True):
            model.load_state_dict({name: tensors[key] for name, key in keys.items()})

    def _of(self, place: int) -> dict[str, Tensor]:
        keys, model = self._keys[place], self.members[place]
        return {keys[name]: x for name, x in model.state_dict(keep_vars=True).items()}

    def _keys_of(self, place: int, model: Neuroformer) -> dict[str, str]:
        """Names in a file, by name in a member's model."""
        names = list(model.state_dict())
        if len(self.names) == 1:
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

    def _share(self, place: int, model: Neuroformer) -> None:
        keys = self._keys[place]
        for local, p in list(model.named_parameters()):
            first, kept = self._known.setdefault(keys[local], (self.names[place], p))
            if kept.shape != p.shape:
                raise ConfigError(
                    f"'{first}' and '{self.names[place]}' cannot share '{keys[local]}': it has shape {tuple(kept.shape)} in one "
                    f"and {tuple(p.shape)} in the other; the recordings must agree in what this part of the model reads"
                )
            owner, _, attribute = local.rpartition(".")
            setattr(model.get_submodule(owner), attribute, kept)

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


def of_recording(
    trunk: Mapping[str, Tensor], own: Mapping[str, Tensor], model: Neuroformer, whole: Config
) -> dict[str, Tensor]:
    """The tensors of one recording's model, from what is shared and what is its own (:meth:`Cohort.trunk`,
    :meth:`Cohort.own`).

    Raises
    ------
    KeyError
        A tensor is in neither.
    """
    shared = shared_names(model.state_dict(), whole, model.config)
    return {name: own[name] if name in own else trunk[shared[name]] for name in shared}


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

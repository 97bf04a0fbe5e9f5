"""From plain values to typed sections: unknown keys and the suggestion for a misspelt one, types, and the checks that every
section shares."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import types
import typing
import warnings
from collections.abc import Iterator
from typing import Any, Literal

from neuroformer.config.errors import ConfigError, require
from neuroformer.config.setting import NAME, Limits

# settings of earlier versions that nothing reads any more; what a file says of them is left out with a warning
RETIRED = {
    "generate.cuda_graph": "on a GPU steps are always replayed",
    "generate.temperature_dt": "generate.temperature is of times and units",
    "generate.temperature_id": "generate.temperature is of times and units",
    "generate.top_k_dt": "generate.top_p leaves out the unlikely",
    "generate.top_k_id": "generate.top_p leaves out the unlikely",
    "generate.top_p_dt": "generate.top_p is of times and units",
    "generate.top_p_id": "generate.top_p is of times and units",
    "loss.dt": "loss.likelihood is of times and units",
    "loss.id": "loss.likelihood is of times and units",
    "train.backbone_lr": "it is 0.02",
    "train.clip": "it is 1",
    "train.features_gb": "features on disk have 10 GB",
    "train.threads": "the environment variable OMP_NUM_THREADS sets it",
    "train.warmup": "it lasts a twentieth of the steps",
    "tune.average": "it is 0.95",
    "tune.batch_size": "it is 256",
    "tune.blocks": "it is 2",
    "tune.evaluate_every": "it is 20",
    "tune.patience": "it is 5",
    "tune.rank": "it is 4",
    "tune.trunk_lr": "it is 0.1",
    "tune.valid": "it is 0.2",
    "tune.weight_decay": "it is 0.05",
    "window.max_tokens": "every spike of a window is kept",
    "decode.bootstrap_block": "intervals are cut by how long errors last",
    "decode.bootstraps": "intervals leave out blocks instead of drawing them",
    "targets.closed": "tables show the network's own head, the readouts and their mean apart",
    "loss.contrast.scale": "it is learnt from 10",
    "loss.contrast.width": "it is 32",
    "model.coupling": "past spikes act by attention and by each unit's own history",
    "model.coupling_rank": "past spikes act by attention and by each unit's own history",
    "model.factorization": "the unit is always predicted given the time",
    "model.frame_readout": "every unit reads 32 features at its own place in the frames",
    "model.history_dropout": "past spikes act by attention and by each unit's own history",
    "model.history_filters": "past spikes act by attention and by each unit's own history",
    "model.history_rank": "past spikes act by attention and by each unit's own history",
    "model.mlp_ratio": "it is 4",
    "model.most_drive": "the effect of own spikes has fixed bounds",
    "model.rate_anchor": "tokens always start from the table of rates",
    "model.surprise": "frames act by attention and by each unit's own place",
    "model.target_filters": "heads count spikes under 8 filters",
    "model.target_kernel": "readouts are fitted on the network's states by decode",
    "model.target_networks": "readouts are fitted on the network's states by decode",
    "model.time_features": "it is 16",
    "model.unit_dropout": "every training window sees the past of all units",
    "train.betas": "AdamW has (0.9, 0.98)",
    "train.compile": "attention and the likelihood have kernels of their own",
    "train.min_lr": "it is 0.02",
    "train.readout_lr": "rows of units have their own pace",
    "train.recompute": "train.accumulate saves memory",
    "train.strategy": "processes hold the whole network",
    "train.sparsity": "there are no weights of pairs of units",
}


@functools.cache
def types_of(section: type) -> dict[str, Any]:
    """The type of every field of a section."""
    return typing.get_type_hints(section)


def build(section: type, tree: Any, where: str = "") -> Any:
    """A section of nested mappings; ``where`` is its key.

    Raises
    ------
    ConfigError
        An unknown key or a wrong type.
    """
    if not isinstance(tree, typing.Mapping):
        raise ConfigError(f"{where or 'the configuration'} is {tree!r}; expected a section with keys and values")
    hints = types_of(section)
    values = {}
    for key, value in tree.items():
        full = f"{where}.{key}" if where else str(key)
        listed = re.sub(r"\[\d+\]", "", full)
        if listed in RETIRED and key not in hints:
            warnings.warn(f"'{full}' does nothing any more: {RETIRED[listed]}", stacklevel=2)
            continue
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise ConfigError(f"unknown key '{full}'; {hint}{section.__name__} has: {', '.join(hints)}")
        values[key] = _typed(hints[key], value, full)
    return section(**values)


def check_section(section: Any, where: str = "") -> None:
    """Refuse wrong types and numbers out of bounds in a section and in those within it, and what they refuse themselves.

    A section may have a method ``check(where)`` for what concerns several of its fields.

    Raises
    ------
    ConfigError
        The first one found.
    """
    hints = types_of(type(section))
    for field in dataclasses.fields(section):
        key = f"{where}.{field.name}" if where else field.name
        value = getattr(section, field.name)
        if not _has_sections(hints[field.name]):
            typed = _typed(hints[field.name], value, key)
            require(not isinstance(typed, str) or typed == value, key, value, f"a text: {typed!r}")
        for at, one in _members(key, value):
            if dataclasses.is_dataclass(one):
                check_section(one, at)
            elif _has_sections(hints[field.name]):
                raise ConfigError(f"{at} is {one!r}; expected a section (from_dict makes it of keys and values)")
            else:
                _check_bounds(field, at, one)
    if hasattr(section, "check"):
        section.check(where)


def _has_sections(hint: Any) -> bool:
    return any(dataclasses.is_dataclass(part) for part in (hint, *typing.get_args(hint)))


def _members(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values that bounds hold for, each with its key."""
    if isinstance(value, (tuple, list)):
        yield from ((f"{key}[{i}]", one) for i, one in enumerate(value))
    else:
        yield key, value


def _check_bounds(field: dataclasses.Field, key: str, value: Any) -> None:
    help, limits = field.metadata.get("help", ""), field.metadata.get("limits", Limits())
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        require(limits.hold(value), key, value, f"{limits} ({help})")
    if field.metadata.get("name") and isinstance(value, str) and value and not NAME.fullmatch(value):
        expected = "letters, digits, '_', '-' and spaces; rename it in the recording, too"
        require(False, key, value, expected)


def _typed(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
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
        return tuple(_typed(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict or isinstance(hint, types.GenericAlias):
        if not isinstance(value, dict):
            raise ConfigError(f"{where} is {value!r}; expected keys and values")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        require(abs(value) < 1e300, where, f"a number of {len(str(value))} digits", "a number that a float can hold")
        value = float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        quotes = ": put it in quotes" if hint is str and isinstance(value, (bool, int, float)) else ""
        raise ConfigError(f"{where} is {value!r} ({type(value).__name__}); expected {hint.__name__}{quotes}")
    return value

"""From YAML and overrides to a :class:`Config`, strictly, and back."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal

import yaml

from neuroformer.config.checks import ConfigError
from neuroformer.config.schema import Config


def load_config(path: str | Path | None = None, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a YAML file and apply ``key.sub=value`` overrides (values are YAML; lists by ``inputs.0.name=...``).

    Raises
    ------
    ConfigError
        Unreadable file, unknown key, wrong type, impossible combination.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        tree = read_yaml(path)
        tree.setdefault("name", Path(path).stem)
    return from_dict(apply_overrides(tree, overrides))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises
    ------
    ConfigError
        No such file, not YAML, or no mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}")
    try:
        tree = yaml.load(path.read_text(), Loader=_Loader) or {}
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text; expected a YAML file, e.g. configs/demo.yaml") from None
    except yaml.YAMLError as e:
        raise ConfigError(f"{path} is not valid YAML: {e}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {type(tree).__name__}; expected keys and values")
    return tree


def apply_overrides(tree: dict[str, Any], overrides: typing.Sequence[str]) -> dict[str, Any]:
    """``key.sub=value`` items set in a nested mapping, in place; returns it."""
    for item in overrides:
        _override(tree, item)
    return tree


def from_dict(tree: typing.Mapping[str, Any]) -> Config:
    """A configuration from nested mappings; the inverse of :func:`to_dict`.

    ``recordings`` may be a list of paths, or one path.
    """
    several = tree.get("recordings") if isinstance(tree, typing.Mapping) else None
    if several:
        several = [several] if isinstance(several, str) else several
        if isinstance(several, (list, tuple)):
            several = [{"path": one} if isinstance(one, str) else one for one in several]
        tree = {**tree, "recordings": several}
    return _build(Config, tree, "")


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain mappings, every field named, ready for YAML or JSON."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


class _Loader(yaml.SafeLoader):
    """Reads floats as YAML 1.2 does: `2e-3` is a number, not a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
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
        raise ConfigError(f"override {key}: '{part}' is not a place in a list of {len(node)} (0 to {len(node) - 1})")
    return int(part)


def _build(cls: type, tree: Any, where: str) -> Any:
    if not isinstance(tree, typing.Mapping):
        raise ConfigError(f"{where or 'the configuration'} is {tree!r}; expected a section with keys and values")
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
        return tuple(_convert(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
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

"""From YAML and overrides to a :class:`Config`, strictly, and back."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

from neuroformer.config.errors import ConfigError
from neuroformer.config.paths import place
from neuroformer.config.run import Config
from neuroformer.config.values import build, types_of
from neuroformer.config.yaml_file import parse_value, read_yaml


def load_config(path: str | Path | None = None, overrides: typing.Sequence[str] = ()) -> Config:
    """Read a YAML file and apply ``key.sub=value`` overrides (values are YAML; lists by ``inputs.0.name=...``).

    Paths in the file are relative to the file, those of overrides to the working directory; the configuration holds
    absolute ones, so that a run finds its recording from everywhere.

    Raises
    ------
    ConfigError
        Unreadable file, unknown key, wrong type, impossible combination.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        tree = place(read_yaml(path), Path(path).parent.resolve())
        tree.setdefault("name", Path(path).stem)
    return from_dict(apply_overrides(tree, overrides))


def apply_overrides(tree: dict[str, Any], overrides: typing.Sequence[str]) -> dict[str, Any]:
    """A nested mapping with ``key.sub=value`` items set in it; their paths are relative to the working directory."""
    for item in overrides:
        _override(tree, item)
    return place(tree, Path.cwd()) if overrides else tree


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
    return build(Config, tree)


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain mappings, every field named, ready for YAML or JSON."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def _override(tree: dict[str, Any], item: str) -> None:
    key, sign, text = item.partition("=")
    if not sign or not key:
        raise ConfigError(f"override {item!r} is not understood; expected key.sub=value")
    *parents, last = key.split(".")
    value = _unquoted(text) if _is_text(key.split(".")) else parse_value(text)
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


def _is_text(parts: list[str]) -> bool:
    """Whether the schema expects a text there, which no rule of YAML may then cut or turn into a number."""
    hint: Any = Config
    for part in parts:
        if dataclasses.is_dataclass(hint):
            hint = types_of(typing.cast(type, hint)).get(part)
        elif typing.get_origin(hint) is tuple and part.isdigit():
            hint = typing.get_args(hint)[0]
        else:
            return False
    return hint is str


def _unquoted(text: str) -> str:
    """The text itself; in quotes, what YAML reads in them."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    value = parse_value(text) if quoted else text
    return value if isinstance(value, str) else text


def _list_place(node: list, part: str, key: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ConfigError(f"override {key}: '{part}' is not a place in a list of {len(node)} (0 to {len(node) - 1})")
    return int(part)

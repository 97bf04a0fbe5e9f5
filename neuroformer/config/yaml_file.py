"""YAML as plain mappings, lists and values, strictly: each key once, and nothing that is small to write and vast to read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from neuroformer.config.errors import ConfigError

# far above what a configuration of thousands of recordings needs, and read in less than a second
MAX_BYTES = 1 << 18
MAX_VALUES = 20_000
MAX_DEPTH = 32

_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class Loader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does (``2e-3`` is one, ``10:30`` is none), dates as texts, and refuses excess.

    Raises
    ------
    ConfigError
        A key given twice; more than ``MAX_VALUES`` values with every alias written out; nesting beyond ``MAX_DEPTH``.
    """

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node whose keys are distinct and whose size, aliases written out, is bounded."""
        if self.check_event(yaml.AliasEvent):
            return super().compose_node(parent, index)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConfigError(f"{_excess(f'sections within sections, more than {MAX_DEPTH} deep')}")
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated_keys(node)
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            inner = [one for pair in inner for one in pair]
        # a node that is not yet known is one that contains itself
        size = 1 + sum(self._sizes.get(id(one), MAX_VALUES) for one in inner)
        if size > MAX_VALUES:
            raise ConfigError(_excess(f"more than {MAX_VALUES:,} values, repeated ones (*name) included"))
        self._sizes[id(node)] = size
        return node


def _excess(what: str) -> str:
    return f"it holds {what}; expected the keys of configs/reference.yaml and their values"


def _refuse_repeated_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if isinstance(key, yaml.ScalarNode) and key.value in lines:
            raise ConfigError(
                f"'{key.value}' is given twice, in lines {lines[key.value]} and {line}; expected every key once: join the two"
            )
        if isinstance(key, yaml.ScalarNode):
            lines[key.value] = line


# SafeLoader's resolvers are shared by all loaders: change a copy
Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag not in (_INT, _FLOAT, _TIMESTAMP)]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?(0|[1-9][0-9_]*|0b[01]+|0x[0-9a-fA-F]+)$"), list("-+0123456789"))
Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf)$|^\.(nan|NaN)$"),
    list("-+0123456789."),
)


def read_yaml(path: str | Path, loader: type[Loader] = Loader) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises
    ------
    ConfigError
        No such file, not YAML, no mapping, a key given twice, or more than a configuration can need.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no configuration file at {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path} has {path.stat().st_size:,} bytes; expected a YAML file of at most {MAX_BYTES:,}")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=loader) or {}
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text; expected a YAML file, e.g. configs/demo.yaml") from None
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from None
    except (yaml.YAMLError, ValueError) as e:
        if "constructor for the tag" in str(e):
            raise ConfigError(f"{path} names Python objects, which are never created; delete that line: {e}") from None
        raise ConfigError(f"{path} is not valid YAML: {e}{_about_backslashes(str(e))}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds {type(tree).__name__}; expected keys and values")
    return tree


def _about_backslashes(error: str) -> str:
    if "unknown escape character" not in error and "escape sequence" not in error:
        return ""
    return "\nIn double quotes a backslash begins an escape: write '/' between folders, or single quotes"


def parse_value(text: str) -> Any:
    """One value as YAML; a text where it is none, or where YAML would drop a part of it as a comment.

    Raises
    ------
    ConfigError
        More than a configuration can need.
    """
    try:
        node = yaml.compose(text, Loader=Loader)
        if node is None or (isinstance(node, yaml.ScalarNode) and node.end_mark.index < len(text.rstrip())):
            return text if text.strip() else None
        return yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, ValueError) as e:
        if isinstance(e, ConfigError):
            raise
        return text

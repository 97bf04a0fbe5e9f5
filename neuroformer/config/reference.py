"""``configs/reference.yaml``, written from the schema: every key with its default and what it means."""

from __future__ import annotations

import dataclasses
import json
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

from neuroformer.config.run import Config
from neuroformer.config.values import types_of
from neuroformer.config.yaml_file import parse_value

HEAD = "# Every setting, with its unit and default. A key that is not here is an error; copy what you change.\n"
LONGEST = 114  # characters in a line (120 in a list); longer comments stand above their key


def reference() -> str:
    """The text of ``configs/reference.yaml``: defaults, comments and order of the schema.

    The entry of a list of sections stands once, as a comment, where the list first appears.
    """
    return "\n".join([HEAD.rstrip(), *_section(Config, "", set())]) + "\n"


def write_reference(path: str | Path) -> None:
    """Write :func:`reference` into a file."""
    Path(path).write_text(reference(), encoding="utf-8")


def _section(section: type, indent: str, shown: set[type]) -> Iterator[str]:
    shown.add(section)
    for field in dataclasses.fields(section):
        hint, help = types_of(section)[field.name], field.metadata.get("help", "")
        inner = next((h for h in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(h)), None)
        lines = (
            list(_field(field, hint, help, indent))
            if inner is None
            else list(_with_section(field, inner, indent, shown))
        )
        if not indent and (len(lines) > 1 or field.name == "name"):
            yield ""
        yield from lines


def _with_section(field: dataclasses.Field, inner: Any, indent: str, shown: set[type]) -> Iterator[str]:
    """A section, or a list of sections with one entry as a comment."""
    about = inner.__doc__ or ""
    if isinstance(field.default, inner):
        yield f"{indent}{field.name}:  # {about}"
        yield from _section(inner, indent + "  ", shown)
    elif inner in shown:
        yield from _line(f"{indent}{field.name}: []", field.metadata["help"], indent)
    else:
        yield from _line(f"{indent}{field.name}: []", f"a list: {field.metadata['help']}. One entry:", indent)
        lines = [f"# {about}", *filter(None, _section(inner, "", shown))]
        first = next(i for i, line in enumerate(lines) if not line.startswith("#"))
        for i, line in enumerate(lines):
            yield f"{indent}# {'- ' if i == first else '  '}{line}"


def _field(field: dataclasses.Field, hint: Any, help: str, indent: str) -> Iterator[str]:
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # pyright: ignore
    if typing.get_origin(hint) is Literal:
        help += f"; one of {' | '.join(typing.get_args(hint))}"
    yield from _line(f"{indent}{field.name}: {_plain(value)}", help, indent)


def _line(text: str, comment: str, indent: str) -> Iterator[str]:
    """A key with its comment behind it, or above it where the line would be too long."""
    line = f"{text}  # {comment}"
    if len(line) <= LONGEST:
        yield line
    else:
        yield from textwrap.wrap(
            comment, LONGEST - len(indent), initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        yield text


def _plain(value: Any) -> str:
    """A value as one line of YAML."""
    value = list(value) if isinstance(value, tuple) else value
    if isinstance(value, str) and parse_value(value) != value:
        return json.dumps(value)
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")

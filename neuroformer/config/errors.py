"""The error of a configuration that cannot be run."""

from __future__ import annotations

from typing import Any


class ConfigError(ValueError):
    """A configuration that cannot be run: says which key, what was got and what was expected."""


def require(ok: bool, key: str, got: Any, expected: str) -> None:
    """Raise a :class:`ConfigError` unless ``ok``."""
    if not ok:
        raise ConfigError(f"{key} is {got!r}; expected {expected}")

"""The results of an audit: findings with a stable name, and the facts behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from neuroformer.shown import Shown

Severity = Literal["leak", "warning", "note"]
_SIGNS = {"train": "#", "valid": "v", "test": "t"}
SEVERITIES: tuple[Severity, ...] = ("leak", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that an audit noticed.

    Attributes
    ----------
    name : stable, for programs (``shared_stimulus``)
    severity : "leak": held-out scores say less than they claim; "warning": something is probably wrong;
        "note": a stated fact
    measured : what was found, with its numbers
    advice : what to do
    values : the numbers alone, JSON-able
    """

    name: str
    severity: Severity
    measured: str
    advice: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit(Shown):
    """The findings on a recording and its split.

    Attributes
    ----------
    recording : name
    facts : JSON-able numbers by section (``recording``, ``tokens``, ``split``, ``controls``, ...)
    findings : leaks first
    series : arrays to draw: ``rate_times``, ``rates``, ``tokens``, and (N, 2) intervals ``split_PART``
    """

    recording: str
    facts: Mapping[str, Any]
    findings: tuple[Finding, ...]
    series: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    def named(self, name: str) -> Finding | None:
        """The finding of that name, or None."""
        return next((f for f in self.findings if f.name == name), None)

    def of(self, severity: Severity) -> list[Finding]:
        return [f for f in self.findings if f.severity == severity]

    @property
    def leaks(self) -> bool:
        return bool(self.of("leak"))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, JSON-able."""
        tree = {"recording": self.recording, "leaks": self.leaks, "facts": dict(self.facts)}
        return _plain(tree | {"findings": [asdict(f) for f in self.findings]})

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> Audit:
        """From what :meth:`to_dict` gave, without its arrays."""
        return cls(tree["recording"], tree["facts"], tuple(Finding(**f) for f in tree["findings"]))

    def strip(self, width: int = 96) -> str:
        """The split as one line of text: # train, v validation, t test, . neither."""
        drawn = {part: self.series.get(f"split_{part}", np.zeros((0, 2))) for part in _SIGNS}
        every = np.concatenate(list(drawn.values()))
        if len(every) == 0:
            return ""
        at = np.linspace(every.min(), every.max(), 2 * width + 1)[1::2]
        line = np.full(width, ".")
        for part, sign in _SIGNS.items():
            inside = ((at[:, None] >= drawn[part][:, 0]) & (at[:, None] < drawn[part][:, 1])).any(1)
            line[inside] = sign
        return "".join(line) + "  (# train, v valid, t test)"

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.of(s))} {s}(s)" for s in SEVERITIES)
        lines = [f"Audit of '{self.recording}': {counts}"]
        for section, values in self.facts.items():
            lines += [f"  {section}", *_rows(values)]
            lines += [f"    {self.strip()}"] if section == "split" else []
        for f in self.findings:
            lines += ["", f"{f.severity.upper():<8} {f.name}", f"  {f.measured}"]
            lines += [f"  -> {f.advice}"] if f.advice else []
        if self.findings:
            lines += ["", f"what they mean: neuroformer explain {self.findings[0].name}, and so on"]
        return "\n".join(lines)


def ordered(findings: Iterable[Finding | None]) -> tuple[Finding, ...]:
    """The findings that exist, leaks first."""
    there = [f for f in findings if f is not None]
    return tuple(sorted(there, key=lambda f: SEVERITIES.index(f.severity)))


def _plain(value: Any) -> Any:
    """As JSON can hold it: NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def _rows(values: Any) -> list[str]:
    if not isinstance(values, Mapping):
        return [f"    {values}"]
    width = max((len(k) for k in values), default=0)
    return [f"    {k:<{width}}  {_text(v)}" for k, v in values.items()]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(v) for v in value)
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

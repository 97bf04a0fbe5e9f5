"""Which series of a recording are wanted: asked by readers before they read one, and by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from neuroformer.recording.recording import Recording
from neuroformer.recording.validation import RecordingError

TRIALS, FRAMES, TRACES = "trials", "frames", "traces"


@dataclass
class Wanted:
    """Names of behavior variables, tables of intervals, ``frames``, ``traces`` and ``trials``, with ``*`` for any letters.

    Parameters
    ----------
    only : what is read; empty: everything. Trials are read all the same
    without : what is not read
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    _left: dict[str, None] = field(default_factory=dict)  # names that were asked for here, and are not wanted
    _seen: dict[str, None] = field(default_factory=dict)

    def __call__(self, name: str) -> bool:
        """Whether a series is wanted; its name is remembered."""
        chosen = not self.only or name == TRIALS or _matches(name, self.only)
        wanted = chosen and not _matches(name, self.without)
        (self._seen if wanted else self._left)[name] = None
        return wanted

    def names(self, name: str) -> bool:
        """Whether ``only`` names a series itself, and not by a pattern."""
        return name in self.only

    def any_of(self, prefix: str) -> bool:
        """Whether a series may be wanted of which only the beginning of its name is known before it is read."""
        stems = [re.split(r"[*?[]", pattern)[0] for pattern in self.only]
        chosen = not self.only or any(
            stem.startswith(prefix) or (stem != pattern and prefix.startswith(stem))
            for stem, pattern in zip(stems, self.only, strict=True)
        )
        return chosen and not any(p.endswith("*") and prefix.startswith(p[:-1]) for p in self.without)

    def of(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """The wanted entries of a mapping by name."""
        return {name: value for name, value in found.items() if self(name)}

    def applied(self, rec: Recording) -> Recording:
        """The recording with what is wanted of it, and a note on what was left out.

        Raises
        ------
        RecordingError
            A name that no series has.
        """
        if not self.only and not self.without:
            return rec
        behavior, intervals = self.of(rec.behavior), self.of(rec.intervals)
        trials = rec.trials if rec.trials and self(TRIALS) else {}
        frames = rec.frames if rec.frames is not None and self(FRAMES) else None
        traces = rec.traces if rec.traces is not None and self(TRACES) else None
        self._check(rec.name)
        notes = [*rec.meta.get("notes", ())]
        if self._left:
            notes.append(f"left out as asked: {', '.join(self._left)}")
        meta = {**rec.meta, "notes": notes}
        if "sources" in meta:
            meta["sources"] = {k: v for k, v in meta["sources"].items() if k in behavior}
        return dataclasses.replace(
            rec, behavior=behavior, intervals=intervals, trials=trials, frames=frames, traces=traces, meta=meta
        )

    def _check(self, recording: str) -> None:
        known = {**self._seen, **self._left}
        for key, patterns in (("only", self.only), ("without", self.without)):
            for pattern in patterns:
                if not any(_matches(name, [pattern]) for name in known):
                    raise RecordingError(
                        f"recording.{key} names '{pattern}', but '{recording}' has no such series; it has: "
                        f"{', '.join(known) or 'none'} (what recording.sources add is there in any case)"
                    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)

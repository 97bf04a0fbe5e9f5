"""One call that takes any recording: the path's suffix or the content of the folder picks the reader."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuroformer.recording.arrays import read_npz
from neuroformer.recording.recording import Recording, RecordingError

SYNTHETIC = "synthetic:"

_KNOWN = "a .npz file, or 'synthetic:NAME'"


def open_recording(source: str | Path, **options: Any) -> Recording:
    """A recording from a path, or from ``synthetic:NAME``.

    Parameters
    ----------
    source : path or str
        ``synthetic:NAME`` names a generator; everything else is a path.
    options
        Handed to the reader; see the reader of the format in question.

    Raises
    ------
    RecordingError
        Nothing there, a kind of file that no reader knows, an option that the reader does not have,
        or a file that contradicts itself.
    """
    if isinstance(source, str) and source.startswith(SYNTHETIC):
        from neuroformer.recording.synthetic import synthetic

        return _call(synthetic, source.removeprefix(SYNTHETIC), options)
    if not isinstance(source, (str, Path)):
        raise RecordingError(
            f"cannot open a {type(source).__name__} as a recording; expected a path: {_KNOWN}"
        )
    path = Path(source).expanduser()
    if not path.exists():
        raise RecordingError(f"no file or folder at {path}; expected {_KNOWN}")
    return _call(_reader(path), path, options)


def _reader(path: Path) -> Callable[..., Recording]:
    if path.suffix.lower() == ".npz":
        return read_npz
    what = (
        "a folder" if path.is_dir() else f"a '{path.suffix}' file" if path.suffix else "a file without suffix"
    )
    raise RecordingError(f"{path} is {what} that no reader knows; expected {_KNOWN}")


def _call(reader: Callable[..., Recording], source: Any, options: dict[str, Any]) -> Recording:
    """Call a reader; an option it does not have is the user's mistake, not a TypeError from within."""
    parameters = inspect.signature(reader).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return reader(source, **options)
    known = list(parameters)[1:]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise RecordingError(
            f"the reader of {source} has no option {', '.join(repr(u) for u in unknown)}; "
            f"it has: {', '.join(known) or 'none'}"
        )
    return reader(source, **options)

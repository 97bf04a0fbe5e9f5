"""suite2p output folders: ``F.npy``, ``Fneu.npy``, ``spks.npy``, ``iscell.npy``, ``ops.npy`` (or ``settings.npy``).

Traces are ``F - 0.7 Fneu`` (suite2p's own neuropil coefficient where ``ops`` has one), spikes the events of
``spks`` above each unit's threshold. Only cells are kept. The planes of a volume are joined.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording.calcium import spikes_from_traces
from neuroformer.recording.formats.npz import UNREADABLE, read_npy
from neuroformer.recording.recording import Recording, RecordingError, Traces

_NEUROPIL = 0.7
# what a pickled dictionary of settings consists of; anything else could run code
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
    ("builtins", "complex"),
    ("builtins", "set"),
    ("builtins", "slice"),
    ("datetime", "datetime"),
    ("datetime", "date"),
    ("datetime", "timedelta"),
}
_PATHS = {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"}


def is_suite2p(folder: Path) -> bool:
    """Whether a folder is a plane of suite2p's output, or holds planes."""
    return bool(_planes(folder))


def read_suite2p(
    path: str | Path, rate_hz: float | None = None, cells_only: bool = True, events: str = "auto"
) -> Recording:
    """Read a suite2p folder (a plane, ``suite2p/`` with planes in it, or the folder above that).

    Parameters
    ----------
    rate_hz : samples per second and plane; from ``ops.npy`` when not given
    cells_only : leave out the regions that ``iscell.npy`` rejects
    events : how spikes come from the traces, see
        :func:`neuroformer.recording.calcium.spikes_from_traces`

    Raises
    ------
    RecordingError
        Files missing or of different shapes, or no sampling rate.
    """
    path = Path(path)
    planes = [_plane(p, cells_only) for p in _planes(path)]
    if not planes:
        raise RecordingError(f"{path} is no suite2p folder: expected F.npy and spks.npy in it or in its planes")
    notes: list[str] = []
    for folder, plane in zip(_planes(path), planes, strict=True):
        if plane["left"]:
            notes.append(f"{folder.name}: {plane['left']} regions are not cells and were left out")
    rate = rate_hz if rate_hz is not None else planes[0]["rate"]
    if rate is None or not 0 < float(rate) < np.inf:
        raise RecordingError(
            f"{path}: 'fs' cannot be read from ops.npy or settings.npy; give rate_hz, samples per second"
        )
    lengths = [p["traces"].shape[1] for p in planes]
    count = min(lengths)
    if max(lengths) != count:
        notes.append(f"planes have {sorted(set(lengths))} samples; all were cut to {count}")
    values = np.concatenate([p["traces"][:, :count] for p in planes]).T
    deconvolved = np.concatenate([p["spks"][:, :count] for p in planes]).T
    if values.shape[1] == 0:
        raise RecordingError(f"{path}: iscell.npy accepts no region; open with cells_only=False to keep all")
    traces = Traces(np.arange(count) / float(rate), values, "a.u.")
    times, units = spikes_from_traces(traces, notes, method=events, deconvolved=deconvolved)
    ids = [f"plane{i}_{r}" if len(planes) > 1 else int(r) for i, p in enumerate(planes) for r in p["rows"]]
    columns = {"id": np.array(ids)}
    if len(planes) > 1:
        columns["plane"] = np.repeat(np.arange(len(planes)), [len(p["rows"]) for p in planes])
        notes.append("all planes of a volume share one clock; the delay between planes is not corrected")
    notes.append(f"traces are F - {planes[0]['neuropil']:g} Fneu")
    return Recording(
        name=path.name if path.name != "suite2p" else path.parent.name or "suite2p",
        spike_times=times,
        spike_units=units,
        units=columns,
        traces=traces,
        domain=np.array([[0.0, count / float(rate)]]),
        meta={"format": "suite2p", "notes": notes},
    )


def _planes(folder: Path) -> list[Path]:
    for base in (folder, folder / "suite2p"):
        if (base / "F.npy").is_file() and (base / "spks.npy").is_file():
            return [base]
        found = [p for p in base.glob("plane*") if (p / "F.npy").is_file() and (p / "spks.npy").is_file()]
        if found:
            return sorted(found, key=lambda p: (len(p.name), p.name))
    return []


def _plane(folder: Path, cells_only: bool) -> dict[str, Any]:
    fluorescence, spks = _values(folder / "F.npy"), _values(folder / "spks.npy")
    neuropil = _values(folder / "Fneu.npy") if (folder / "Fneu.npy").exists() else np.zeros_like(fluorescence)
    if not fluorescence.shape == spks.shape == neuropil.shape or fluorescence.ndim != 2:
        raise RecordingError(
            f"{folder}: F {fluorescence.shape}, Fneu {neuropil.shape} and spks {spks.shape} differ in shape; "
            "expected (regions, samples) for all"
        )
    ops = _settings(folder)
    coefficient = _number(ops.get("neucoeff", ops.get("neuropil_coefficient")))
    coefficient = _NEUROPIL if coefficient is None else coefficient
    keep = np.ones(len(fluorescence), bool)
    if cells_only and (folder / "iscell.npy").exists():
        iscell = read_npy(folder / "iscell.npy")
        if iscell.ndim not in (1, 2) or len(iscell) != len(keep) or iscell.size == 0:
            raise RecordingError(
                f"{folder}: iscell has shape {iscell.shape}; expected a row for each of {len(keep)} regions"
            )
        keep = (iscell[:, 0] if iscell.ndim == 2 else iscell) > 0
    return {
        "traces": (fluorescence - coefficient * neuropil)[keep],
        "spks": np.maximum(spks[keep], 0),
        "rows": np.flatnonzero(keep),
        "left": int((~keep).sum()),
        "rate": _number(ops.get("fs")),
        "neuropil": coefficient,
    }


def _values(path: Path) -> np.ndarray:
    return read_npy(path).astype(np.float32, copy=False)


def _settings(folder: Path) -> dict[str, Any]:
    """What ``ops.npy`` says, or the files that suite2p 1.0 writes in its place; groups of settings are laid flat."""
    out: dict[str, Any] = {}
    for name in ("db.npy", "settings.npy", "ops.npy"):
        if (folder / name).exists():
            found = load_settings(folder / name)
            for group in found.values():
                out |= {str(k): v for k, v in group.items()} if isinstance(group, dict) else {}
            out |= found
    return out


def _number(value: Any) -> float | None:
    """A setting that is one number, also in an array as MATLAB saves it; None for anything else."""
    if not isinstance(value, (int, float, np.number, np.ndarray)):
        return None
    values = np.ravel(value)
    return float(values[0]) if values.size == 1 and values.dtype.kind in "fiub" else None


class _Settings(pickle.Unpickler):
    """Unpickles numbers, texts, containers and arrays, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        if module.startswith("pathlib") and name in _PATHS:
            return lambda *parts: "/".join(parts)
        raise pickle.UnpicklingError(f"it holds a {module}.{name}")


def load_settings(path: Path) -> dict[str, Any]:
    """A dictionary that suite2p saved with pickle inside a .npy, read without running anything in it.

    Raises
    ------
    RecordingError
        It holds objects other than plain settings.
    """
    try:
        data = path.read_bytes()
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = read(stream)
        if not dtype.hasobject:
            raise RecordingError(f"{path} is not a saved dictionary, but {dtype}")
        found = _Settings(stream).load()
        found = found.item() if isinstance(found, np.ndarray) and found.size == 1 else found
    except (*UNREADABLE, pickle.UnpicklingError, ImportError) as e:
        if isinstance(e, RecordingError):
            raise
        raise RecordingError(f"{path} cannot be read as plain settings ({e}); move it away and give rate_hz") from None
    if not isinstance(found, dict):
        raise RecordingError(f"{path} holds a {type(found).__name__}; expected a dictionary of settings")
    return {str(k): v for k, v in found.items()}

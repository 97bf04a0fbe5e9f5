"""The frames of an NWB file: ImageSeries, OpticalSeries and IndexSeries, internal or external, all lazy."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from neuroformer.recording import clean
from neuroformer.recording.formats.nwb.parts import OpenFile, place, sample_times
from neuroformer.recording.frames import JoinedFrames, of_size
from neuroformer.recording.names import natural
from neuroformer.recording.remote import is_remote
from neuroformer.recording.series import FrameSeries
from neuroformer.recording.stimuli.presentations import Template, describes_images, from_templates
from neuroformer.recording.validation import RecordingError
from neuroformer.recording.video import open_images

Tables = Mapping[str, Mapping[str, np.ndarray]]


def read_frames(
    reader: OpenFile, name: str | None, tables: Tables, size: Sequence[int] | None = None
) -> FrameSeries | None:
    """The stimulus called ``name``, or all stimuli of one image size joined; None without any.

    Parameters
    ----------
    tables : of intervals; their rows may present the images of a template
    size : (height, width) that all are resized to as they are read

    Raises
    ------
    RecordingError
        ``name`` is not in the file, or what it names cannot be opened.
    """
    if name is not None:
        known = reader.of_type("ImageSeries", "IndexSeries")
        names = clean.short_names([place(s).split("/") for s in known])
        chosen = [s for s, n in zip(known, names, strict=True) if name in (n, place(s))]
        if not chosen:
            raise RecordingError(
                f"{reader.path} has no image series '{name}'; it has: {', '.join(sorted(names)) or 'none'}"
            )
        shown = _presented(reader, [chosen[0]], tables)
        return next((frames for _, frames in shown), None) or _one(reader, chosen[0])
    stimuli = [s for s in reader.of_type("ImageSeries", "IndexSeries") if reader.file.stimulus.get(s.name) is s]
    found: list[tuple[str, FrameSeries]] = []
    for series in stimuli:
        reader.seen.add(id(series))
        # spikes and behavior are of use without their movie; whoever needs it asks for it by name
        with reader.leaving_out(f"frames '{series.name}'"):
            frames = _one(reader, series)
            if len(frames.times):
                found.append((series.name, frames))
    unused = [t for t in (reader.file.stimulus_template or {}).values() if id(t) not in reader.banks]
    found += _presented(reader, unused, tables)
    if size is not None:
        found = [(n, replace(f, images=_resized(reader, f.images, size))) for n, f in found]
    return _join(reader, found)


def _presented(reader: OpenFile, series: Sequence[Any], tables: Tables) -> list[tuple[str, FrameSeries]]:
    """The frames of templates whose images rows of a table name."""
    templates: dict[str, Template] = {}
    for one in series:
        if (reader.file.stimulus_template or {}).get(one.name) is one and any(map(describes_images, tables.values())):
            with reader.leaving_out(f"template '{one.name}'"):
                templates[one.name] = Template(_bank(reader, one), _image_names(one))
    with reader.leaving_out("frames of templates"):
        return list(from_templates(tables, templates).items())
    return []


def _image_names(series: Any) -> tuple[str, ...]:
    """Names of single images: of a container of images, or those that an extension of Allen's describes."""
    if type(series).__name__ == "Images":
        return tuple(str(image.name) for image in _ordered(series))
    described = getattr(series, "control_description", None)
    return () if described is None else tuple(map(str, clean.plain(described[:])))


def _resized(reader: OpenFile, images: Any, size: Sequence[int]) -> Any:
    """A bank at a size; once for all who share it."""
    if id(images) not in reader.banks:
        reader.banks[id(images)] = of_size(images, size)
    return reader.banks[id(images)]


def _join(reader: OpenFile, found: list[tuple[str, FrameSeries]]) -> FrameSeries | None:
    """Stimuli of the size that was shown most, on one bank; the others are named in a note."""
    if not found:
        return None
    shown: dict[tuple[int, ...], int] = {}
    for _, f in found:
        size = tuple(f.images.shape[1:])
        shown[size] = shown.get(size, 0) + len(f.times)
    size = max(shown, key=lambda s: shown[s])
    others = [n for n, f in found if tuple(f.images.shape[1:]) != size]
    if others:
        reader.notes.append(
            f"frames of another size than {size[0]} x {size[1]} were left out: {', '.join(others)}; "
            "open with frames='NAME' to take one of them, or with frames_size=(height, width) to have all"
        )
    parts = [f for n, f in found if n not in others]
    if len(parts) == 1:
        return parts[0]
    banks: list[Any] = []
    for f in parts:
        if not any(f.images is b for b in banks):
            banks.append(f.images)
    starts = np.cumsum([0] + [b.shape[0] for b in banks])
    offset = [starts[next(i for i, b in enumerate(banks) if f.images is b)] for f in parts]
    times = np.concatenate([f.times for f in parts])
    index = np.concatenate([f.index + o for f, o in zip(parts, offset, strict=True)])
    order = np.argsort(times, kind="stable")
    times, index = times[order], index[order]
    keep = np.diff(times, prepend=-np.inf) > 0
    if not keep.all():
        reader.notes.append(f"frames: {int((~keep).sum())} onsets at the time of another were dropped")
    return FrameSeries(JoinedFrames(banks), times[keep], index[keep])


def _one(reader: OpenFile, series: Any) -> FrameSeries:
    reader.seen.add(id(series))
    if type(series).__name__ == "IndexSeries":
        source = series.indexed_images if series.indexed_images is not None else series.indexed_timeseries
        images = _bank(reader, source)
        index = np.asarray(series.data[:]).astype(np.int64)
    else:
        images = _bank(reader, series)
        count = images.shape[0]
        if series.timestamps is not None and series.external_file is not None:
            count = min(count, len(series.timestamps))  # a camera may run on after the clock stopped
        index = np.arange(count)
    times = sample_times(series, len(index))
    clean.coarse(f"frames '{series.name}': times", times, reader.notes)
    times = times.astype(np.float64)
    if len(times) != len(index):
        raise RecordingError(f"'{series.name}' has {len(index)} frames but {len(times)} times")
    keep = np.isfinite(times) & (np.diff(times, prepend=-np.inf) > 0)
    if not keep.all():
        reader.notes.append(f"frames '{series.name}': {int((~keep).sum())} onsets without a time of their own dropped")
    shows = (index >= 0) & (index < images.shape[0])
    if not shows.all():
        reader.notes.append(
            f"frames '{series.name}': {int((keep & ~shows).sum())} onsets show none of the {images.shape[0]} images "
            f"(index {int(index[~shows][0])}, for one), as where the screen is blank, and were dropped"
        )
        keep &= shows
    return FrameSeries(images, times[keep], index[keep])


def _bank(reader: OpenFile, source: Any) -> Any:
    """The images behind a series: one stack, or an Images container with one dataset an image."""
    if id(source) not in reader.banks:
        reader.banks[id(source)] = _open_bank(reader, source)
    return reader.banks[id(source)]


def _open_bank(reader: OpenFile, source: Any) -> Any:
    reader.seen.add(id(source))
    if type(source).__name__ == "Images":
        images = _ordered(source)
        if source.order_of_images is None:
            reader.notes.append(
                f"the images of '{source.name}' have no order_of_images: an index counts them in the order of their "
                f"names, {images[0].name if images else ''} to {images[-1].name if images else ''}, numbers as numbers"
            )
        if not images:
            raise RecordingError(f"the images of '{source.name}' are missing")
        datasets = [image.data for image in images]
        return reader.images(datasets)
    if source.external_file is None:
        if len(source.data) == 0:
            raise RecordingError(f"'{source.name}' holds no images")
        return reader.images(source.data)
    parts = [open_images(_external(reader, source.name, entry)) for entry in clean.plain(source.external_file[:])]
    return parts[0] if len(parts) == 1 else JoinedFrames(parts)


def _ordered(source: Any) -> list[Any]:
    """The images of a container, in its order, else in that of their names."""
    if source.order_of_images is not None:
        return list(source.order_of_images.data[:])
    return [source.images[name] for name in sorted(source.images, key=natural)]


def _external(reader: OpenFile, name: str, entry: str) -> Path:
    """Where an external file lies: in the folder of the NWB file or below it, whatever system wrote its path.

    A path that leads elsewhere could name any file of this machine; only its last part is looked for, beside.
    """
    if is_remote(reader.path):
        raise RecordingError(f"its external file {entry} is not read from an address; download both")
    folder = Path(os.path.abspath(reader.path)).parent
    parts = PureWindowsPath(entry)  # which knows both kinds of separators
    inside = Path(os.path.normpath(folder / parts.as_posix()))
    choices = [inside] if inside.is_relative_to(folder) and not parts.drive else []
    found = next((p for p in [*choices, folder / parts.name] if p.is_file()), None)
    if found is None:
        raise RecordingError(f"its external file {entry} is not beside the NWB file; put it there")
    reader.notes.append(f"frames '{name}' are read from {found.relative_to(folder)}")
    return found

"""A recording whose frames are what its tables of presentations say was on the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording.frames import JoinedFrames, of_size
from neuroformer.recording.recording import Recording
from neuroformer.recording.series import FrameSeries
from neuroformer.recording.stimuli.drawn import FIELDS, FLASH, NAMES, DrawnFrames, drawings, numbers_of, too_fine
from neuroformer.recording.stimuli.presentations import (
    BLANK,
    GRAY,
    REFRESH_HZ,
    Presentations,
    Template,
    check_apart,
    describes_images,
    frame_train,
    gray_image,
    images_of,
    repeated,
)
from neuroformer.recording.validation import RecordingError
from neuroformer.recording.video import open_images

_PHASE = FIELDS.index("phase")


def render_frames(
    rec: Recording,
    size: Sequence[int],
    degrees: Sequence[float] = (),
    rate_hz: float = REFRESH_HZ,
    tables: Sequence[str] = (),
    columns: Mapping[str, Any] | None = None,
    images: Mapping[str, str] | None = None,
) -> Recording:
    """The recording with frames of its presentations: gratings, flashes and dots drawn, images looked up, gray between them.

    Frames that the recording has already stay, at the new size; presentations during them are theirs.

    Parameters
    ----------
    size : (height, width) pixels
    degrees : (height, width) of visual angle that the frames span; needed where something other than a flash is drawn
    rate_hz : frames per second
    tables : of intervals whose rows are presentations; empty: all that say what was shown. ``trials`` are one
    columns : our name (:data:`neuroformer.recording.stimuli.drawn.NAMES`, ``start`` and ``stop``), and the name of a column,
        or a number where no column says it
    images : name of a stimulus or of a table, and a file of its images (stack, TIFF or video)

    Raises
    ------
    RecordingError
        No such table or column, two presentations at once, or nothing that can be drawn.
    """
    size, columns = (int(size[0]), int(size[1])), columns or {}
    templates = {name: Template(of_size(open_images(Path(p).expanduser()), size)) for name, p in (images or {}).items()}
    first = dict(zip(templates, np.cumsum([0, *(t.images.shape[0] for t in templates.values())]), strict=False))
    known, notes, parts = None if rec.frames is None else _as_shown(rec.frames), [], []
    found = _tables(rec, tables, columns, templates)
    every = Presentations(*(np.concatenate([t[k] for t in found.values()]) for k in ("start", "stop", "start")))
    check_apart(every, rate_hz, np.repeat([*found], [len(t["start"]) for t in found.values()]))
    alone = sum(map(describes_images, rec.intervals.values())) < 2
    for name, table in found.items():
        free = np.ones(len(table["start"]), bool) if known is None else ~_overlaps(table, known)
        table = {k: v[free] for k, v in table.items()}
        given = {k: v for k, v in columns.items() if not isinstance(v, str) or v in table}
        which, image = images_of(name, table, templates, alone)
        offset = np.array([*first.values(), 0])[which]  # that of no template counts for nothing
        rows = Presentations(
            table["start"], table["stop"], np.where((which < 0) | (image == BLANK), BLANK, image + offset)
        )
        fields, draws = drawings(numbers_of(table, given, len(which)), _gabors(name, table))
        draws &= which < 0
        if (fields[draws, 0] != FLASH).any() and len(degrees) != 2:
            raise RecordingError(
                f"{name} has gratings or dots in degrees of visual angle; give recording.render.degrees, the height and "
                "width of the frames in degrees"
            )
        drift = np.nan_to_num(numbers_of(table, given, len(which))["temporal_frequency"])
        parts += [(rows.rows(~draws), None), _drawn_frames(rows.rows(draws), fields[draws], drift[draws], rate_hz)]
        blank = ~draws & (rows.image == BLANK)
        notes.append(
            f"{name}: {int(draws.sum())} presentations drawn, {int((~draws & ~blank).sum())} of images, "
            f"{int(blank.sum())} blank, {int((~free).sum())} as the recording has them"
        )
    banks = [t.images for t in templates.values()]
    if rec.frames is not None and known is not None:
        there = Presentations(known.start, known.stop, known.image + sum(b.shape[0] for b in banks))
        parts, banks = [*parts, (there, None)], [*banks, of_size(rec.frames.images, size)]
    frames = _on_one_bank(parts, banks, size, degrees, rate_hz, notes)
    return replace(rec, frames=frames, meta={**rec.meta, "notes": [*rec.meta.get("notes", ()), *notes]})


# -- which rows show what -------------------------------------------------------------------------------


def _tables(
    rec: Recording, asked: Sequence[str], given: Mapping[str, Any], templates: Mapping[str, Template]
) -> dict[str, dict[str, np.ndarray]]:
    """The tables of presentations, with the start and stop that ``given`` names.

    Raises
    ------
    RecordingError
        A table or a column that is not there, or no table that says what was shown.
    """
    known = {**rec.intervals, **({"trials": rec.trials} if rec.trials else {})}
    missing = next((name for name in asked if name not in known), None)
    if missing is not None:
        raise RecordingError(
            f"recording '{rec.name}' has no table '{missing}' to render; it has: {', '.join(known) or 'none'}"
        )
    found = {name: dict(known[name]) for name in asked or known if asked or _shows(known[name], given, templates)}
    for key, column in given.items():
        if key not in (*NAMES, "start", "stop") or not isinstance(column, (str, int, float)):
            raise RecordingError(
                f"recording.render.columns has {key}: {column!r}; expected the name of a column, or a number, for start, stop "
                f"or some of {', '.join(NAMES)}"
            )
        if found and isinstance(column, str) and not any(column in table for table in found.values()):
            has = {name: None for table in found.values() for name in table}
            raise RecordingError(
                f"recording.render.columns.{key}: no table has '{column}'; they have: {', '.join(has)}"
            )
    for table in found.values():
        for key in {"start", "stop"} & given.keys():
            if given[key] in table and table[given[key]].dtype.kind in "fiu":
                table[key] = table[given[key]].astype(np.float64)
        keep = np.isfinite(table["start"]) & np.isfinite(table["stop"]) & (table["stop"] > table["start"])
        table |= {k: v[keep] for k, v in table.items()}
    if not any(len(table["start"]) for table in found.values()):
        raise RecordingError(
            f"no table of '{rec.name}' says what was shown ({', '.join(known) or 'there is none'}); expected columns such as "
            f"{', '.join(NAMES)}, or frame with images; give others in recording.render.columns, with the table in "
            "recording.render.tables"
        )
    return found


def _shows(table: Mapping[str, np.ndarray], given: Mapping[str, Any], templates: Mapping[str, Template]) -> bool:
    """Whether a table says what was shown: orientation and spatial frequency, a color, or numbers of images."""
    names = lambda name: [given[name]] if isinstance(given.get(name), str) else NAMES[name]
    says = {name for name in NAMES if any(n in table for n in names(name))}
    grating = {"orientation", "spatial_frequency"}
    drawn = "color" in says or (says & grating and grating <= says | given.keys())
    return bool(drawn) or (bool(templates) and describes_images(table))


def _gabors(name: str, table: Mapping[str, np.ndarray]) -> np.ndarray:
    """(rows,) whether a presentation is called a Gabor."""
    words = next((table[k] for k in ("stimulus_name", "name") if k in table and table[k].dtype.kind == "U"), None)
    texts = np.full(len(table["start"]), name) if words is None else words
    return np.array(["gabor" in str(t).lower() for t in texts], bool)


def _drawn_frames(
    rows: Presentations, fields: np.ndarray, drift: np.ndarray, rate_hz: float
) -> tuple[Presentations, np.ndarray]:
    """Every frame of drawn presentations, and the numbers of each: a grating's phase moves on from frame to frame."""
    row, step, counts = repeated(rows, rate_hz)
    length = (rows.stop - rows.start) / counts
    start = rows.start[row] + step * length[row]
    fields = fields[row]
    fields[:, _PHASE] = np.round(fields[:, _PHASE] + drift[row] * step / rate_hz, 6) % 1.0
    return Presentations(start, start + length[row], np.zeros(len(row), np.int64)), fields


# -- the train of frames --------------------------------------------------------------------------------


def _as_shown(frames: FrameSeries) -> Presentations:
    """Frames that are there as presentations, each until the next one or for one and a half periods."""
    steps = np.diff(frames.times)
    most = 1.5 * float(np.median(steps)) if len(steps) else 1 / REFRESH_HZ
    return Presentations(frames.times, frames.times + np.minimum(np.append(steps, most), most), frames.index)


def _overlaps(table: Mapping[str, np.ndarray], known: Presentations) -> np.ndarray:
    """(rows,) whether a frame of ``known`` begins within each row."""
    first, last = (np.searchsorted(known.start, table[k] - 1e-9) for k in ("start", "stop"))
    return last > first


def _on_one_bank(
    parts: Sequence[tuple[Presentations, np.ndarray | None]],
    banks: list[Any],
    size: tuple[int, int],
    degrees: Sequence[float],
    rate_hz: float,
    notes: list[str],
) -> FrameSeries:
    """Images of ``banks``, each distinct drawing once, and the gray screen, in the order in which they were shown."""
    start = sum(b.shape[0] for b in banks)
    drawn = [fields for _, fields in parts if fields is not None and len(fields)]
    if drawn:
        span = (float(degrees[0]), float(degrees[1])) if len(degrees) == 2 else (1.0, 1.0)  # flashes have no size
        distinct, place = np.unique(np.round(np.concatenate(drawn), 6), axis=0, return_inverse=True)
        canvas = DrawnFrames(distinct, size, span)
        _check_levels(banks)
        if (fine := too_fine(distinct, canvas.pixel)).any():
            notes.append(
                f"{int(fine.sum())} of {len(distinct)} drawn images have less than two pixels a cycle at {size[0]} x "
                f"{size[1]} and fade; the finest has {distinct[fine, 2].max():g} cycles a degree"
            )
        banks = [*banks, canvas]
        each = iter(np.split(place.reshape(-1) + start, np.cumsum([len(d) for d in drawn])[:-1]))
        parts = [
            (p if fields is None or not len(fields) else Presentations(p.start, p.stop, next(each)), None)
            for p, fields in parts
        ]
    every = Presentations(*(np.concatenate([getattr(p, k) for p, _ in parts]) for k in ("start", "stop", "image")))
    gray = gray_image(banks[0]) if banks else np.full((1, *size), round(GRAY), np.uint8)
    bank = JoinedFrames([*banks, gray])
    return frame_train(_with_gaps(every, rate_hz), bank, bank.shape[0] - 1, rate_hz)


def _with_gaps(shown: Presentations, rate_hz: float) -> Presentations:
    """With the gray screen wherever nothing is shown for half a frame or more between two, and one after the last."""
    shown = shown.rows(np.argsort(shown.start, kind="stable"))
    stop = np.maximum.accumulate(shown.stop)[:-1]
    gap = shown.start[1:] - stop >= 0.5 / rate_hz
    last = shown.stop.max()
    start = np.concatenate([shown.start, stop[gap], [last]])
    stop = np.concatenate([shown.stop, shown.start[1:][gap], [last + 1 / rate_hz]])
    return Presentations(start, stop, np.concatenate([shown.image, np.full(int(gap.sum()) + 1, BLANK)]))


def _check_levels(banks: Sequence[Any]) -> None:
    """Refuse to mix drawings of 0 to 255 with images of another range."""
    for bank in banks:
        some = np.asarray(bank[np.arange(min(20, bank.shape[0]))])
        if np.dtype(bank.dtype) != np.uint8 and (some.min() < 0 or some.max() > 255 or some.max() <= 1):
            raise RecordingError(
                f"the recording's images run from {some.min():.3g} to {some.max():.3g}, and drawings from 0 to 255; store the "
                "images as gray levels from 0 to 255"
            )

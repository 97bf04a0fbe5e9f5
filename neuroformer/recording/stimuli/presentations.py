"""Tables of presentations: which image of which template each row shows, and rows as a train of frames."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroformer.recording.frames import JoinedFrames
from neuroformer.recording.series import FrameSeries
from neuroformer.recording.validation import RecordingError

REFRESH_HZ = 30.0  # at which an image that stays on is shown anew, where nothing else is asked for
BLANK = -1  # in place of an image's number: the gray screen, as in Allen's tables
GRAY = 127.5  # its level on a screen of 0 to 255
_FRAME = ("frame", "frame_number", "image_index", "template_index", "stimulus_index")
_IMAGE = ("image_name",)
_STIMULUS = ("stimulus_name", "stimulus_template", "stimulus_template_name", "name", "stimulus")
_SAYS_NOTHING = {"presentation", "presentations", "template", "templates", "stimulus", "stimuli", "table", "intervals"}


@dataclass(frozen=True)
class Template:
    """Images that presentations show: (images, height, width), and the names of single ones where they have any."""

    images: Any
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Presentations:
    """Presentations: seconds from ``start`` to ``stop`` (rows,), and the ``image`` (rows,) of a bank; BLANK is gray."""

    start: np.ndarray
    stop: np.ndarray
    image: np.ndarray

    def rows(self, keep: np.ndarray) -> Presentations:
        return Presentations(self.start[keep], self.stop[keep], self.image[keep])


def describes_images(columns: Mapping[str, np.ndarray]) -> bool:
    """Whether a table of intervals has a column of numbers or names of images."""
    return any(k in columns for k in (*_FRAME, *_IMAGE))


def images_of(
    table: str, columns: Mapping[str, np.ndarray], templates: Mapping[str, Template], alone: bool
) -> tuple[np.ndarray, np.ndarray]:
    """For each row of a table the template that it shows, by its place (-1: none), and the image in it (or BLANK).

    The template is the one that the row's ``stimulus_name`` names, else the one of the table's own name, else, where no other
    table shows images (``alone``), the only one.
    Words such as ``presentations`` and ``template`` make no difference. The image is that of the row's ``frame``, or of its
    ``image_name``; an image that the template does not have (``omitted``) is blank.
    """
    count, keys = len(columns["start"]), {_key(name): i for i, name in enumerate(templates)}
    which = np.full(count, keys.get(_key(table), 0 if len(templates) == 1 and alone else -1))
    named = next((columns[k] for k in _STIMULUS if k in columns and columns[k].dtype.kind == "U"), None)
    if named is not None:
        kinds, place = np.unique(named, return_inverse=True)
        found = np.array([keys.get(_key(str(kind)), -1) for kind in kinds], dtype=np.int64)[place]
        # a name that no template has is another stimulus, unless the names are no names of templates at all
        which = found if (found >= 0).any() else which
    image = np.full(count, BLANK)
    frame = next((columns[k] for k in _FRAME if k in columns and columns[k].dtype.kind in "fiu"), None)
    names = next((columns[k] for k in _IMAGE if k in columns and columns[k].dtype.kind == "U"), None)
    if frame is not None:
        there = np.isfinite(frame)
        image[there] = frame[there].astype(np.int64)
        which = np.where(there, which, -1)
    for i, template in enumerate(templates.values()):
        mine = which == i
        if names is not None and template.names:
            at = {name: n for n, name in enumerate(template.names)}
            image[mine] = [at.get(str(name), BLANK) for name in names[mine]]
        image[mine & ((image < 0) | (image >= template.images.shape[0]))] = BLANK
    if frame is None and (names is None or not any(t.names for t in templates.values())):
        which[:] = -1
    return which, image


def _key(name: str) -> tuple[str, ...]:
    return tuple(w for w in re.split(r"[\W_]+", name.lower()) if w and w not in _SAYS_NOTHING)


def from_templates(
    tables: Mapping[str, Mapping[str, np.ndarray]], templates: Mapping[str, Template]
) -> dict[str, FrameSeries]:
    """The frames of each template that rows of tables show; a blank row is a gray image at the end of the bank.

    Raises
    ------
    RecordingError
        Rows of one template at the same time.
    """
    tables = {name: t for name, t in tables.items() if describes_images(t)}
    found = [(t, *images_of(name, t, templates, len(tables) == 1)) for name, t in tables.items()]
    out = {}
    for i, (name, template) in enumerate(templates.items()):
        rows = [np.stack([t["start"], t["stop"], image], 1)[which == i] for t, which, image in found]
        rows = np.unique(np.concatenate(rows), axis=0) if rows else np.zeros((0, 3))  # one table may repeat another
        if len(rows):
            shown = Presentations(rows[:, 0], rows[:, 1], rows[:, 2].astype(np.int64))
            blank = (shown.image == BLANK).any()
            bank = JoinedFrames([template.images, gray_image(template.images)]) if blank else template.images
            out[name] = frame_train(shown, bank, bank.shape[0] - 1, refresh_hz(shown))
    return out


def refresh_hz(shown: Presentations) -> float:
    """The rate of a movie whose images have rows of their own, else REFRESH_HZ."""
    lasts = float(np.median(shown.stop - shown.start))
    return 1 / lasts if lasts < 3 / REFRESH_HZ else REFRESH_HZ


def frame_train(shown: Presentations, bank: Any, blank: int, rate_hz: float) -> FrameSeries:
    """Frames of ``bank``, in which ``blank`` is the gray image: each row's image, shown anew ``rate_hz`` times per second.

    Raises
    ------
    RecordingError
        Rows that overlap by more than half a frame.
    """
    order = np.argsort(shown.start, kind="stable")
    shown = shown.rows(order)
    check_apart(shown, rate_hz)
    row, step, counts = repeated(shown, rate_hz)
    times = shown.start[row] + step * ((shown.stop - shown.start) / counts)[row]
    index = np.where(shown.image == BLANK, blank, shown.image)[row]
    keep = np.diff(times, prepend=-np.inf) > 0
    return FrameSeries(bank, times[keep], index[keep])


def check_apart(shown: Presentations, rate_hz: float, names: np.ndarray | None = None) -> None:
    """Refuse presentations that overlap by more than half a frame.

    Parameters
    ----------
    names : (rows,) of the tables that they are of

    Raises
    ------
    RecordingError
    """
    order = np.argsort(shown.start, kind="stable")
    start, stop = shown.start[order], shown.stop[order]
    late = stop[:-1] - start[1:]
    if (late > 0.5 / rate_hz).any():
        i = int(np.argmax(late))
        of = ["", ""] if names is None else [f" ({names[order[k]]})" for k in (i, i + 1)]
        raise RecordingError(
            f"two presentations are shown at once, from {start[i]:g} to {stop[i]:g} s{of[0]} and from {start[i + 1]:g} to "
            f"{stop[i + 1]:g} s{of[1]}; name the tables to show in recording.render.tables"
        )


def repeated(shown: Presentations, rate_hz: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The row and the step in it of each frame (frames,), and how many frames each row has (rows,)."""
    counts = np.maximum(1, np.rint((shown.stop - shown.start) * rate_hz).astype(np.int64))
    row = np.repeat(np.arange(len(counts)), counts)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts), counts


def gray_image(bank: Any) -> np.ndarray:
    """(1, height, width) the gray screen beside a bank: the middle of 0 to 255, or of other numbers the mean."""
    dtype = np.dtype(bank.dtype)
    level = round(GRAY) if dtype == np.uint8 else np.asarray(bank[np.arange(min(50, bank.shape[0]))]).mean()
    return np.full((1, *bank.shape[1:]), level, dtype)

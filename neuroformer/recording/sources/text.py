"""Tables in text files: comma-separated, tab-separated, or one number a line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording.validation import RecordingError

_ROWS = 100_000  # that are converted at a time
_BOOLEANS = {"true": True, "false": False}


def read_text(path: str | Path, header_rows: int = 1) -> dict[str, np.ndarray]:
    """Columns of a text file: whole numbers, numbers (NaN where a field is empty), true and false, or words.

    The delimiter is the most frequent of comma, tab and semicolon in the first line. Names of several header rows are
    joined by ``_``. A file without a header (its first line is all numbers) has columns ``0``, ``1``, ...

    Raises
    ------
    RecordingError
        No text, or rows of different length.
    """
    path = Path(path)
    try:
        return _columns(path, header_rows, set())
    except (OSError, UnicodeDecodeError, csv.Error, MemoryError) as e:
        raise RecordingError(f"{path} is not a readable table of text: {e}") from None


def first_rows(path: Path, count: int) -> list[list[str]]:
    """The fields of the first rows.

    Raises
    ------
    RecordingError
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as f:
            return list(islice(_rows(f), count))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise RecordingError(f"{path} is not a readable table of text: {e}") from None


def _columns(path: Path, header_rows: int, as_words: set[int]) -> dict[str, np.ndarray]:
    with open(path, newline="", encoding="utf-8-sig") as f:
        rows = _rows(f)
        head = list(islice(rows, header_rows))
        if not head:
            raise RecordingError(f"{path} is empty; expected a table")
        if header_rows == 1 and all(_is_number(field) for field in head[0]):
            names, first = [str(i) for i in range(len(head[0]))], head
        else:
            names, first = ["_".join(dict.fromkeys(parts)) for parts in zip(*head, strict=False)], []
        if len(set(names)) < len(names):
            again = next(n for n in names if names.count(n) > 1)
            raise RecordingError(f"{path} has two columns called '{again}'; rename one")
        pieces: list[list[np.ndarray]] = [[] for _ in names]
        while part := first + list(islice(rows, _ROWS - len(first))):
            first = []
            wrong = next((row for row in part if len(row) != len(names)), None)
            if wrong is not None:
                raise RecordingError(
                    f"{path} has a row of {len(wrong)} fields ({', '.join(wrong)[:60]}); expected {len(names)}: "
                    f"{', '.join(names)[:200]}"
                )
            for i, fields in enumerate(zip(*part, strict=True)):
                pieces[i].append(np.array(fields, np.str_) if i in as_words else _converted(fields))
    kinds = [{"u" if piece.dtype.kind in "if" else piece.dtype.kind for piece in column} for column in pieces]
    mixed = {i for i, kind in enumerate(kinds) if len(kind) > 1}
    if mixed:  # numbers first and words later: read again, as words from the start
        return _columns(path, header_rows, as_words | mixed)
    empty = np.zeros(0)
    return {n: np.concatenate(column) if column else empty for n, column in zip(names, pieces, strict=True)}


def _rows(f: Any) -> Iterator[list[str]]:
    """Rows of fields, without surrounding blanks; empty lines are none."""
    line = f.readline()
    f.seek(0)
    delimiter = max(",\t;", key=line.count)
    for row in csv.reader(f, delimiter=delimiter):
        if any(row):
            yield [field.strip() for field in row]


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return "_" not in field  # which Python reads as nothing: 10_2 is a name


def _converted(fields: tuple[str, ...]) -> np.ndarray:
    named = any("_" in field for field in fields)
    for convert in () if named else (_whole, _numbers, _booleans):
        try:
            return convert(fields)
        except (ValueError, KeyError, OverflowError):
            continue
    return np.array(fields, np.str_)


def _whole(fields: tuple[str, ...]) -> np.ndarray:
    return np.array([int(f) for f in fields], dtype=np.int64)


def _numbers(fields: tuple[str, ...]) -> np.ndarray:
    values = np.array([float(f) if f else np.nan for f in fields])
    if not any(fields):
        raise ValueError("nothing is in it")
    return values


def _booleans(fields: tuple[str, ...]) -> np.ndarray:
    return np.array([_BOOLEANS[f.lower()] for f in fields])

"""Where a public recording comes from, and what others measured on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A public recording.

    Attributes
    ----------
    title : what it is
    where : where to get it
    licence : of the data; or that none is stated
    citation : the paper that it belongs to
    split : what is held out
    published : numbers of others, each with its source and how its split differs
    """

    title: str
    where: str
    licence: str
    citation: str
    split: str
    published: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [self.title, f"get it: {self.where}", f"licence: {self.licence}", f"cite: {self.citation}"]
        lines += [f"held out: {self.split}"] + [f"published: {p}" for p in self.published]
        return "\n".join(lines)


def found_folder(data: Path, *names: str) -> Path:
    """The folder of one of these names that lies in ``data``, at any depth, or is it.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    for name in names:
        found = [p for p in (data, *sorted(data.rglob(name))) if p.name == name and p.is_dir()]
        if found:
            return found[0]
    raise FileNotFoundError(f"{data} holds no folder {' or '.join(names)}")

"""Where a public recording comes from, and what others measured on it."""

from __future__ import annotations

from dataclasses import dataclass


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

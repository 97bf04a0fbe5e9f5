"""What errors, warnings and findings mean: a short code for each, its cause and its cure.

An error's code follows from the module that raised it (:func:`code_of`), so that no call site names one; a finding of the
audit is its own code. ``neuroformer explain CODE`` prints an entry, and ``docs/messages.md`` is made from all of them.
"""

from __future__ import annotations

import re

from neuroformer.messages.errors import ERRORS, WARNINGS, Entry
from neuroformer.messages.findings import FINDINGS

__all__ = ["ENTRIES", "ERRORS", "FINDINGS", "WARNINGS", "Entry", "code_for", "code_of", "page"]

ENTRIES = {entry.code: entry for entry in (*ERRORS, *WARNINGS, *FINDINGS)}


def code_of(error: BaseException) -> str:
    """The code of an error that was raised in this package; empty for others.

    >>> try: neuroformer.open_recording("nothing.nwb")
    ... except ValueError as e: print(code_of(e))
    open
    """
    raised, trace = "", error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        raised = name if name.split(".")[0] == "neuroformer" else raised
        trace = trace.tb_next
    return code_for(raised, str(error)) if raised else ""


def code_for(module: str, text: str = "") -> str:
    """The code of what a module says; empty where there is none."""
    for entry in (*ERRORS, *WARNINGS):
        if entry.pattern and re.search(entry.pattern, text):
            return entry.code
    known = [(len(m), e.code) for e in ERRORS for m in e.modules if f"{module}.".startswith(f"{m}.")]
    return max(known, default=(0, ""))[1]


def page() -> str:
    """``docs/messages.md``."""
    parts = [_HEAD]
    for title, entries in (("Errors", ERRORS), ("Warnings", WARNINGS), ("Findings of the audit", FINDINGS)):
        parts.append(f"## {title}\n")
        for entry in sorted(entries, key=lambda e: e.code):
            parts.append(f"### `{entry.code}`\n\n*{entry.about}*\n\n{entry.cause}\n\n**What to do.** {entry.cure}\n")
    return "\n".join(parts)


_HEAD = """# Messages, and what to do

Every error and warning says what was got, what was expected and what to do. Beneath it stands a code, which is explained here and by
`neuroformer explain CODE`; findings of the [audit](audit.md) are their own codes. In Python, `neuroformer.messages.code_of(error)` is the code of an error.
This page is made by `make reference`.
"""

"""``neuroformer explain``."""

from __future__ import annotations

import difflib


def add(command) -> None:
    p = command("explain", run, "What an error, a warning or a finding of the audit means, and what to do.")
    p.add_argument("code", nargs="?", help="as it stands beneath a message; without it, all of them are listed")


def run(args) -> None:
    from neuroformer.messages import ENTRIES

    if args.code is None:
        width = max(map(len, ENTRIES))
        print("\n".join(f"{code:<{width}}  {entry.about}" for code, entry in ENTRIES.items()))
        return
    if args.code not in ENTRIES:
        near = difflib.get_close_matches(args.code, ENTRIES, n=1, cutoff=0.4)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ValueError(f"there is no code '{args.code}'{hint}; neuroformer explain lists them")
    entry = ENTRIES[args.code]
    print(f"{entry.code}: {entry.about}\n\n{entry.cause}\n\nWhat to do: {entry.cure}")

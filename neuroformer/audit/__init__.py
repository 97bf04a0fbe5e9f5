"""Checks of a recording and its split before anything is trained on it.

:func:`audit` says what is wrong with a recording and what its split would leak. Arrays in, findings out; the
command line prints them, the report draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from neuroformer.audit.clocks import clock_findings, time_findings
from neuroformer.audit.conditions import condition_findings
from neuroformer.audit.copies import session_findings
from neuroformer.audit.findings import SEVERITIES, Audit, Finding, Severity, ordered
from neuroformer.audit.inputs import input_findings
from neuroformer.audit.spikes import rate_series, spike_facts, spike_findings
from neuroformer.audit.split import SplitAudit, own_split, split_of_intervals
from neuroformer.audit.stimuli import stimulus_findings
from neuroformer.audit.targets import target_findings
from neuroformer.audit.windows import behavior_findings, grid_finding, token_findings, tokens_per_window
from neuroformer.config import Config
from neuroformer.data.automatic import settled
from neuroformer.data.prepared import Prepared, configured
from neuroformer.data.splits import PARTS, Split, make_split
from neuroformer.recording import Recording

__all__ = ["SEVERITIES", "Audit", "Finding", "Severity", "audit", "audit_together", "own_split", "time_findings"]


def audit(
    rec: Recording | Prepared,
    config: Config | None = None,
    split: Split | None = None,
    *,
    parts: Mapping[str, Any] | None = None,
) -> Audit:
    """Look at a recording, and at how it is split.

    Parameters
    ----------
    rec : a recording; or one that was prepared, which has its configuration, its split and what was fitted to it
    config : the window, inputs, targets, claim and split to check; without it, the defaults (and frames only if
        there are some), and the split that is stored with the recording, if one is
    split : of :func:`neuroformer.data.splits.make_split`, in place of the configuration's; its windows stay within
        their blocks
    parts : instead, somebody else's split, by part ("train", "valid", "test") (N, 2) seconds; every window in
        an interval counts as that part's, with the past before it. Empty: no split is looked at

    Returns
    -------
    Audit

    Raises
    ------
    ConfigError
        Invalid parts, a split that the recording does not allow, a variable that it lacks, or one of another kind or
        period than declared.
    """
    fitted = None
    if isinstance(rec, Prepared):
        rec, config, split, fitted = rec.rec, rec.config, rec.split, rec.normalization
    else:
        if config is None:
            config = Config()
            parts = own_split(rec) if parts is None and split is None else parts
        elif split is None and parts is None:
            split = make_split(rec, config)
        rec, config = configured(rec, config), settled(config, [rec])
    facts: dict[str, Any] = {"recording": spike_facts(rec)}
    findings: list[Finding | None] = [reader_notes(rec)]
    findings += [*spike_findings(rec, config.window.dt), *clock_findings(rec)]
    findings += behavior_findings(rec, config, facts)
    times, rates = rate_series(rec)
    series: dict[str, np.ndarray] = {"rate_times": times, "rates": rates}
    series["tokens"] = tokens_per_window(rec, config, rec.domain if split is None else split.segments)
    findings.append(grid_finding(rec, config))
    findings += token_findings(series["tokens"], config, facts)
    if split is not None or parts:
        whole = split if split is not None else split_of_intervals(parts or {}, config)
        looked = SplitAudit(rec, config, whole, isolated=split is not None)
        findings += [*looked.findings(), *condition_findings(rec, config, whole)]
        findings += target_findings(rec, config, whole, fitted)
        findings += input_findings(rec, config, whole)
        facts |= looked.facts
        findings += stimulus_findings(rec, config, whole, facts)
        series |= {f"split_{part}": whole.intervals(part) for part in PARTS}
    return Audit(rec.name, facts, ordered(findings), series)


def audit_together(audits: Sequence[Audit], recs: Sequence[Recording]) -> list[Audit]:
    """The audits of recordings that share a model, each with what it has in common with those before it."""
    found = session_findings(recs)
    return [replace(a, findings=ordered([*a.findings, f])) for a, f in zip(audits, found, strict=True)]


def reader_notes(rec: Recording) -> Finding | None:
    """What the reader of the file left out, changed or assumed, so that bundles and reports say it too."""
    notes = [str(note) for note in rec.meta.get("notes", ())]
    if not notes:
        return None
    return Finding("reader_notes", "note", "; ".join(notes), values={"notes": notes})

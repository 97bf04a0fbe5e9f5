"""Checks of a recording and its split before anything is trained on it.

:func:`audit` says what is wrong with a recording and what its split would leak. Arrays in, findings out; the
command line prints them, the report draws them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from neuroformer.audit.clocks import clock_findings, time_findings
from neuroformer.audit.findings import SEVERITIES, Audit, Finding, Severity, ordered
from neuroformer.audit.spikes import rate_series, spike_facts, spike_findings
from neuroformer.audit.split import SplitAudit, own_split, split_of_intervals
from neuroformer.audit.stimuli import stimulus_findings
from neuroformer.audit.targets import target_findings
from neuroformer.audit.windows import behavior_findings, token_findings, tokens_per_window
from neuroformer.config import Config
from neuroformer.data.configured import configured
from neuroformer.data.splits import PARTS, Split
from neuroformer.recording import Recording

__all__ = ["SEVERITIES", "Audit", "Finding", "Severity", "audit", "own_split", "time_findings"]


def audit(
    rec: Recording,
    config: Config | None = None,
    split: Split | None = None,
    *,
    parts: Mapping[str, Any] | None = None,
) -> Audit:
    """Look at a recording, and at how it is split.

    Parameters
    ----------
    rec : Recording
    config : the window, inputs, targets and claim to check; without it, the defaults (and frames only if there
    are some)
    split : of :func:`neuroformer.data.splits.make_split`; its windows stay within their blocks
    parts : instead, somebody else's split, by part ("train", "valid", "test") (N, 2) seconds; every window in
        an interval counts as that part's, with the past before it

    Returns
    -------
    Audit
        Without ``split`` and ``parts``: of the split stored with the recording, or of the recording alone.

    Raises
    ------
    ConfigError
        Invalid parts, a variable that the recording lacks, or one of another kind or period than declared.
    """
    config = config or default_config(rec)
    rec = configured(rec, config)
    parts = parts or (own_split(rec) if split is None else None)
    facts: dict[str, Any] = {"recording": spike_facts(rec)}
    findings: list[Finding | None] = [reader_notes(rec)]
    findings += [*spike_findings(rec, config.window.dt), *clock_findings(rec)]
    findings += behavior_findings(rec, config, facts)
    times, rates = rate_series(rec)
    series: dict[str, np.ndarray] = {"rate_times": times, "rates": rates}
    series["tokens"] = tokens_per_window(rec, config, rec.domain if split is None else split.segments)
    findings += token_findings(series["tokens"], config, facts)
    if split is not None or parts:
        whole = split if split is not None else split_of_intervals(parts or {}, config)
        looked = SplitAudit(rec, config, whole, isolated=split is not None)
        findings += [*looked.findings(), *target_findings(rec, config, whole)]
        facts |= looked.facts
        findings += stimulus_findings(rec, config, whole, facts)
        series |= {f"split_{part}": whole.intervals(part) for part in PARTS}
    return Audit(rec.name, facts, ordered(findings), series)


def reader_notes(rec: Recording) -> Finding | None:
    """What the reader of the file left out, changed or assumed, so that bundles and reports say it too."""
    notes = [str(note) for note in rec.meta.get("notes", ())]
    if not notes:
        return None
    return Finding("reader_notes", "note", "; ".join(notes), values={"notes": notes})


def default_config(rec: Recording) -> Config:
    """The defaults, without frames if the recording has none."""
    config = Config()
    return config if rec.frames is not None else replace(config, window=replace(config.window, frames=0.0))

"""The summary panel: each score with its baselines, controls and ceiling, from the flat summary.json."""

from __future__ import annotations

from typing import Any

KINDS = {"model": "model", "baseline": "other", "control": "control", "ceiling": "ceiling"}


def summary(values: dict[str, Any], targets: list[str]) -> dict[str, Any]:
    """``rows`` of scores, the ``cards`` on top, and ``all`` values.

    Parameters
    ----------
    values : the flat summary.json
    targets : names of the decoded variables
    """
    v: dict[str, float] = {k: x for k, x in values.items() if isinstance(x, (int, float)) and not isinstance(x, bool)}
    rows = [
        _row(
            "Likelihood of held-out spikes, bits/spike above each unit's mean rate",
            v,
            "bits_per_spike",
            [
                ("baseline", "GLM", "bits_per_spike_glm"),
                ("baseline", "PSTH Poisson", "bits_per_spike_psth_poisson"),
                ("ceiling", "generator", "bits_per_spike_oracle"),
            ],
        ),
        *(_row(f"Decoding of {t}, R²", v, f"decode_{t}_r2", _decoders(v, t, values, "r2")) for t in targets),
        *(
            _row(
                f"Decoding of {t}, balanced accuracy",
                v,
                f"decode_{t}_accuracy",
                [
                    *_decoders(v, t, values, "accuracy"),
                    ("control", "chance", f"decode_{t}_chance"),
                ],
            )
            for t in targets
        ),
        *(
            _row(f"Decoding of {t}, median error in its own unit", v, key, _decoders(v, t, values, "median_error"))
            for t in targets
            for key in [f"decode_{t}_median_error"]
        ),
        _row(
            "Simulated against held-out PSTHs, median r over units",
            v,
            "psth_r",
            [("ceiling", "data against data", "psth_r_ceiling")],
        ),
        _row("Simulated over recorded firing rate", v, "simulated_rate_ratio", []),
    ]
    if rows[-1]:
        rows[-1]["points"].append({"kind": "ceiling", "name": "recorded", "value": 1.0})
    return {"rows": [r for r in rows if r], "cards": _cards(v, targets, values), "all": values}


def _row(name: str, v: dict[str, float], key: str, others: list[tuple[str, str, str]]) -> dict[str, Any] | None:
    if key not in v:
        return None
    points = [_point("model", "model", v, key)]
    points += [_point(kind, label, v, k) for kind, label, k in others if k in v]
    return {"name": name, "points": points}


def _point(kind: str, label: str, v: dict[str, float], key: str) -> dict[str, Any]:
    point = {"kind": KINDS[kind], "name": label, "value": v[key]}
    if f"{key}_low" in v and f"{key}_high" in v:
        point |= {"low": v[f"{key}_low"], "high": v[f"{key}_high"]}
    return point


def _decoders(v: dict[str, float], target: str, values: dict[str, Any], what: str) -> list[tuple[str, str, str]]:
    """Every other decoder with a score in the summary; the control under its own name."""
    start = f"decode_{target}_{what}_"
    names = [k.removeprefix(start) for k in v if k.startswith(start) and "_difference" not in k]
    others = [n for n in names if n not in ("low", "high") and not n.endswith(("_low", "_high"))]
    own = lambda n: n == "ensemble" or n.endswith("_on_states")  # they read the network
    kind = lambda n: "control" if n.startswith("control") else "model" if own(n) else "baseline"
    control = values.get(f"decode_{target}_control_name", "")
    said = lambda n: (f"control, {control}" if n == "control" and control else n).replace("_", " ")
    return [(kind(n), said(n), start + n) for n in others]


def _cards(v: dict[str, float], targets: list[str], values: dict[str, Any]) -> list[dict[str, Any]]:
    best = {t: str(values.get(f"decode_{t}_best_baseline", "ridge")) for t in targets}
    wanted = [("bits/spike", "bits_per_spike", "bits_per_spike_glm", "GLM")]
    for said, what in (("R²", "r2"), ("balanced accuracy", "accuracy")):
        wanted += [
            (f"{said} of {t}", f"decode_{t}_{what}", f"decode_{t}_{what}_{best[t]}", best[t].replace("_", " "))
            for t in targets[:2]
        ]
    wanted += [
        ("PSTH r", "psth_r", "psth_r_ceiling", "ceiling"),
        ("rate, simulated / recorded", "simulated_rate_ratio", "", ""),
    ]
    return [
        {
            "name": name,
            "value": v[key],
            "note": f"{label} {v[other]:.3f}" if other in v else "no baseline here" if other else "closed loop",
        }
        for name, key, other, label in wanted
        if key in v
    ]

"""The demo under several splits, and the names of what the audit finds."""

from functools import cache

from neuroformer.audit import audit
from neuroformer.config import from_dict
from neuroformer.data.splits import make_split
from neuroformer.recording import Recording, open_recording

DEMO = {
    "window": {"past": 0.5, "frames": 0.15},
    "inputs": [{"name": "pupil"}],
    "targets": [{"name": "speed"}, {"name": "gaze"}],
    "split": {"by": "trials", "claim": "repeats"},
}


@cache
def demo() -> Recording:
    return open_recording("synthetic:demo", num_trials=15, trial_s=12.0, num_units=24)


def demo_config(**split):
    return from_dict(DEMO | {"split": DEMO["split"] | split})


def of_config(rec, config):
    return audit(rec, config, make_split(rec, config))


def names(found, *severities):
    return {f.name for f in found.findings if f.severity in (severities or ("leak", "warning"))}

"""Training makes an audit of whatever it is given, so an audit of any recording must end in findings."""

import contextlib
import json
import warnings

import numpy as np
from any_recording import random_recording
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuroformer.audit import audit
from neuroformer.config import ConfigError, from_dict
from neuroformer.data.splits import make_split


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32 - 1),
    by=st.sampled_from(["blocks", "trials"]),
    claim=st.sampled_from(["time", "repeats", "stimuli"]),
)
def test_any_recording_can_be_audited(seed, by, claim):
    rec = random_recording(seed)
    config = from_dict(
        {
            "window": {"dt": 0.05, "current": 0.1, "past": 0.0, "frames": 0.1 if rec.frames is not None else 0.0},
            "targets": [{"name": name} for name in list(rec.behavior)[:2]],
            "decode": {"lags": [0.05]},
            "split": {"by": by, "block": 0.3, "claim": claim, "pattern": ["train", "valid", "test"]},
        }
    )
    edges = np.sort(np.random.default_rng(seed).uniform(-5, 20, 24)).reshape(-1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # a mean of nothing is no measure
        looks = [audit(rec), audit(rec, config, parts={"train": edges[::2], "test": edges[1::2]})]
        with contextlib.suppress(ConfigError):  # too short to be split
            looks.append(audit(rec, config, make_split(rec, config)))
    for found in looks:
        assert str(found) and json.loads(json.dumps(found.to_dict(), allow_nan=False))["recording"] == rec.name
        assert all(f.measured and f.severity in ("leak", "warning", "note") for f in found.findings)

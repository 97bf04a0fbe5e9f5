"""The benchmark of long recordings: what it writes is what it says, and its verdict follows the figures."""

import numpy as np

from benchmarks.science import long
from neuroformer.recording import open_recording


def test_the_recording_is_of_its_size(tmp_path):
    size = long.Size(units=4, hours=0.1, rate_hz=5.0)
    long.write(size, tmp_path / "a.npz")
    rec = open_recording(tmp_path / "a.npz")
    assert rec.num_units == 4 and rec.duration == 360.0 and "speed" in rec.behavior
    assert 0.2 < rec.rates().mean() / 5.0 < 5.0
    own, copied = (rec.spike_times[rec.spike_units == u] for u in (0, 1))
    behind = copied[np.searchsorted(copied, own).clip(0, len(copied) - 1)] - own
    assert ((behind > 0) & (behind < 0.03)).mean() > 0.15  # every second unit follows the one before it


def test_the_verdict_follows_memory_and_time(monkeypatch):
    good = {"code": 0, "seconds": 9.0, "peak_gb": 1.5, "train_seconds": 5.0, "glm_seconds": 4.0}
    good |= {"bits_per_spike": 0.2, "bits_per_spike_glm": 0.1, "train_steps": 9, "test_spikes": 99}
    for change, checked in (({}, True), ({"peak_gb": 2.1}, False), ({"glm_seconds": 6.0}, False), ({"code": 1}, False)):
        monkeypatch.setattr(long, "_measure", lambda *a, r=good | change: r)
        result = long.run(["day", "hour"], [])
        assert result["checked"] is checked and "20 units, 24 h" in long.table(result)

"""The benchmark of leaks: what it makes is what it says, on one recording of a few kinds."""

from benchmarks.science import leaks


def test_a_planted_leak_is_counted_and_a_clean_recording_is_not(monkeypatch):
    speed = leaks.PLANTED["input: a speed smoothed both ways"][1]
    monkeypatch.setattr(leaks, "PLANTED", {k: leaks.PLANTED[k] for k in ("units copied, 2 ms of jitter",)})
    monkeypatch.setattr(leaks, "CLEAN", {k: leaks.CLEAN[k] for k in ("sharing a drift",)})
    found = leaks.run(1)
    assert found["checked"] and found["planted"]["units copied, 2 ms of jitter"]["named"] == 1
    monkeypatch.setattr(leaks, "CLEAN", {"not clean": speed})
    found = leaks.run(1)
    assert not found["checked"] and found["clean"] == {"not clean": 1} and "not clean" in leaks.table(found)

"""The connectivity benchmark: every map in one table, summarised alike."""

from pathlib import Path

from benchmarks.science import connectivity

HUBS = Path(__file__).parents[2] / "configs" / "hubs.yaml"
SMALL = [
    "recording.options={num_units: 40, num_hubs: 2, targets_per_hub: 10, num_stretches: 10, stretch_s: 6.0}",
    "split.block=6",
    "train.steps=4",
    "train.batch_size=64",
    "train.evaluate_every=4",
    "train.accelerator=cpu",
    "model.width=16",
]


def test_every_reading_is_scored_over_seeds():
    result = connectivity.run(HUBS, 2, SMALL, windows=64)
    assert set(connectivity.PAIRWISE) | {"knock-out", "gradient x input"} < set(result["maps"])
    assert any(name.startswith("attention to past") for name in result["maps"])
    for name, s in result["maps"].items():
        assert 0 <= s["auroc"][0] <= 1 and 0 <= s["r2"][0] <= 1, name
    found = result["maps"]
    assert found["GLM coupling filter"]["auroc"][0] > 0.7  # 54 s of strong coupling are enough for it
    primary = found["knock-out"]["r2"][0] - found["transfer entropy"]["r2"][0]
    assert abs(result["primary_minus"]["transfer entropy"][0] - primary) < 1e-12
    text = connectivity.table(result)
    assert "knock-out" in text and "primary" in text and "2 seeds" in text

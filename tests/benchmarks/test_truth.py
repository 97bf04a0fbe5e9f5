"""The benchmarks with known truth, small: the one input of each neuron, and chance beside maps of independent units."""

from pathlib import Path

import pytest

from benchmarks.science import inputs, nulls
from neuroformer.config import ConfigError

CONFIG = Path(__file__).parents[2] / "configs" / "inputs.yaml"


def test_a_hundred_inputs_find_their_neurons(tmp_path):
    small = [
        "recording.options={num_units: 100, duration_s: 600.0}",
        "train.steps=150",
        "train.accelerator=cpu",
        "train.evaluate_every=150",
    ]
    result = inputs.run(CONFIG, small, windows=64, folder=tmp_path)
    assert result["maps"][result["best"]] >= 0.97 and result["units"] == 100
    assert set(result["maps"]) >= {"frame sensitivity", "occlusion", "attention to frames"}
    assert "100 units" in inputs.table(result)
    again = inputs.run(CONFIG, small, windows=8, folder=tmp_path)  # read, not trained again
    assert again["bits_per_spike"] == result["bits_per_spike"]
    with pytest.raises(ConfigError, match="another configuration"):
        inputs.run(CONFIG, [*small, "seed=1"], folder=tmp_path)


def test_chance_is_counted_and_kept(tmp_path):
    first = nulls.run(2, tmp_path, num_units=8, seconds=120.0, steps=6)
    assert len(list(tmp_path.glob("*.json"))) == 4
    assert nulls.run(2, tmp_path, num_units=8, seconds=120.0, steps=6) == first  # read, not trained again
    found = first["maps"]["shared drift"]["knock-out"]
    assert 0 <= found["share"] <= 0.3 and 0 <= found["any"] <= 2
    assert f"{found['any']} of 2" in nulls.table(first)

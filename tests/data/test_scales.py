"""What a bundle knows of the training data goes to JSON and back, and older bundles read the same."""

import json
from pathlib import Path

import pytest

from neuroformer.data.scales import BackboneScale, FrameScale, Normalization, TraceScale, VariableScale

FIXTURES = Path(__file__).parents[1] / "fixtures"


def full() -> Normalization:
    numbers = VariableScale([0.0, 1.0], [1.0, 2.0], [-1.0, 0.0], [1.0, 5.0], ["x", "y"])
    backbone = BackboneScale("hub/name", "ab", False, [1, 2, 2], [0.5], [0.0], "vit", "{}")
    return Normalization(
        unit_rate=[0.1, 0.0],
        unit_peak=[1.0, 2.0],
        inputs={"pupil": numbers},
        targets={
            "angle": VariableScale([0.0], [1.0], [0.0], [359.0], ["angle"], period=360.0),
            "choice": VariableScale(classes=[0, 2], words=["left", "", "right"]),
        },
        frames=FrameScale(100.0, 50.0, 3, 0.05, [8, 8], backbone),
        traces=TraceScale([0.0], [1.0], [0.5], [0.0], [1.0]),
    )


@pytest.mark.parametrize(
    "scale", [full(), Normalization([0.5], [2.0]), Normalization()], ids=["full", "spikes", "none"]
)
def test_to_json_and_back(scale):
    assert Normalization.from_dict(json.loads(json.dumps(scale.to_dict()))) == scale


@pytest.mark.parametrize("folder", sorted(FIXTURES.glob("bundle_format_*")), ids=lambda f: f.name)
def test_a_released_bundle_is_written_as_it_was(folder):
    for recording in json.loads((folder / "bundle.json").read_text())["recordings"]:
        assert Normalization.from_dict(recording["normalization"]).to_dict() == recording["normalization"]


def test_what_is_not_known_is_refused():
    with pytest.raises(TypeError, match="unit_rats"):
        Normalization.from_dict({"unit_rats": [1.0]})

"""What the audit says of targets: they vary, training has every class, and what training refuses is refused."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import small_config, small_recording

from neuroformer.audit import audit
from neuroformer.config import ConfigError
from neuroformer.data.prepared import prepare
from neuroformer.data.splits import make_split
from neuroformer.recording import BehaviorVariable


def of_config(rec, config):
    return audit(rec, config, make_split(rec, config))


def names(found):
    return {f.name for f in found.findings}


def test_a_target_that_does_not_vary_in_a_part():
    rec = small_recording()
    speed, split = rec.behavior["speed"], make_split(rec, small_config())
    values, (start, stop) = speed.values.copy(), split.intervals("test")[0]
    values[(speed.times >= start) & (speed.times < stop)] = 3.0
    values[(speed.times > split.intervals("valid")[0, 0] - 1) & (speed.times < start - 0.1)] = np.nan
    still = replace(rec, behavior=rec.behavior | {"speed": BehaviorVariable(speed.times, values)})
    found = of_config(still, small_config()).named("target_does_not_vary")
    assert found.values == {"variable": "speed", "parts": {"valid": "no value", "test": "one value"}}
    assert "target_does_not_vary" not in names(of_config(rec, small_config()))


def test_a_class_that_training_never_saw_is_named():
    rec, config = (
        small_recording(num_trials=40),
        small_config(targets=[{"name": "choice", "kind": "classification"}], split={"by": "trials"}),
    )
    test = make_split(rec, config).intervals("test")
    words = np.array(["left", "right"])[np.arange(40) % 2].astype("<U5")
    rec = replace(rec, trials=rec.trials | {"choice": words})
    assert "class_not_in_training" not in names(of_config(rec, config))
    words[np.searchsorted(rec.trials["start"], test[::2, 0] + 0.01) - 1] = "miss"
    found = of_config(replace(rec, trials=rec.trials | {"choice": words}), config)
    finding = found.named("class_not_in_training")
    assert finding.severity == "warning" and list(finding.values["classes"]) == ["miss"]
    assert finding.values["classes"]["miss"].keys() == {"test"}
    assert finding.values["classes"]["miss"]["test"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "sections",
    [
        {"targets": [{"name": "turn", "kind": "circular"}]},
        {"targets": [{"name": "speed", "kind": "classification"}]},
        {"targets": [{"name": "choice"}]},
        {"inputs": [{"name": "choice"}]},
    ],
)
def test_what_training_refuses_is_refused_in_the_same_words(sections):
    rec = small_recording(num_trials=10)
    turn = BehaviorVariable(rec.behavior["speed"].times, np.arange(len(rec.behavior["speed"].times)) % 360)
    words = np.array(["left", "right"] * 5)
    rec = replace(rec, behavior=rec.behavior | {"turn": turn}, trials=rec.trials | {"choice": words})
    config, said = small_config(**sections), []
    for refusing in (lambda: of_config(rec, config), lambda: prepare(rec, config)):
        with pytest.raises(ConfigError) as error:
            refusing()
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_variable_without_a_value_in_training_is_a_finding():
    rec = small_recording()
    speed, train = rec.behavior["speed"], make_split(rec, small_config()).intervals("train")
    values = speed.values.copy()
    for start, stop in train:
        values[(speed.times >= start) & (speed.times < stop)] = np.nan
    rec = replace(rec, behavior=rec.behavior | {"speed": BehaviorVariable(speed.times, values)})
    found = of_config(rec, small_config()).named("target_does_not_vary")
    assert found.values["parts"] == {"train": "no value"}

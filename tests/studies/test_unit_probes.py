"""Probes of units: what is there is found on held-out units; a column that means nothing is told so."""

import dataclasses
import json

import numpy as np
import pytest
from helpers import small_config, small_model, small_recording

from neuroformer.bundle.opening import open_run
from neuroformer.cli import main
from neuroformer.config import ConfigError, to_dict
from neuroformer.model.units import UnitRows
from neuroformer.recording.formats.npz import write_npz
from neuroformer.studies.unit_probes import FIRING, UnitTable, _folds, _turned, firing, learnt, probe_units, unit_table


def made_table(seed: int, told: float, recordings: int = 4, units: int = 30, classes: bool = True) -> UnitTable:
    """Units whose label moves one of five features by ``told`` standard deviations."""
    rng = np.random.default_rng(seed)
    num = recordings * units
    value = rng.normal(size=num)
    x, idle = rng.normal(size=(num, 5)), rng.normal(size=(num, 4))
    label = value > 0
    x[:, 2] += told * (label if classes else value)
    words = np.where(label, "V1", "LM") if classes else value
    return UnitTable("area", words, np.repeat(np.arange(recordings), units), {"told": x, FIRING: idle})


def test_what_is_there_is_found_beside_its_null():
    told, idle = probe_units(made_table(0, told=3.0), nulls=10)
    assert told.chance == 0.5 and told.score > 0.85 > told.null and told.low > 0.75
    assert told.beyond_low > 0.1 and idle.low < 0.55
    number, _ = probe_units(made_table(1, told=2.0, classes=False), nulls=10)
    assert number.score > 0.5 > number.null and number.chance == 0 and number.beyond_low > 0


def test_labels_without_a_relation_are_at_chance():
    """The 95 % interval holds chance in 20 sets, but for what 95 % lets through."""
    held = [
        r for k in range(10) for r in probe_units(made_table(100 + k, told=0.0), nulls=0)
    ]  # both features tell nothing
    assert sum(r.low <= r.chance <= r.high for r in held) >= 18
    assert abs(np.mean([r.score for r in held]) - 0.5) < 0.03


def test_recordings_are_held_out_whole():
    table = made_table(0, told=0.0, recordings=7, units=6)
    for train, test in _folds(table, 0):
        assert not set(table.recording_N[train]) & set(table.recording_N[test])


def test_more_features_than_units_are_turned_without_loss():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    x, seen, y = rng.normal(size=(20, 50)) * 3 + 1, rng.normal(size=(6, 50)), rng.normal(size=20)
    z, z_seen = _turned(x, seen)
    assert z.shape == (20, 20)
    whole = Ridge(1.0).fit((x - x.mean(0)) / x.std(0), y).predict((seen - x.mean(0)) / x.std(0))
    np.testing.assert_allclose(Ridge(1.0).fit(z, y).predict(z_seen), whole, atol=1e-9)


def test_learnt_parameters_are_every_row_of_units():
    model, _ = small_model()
    found = learnt(model)
    assert len(found) == sum(isinstance(m, UnitRows) for m in model.modules())
    assert all(len(x) == 6 for x in found.values())
    place = found["place in the frames"]
    assert place.shape == (6, 3) and (place[:, :2] > 0).all() and (place[:, :2] < 1).all()


def test_statistics_of_firing():
    rng = np.random.default_rng(0)
    poisson = np.sort(rng.uniform(0, 400, 4000))
    regular = np.arange(0.02, 400, 0.1)
    bursts = np.sort(np.concatenate([poisson[::2], poisson[::2] + 0.003]))
    times, units = (
        np.concatenate([poisson, regular, bursts]),
        np.repeat([0, 1, 2], [len(poisson), len(regular), len(bursts)]),
    )
    order = np.argsort(times)
    base = small_recording(num_units=3, seconds=400.0)
    rec = dataclasses.replace(base, spike_times=times[order], spike_units=units[order])
    _, prepared = small_model(rec, small_config(targets=[], loss={}))
    x = firing(prepared)
    np.testing.assert_allclose(np.exp(x[:2, 0]), 10, rtol=0.1)
    assert x[0, 1] == pytest.approx(1, abs=0.1) and x[1, 1] < 0.01
    np.testing.assert_allclose(x[0, 2:8], 1, atol=0.2)  # the autocorrelogram of a Poisson train is flat
    assert x[2, 2] > 5 and x[1, 2] < 0.1
    assert abs(x[0, -1]) < 0.3 and x[1, -1] < -2


def test_the_command(tmp_path, capsys):
    import yaml

    rec = small_recording(num_units=24, frames=False)
    column = {"area": np.array(["V1", "LM", "V1", "x"])[np.arange(24) % 4], "depth": np.linspace(0, 1, 24)}
    write_npz(dataclasses.replace(rec, units={**rec.units, **column, "flat": np.full(24, "a")}), tmp_path / "r.npz")
    config = to_dict(small_config(targets=[], loss={"contrast": []}, window={"frames": 0.0}, train={"steps": 2}))
    config["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = str(tmp_path / "run")
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--run", run, "--no-baselines", "--quiet"]) == 0
    table = unit_table(run, "area")
    assert table.is_class and table.left_out == 0 and len(table.label_N) == 24
    bundle, prepared = open_run(tmp_path / "run")
    assert table.features[FIRING].shape == firing(prepared).shape
    capsys.readouterr()
    assert main(["probe", "--run", run, "--unit", "depth"]) == 0
    assert "R2" in capsys.readouterr().out
    rows = json.loads((tmp_path / "run" / "probe_unit_depth.json").read_text())["rows"]
    assert [r["features"] for r in rows][-2:] == ["everything learnt", "firing statistics"]
    for wrong, message in (("layer", "area, depth"), ("flat", "expected two values")):
        assert main(["probe", "--run", run, "--unit", wrong]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ConfigError):
        unit_table(run, "layer")

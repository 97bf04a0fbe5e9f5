"""Distances between receptive fields against distances in the tissue: found where they are, and not where they are not."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from helpers import small_config, small_recording

from neuroformer.cli import main
from neuroformer.config import ConfigError, to_dict
from neuroformer.recording.formats.npz import write_npz
from neuroformer.studies.retinotopy import FIELD, position_table, probe_distances
from neuroformer.studies.unit_probes import FIRING, UnitTable


def mapped_table(seed: int, noise: float, recordings: int = 2, units: int = 40) -> UnitTable:
    """Units whose receptive field follows where they lie, each recording with a map of its own, turned and scaled."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 500, (recordings, units, 2))
    angle = rng.uniform(0, 6, recordings)
    turn = np.array([[[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in angle])
    field = place @ turn * 0.03 + rng.uniform(0, 20, (recordings, 1, 2)) + noise * rng.normal(size=place.shape)
    features = {FIELD: field.reshape(-1, 2), FIRING: rng.normal(size=(recordings * units, 5))}
    return UnitTable("x,y", place.reshape(-1, 2), np.repeat(np.arange(recordings), units), features)


def test_a_map_is_found_whatever_its_turn_and_scale():
    exact = probe_distances(mapped_table(0, noise=0.0), nulls=5)[0]
    assert exact.score == pytest.approx(1)
    field, firing = probe_distances(mapped_table(1, noise=1.0))
    assert field.score > 0.8 > field.null and field.low > 0.7 and field.beyond_low > 0.5
    assert abs(firing.score) < 0.1 and firing.features == FIRING and firing.beyond == 0


def test_places_that_mean_nothing_stay_within_the_null():
    found = [probe_distances(mapped_table(s, noise=1e4), nulls=20)[0] for s in range(10)]
    assert sum(f.score > f.null for f in found) <= 2
    assert sum(f.low <= 0 <= f.high for f in found) >= 8


def test_pairs_are_of_one_recording():
    """Two animals whose fields lie far apart and whose coordinates differ tell nothing by that."""
    table = mapped_table(2, noise=1e3)
    far = np.where(table.recording_N == 1, 1e5, 0.0)[:, None]
    moved = dataclasses.replace(
        table, label_N=table.label_N + far, features={k: v + far for k, v in table.features.items()}
    )
    a, b = (probe_distances(t, nulls=0)[0].score for t in (table, moved))
    assert a == pytest.approx(b, abs=1e-6)


def test_the_command(tmp_path, capsys):
    rec, rng = small_recording(num_units=24), np.random.default_rng(0)
    column = {"x": rng.uniform(size=24), "y": rng.uniform(size=24), "area": np.array(["V1", "LM"])[np.arange(24) % 2]}
    column["x"][3] = np.nan
    write_npz(dataclasses.replace(rec, units={**rec.units, **column}), tmp_path / "r.npz")
    config = to_dict(small_config(targets=[], loss={"contrast": []}, train={"steps": 2}))
    config["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = str(tmp_path / "run")
    assert main(["train", "--config", str(tmp_path / "c.yaml"), "--run", run, "--no-baselines", "--quiet"]) == 0
    table = position_table(run, ["x", "y"])
    field = table.features[FIELD]
    assert table.label_N.shape == (23, 2) and field.shape == (23, 2) and (field >= 0).all() and (field <= 7).all()
    capsys.readouterr()
    assert main(["probe", "--run", run, "--unit", "x,y"]) == 0
    out = capsys.readouterr().out
    assert "x,y of 23 units" in out and "r of distances" in out and "folds" not in out
    (path,) = (tmp_path / "run").glob("probe_unit_x*.json")
    rows = json.loads(path.read_text())["rows"]
    assert rows[0]["features"] == FIELD and rows[-1]["features"] == FIRING
    for wrong, message in (("x,z", "x, y"), ("x,area", "'area' holds words")):
        assert main(["probe", "--run", run, "--unit", wrong]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ConfigError):
        position_table(run, ["x", "depth"])

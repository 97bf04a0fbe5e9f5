"""The curve of a new animal: every way of training on every amount, scored on the same windows."""

import dataclasses
import json

import numpy as np
import pytest
import yaml
from helpers import small_config, small_recording

from neuroformer.cli import main
from neuroformer.config import to_dict
from neuroformer.recording.formats.npz import write_npz


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapting")
    for i in range(2):
        write_npz(dataclasses.replace(small_recording(i, seconds=120.0), name=f"m{i}"), folder / f"m{i}.npz")
    tree = to_dict(
        small_config(targets=[], inputs=[], loss={"contrast": []}, window={"frames": 0.0}, train={"steps": 3})
    )
    tree["recording"]["path"] = str(folder / "m0.npz")
    (folder / "c.yaml").write_text(yaml.safe_dump(tree))
    train = ["train", "--config", str(folder / "c.yaml"), "--run", str(folder / "run"), "--no-baselines", "--quiet"]
    assert main(train) == 0
    return folder


def test_every_amount_is_trained_in_every_way_and_scored_on_the_same_windows(run, capsys):
    argv = [
        "adapt",
        "--run",
        str(run / "run"),
        f"recording.path={run / 'm1.npz'}",
        "--quiet",
        "--out",
        str(run / "curve"),
    ]
    assert main([*argv, "--seconds", "1e6"]) == 2
    assert "1e+06 s of 'm1' were asked for; it has" in capsys.readouterr().err
    assert main([*argv, "--seconds", "30,60"]) == 0
    points = json.loads((run / "curve" / "adapting.json").read_text())
    assert [(p["seconds"], p["way"]) for p in points] == [
        (s, way) for s in (30.0, 60.0) for way in ("scratch", "run new", "run all")
    ]
    for p in points[1:3]:  # the null of an amount is the same, so that bits differ by what is paired
        assert p["more"] == pytest.approx(p["bits"] - points[0]["bits"], abs=1e-6)
    assert points[0]["more"] is None and all(np.isfinite(p["bits"]) for p in points)
    assert (run / "curve" / "adapting.png").exists() and "more than scratch" in capsys.readouterr().out

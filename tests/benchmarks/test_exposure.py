"""The ablation of noise on the past: what is there is not trained again, and differences pair seeds."""

import json

import numpy as np
import pytest
import yaml
from helpers import small_config, small_recording

from benchmarks.__main__ import main
from benchmarks.science import exposure
from neuroformer.config import to_dict
from neuroformer.recording.formats.npz import write_npz


def test_the_ablation(tmp_path, capsys, monkeypatch):
    write_npz(small_recording(num_trials=10, frames=False), tmp_path / "small.npz")
    window = {"dt": 0.01, "current": 0.1, "past": 0.1, "frames": 0.0}
    split = {"by": "trials", "claim": "repeats"}
    tree = to_dict(small_config(window=window, inputs=[], targets=[], loss={"contrast": []}, split=split))
    tree["recording"]["path"] = str(tmp_path / "small.npz")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    command = [
        "exposure",
        "--config",
        str(tmp_path / "small.yaml"),
        "--run",
        str(tmp_path / "runs"),
        "--noise",
        "0,0.4",
        "generate.max_seconds=0.2",
    ]
    assert main([*command, "--seeds", "0"]) == 0
    monkeypatch.setattr(exposure, "train", lambda *a, **k: pytest.fail("it was trained before"))
    assert main([*command, "--seeds", "0", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(result["scores"]["0.0"]) == set(result["minus"]["0.4"]) > {"rate_off", "pair_r", "bits_per_spike"}
    assert result["scores"]["0.0"]["bits_per_spike"] != result["scores"]["0.4"]["bits_per_spike"]
    assert (tmp_path / "runs" / "noise-0.4-seed-0" / "bundle.json").exists()


def test_paired_intervals():
    mean, low, high = exposure.paired(np.array([1.0, 2.0, 3.0]))
    assert (mean, low, high) == (
        2.0,
        pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-3),
        pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-3),
    )
    assert np.isnan(exposure.paired(np.array([1.0]))[1:]).all()


def test_every_benchmark_explains_itself(capsys):
    for name in (
        "",
        "adapt",
        "connectivity",
        "coverage",
        "exposure",
        "inputs",
        "leaks",
        "long",
        "nulls",
        "public",
        "whatif",
    ):
        with pytest.raises(SystemExit) as end:
            main([*[name] * bool(name), "--help"])
        assert end.value.code == 0 and "usage: python -m benchmarks" in capsys.readouterr().out

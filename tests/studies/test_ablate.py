"""Ablation: one part less and nothing else, the same windows, scores that agree with those of a run."""

import json

import numpy as np
import pytest
import yaml
from helpers import small_config, small_model, small_recording

from neuroformer.cli import main
from neuroformer.config import ConfigError, to_dict
from neuroformer.data.prepared import prepare
from neuroformer.decoding.decode import decode_windows
from neuroformer.recording.formats.npz import write_npz
from neuroformer.studies.ablations import FULL, PARTS, bits, f1, measure_windows, parts_of, without
from neuroformer.studies.embeddings import _top1
from neuroformer.training.scoring.scores import score


@pytest.mark.filterwarnings("error:Initializing zero-element tensors")
@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_taken_out_and_the_windows_stay(part):
    config = small_config(
        model={
            "blocks": [{"attend": a} for a in ("current", "past", "frames", "behavior", "current")],
        }
    )
    rec = small_recording()
    assert parts_of(config) == list(PARTS)
    full, one = without(config, FULL), without(config, part)
    assert part not in parts_of(one) and set(PARTS) - set(parts_of(one)) - {part} <= {"contrast"}
    prepared, model = prepare(rec, full), small_model(rec, one)
    assert model[1].split.sha256() == prepared.split.sha256()
    windows = decode_windows(prepared, "test")
    measured = measure_windows(model[0], model[1], windows)
    assert all(np.isfinite(v).all() and len(v) == len(windows) for v in measured.values())
    with pytest.raises(ConfigError, match=f"no part '{part}'"):
        without(one, part)


def test_windows_add_up_to_the_scores_of_the_part():
    model, prepared = small_model()
    whole = score(model, prepared, "test")
    measured = measure_windows(model, prepared, prepared.windows("test"))
    one = lambda name: measured[name][:, None]
    assert bits(one("tokens"), one("spikes")).of_all() == pytest.approx(whole.bits(), rel=1e-6)
    assert bits(one("rates"), one("spikes")).of_all() == pytest.approx(whole.bits_of_rates(), rel=1e-6)


def test_f1_pools_windows():
    """8 of 10 units in one window, none drawn in another of one: 2 * 8 / (2 * 8 + 1 + 2 + 1)."""
    column = lambda *values: np.array(values)[:, None]
    assert f1(column(8, 0), column(1, 0), column(2, 1)).of_all() == pytest.approx(16 / 20)


def test_retrieval_finds_features_that_coincide_and_not_others():
    import torch

    rng = np.random.default_rng(0)
    x = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((250, 16))), dim=1)
    keys, rows = np.arange(250) // 2, np.arange(250)  # every clip is shown twice
    hits, tries, size = _top1(x, x, keys, rows, 5, 0)
    assert size == 100 and tries.sum() == 500 and hits.sum() == 500
    hits, tries, _ = _top1(x, x.roll(7, 0), keys, rows, 40, 0)
    assert hits.sum() / tries.sum() < 0.05


def test_the_command_goes_on_where_it_stopped(tmp_path, capsys):
    write_npz(small_recording(), tmp_path / "r.npz")
    config = to_dict(small_config(targets=[{"name": "speed"}]))
    config["recording"]["path"] = str(tmp_path / "r.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    run = tmp_path / "ablate"
    ask = ["ablate", "--config", str(tmp_path / "c.yaml"), "--run", str(run), "--quiet", "--parts", "past"]
    assert main([*ask, "--only", "past"]) == 0
    written = (run / "past" / "seed_0" / "bundle.json").stat().st_mtime_ns
    assert main(ask) == 0
    assert (run / "past" / "seed_0" / "bundle.json").stat().st_mtime_ns == written
    rows = json.loads((run / "ablation.json").read_text())["rows"]
    assert [r["without"] for r in rows] == ["full"] * 4 + ["past"] * 4
    for r in rows:
        # so few seconds may be too little for an interval; then there is none
        for low, high in ((r["low"], r["high"]), (r["minus_low"], r["minus_high"])):
            assert low <= high or np.isnan([low, high]).all()
        assert len(r["seeds"]) == 1 and (r["without"] == "past" or r["minus"] == 0)
    assert (run / "ablation.png").is_file()
    assert "95 % interval, paired" in capsys.readouterr().out
    assert main([*ask, "train.steps=5"]) == 2 and "another configuration" in capsys.readouterr().err
    assert main([*ask, "--only", "wings"]) == 2 and "no part 'wings'" in capsys.readouterr().err

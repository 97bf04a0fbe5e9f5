"""Co-smoothing: units that the network never saw, from the others on both sides of a bin; the benchmark's other scores."""

import json
import time

import numpy as np
import pytest
import yaml
from helpers import small_config

from neuroformer.bundle.bundle import load_model, read_bundle
from neuroformer.bundle.opening import open_run
from neuroformer.cli import main
from neuroformer.config import to_dict
from neuroformer.data.windows import SpikeIndex
from neuroformer.recording import Recording
from neuroformer.recording.formats.npz import write_npz
from neuroformer.simulation_scores.nlb import behavior_r2, psth_r2
from neuroformer.studies.cosmoothing import Readout, _two_sided, held_out_units


def populations(seconds=120.0, shared=True):
    """Four units of area A and two of B that follow the same slow variable, or B one of its own."""
    rng = np.random.default_rng(0)
    bins = round(seconds / 0.01)
    slow = [np.convolve(rng.normal(size=bins + 29), np.hanning(30), "valid") for _ in range(2)]
    slow = [x / x.std() for x in slow]
    drive = np.stack([slow[0]] * 4 + [slow[0 if shared else 1]] * 2, 1) * [1, -1, 1, -1, 1, -1]
    row, unit = np.nonzero(rng.poisson(0.15 * np.exp(0.8 * drive - 0.3)))
    return Recording(
        name="two areas",
        spike_times=(row + 0.5) * 0.01,
        spike_units=unit,
        units={"id": np.array([f"u{i}" for i in range(6)]), "area": np.array(list("AAAABB"))},
        domain=np.array([[0.0, seconds]]),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cosmooth")
    for shared in (True, False):
        write_npz(populations(shared=shared), folder / f"{shared}.npz")
        config = to_dict(small_config(targets=[], inputs=[], window={"frames": 0.0}, loss={"contrast": []}))
        config["recording"] |= {"path": str(folder / f"{shared}.npz"), "units": {"where": "area == 'A'"}}
        (folder / "c.yaml").write_text(yaml.safe_dump(config))
        asked = ["--config", str(folder / "c.yaml"), "--run", str(folder / f"run_{shared}")]
        assert main(["train", *asked, "--no-baselines", "--quiet"]) == 0
    return folder


def test_units_that_share_a_drive_are_known_and_others_are_not(run, capsys):
    found = {}
    for shared in (True, False):
        began = time.perf_counter()
        assert main(["cosmooth", "--run", str(run / f"run_{shared}"), "--quiet"]) == 0
        elapsed = time.perf_counter() - began
        found[shared] = json.loads((run / f"run_{shared}" / "summary.json").read_text())
    assert found[True]["co_bps_glm"] > 0.1 and found[True]["co_bps"] > 0.1
    assert abs(found[False]["co_bps_glm"]) < 0.03
    assert found[True]["co_bps_low"] < found[True]["co_bps"] < found[True]["co_bps_high"]
    assert found[True]["co_bps_fits"] == found[True]["co_bps_fits_glm"] == 6
    took = [found[False][key] for key in ("co_bps_seconds", "co_bps_seconds_glm")]
    assert min(took) > 0 and sum(took) < elapsed
    assert found[True]["co_bps_units"] == 2 and np.isfinite(found[True]["fp_bps"])
    assert read_bundle(run / "run_True").of("").units == ["u0", "u1", "u2", "u3"]


def test_both_sides_of_a_bin_are_evidence_and_its_own_unit_is_not(run):
    bundle, prepared = open_run(run / "run_True")
    rec = held_out_units(prepared)
    assert rec.unit_ids == ["u4", "u5"]
    index = SpikeIndex.from_recording(rec, prepared.split.segments, 0.01)
    readout = Readout(load_model(bundle), prepared, index, True)
    one = readout.windows("test")[20:21]
    end = int(one.tick[0]) + prepared.builder.shape.current
    before = readout.rates(one)

    def with_spikes(keep):
        kept = prepared.index
        new = SpikeIndex.from_ticks(
            np.zeros(keep.sum(), int), kept.keys[keep], kept.unit[keep], kept.origins, kept.num_ticks, 4, 0.01
        )
        readout.prepared = prepared.with_spikes(new)
        return readout.rates(one)

    keys = prepared.index.keys
    np.testing.assert_array_equal(before, with_spikes((keys < end + 25) & (keys > end - 60)))
    assert not np.allclose(before, with_spikes(keys < end))
    assert not np.allclose(before, with_spikes(keys >= one.tick[0]))


def test_filters_of_both_sides_golden():
    filters = _two_sided(3, 2).numpy()
    assert filters.shape == (8, 2, 7)  # three lags a side are the lags themselves
    for b in range(2):
        lags = np.arange(8) - 3 - b
        np.testing.assert_array_equal(filters[:, b, :3], lags[:, None] == [-1, -2, -3])
        np.testing.assert_array_equal(filters[:, b, 3], lags == 0)
        np.testing.assert_array_equal(filters[:, b, 4:], lags[:, None] == [1, 2, 3])


def test_psth_r2_and_behavior_r2_golden():
    psth = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 5.0], [np.nan, np.nan]])
    rates = np.array([[1.0, 2.0], [3.0, 3.0], [4.0, 5.0], [9.0, 9.0]])
    # unit 0: 1 - 1 / 8; unit 1: 1 - 1 / 6
    assert psth_r2(psth, rates) == pytest.approx((7 / 8 + 5 / 6) / 2)
    assert psth_r2(psth, psth) == 1
    rng = np.random.default_rng(0)
    x, held = rng.normal(size=(200, 3)), rng.normal(size=(50, 3))
    weights = np.array([[1.0, -2.0], [0.5, 0], [0, 3]])
    y = x @ weights
    y[::9] = np.nan
    assert behavior_r2(x, y, held, held @ weights) == pytest.approx(1, abs=1e-4)
    assert behavior_r2(x, y, held[::-1], held @ weights) < 0.3


def test_a_run_that_was_given_every_unit_has_none_to_say(run, tmp_path, capsys):
    config = yaml.safe_load((run / "c.yaml").read_text())
    config["recording"]["units"]["where"] = ""
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    asked = ["--config", str(tmp_path / "c.yaml"), "--run", str(tmp_path / "run")]
    assert main(["train", *asked, "--no-baselines", "--quiet"]) == 0
    assert main(["cosmooth", "--run", str(tmp_path / "run")]) == 2
    assert "every unit of 'two areas' was given to the model" in capsys.readouterr().err

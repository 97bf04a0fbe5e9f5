"""What a call returns shows itself: as short text, as HTML with its figure, and as an array with names."""

import base64
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from helpers import small_config, small_model, small_recording

import neuroformer
from neuroformer.analysis.attend import Attended
from neuroformer.analysis.maps import Map
from neuroformer.analysis.mei import MostExciting
from neuroformer.audit import audit
from neuroformer.comparison.compare import Comparison, Score
from neuroformer.config import TargetConfig, from_dict, load_config
from neuroformer.decoding.decode import Decoded
from neuroformer.report.pictures import picture
from neuroformer.runs import DecodedTarget, Trained
from neuroformer.shown import NamedValues
from neuroformer.simulation_scores.whatif import RateChanges
from neuroformer.simulator import Simulator
from neuroformer.studies.forecast import Forecast
from neuroformer.studies.unit_probes import UnitTable


def a_map(name="knock-out", lags=None):
    rng = np.random.default_rng(0)
    units = ["u0", "u1", "u2"]
    shape = (3, 3) if lags is None else (3, 3, len(lags))
    return Map(name, rng.normal(size=shape), "change of log-odds", units, units, np.ones((3, 3)), lags)


def decoded():
    times = np.arange(40) * 0.1
    values = {"model": np.sin(times)[:, None], "ridge": np.cos(times)[:, None]}
    d = Decoded("speed", times, np.zeros(40, int), np.sin(times)[:, None], values, unit="cm/s")
    scores = {"decode_speed_r2": 1.0, "decode_speed_r2_low": 0.9, "decode_speed_r2_high": 1.0}
    scores |= {"decode_speed_r2_ridge": -0.5, "decode_speed_r2_control": 0.01}
    return DecodedTarget(TargetConfig("speed"), d, scores, {})


def rate_changes():
    before, change = np.full(5, 4.0), np.array([-3.0, 0.0, 0.1, 2.0, 0.0])
    return RateChanges(before, before + change, change, change - 0.5, change + 0.5, change / 0.25)


def compared():
    of = lambda source, layer, score: Score(
        source,
        layer,
        "pixels",
        9,
        "ridge",
        "all",
        6,
        score,
        score - 0.1,
        score + 0.1,
        0.8,
        0.5,
        0.4,
        0.6,
        0.02,
        0.01,
        0,
        -1,
        1,
        0.05,
    )
    return Comparison([of("gabor", "a", 0.2), of("gabor", "b", 0.3)], {"moments": 40}, ["u0"])


def forecast():
    ends = [[0.5, 0.4, 0.6], [0.25, 0.2, 0.4]]
    each = {"bits_per_spike": ends, "mae": ends[::-1]}
    scores = {"horizons_s": [0.05, 0.5], "candidates": {"model": each, "glm": each}}
    return Forecast(np.arange(30.0), [0.05, 0.5], np.zeros((30, 2, 3)), {"model": np.zeros((30, 2, 3))}, scores)


def simulator(prepared):
    made = Simulator.__new__(Simulator)  # without a run on disk
    made.bundle, made.prepared = SimpleNamespace(path="runs/x"), prepared
    made.model = SimpleNamespace(device="cpu")
    return made


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    rec, config = small_recording(), small_config()
    _, prepared = small_model(rec, config)
    logged = tmp_path_factory.mktemp("runs")
    (logged / "log").mkdir()
    (logged / "log" / "metrics.csv").write_text("step,train/dt,valid/bits_per_spike\n1,2.0,\n2,1.5,0.1\n")
    clips = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    return {
        "recording": rec,
        "audit": audit(rec, config),
        "prepared": prepared,
        "map": a_map(),
        "attended": Attended([a_map(), a_map("attention")], {"attend_windows": 20, "coupling_auroc": 0.9}),
        "decoded": decoded(),
        "changes": rate_changes(),
        "compared": compared(),
        "forecast": forecast(),
        "trained": Trained(logged, {"train_steps": 4, "train_seconds": 1.25}, [prepared]),
        "simulator": simulator(prepared),
        "exciting": MostExciting(clips, clips - 0.5, np.full(3, np.log(2)), np.zeros(3)),
        "units": UnitTable(
            "area", np.array(["V1", "LM", "V1"]), np.zeros(3, int), {"firing statistics": np.zeros((3, 2))}
        ),
        "config": config,
    }


DRAWN = ["recording", "audit", "prepared", "map", "attended", "decoded", "changes", "compared", "forecast", "trained"]
DRAWN += ["simulator", "exciting"]


@pytest.mark.parametrize("name", DRAWN)
def test_it_shows_its_figure(things, name):
    html = things[name]._repr_html_()
    image = base64.b64decode(re.search(r'<img src="data:image/png;base64,([^"]+)"', html)[1])
    assert image.startswith(b"\x89PNG") and len(html) < 400_000
    first = repr(things[name]).splitlines()[0]
    assert first[:12] in html.replace("&#x27;", "'")


@pytest.mark.parametrize("name", ["units", "config"])
def test_without_a_figure_it_shows_its_text(things, name):
    lines = repr(things[name]).splitlines()
    html = things[name]._repr_html_().replace("&#x27;", "'")
    assert "<img" not in html and all(line in html for line in lines)


@pytest.mark.parametrize("name", [*DRAWN, "units", "config"])
def test_its_text_is_short_enough_to_read(things, name):
    text = repr(things[name])
    assert max(map(len, text.splitlines())) < 250 and len(text.splitlines()) < 80 and "array(" not in text


def test_the_texts_say_what_was_found(things):
    assert "model        1.000 (0.900 to 1.000)" in repr(things["decoded"])
    assert "control      0.010" in repr(things["decoded"]) and "ridge        -0.500" in repr(things["decoded"])
    assert "1 rise and 1 fall" in repr(things["changes"]) and "unit 0, 4 to 1 Hz" in repr(things["changes"])
    assert "gabor        b                ridge            0.300 (0.200 to 0.400), 0.800" in repr(things["compared"])
    assert "  model             0.500    0.250" in repr(things["forecast"]) and "0.05, 0.5 s" in repr(
        things["forecast"]
    )
    assert "train_seconds: 1.25" in repr(things["trained"])
    assert "split" in repr(things["prepared"]) and "claims time" in repr(things["prepared"])
    assert "LM                       1 units" in repr(things["units"])
    assert "rate is 2 times that with a gray screen" in repr(things["exciting"])
    assert things["attended"].named("attention").name == "attention"
    with pytest.raises(ValueError, match="there is no map 'x'; there are: knock-out, attention"):
        things["attended"].named("x")


def test_numbers_by_name_are_a_dictionary_and_a_table(things):
    found = NamedValues({"bits": 0.123412, "<b>": [1, {"x": 2.0}], "speed": things["decoded"]})
    assert found == dict(found) and json.loads(json.dumps(NamedValues(a=1.5))) == {"a": 1.5}
    html = found._repr_html_()
    assert "<tr><th>bits</th><td>0.1234</td></tr>" in html and "<th>&lt;b&gt;</th>" in html and "<th>x</th>" in html
    assert html.index("</table>") < html.index("<h4>speed</h4>") and html.count("<img") == 1


def test_what_a_configuration_shows_makes_it_anew():
    config = load_config(Path(neuroformer.__file__).parents[1] / "configs" / "demo.yaml")
    assert from_dict(yaml.safe_load(repr(config).partition("\n")[2])) == config


def test_text_of_a_file_is_not_markup():
    rec = dataclasses.replace(small_recording(), name="<script>alert(1)</script>", meta={"notes": ["<b>"]})
    assert "<script>" not in rec._repr_html_() and "<b>" not in rec._repr_html_().replace("</b>", "")


def test_what_has_no_figure_shows_its_text_alone(things):
    assert picture(3) is None and picture(Attended([])) is None
    assert "<img" not in Attended([])._repr_html_()


def test_a_raster_of_many_spikes_is_cut(things):
    rec = small_recording(num_units=50, rate=100.0)
    assert len(picture(rec).axes[0].collections[0].get_offsets()) <= 20_000


def test_arrays_have_names(things):
    pytest.importorskip("xarray")
    counts = things["recording"].to_xarray(0.5)
    assert counts.dims == ("time", "unit") and int(counts.sum()) == things["recording"].num_spikes
    assert counts.sel(unit="u3").shape == (80,)
    speed = things["recording"].behavior["gaze"].to_xarray("gaze")
    assert list(speed.column.values) == ["gaze_x", "gaze_y"] and speed.attrs["unit"] == "deg"
    lags = a_map(lags=np.array([0.01, 0.02])).to_xarray()
    assert lags.dims == ("acted_on", "acts", "lag_s") and lags.sel(lag_s=0.02, acts="u1").shape == (3,)
    d = decoded().to_xarray()
    np.testing.assert_allclose(d.sel(decoder="recorded", column="0"), d.sel(decoder="model", column="0"))


def test_counts_are_those_of_the_nanosecond_clock():
    pytest.importorskip("xarray")
    rec = small_recording()
    edge = dataclasses.replace(
        rec,
        spike_times=np.array([0.29, 0.3, 0.3, 0.58]),
        spike_units=np.zeros(4, np.int32),
        domain=np.array([[0.0, 0.5], [0.55, 0.6]]),
    )
    counts = edge.to_xarray(0.01).sel(unit="u0")
    assert counts.sel(time=0.29, method="nearest") == 1 and counts.sel(time=0.3, method="nearest") == 2
    assert len(counts) == 55 and int(counts.sum()) == 4


def test_showing_text_loads_no_drawing():
    code = "import sys, neuroformer; repr(neuroformer.open_recording('synthetic:demo', num_trials=15, num_units=8, trial_s=2.0)); print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
    assert neuroformer.Recording.__mro__[1].__name__ == "Shown"

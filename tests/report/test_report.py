"""The page of a run: what it says, and that its controls do what they say in a real browser."""

import csv
import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import Browser
from helpers import small_config, small_model, small_recording
from PIL import Image, ImageSequence

from neuroformer.analysis.maps import Map, save_maps
from neuroformer.bundle.bundle import RecordingEntry, read_bundle
from neuroformer.bundle.saving import save_bundle, save_weights
from neuroformer.cli import main
from neuroformer.config import to_dict
from neuroformer.recording.formats.npz import write_npz
from neuroformer.report.panels.pack import pack, pack_rounded
from neuroformer.report.panels.summary import summary

UNITS = [f"u{i}" for i in range(6)]


def unpacked(packed):
    import base64

    raw = np.frombuffer(base64.b64decode(packed["b"]), np.dtype(packed["t"]).newbyteorder("<")).astype(float)
    if "k" in packed:
        raw = np.where(raw == 65535, np.nan, packed["o"] + packed["k"] * raw)
    return raw.reshape(packed["s"])


def fill(folder, units=UNITS, rate=5.0):
    """A run with everything that a page can show, without training: files as the commands write them."""
    n = len(units)
    rec = small_recording(num_units=n, num_trials=10, seconds=60.0, rate=rate)
    areas = {"area": np.array(["V1", "LM"] * (n // 2))}
    shown = {"movie": np.zeros(rec.num_trials, np.int64)}
    rec = dataclasses.replace(rec, units=rec.units | areas, trials=rec.trials | shown)
    write_npz(rec, folder / "small.npz")
    tree = to_dict(small_config(split={"by": "trials", "claim": "repeats"}))
    tree["recording"]["path"] = str(folder / "small.npz")
    from neuroformer.config import from_dict

    config = from_dict(tree)
    run = folder / "run"
    model, prepared = small_model(rec, config)
    save_weights(run / "weights" / "likelihood.safetensors", model.float())
    split = {"sha256": prepared.split.sha256(), "claim": "repeats"}
    split |= {part: prepared.split.intervals(part).tolist() for part in prepared.split.blocks}
    split["audit"] = {
        "leaks": True,
        "findings": [
            {
                "name": "shared_stimulus",
                "severity": "leak",
                "measured": "3 of 3 <stimuli>",
                "advice": "declare it",
                "values": {},
            }
        ],
    }
    member = RecordingEntry(rec.name, list(rec.unit_ids), prepared.normalization, split)
    save_bundle(run, config, [member], {})
    assert main(["generate", "--run", str(run), "--quiet", "generate.max_seconds=4", "generate.samples=2"]) == 0
    rng = np.random.default_rng(0)
    values = rng.standard_normal((n, n, 3)) + 8 * np.eye(n, k=1)[..., None]
    ones = np.ones((n, n))
    maps = [
        Map("knock-out", values, "nats", units, units, ones[..., None], np.array([0.01, 0.02, 0.03])).with_null(
            0 * ones, ones
        ),
        Map("attention", np.abs(values[..., 0]), "share", units, units, ones),
        Map("frames", rng.random((n, 9)), "share", units, [str(i) for i in range(9)], np.ones((n, 9)), grid=(3, 3)),
    ]
    save_maps(run / "maps.npz", maps)
    np.savez(
        run / "frame_attention.npz",
        images=rng.integers(0, 255, (5, 8, 8)).astype(np.uint8),
        times=np.arange(5) * 0.05,
        attention=rng.random((5, 3, 3)),
        extent=np.array([0, 0, 8, 8.0]),
    )
    field = Map(
        "frame sensitivity",
        rng.random((n, 64, 2)),
        "rms",
        units,
        [str(i) for i in range(64)],
        np.ones((1, 1, 1)),
        np.array([0.0, 0.05]),
        (8, 8),
    )
    save_maps(run / "fields.npz", [field])
    np.savez(
        run / "mei.npz",
        contrast=rng.standard_normal((n, 2, 8, 8)),
        log_rate=np.full(n, np.log(3.0)),
        gray=np.zeros(n),
        unit_ids=np.array(units),
    )
    (run / "log").mkdir(exist_ok=True)
    with open(run / "log" / "metrics.csv", "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(["step", "train/dt", "valid/bits_per_spike", "valid/speed_score"])
        w.writerows([[i, 3 - i / 10, i / 20, i / 30] for i in range(10)])
    old = json.loads((run / "summary.json").read_text())
    new = {
        "bits_per_spike": 0.8,
        "bits_per_spike_glm": 0.6,
        "decode_speed_r2": 0.5,
        "decode_speed_r2_low": 0.4,
        "decode_speed_r2_high": 0.6,
        "decode_speed_r2_ridge": 0.45,
        "decode_speed_r2_control": -0.01,
        "psth_r": 0.4,
        "psth_r_ceiling": 0.5,
    }
    (run / "summary.json").write_text(json.dumps(old | new))
    t = np.arange(0, 12, 0.05)
    np.savez(
        run / "decode_speed.npz",
        times=t,
        true=np.sin(t)[:, None],
        model=np.sin(t)[:, None] * 0.9,
        ridge=np.cos(t)[:, None],
    )
    score = {"rate_r": [0.9, 0.8, 0.95], "classifier": [0.6, None, None]}
    drift = {"start_s": [0.0, 4.0], "rate_ratio": [1.0, 1.1], "true_past_rate_ratio": [1.0, 1.0]}
    (run / "simulation_scores.json").write_text(
        json.dumps({"candidates": {"model": score, "ceiling": score}, "since_closed": drift})
    )
    curve = [
        {"method": m, "seconds": x, "score": v * x, "low": 0.0, "high": 0.5}
        for m, v in (("pretrained", 0.02), ("ridge", -1.0))
        for x in (1.0, 10.0)
    ]
    ends = [[0.5, 0.4, 0.6], [0.3, 0.2, 0.4]]
    forecast = {
        "horizons_s": [0.05, 0.5],
        "candidates": {"model": {"bits_per_spike": ends}, "glm": {"bits_per_spike": ends[::-1]}},
        "groups": [
            {"group": "LM", "units": 3, "r": 0.31, "r_error": 0.1, "rate_hz": 4.0, "fano": 1.2, "ceiling": 0.4},
            {"group": "V1", "units": 1, "r": 0.2, "r_error": None, "rate_hz": 2.0, "fano": 0.9, "ceiling": 0.0},
        ],
    }
    (run / "forecast.json").write_text(json.dumps(forecast))
    probes = [
        {"features": name, "score": 0.7, "low": 0.6, "high": 0.8, "chance": 0.5, "null": 0.6}
        for name in ("embedding", "firing statistics")
    ]
    (run / "probe_unit_area.json").write_text(json.dumps({"column": "area", "rows": probes}))
    (run / "fewshot_speed.json").write_text(json.dumps({"target": "speed", "rows": curve}))
    assert main(["report", "--run", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(run, tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        browser.open(run / "report.html")
        yield browser


def test_arrays_survive_packing():
    x = np.array([[1.5, np.nan], [-2.0, 0.25]])
    np.testing.assert_allclose(unpacked(pack_rounded(x)), x, atol=3.5 / 65534)
    np.testing.assert_array_equal(unpacked(pack(np.array([0, 65534]), "u2")), [0, 65534])
    np.testing.assert_array_equal(unpacked(pack_rounded(np.full(3, 2.0))), [2, 2, 2])


def test_the_summary_knows_baselines_controls_and_ceilings():
    values = {
        "bits_per_spike": 0.8,
        "bits_per_spike_glm": 0.6,
        "bits_per_spike_oracle": 1.0,
        "decode_x_r2": 0.5,
        "decode_x_r2_low": 0.4,
        "decode_x_r2_high": 0.6,
        "decode_x_r2_ridge": 0.3,
        "decode_x_r2_ridge_low": 0.2,
        "decode_x_r2_control": 0.0,
        "decode_x_control_name": "hold",
    }
    rows = {r["name"].split(",")[0]: r["points"] for r in summary(values, ["x"])["rows"]}
    kinds = lambda points: [(p["kind"], p["name"]) for p in points]
    assert kinds(rows["Decoding of x"]) == [
        ("model", "model"),
        ("other", "ridge"),
        ("control", "control, hold"),
    ]
    assert rows["Decoding of x"][0]["low"] == 0.4 and "low" not in rows["Decoding of x"][2]
    assert ("ceiling", "generator") in kinds(rows["Likelihood of held-out spikes"])


def test_files_that_a_kill_cut_off_cost_their_panels_alone(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    for name in ("decode_speed.npz", "simulated.npz", "maps.npz", "fewshot_speed.json"):
        os.truncate(copy / name, 40)
    assert main(["report", "--run", str(copy)]) == 0
    said = capsys.readouterr().out
    assert all(panel in said for panel in ("Rasters", "Decoding", "Few labels", "Connectivity"))
    assert "Learning" not in said and "A file of it is damaged" in (copy / "report.html").read_text()


def test_a_recording_that_moved_is_asked_for(run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "copy")
    gone = "recording.path=gone.npz"
    assert main(["report", "--run", str(copy), gone]) == 0
    said = capsys.readouterr().out
    assert (
        f"the run's recording is not at {Path('gone.npz').absolute()}" in said
        and "panels that need it are empty" in said
    )
    assert main(["decode", "--run", str(copy), gone]) == 2
    assert "say where it is: recording.path=FILE" in capsys.readouterr().err


def test_errors_lie_over_the_true_value(run):
    """Of the sine that is decoded as nine tenths of itself, a tenth of its height; ridge's cosine is off by one where it is 0."""
    from neuroformer.report.panels.charts import decoded_charts

    found = decoded_charts(run, read_bundle(run).of(""), {"decode_speed_nearest_baseline": "ridge"})
    (chart,) = found["charts"]
    model, ridge = chart["series"]
    assert (model["name"], ridge["name"]) == ("model", "ridge") and "speed" in chart["name"]
    np.testing.assert_allclose(model["y"], 0.1 * np.abs(model["x"]), atol=0.006)
    middle = int(np.abs(ridge["x"]).argmin())
    assert ridge["y"][middle] == pytest.approx(1, abs=0.1)


def test_a_line_is_not_drawn_across_the_turn_of_a_circle(page):
    path = "path([0, 1, 2, 3], [350, 355, 5, 350], (x) => x, (y) => y, 0, 4, {turn})"
    assert page.js(path.format(turn=180)) == "M0.0 350.0h0L1.0 355.0M2.0 5.0h0M3.0 350.0h0"
    assert page.js(path.format(turn="undefined")).count("M") == 1


def test_one_file_without_a_network(run):
    text = (run / "report.html").read_text()
    assert len(text) < 15e6
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text) and "@import" not in text
    assert "default-src 'none'" in text


def test_it_opens_without_errors_and_asks_for_nothing(page, run):
    assert page.errors() == []
    assert page.requests() == [(run / "report.html").resolve().as_uri()]
    titles = page.js("[...document.querySelectorAll('section h2')].map(h => h.textContent)")
    assert titles == [
        "Summary",
        "Audit",
        "Learning",
        "Rasters",
        "PSTHs",
        "Statistics",
        "Forecast",
        "Decoding",
        "Few labels",
        "Connectivity",
        "Frames",
        "Fields",
        "Comparison",
        "Identity",
        "Setup",
    ]
    # compare was not run
    missing = page.js("[...document.querySelectorAll('.missing')].map(m => m.closest('section').id)")
    assert missing == ["comparison"]
    assert page.js("[...document.querySelectorAll('img.drawn')].map(i => i.complete && i.naturalWidth > 0)") == [True]
    text = lambda name: page.js(f"document.getElementById('{name}').textContent")
    assert "Median error of speed" in text("decoding")
    assert "Predictability by group of units" in text("forecast") and "0.31" in text("forecast")
    assert "3 of 3 <stimuli>" in page.js("document.querySelector('.finding').textContent")


def test_the_trial_chooser_shows_another_trial(page):
    before, said = page.pixels("#raster"), page.js("document.querySelector('#rasters .readout').textContent")
    page.choose("#trial", "1")
    assert page.pixels("#raster") != before
    assert page.js("document.querySelector('#rasters .readout').textContent") != said
    page.js("[...document.querySelectorAll('#rasters button')].find(b => b.textContent === 'Previous').click()")
    assert page.pixels("#raster") == before and page.js("document.querySelector('#trial').value") == "0"


def test_the_matrix_sorts_subtracts_its_null_and_names_the_pair(page):
    page.js("document.querySelector('#matrix').scrollIntoView({behavior: 'instant', block: 'center'})")
    plain = page.pixels("#matrix")
    page.choose("#order", "unit")
    by_unit = page.pixels("#matrix")
    page.choose("#null", "on")
    null = page.pixels("#matrix")
    page.choose("#null", "off")
    page.choose("#passing", "on")
    passing = page.pixels("#matrix")
    page.choose("#passing", "off")
    assert len({plain, by_unit, null, passing}) >= 3 and page.pixels("#matrix") == by_unit
    # the first row of the cell at row 1, column 2 is u2 acting on u1
    size = page.js(
        "(() => { const b = document.querySelector('#matrix').getBoundingClientRect(); return [b.left, b.top, (b.width - 18) / 6]; })()"
    )
    at = [size[0] + 18 + 2.5 * size[2], size[1] + 18 + 1.5 * size[2]]
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=at[0], y=at[1])
    said = page.js("document.querySelector('#pair').textContent")
    assert said.startswith("u2 → u1: ") and "z " in said and "passes" in said
    assert page.js("document.querySelectorAll('#connectivity svg').length") == 1  # the pair by lag
    page.choose("#order", "area")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=at[0] + 1, y=at[1])
    assert page.js("document.querySelector('#matrix-shows').textContent").endswith("units by area: LM, V1.")
    assert re.match(r"u5 \(LM\) → u3 \(LM\)", page.js("document.querySelector('#pair').textContent"))
    page.choose("#map", "1")
    assert page.js("document.querySelector('#null').disabled") is True
    page.choose("#map", "0")


def test_the_matrix_answers_the_keyboard(page):
    page.js("document.querySelector('#matrix').focus()")
    page.key("ArrowRight")
    first = page.js("document.querySelector('#pair').textContent")
    page.key("ArrowRight")
    assert page.js("document.querySelector('#pair').textContent") != first


def test_the_time_slider_moves_the_frame_and_the_overlay_comes_off(page):
    first = page.pixels("#frames canvas")
    page.choose("#frame", "3")
    moved = page.pixels("#frames canvas")
    assert moved != first and "Frame 4 of 5" in page.js("document.querySelector('#frame-time').textContent")
    page.choose("#overlay", "off")
    assert page.pixels("#frames canvas") != moved


def test_a_tile_shows_its_unit_and_its_most_exciting_input(page):
    said = lambda: page.js("document.querySelector('#field-said').textContent")
    tiles = page.js("document.querySelectorAll('#fields .tile').length")
    assert tiles == 6 and "3.00 times" in said()
    first = said()
    page.js("document.querySelectorAll('#fields .tile')[4].focus()")
    page.key("Enter")
    assert said() != first and page.js("document.querySelector('#fields [aria-current]').textContent") == "u4"
    assert page.js("document.querySelectorAll('#fields .clip canvas').length") == 2  # the input's frames
    field = page.pixels("#fields .tile canvas")
    page.choose("#tiles-show", "clips")
    assert page.pixels("#fields .tile canvas") != field


def test_psths_step_from_unit_to_unit_and_name_the_ceiling(page):
    before = page.js("document.querySelector('#psth-said').textContent")
    page.js("[...document.querySelectorAll('#psth button')].find(b => b.textContent === 'Next').click()")
    after = page.js("document.querySelector('#psth-said').textContent")
    assert after != before and "ceiling" in after


def test_every_control_has_a_name_and_can_be_reached_by_tab(page):
    nameless = page.js(
        "[...document.querySelectorAll('select, input, button')].filter(c => !(c.textContent.trim() && c.tagName === 'BUTTON') && !c.closest('label')).length"
    )
    assert nameless == 0
    page.js("document.activeElement.blur(); window.scrollTo(0, 0)")
    seen = set()
    for _ in range(60):
        page.key("Tab")
        seen.add(page.js("document.activeElement.id || document.activeElement.tagName"))
    assert {"trial", "map", "order", "null", "matrix", "frame", "overlay"} <= seen


def test_a_narrow_page_does_not_scroll_sideways(page):
    page.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
    page.js("new Promise(r => setTimeout(r, 300))")
    assert page.js("document.documentElement.scrollWidth") <= 390
    page.call("Emulation.clearDeviceMetricsOverride")
    assert page.errors() == []


def test_print_leaves_the_controls_out_and_says_what_they_chose(page):
    page.call("Emulation.setEmulatedMedia", media="print")
    shown = lambda css: page.js(f"getComputedStyle(document.querySelector('{css}')).display")
    assert shown("nav") == shown(".controls") == "none" and shown("#setup pre") != "none"
    assert shown("#matrix-shows") != "none" and shown("#psth-said") != "none"
    page.call("Emulation.setEmulatedMedia", media="")


def test_a_bare_run_says_what_makes_each_panel(run, tmp_path, capsys):
    import shutil

    bare = tmp_path / "bare"
    (bare / "weights").mkdir(parents=True)
    shutil.copy(run / "bundle.json", bare / "bundle.json")
    assert main(["report", "--run", str(bare), "recording.path=absent.npz"]) == 0
    said = capsys.readouterr().out
    assert "Summary, Learning, Rasters" in said
    text = (bare / "report.html").read_text()
    for command in ("generate --run", "decode --run", "attend --run", "train --config"):
        assert f"neuroformer {command}" in text


def test_the_same_figures_in_a_notebook(run, tmp_path):
    from matplotlib.axes import Axes

    from neuroformer.report.notebook import RunView

    view = RunView(run)
    made = [
        view.learning(),
        view.audit(),
        view.statistics(),
        view.rasters(1),
        view.decoding("speed"),
        view.fewshot("speed"),
        view.frames(2),
        view.psths(),
        view.fields(),
        view.stimuli(),
        view.connectivity(),
        view.connectivity(sort="unit", null=True),
    ]
    assert all(isinstance(ax, Axes) for panel in made for ax in panel)
    assert made[0]._repr_png_().startswith(b"\x89PNG")
    shown, by_unit = (p[0].images[0].get_array() for p in made[-2:])
    assert shown.shape == (6, 6) and np.nanmax(by_unit) == pytest.approx(
        np.nanmax(view.maps["knock-out"].z()[~np.eye(6, dtype=bool)]), rel=1e-5
    )
    assert "bits/spike" in view._repr_html_() and "0.8" in view._repr_html_()
    assert "<table>" in view.rec._repr_html_() and "spikes" in view.rec._repr_html_()
    with pytest.raises(FileNotFoundError, match="neuroformer decode makes it"):
        view.decoding("gaze")
    with pytest.raises(ValueError, match="no order 'size'; known: cluster, rate, unit, area"):
        view.connectivity(sort="size")


def test_fields_writes_what_notebooks_show(run, tmp_path, capsys):
    import shutil

    from neuroformer.report.notebook import RunView

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    few = ["--windows", "8", "--starts", "1", "--steps", "3", "--integrated", "2"]
    assert main(["fields", "--run", str(copy), *few]) == 0
    assert "mei_gain_median" in capsys.readouterr().out
    for name in ("fields.png", "mei.png"):
        assert len(np.unique(np.asarray(Image.open(copy / name).convert("L")))) > 10, (
            name
        )  # nothing drawn is white alone
    moving = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(Image.open(copy / "fields.gif"))]
    assert len(moving) > 1 and any((moving[0] != frame).any() for frame in moving)
    view = RunView(copy)
    assert len(view.fields()) == len(view.stimuli()) == 6
    assert "integrated gradients to frames" in view.maps


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["report", "--run", str(tmp_path)]) == 2
    assert "no bundle at" in capsys.readouterr().err


def test_attend_writes_maps_that_the_page_shows(run, tmp_path, capsys):
    import shutil

    from neuroformer.analysis.maps import load_maps

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for name in ("maps.npz", "frame_attention.npz"):
        (copy / name).unlink()
    assert main(["attend", "--run", str(copy), "--windows", "40", "--knocked-out", "20", "--gradients"]) == 0
    assert "knock-out" in capsys.readouterr().out
    maps = load_maps(copy / "maps.npz")
    for name in (
        "knock-out",
        "gradient x input",
        "integrated gradients",
        "attention to past",
        "transfer entropy",
    ):
        assert name in maps and maps[name].null_std is not None
    assert maps["attention to frames"].grid == (3, 3)
    within = ["attend", "--run", str(copy), "--windows", "40", "--knocked-out", "4", "--interval"]
    assert main([*within, "2", "9"]) == 0
    times = np.load(copy / "frame_attention.npz")["times"]
    assert times.min() >= 2 and times.max() < 9 and (np.diff(times) > 0).all()
    capsys.readouterr()
    assert main([*within, "500", "600"]) == 2 and "no window lies between 500 and 600 s" in capsys.readouterr().err
    again = [
        "attend",
        "--run",
        str(copy),
        "--windows",
        "40",
        "--knocked-out",
        "20",
        "--surrogates",
        "3",
        "--reliability",
    ]
    assert main([*again, "--pool", str(run)]) == 0
    assert "reliability_knock_out" in capsys.readouterr().out
    both = load_maps(copy / "maps.npz")["knock-out"]  # of one model twice: no spread over seeds
    np.testing.assert_allclose(both.values, maps["knock-out"].values, rtol=1e-5)
    assert np.nanmax(both.null_std) < 1e-9
    assert main(["report", "--run", str(copy)]) == 0
    assert "Connectivity" not in capsys.readouterr().out  # nothing of it is missing


@pytest.mark.slow
def test_the_page_of_two_thousand_units_opens_in_a_second(tmp_path):
    """Its main thread is busy for about a second until all panels are drawn, and less until the first one is."""
    run = fill(tmp_path / "many", [f"u{i}" for i in range(2000)], rate=0.75)
    assert (run / "report.html").stat().st_size < 15e6
    with Browser(tmp_path / "chromium") as browser:
        browser.call("Performance.enable", timeDomain="threadTicks")  # what else the machine does takes no time from it
        browser.open(run / "report.html")
        metrics = {m["name"]: m["value"] for m in browser.call("Performance.getMetrics")["metrics"]}
        assert browser.js("document.querySelectorAll('main section').length") == 15
    assert metrics["TaskDuration"] < 1.5


def test_many_units_fit():
    """The matrix shows those that act or are acted on most, so that thousands of units keep to the page's 15 MB."""
    from neuroformer.report.panels.seeing import MAX_MATRIX_UNITS, connectivity

    units, rng = [f"u{i}" for i in range(800)], np.random.default_rng(0)
    values = rng.standard_normal((800, 800)).astype(np.float32)
    values[7, 790] = 500.0  # one strong pair
    ones = np.ones((800, 800), np.float32)
    one = Map("a", values[..., None], "nats", units, units, ones[..., None], np.array([0.01])).with_null(0 * ones, ones)
    made = connectivity({"a": one}, units, np.where(values > 4, values, 0))
    assert made is not None and made["left_out"] == 800 - MAX_MATRIX_UNITS == 800 - len(made["units"])
    assert len(json.dumps(made)) < 10 * MAX_MATRIX_UNITS**2
    shown = made["shown"]
    assert {7, 790} <= set(shown) and made["units"] == [units[u] for u in shown]
    row, column = shown.index(7), shown.index(790)
    assert unpacked(made["maps"][0]["pairs"])[row, column] == pytest.approx(500, rel=1e-3)
    assert unpacked(made["truth"])[row, column] == pytest.approx(500, rel=1e-3)
    assert sorted(made["orders"]["cluster"]) == list(range(MAX_MATRIX_UNITS))
    # a map of some units, as of a larger population: places and truth are theirs
    among = np.array([3, 7, 500, 790])
    part = connectivity({"a": one.among(among)}, units, np.where(values > 4, values, 0))
    assert part["shown"] == among.tolist() and part["units"] == [units[u] for u in among] and part["left_out"] == 796
    assert unpacked(part["truth"])[1, 3] == pytest.approx(500, rel=1e-3)

"""The audit: every defect planted in a recording is found by name, and nothing is found where nothing is wrong."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from audited import demo, names, of_config
from helpers import shared_recording, small_config, small_recording

from neuroformer.audit import audit
from neuroformer.audit.clocks import clock_findings, frame_lag
from neuroformer.cli import main
from neuroformer.config import from_dict, load_config, to_dict
from neuroformer.recording import BehaviorVariable, FrameSeries, ObservedIntervals, Recording, open_recording
from neuroformer.recording.formats.arrays import from_arrays, from_counts
from neuroformer.recording.formats.npz import write_npz
from neuroformer.recording.sources import add_source

# -- nothing wrong ------------------------------------------------------------------------------------------


def test_no_false_alarm_on_the_demo():
    config = load_config("configs/demo.yaml")
    rec = open_recording(config.recording.path)
    found = of_config(rec, config)
    assert names(found) == set()
    assert found.named("shared_stimulus").severity == "note"  # stated, as the claim is 'repeats'
    assert found.facts["stimuli"]["also_in_train"] == 1.0
    assert max(found.facts["controls"]["speed"].values()) < 10 and found.facts["tokens"]["max"] > 20


# These are true of the recordings: a rat that rests is where it was (or was lost by its tracker, for half of the recording), and a few
# clusters share their spikes.
@pytest.mark.parametrize(
    ("name", "file", "true"),
    [
        ("hippocampus", "hippocampus_linear.npz", {"predictable_without_spikes", "stuck_values"}),
        ("retina", "retina_movie_2.npz", {"duplicated_units"}),
    ],
)
def test_no_false_alarm_on_the_real_recordings(name, file, true):
    config = load_config(f"configs/{name}.yaml", [f"recording.path={shared_recording(file)}"])
    found = of_config(open_recording(config.recording.path), config)
    assert names(found) == true and not found.leaks


def test_clusters_that_share_spikes_are_truly_the_same_spikes():
    """The warning on the retina: most spikes of the named pairs have the very same time, or lie within two bins (those of one
    more pair, half of which do)."""
    rec = open_recording(shared_recording("retina_movie_2.npz"))
    pairs = audit(rec).named("duplicated_units").values["pairs"]
    exact = 0
    for a, b in pairs:
        ta, tb = (rec.spike_times[rec.spike_units == rec.unit_ids.index(u)] for u in (a, b))
        if len(np.intersect1d(ta, tb)) > 0.5 * min(len(ta), len(tb)):
            exact += 1
            continue
        most, other = (ta, tb) if len(ta) > len(tb) else (tb, ta)
        near = np.abs(most[:, None] - other).min(1) <= 0.02
        assert near.mean() > 0.5, (a, b)
    assert exact == 4 and len(pairs) <= 5


def test_chance_coincidence_is_no_duplicate():
    rng = np.random.default_rng(0)
    rec = small_recording(num_units=6, rate=60.0, doubles=0.0)
    assert "duplicated_units" not in names(audit(rec))
    u, t = rec.spike_units, rec.spike_times
    copy = t[u == 2] + rng.uniform(0, 2e-4, (u == 2).sum())
    units, times = np.r_[u, np.full(len(copy), 6)], np.r_[t, copy]
    order = np.argsort(times)
    twice = replace(rec, spike_times=times[order], spike_units=units[order], units={"id": np.arange(7)})
    assert audit(twice).named("duplicated_units").values["pairs"] == [["2", "6"]]


# -- planted in the recording -------------------------------------------------------------------------------


def add_unit(rec, rate_hz, seed=0):
    rng = np.random.default_rng(seed)
    start, stop = rec.domain[0, 0], rec.domain[-1, 1]
    extra = rng.uniform(start, stop, rng.poisson(rate_hz * (stop - start)))
    times = np.concatenate([rec.spike_times, extra])
    units = np.concatenate([rec.spike_units, np.full(len(extra), rec.num_units)])
    order = np.argsort(times, kind="stable")
    ids = np.append(rec.units["id"].astype(str), "mua")
    return replace(rec, spike_times=times[order], spike_units=units[order], units={"id": ids})


def check_dominant(rec):
    assert "dominant_unit" not in names(audit(rec))
    found = audit(add_unit(rec, 107.0)).named("dominant_unit")
    assert found.severity == "warning" and found.values["unit"] == "mua"
    assert found.values["rate_hz"] == pytest.approx(107, rel=0.02)


def test_a_multi_unit_cluster_in_the_w_maze():
    check_dominant(open_recording(shared_recording("hippocampus_wmaze.npz")))


def test_a_multi_unit_cluster():
    check_dominant(small_recording(num_units=24, rate=0.55, seconds=200.0, doubles=0.0))


@pytest.mark.parametrize("offset", [1.0, -1.0])
@pytest.mark.parametrize("trials", [True, False])
def test_a_clock_offset_between_spikes_and_frames(offset, trials):
    rec = demo()
    assert "clock_offset" not in names(audit(rec))
    late = replace(rec.frames, times=rec.frames.times + offset)
    moved = replace(rec, frames=late)
    if not trials:  # nothing but the response itself tells
        moved = replace(moved, trials={}, domain=np.array([[0.0, rec.domain[-1, 1]]]))
    found = audit(moved).named("clock_offset")
    assert found.severity == "warning"
    assert found.values["offset_s"] == pytest.approx(offset, abs=0.11)


def test_the_lag_of_frames_needs_a_response():
    assert frame_lag(small_recording(seconds=60.0)).z < 5  # spikes that follow nothing
    true = frame_lag(demo())
    assert true.z > 12 and 0 <= true.peak_s <= 0.15


def test_behavior_on_another_clock():
    rec = small_recording(num_trials=1, frames=False)
    speed = rec.behavior["speed"]
    late = replace(rec, behavior={"speed": BehaviorVariable(speed.times + 3.0, speed.values)})
    assert audit(late).named("clock_offset").values["offset_s"] == pytest.approx(3.0, abs=0.1)
    lost = replace(rec, behavior={"speed": BehaviorVariable(speed.times + 500.0, speed.values)})
    assert "clock_mismatch" in names(audit(lost))


def test_pulses_that_do_not_lie_on_a_line(tmp_path):
    rng = np.random.default_rng(0)
    rec = small_recording()
    pulses = np.cumsum(rng.uniform(0.5, 1.5, 60))
    np.savetxt(tmp_path / "ours.txt", pulses)
    for spread, count, told in ((0.001, 60, False), (0.02, 60, True), (0.0, 4, True)):
        theirs = (pulses + rng.normal(0, spread, 60))[:count] + 100
        np.savetxt(tmp_path / "ours.txt", pulses[:count])
        np.savez(tmp_path / "w.npz", t=pulses + 100, wheel=np.sin(pulses), up=theirs)
        sync = {"ours": str(tmp_path / "ours.txt"), "theirs": f"{tmp_path}/w.npz:up"}
        moved = add_source(rec, tmp_path / "w.npz", columns={"wheel": "wheel"}, sync=sync)
        found = [f for f in clock_findings(moved) if f is not None and f.name == "pulses_apart"]
        assert bool(found) == told, (spread, count)
    assert found[0].values["pulses"] == 4 and found[0].values["source"] == "w.npz"


def test_milliseconds_taken_for_seconds():
    rec = small_recording(seconds=100.0, frames=False, doubles=0.0)
    arrays = {"spike_times": rec.spike_times * 1000, "spike_units": rec.spike_units}
    assert "milliseconds_as_seconds" in names(audit(from_arrays(arrays)))
    # one series only: the other clock tells
    speed = {"speed": rec.behavior["speed"].values[:, 0], "speed_times": rec.behavior["speed"].times}
    assert "milliseconds_as_seconds" in names(audit(from_arrays(arrays | speed)))
    assert "milliseconds_as_seconds" not in names(audit(rec))
    # and behavior in milliseconds is not called seconds that were scaled
    behind = {"spike_times": rec.spike_times, "spike_units": rec.spike_units, "speed": speed["speed"]}
    found = audit(from_arrays(behind | {"speed_times": speed["speed_times"] * 1000})).findings
    assert "seconds_as_milliseconds" not in [f.name for f in found]
    (said,) = [f for f in found if f.name == "milliseconds_as_seconds"]
    assert said.advice.startswith("behavior 'speed' may be in milliseconds: scale: 0.001")


def test_seconds_taken_for_milliseconds():
    rec = small_recording(seconds=100.0, frames=False, doubles=0.0)
    arrays = {"spike_times": rec.spike_times / 1000, "spike_units": rec.spike_units}
    assert "seconds_as_milliseconds" in names(audit(from_arrays(arrays)))
    assert "seconds_as_milliseconds" not in names(audit(rec))


def test_duplicated_spikes():
    rec = small_recording(doubles=0.0)
    assert "duplicated_spikes" not in names(audit(rec))
    twice = replace(rec, spike_times=np.repeat(rec.spike_times, 2), spike_units=np.repeat(rec.spike_units, 2))
    found = audit(twice).named("duplicated_spikes")
    assert found.values["duplicated"] == rec.num_spikes


def test_counts_handed_over_transposed():
    counts = np.random.default_rng(0).poisson(0.05, (40, 6000))
    made = lambda c: (lambda t, u: Recording("c", t, u, {"id": np.arange(len(c))}, np.array([[0, c.shape[1] * 0.01]])))(
        *from_counts(c, 0.01)
    )
    assert "transposed_counts" not in names(audit(made(counts)))
    assert "transposed_counts" in names(audit(made(counts.T)))


def test_units_counted_from_one_and_ids_taken_for_rows():
    rec = small_recording(frames=False)
    arrays = {"spike_times": rec.spike_times, "spike_units": rec.spike_units + 1}
    assert "count from 1" in audit(from_arrays(arrays)).named("silent_units").advice
    arrays["spike_units"] = rec.spike_units * 10 + 7
    assert "if these are ids" in audit(from_arrays(arrays)).named("silent_units").advice


def test_what_the_reader_left_out_is_a_finding():
    """A variable without times, a misspelt name, the share of events kept: a bundle and a report say so."""
    rec = small_recording(frames=False)
    arrays = {
        "spike_times": rec.spike_times,
        "spike_units": rec.spike_units,
        "speed": np.zeros(9),
        "trial_start": np.zeros(2),
    }
    notes = audit(from_arrays(arrays)).named("reader_notes")
    assert notes.severity == "note" and "not read: speed, trial_start" in notes.measured
    events = np.random.default_rng(0).gamma(1, 1, (3, 900))
    notes = audit(from_arrays({"events": events, "events_rate": 30.0})).named("reader_notes").measured
    assert "kept" in notes and "arbitrary units" in notes
    assert audit(rec).named("reader_notes") is None


def test_refractory_violations_silence_and_silent_units():
    rec = small_recording(num_units=6, seconds=100.0, rate=5.0, doubles=0.0)
    keep = (rec.spike_times < 40) | (rec.spike_times > 70)
    times = np.sort(np.concatenate([rec.spike_times[keep], rec.spike_times[keep] + 0.001]))
    units = np.zeros(len(times), int)
    found = audit(replace(rec, spike_times=times, spike_units=units))
    assert found.named("refractory_violations") is not None
    assert found.named("silent_stretch").values["longest_from_s"] == pytest.approx(40, abs=1)
    assert found.named("silent_units").values["silent"] == 5
    assert found.named("silent_units").severity == "warning"


def test_spikes_outside_the_domain_and_drift():
    rec = small_recording(seconds=80.0, doubles=0.0)
    assert "spikes_outside_domain" in names(audit(replace(rec, domain=np.array([[0, 30], [50, 80.0]]))))
    late = (rec.spike_units == 0) & (rec.spike_times < 40)
    drifted = replace(rec, spike_times=rec.spike_times[~late], spike_units=rec.spike_units[~late])
    assert audit(drifted).named("drift").values["units"] == ["u0"]
    assert audit(rec).named("drift") is None


def test_units_that_were_observed_for_a_part_drift_no_more_than_while_they_were():
    rec = small_recording(seconds=80.0, doubles=0.0)
    late = (rec.spike_units == 0) & (rec.spike_times < 40)
    half = ObservedIntervals.from_units([np.array([[40, 80.0]])] + [np.array([[0, 80.0]])] * 5)
    cut = replace(rec, spike_times=rec.spike_times[~late], spike_units=rec.spike_units[~late], observed=half)
    assert not names(audit(cut), "warning", "note") & {"drift", "spikes_outside_observed"}
    found = audit(replace(rec, observed=half)).named("spikes_outside_observed")
    assert found.severity == "warning" and found.values["units"] == ["u0"]
    assert abs(found.values["share"] - late.mean()) < 1e-9


def test_tokens_that_a_cap_drops():
    rec = small_recording(rate=20.0)
    config = small_config(generate={"max_tokens": 8})
    found = of_config(rec, config)
    dropped = found.named("tokens_dropped").values["dropped"]
    assert dropped == np.maximum(found.series["tokens"] - 8, 0).sum() > 0
    assert found.series["tokens"].sum() == rec.num_spikes
    assert found.facts["tokens"]["max"] == found.series["tokens"].max()
    assert "tokens_dropped" not in names(of_config(rec, small_config()))


def test_missing_values_and_short_variables():
    rec = small_recording()
    values = rec.behavior["speed"].values.copy()
    values[::2] = np.nan
    short = BehaviorVariable(rec.behavior["pupil"].times[:200], rec.behavior["pupil"].values[:200])
    found = of_config(
        replace(rec, behavior=rec.behavior | {"speed": BehaviorVariable(rec.behavior["speed"].times, values)}),
        small_config(),
    )
    assert found.named("missing_values").values == {"variable": "speed", "share": 0.5}
    assert found.facts["missing"]["gaze"] == 0
    assert "behavior_does_not_cover" in names(
        audit(replace(rec, behavior=rec.behavior | {"pupil": short}), small_config())
    )


def test_a_variable_with_gaps_does_not_cover_the_recording():
    """A wheel that is sampled only while it turns reaches over all of the recording and is known for a fifth of it."""
    rec = small_recording()
    start, stop = rec.domain[0, 0], rec.domain[-1, 1]
    turns = np.arange(start, stop, 5.0)
    times = (turns[:, None] + np.arange(100) / 100).ravel()
    wheel = BehaviorVariable(times, np.cumsum(np.ones(len(times))))
    config = small_config(targets=[{"name": "wheel"}], inputs=[{"name": "speed"}])
    found = audit(replace(rec, behavior=rec.behavior | {"wheel": wheel}), config)
    assert abs(found.facts["covered"]["wheel"] - 0.2) < 0.03
    assert found.facts["covered"]["speed"] > 0.99
    named = [f for f in found.findings if f.name == "behavior_does_not_cover"]
    assert [f.values["variable"] for f in named] == ["wheel"]
    assert named[0].values["gaps"] == len(turns) - 1


def test_a_tracker_that_lost_the_animal_is_named_and_a_wheel_at_rest_is_not():
    rec = small_recording(seconds=120.0)
    speed = rec.behavior["speed"]
    place = np.stack([np.sin(speed.times), np.cos(speed.times)], 1)
    rest = np.where(speed.times < 40, 0.0, speed.values[:, 0])
    for lost, kept in ((speed.times >= 70, [0.0, 70.0]), (speed.times < 50, [50.0, 120.0])):
        stuck = BehaviorVariable(speed.times, np.where(lost[:, None], [522.0, 8.0], place))
        behavior = {"position": stuck, "speed": BehaviorVariable(speed.times, rest)}
        config = small_config(inputs=[], targets=[{"name": "position"}, {"name": "speed"}])
        found = audit(replace(rec, behavior=behavior), config)
        (finding,) = [f for f in found.findings if f.name == "stuck_values"]
        assert finding.values["variable"] == "position" and abs(finding.values["share"] - lost.mean()) < 0.01
        assert "(522, 8)" in finding.measured
        low, high = map(float, re.search(r"recording.interval: \[(.*), (.*)\]", finding.advice).groups())
        assert abs(low - kept[0]) < 0.2 and abs(high - kept[1]) < 0.2
        cut = audit(replace(rec, behavior=behavior).between(low, high), config)
        assert "stuck_values" not in names(cut)


@pytest.mark.parametrize("until", ["stop", "start"])
def test_an_animal_that_moves_its_stimulus(until):
    """Closed-loop virtual reality: the faster it runs, the more the picture changes."""
    rng = np.random.default_rng(0)
    rec = small_recording(seconds=60.0)
    t = np.arange(1200) / 20
    speed = np.abs(np.convolve(rng.normal(size=1219), np.hanning(20), "valid"))
    place = np.cumsum(speed)
    x = np.arange(32)
    images = (127 + 100 * np.sin((x[None, None] + place[:, None, None]) / 3) * np.ones((1, 32, 1))).astype(np.uint8)
    closed = replace(
        rec, frames=FrameSeries(images, t, np.arange(1200)), behavior={"speed": BehaviorVariable(t, speed)}
    )
    config = small_config(window={"frames_until": until}, targets=[{"name": "speed"}], inputs=[])
    found = of_config(closed, config)
    moves = found.named("behavior_moves_stimulus")
    assert moves.severity == ("warning" if until == "stop" else "note")
    assert (found.named("frames_within_window") is None) == (until == "start")
    playback = replace(closed, behavior={"speed": BehaviorVariable(t, np.abs(np.cumsum(rng.normal(size=1200))))})
    assert of_config(playback, config).named("behavior_moves_stimulus") is None


# -- the command and the training run -----------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    rec = small_recording(num_trials=12)
    write_npz(rec, tmp_path / "small.npz")
    tree = to_dict(small_config(split={"by": "trials", "claim": "repeats"}))
    tree["recording"]["path"] = str(tmp_path / "small.npz")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


def test_the_command(folder, capsys):
    config = str(folder / "small.yaml")
    assert main(["audit", config, "--figure", str(folder / "audit.png")]) == 0
    text = capsys.readouterr().out
    assert "Audit of 'small'" in text and "# train, v valid, t test" in text and "shared_stimulus" in text
    assert (folder / "audit.png").is_file()
    assert main(["audit", config, "--json", "split.claim=stimuli"]) == 1
    tree = json.loads(capsys.readouterr().out)
    assert tree["leaks"] and tree["findings"][0]["name"] == "shared_stimulus"
    assert main(["audit", str(folder / "small.npz")]) == 0
    assert "split" not in capsys.readouterr().out.split("tokens")[0]
    assert main(["audit", "synthetic:demo"]) == 0
    assert "no split was looked at" in capsys.readouterr().out
    assert main(["audit", str(folder / "absent.npz")]) == 2
    assert main(["audit", config, "split.claim=stimulus"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_several_recordings_get_a_figure_each(folder):
    tree = yaml.safe_load((folder / "small.yaml").read_text())
    write_npz(small_recording(1, num_trials=12), folder / "other.npz")
    paths = [str(folder / "small.npz"), str(folder / "other.npz")]
    tree |= {"recordings": [{"path": path, "name": name} for path, name in zip(paths, ("day:1", "b"), strict=True)]}
    tree.pop("recording", None)
    (folder / "two.yaml").write_text(yaml.safe_dump(tree))
    assert main(["audit", str(folder / "two.yaml"), "--figure", str(folder / "a.png")]) == 0
    assert sorted(p.name for p in folder.glob("*.png")) == ["a_b.png", "a_day_1.png"]


def test_training_refuses_a_leak_unless_it_is_allowed(folder, capsys):
    argv = [
        "train",
        "--config",
        str(folder / "small.yaml"),
        "--run",
        str(folder / "run"),
        "--quiet",
        "--no-baselines",
    ]
    assert main([*argv, "split.claim=stimuli"]) == 2
    said = capsys.readouterr().err
    assert "the split of 'small' leaks (shared_stimulus" in said and "split.allow_leak=true" in said
    assert not (folder / "run" / "bundle.json").exists()
    assert main([*argv, "split.claim=stimuli", "split.allow_leak=true"]) == 0
    assert json.loads((folder / "run" / "summary.json").read_text())["audit_leaks"] == "shared_stimulus"
    bundle = json.loads((folder / "run" / "bundle.json").read_text())
    assert bundle["recordings"][0]["split"]["audit"]["leaks"] and bundle["config"]["split"]["allow_leak"]
    capsys.readouterr()
    assert main(["inspect", str(folder / "run")]) == 0
    assert "THE SPLIT LEAKS (shared_stimulus)" in capsys.readouterr().out


def test_units_that_the_animal_drives_together_are_no_copies_in_wide_bins():
    """Counts of 50 ms: spikes of one bin share its time, and units of one drive share its bins."""
    rng = np.random.default_rng(0)
    drive = np.repeat(rng.uniform(0, 2, 300), 4)
    counts = rng.poisson(drive[:, None] * np.ones(5))
    bins, unit = np.nonzero(counts)
    rec = Recording(
        name="counts",
        spike_times=(bins + 0.5) * 0.05,
        spike_units=unit.astype(np.int32),
        units={"id": np.array(list("abcde"))},
        domain=np.array([[0.0, 60.0]]),
    )
    assert "duplicated_units" not in names(audit(rec, from_dict({"window": {"dt": 0.05, "past": 0.5}})))

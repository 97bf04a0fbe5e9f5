"""The tutorial's session: its configuration, word by word, opens and trains."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from neuroformer.cli import main
from neuroformer.config import load_config
from neuroformer.data.recordings import open_only

ROOT = Path(__file__).parents[2]
RATE = 30_000
CLOCK = (250.0, 1.00003)  # the behavior computer's: (t - 250) / 1.00003


def configuration() -> str:
    return configurations()[0]


def configurations() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/own-data.md").read_text(), re.S)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return made(tmp_path_factory.mktemp("lab") / "session", 300, 12)


def made(folder, seconds, clusters):
    rng = np.random.default_rng(0)
    sorter = folder / "kilosort4"
    sorter.mkdir(parents=True)
    samples = np.sort(rng.integers(0, seconds * RATE, seconds * clusters * 3)).astype(np.int64)
    np.save(sorter / "spike_times.npy", samples)
    np.save(sorter / "spike_clusters.npy", rng.integers(0, clusters, len(samples)).astype(np.int32))
    (sorter / "params.py").write_text(f"sample_rate = {RATE}.\n")
    labels = [f"{i}\t{'noise' if i < 2 else 'good'}\n" for i in range(clusters)]
    (sorter / "cluster_group.tsv").write_text("cluster_id\tgroup\n" + "".join(labels))
    pulses = np.cumsum(rng.uniform(2, 8, seconds * 58 // 300))
    np.savetxt(folder / "sync.txt", np.delete(pulses, 7))
    at = np.arange(0, seconds, 0.02)
    ttl = (pulses.searchsorted(at, side="right") - pulses.searchsorted(at - 0.1, side="right")).clip(0, 1)
    theirs = 1000 * (at - CLOCK[0]) / CLOCK[1]
    table = np.stack([theirs, np.cumsum(rng.normal(size=len(at))), ttl], 1)
    np.savetxt(folder / "wheel.csv", table, delimiter=",", header="t,position,ttl", comments="", fmt="%.9g")
    rows = [f"{4 * i},2,{45 * (i % 8)},0.05,2\n" for i in range(seconds // 4)]
    (folder / "gratings.csv").write_text("onset,duration,orientation,sf,tf\n" + "".join(rows))
    (folder / "mine.yaml").write_text(configuration())
    return folder


def test_it_is_short():
    lines = [line for line in configuration().splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 15 and yaml.safe_load(configuration())


def test_it_opens(session):
    rec = open_only(load_config(session / "mine.yaml"))[1]
    assert rec.num_units == 10 and rec.num_trials == 75
    assert rec.meta["clocks"]["wheel.csv"]["pulses"] == 57
    np.testing.assert_allclose(rec.behavior["wheel"].times, np.arange(0, 300, 0.02), atol=0.03)


def test_the_gratings_are_drawn(session):
    (line,) = re.findall(r"```\n(  render:.*?\n)```", (ROOT / "docs/own-data.md").read_text())
    text = configuration().replace("  sources:\n", line + "  sources:\n")
    (session / "pixels.yaml").write_text(text)
    rec = open_only(load_config(session / "pixels.yaml"))[1]
    assert rec.frames is not None and rec.frames.images.shape[1:] == (24, 32)
    shown = lambda t: np.asarray(rec.frames.images[rec.frames.index[[rec.frames.times.searchsorted(t)]]])[0]
    assert shown(9.0).std() > 50 and shown(11.0).std() == 0  # 90 degrees, and nothing
    assert len(text.splitlines()) <= 15


def test_it_trains(session, tmp_path, capsys):
    small = ["model.width=16", "train.steps=2", "train.evaluate_every=2"]
    argv = ["--config", str(session / "mine.yaml"), "--run", str(tmp_path / "run"), "--quiet", *small]
    assert main(["train", *argv]) == 0
    assert "bits_per_spike" in json.loads((tmp_path / "run" / "summary.json").read_text())


@pytest.mark.slow
def test_an_hour_of_three_hundred_clusters_is_training_within_minutes(tmp_path, capsys):
    """From the folder to a network that has made its first steps: inspect, audit, train."""
    import time

    folder, times = made(tmp_path / "session", 3600, 300), [time.process_time()]
    config = str(folder / "mine.yaml")
    few = ["train.steps=20", "train.evaluate_every=20"]
    for argv in (
        ["inspect", config],
        ["audit", config],
        ["train", "--config", config, "--run", str(tmp_path / "run"), "--no-baselines", *few],
    ):
        assert main([*argv, "--quiet"]) == 0, capsys.readouterr().err
        times.append(time.process_time())
    took = np.diff(times)
    print("seconds of the processor: inspect {:.0f}, audit {:.0f}, twenty steps {:.0f}".format(*took))
    assert took.sum() < 300


def test_a_tracked_position_opens_and_is_cut(session):
    """Word by word but for the seconds, which are of another session; where labels do not count, they are left out."""
    _, track = configurations()
    at = np.arange(0, 300, 0.1)
    place = np.stack([at, 50 * np.sin(at / 7), 80 * np.cos(at / 9)], 1)
    np.savetxt(session / "tracking.csv", place, delimiter=",", header="time_s,x_px,y_px", comments="", fmt="%.9g")
    (session / "track.yaml").write_text(track)
    config, rec = open_only(load_config(session / "track.yaml", ["recording.interval=[20, 260]"]))
    assert rec.duration == 240 and rec.behavior["position"].values.shape[1] == 2
    assert config.decode.moving.variable == "speed" and [t.name for t in config.targets] == ["position", "speed"]

"""A file as pynwb writes it, with spikes, frames, running and eye tracking: audit, train, generate, decode."""

import datetime as dt
import json

import numpy as np
import pytest
import yaml
from helpers import small_config, small_recording

from neuroformer.cli import main
from neuroformer.config import to_dict

pynwb = pytest.importorskip("pynwb")
pytestmark = pytest.mark.filterwarnings("ignore")


def session(path):
    """Nothing of ours in it: units with areas, trials, a movie as an IndexSeries, running, gaze and pupil."""
    from pynwb.base import Images
    from pynwb.behavior import EyeTracking, PupilTracking, SpatialSeries
    from pynwb.image import GrayscaleImage, IndexSeries

    rec = small_recording(num_trials=20, seconds=60.0, rate=3.0)
    f = pynwb.NWBFile("a session", "id-1", dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc))
    device = f.create_device(name="probe")
    group = f.create_electrode_group(name="probeA", description="x", location="VISp", device=device)
    f.add_electrode(location="VISp", group=group)
    for u in range(rec.num_units):
        f.add_unit(spike_times=rec.spike_times[rec.spike_units == u], electrodes=[0], obs_intervals=[[0.0, 60.0]])
    for start, stop in rec.trial_intervals:
        f.add_trial(start_time=float(start), stop_time=float(stop))
    images = [GrayscaleImage(f"image_{i:02d}", data=image.astype(float)) for i, image in enumerate(rec.frames.images)]
    movie = Images(
        "movie", images=images, description="x", order_of_images=pynwb.base.ImageReferences("order_of_images", images)
    )
    f.add_stimulus_template(movie)
    f.add_stimulus(
        IndexSeries(
            name="natural_movie",
            data=rec.frames.index.astype("uint32"),
            unit="N/A",
            timestamps=rec.frames.times,
            indexed_images=movie,
        )
    )
    t, speed = rec.behavior["speed"].times, rec.behavior["speed"].values[:, 0]
    running = f.create_processing_module(name="running", description="x")
    running.add(pynwb.TimeSeries(name="running_speed", data=speed, unit="cm/s", timestamps=t))
    behavior = f.create_processing_module(name="behavior", description="x")
    gaze = SpatialSeries(
        name="gaze", data=rec.behavior["gaze"].values, timestamps=t, reference_frame="center", unit="degrees"
    )
    behavior.add(EyeTracking(spatial_series=gaze))
    pupil = pynwb.TimeSeries(name="pupil_area", data=rec.behavior["pupil"].values[:, 0], unit="mm2", timestamps=t)
    behavior.add(PupilTracking(time_series=pupil))
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(f)
    return rec


def test_one_file_goes_all_the_way(tmp_path, capsys):
    rec = session(tmp_path / "mouse.nwb")
    assert main(["inspect", str(tmp_path / "mouse.nwb")]) == 0
    listed = capsys.readouterr().out
    for name in ("running_speed", "gaze", "pupil_area", "frames"):
        assert name in listed
    config = to_dict(
        small_config(
            inputs=[{"name": "pupil_area"}],
            targets=[{"name": "running_speed"}, {"name": "gaze"}],
            split={"by": "trials", "claim": "repeats"},
            train={"steps": 3},
        )
    )
    config["recording"] = {"path": str(tmp_path / "mouse.nwb"), "options": {"frame_cache_mb": 1}}
    (tmp_path / "mouse.yaml").write_text(yaml.safe_dump(config))
    run = str(tmp_path / "run")
    assert main(["audit", str(tmp_path / "mouse.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["facts"]["recording"]["spikes"] == rec.num_spikes
    assert found["facts"]["stimuli"]["also_in_train"] == 1.0 and set(found["facts"]["controls"]) == {
        "running_speed",
        "gaze",
    }
    assert main(["train", "--config", str(tmp_path / "mouse.yaml"), "--run", run, "--quiet", "--no-baselines"]) == 0
    assert main(["generate", "--run", run, "--quiet"]) == 0
    assert main(["decode", "--run", run, "--quiet"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for key in ("bits_per_spike", "decode_running_speed_r2", "decode_gaze_r2", "simulated_rate_ratio"):
        assert np.isfinite(summary[key]), key
    assert summary["audit_leaks"] == "none"
    assert main(["generate", "--run", run, "--quiet", "generate.max_seconds=1"]) == 0
    again = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert again["simulated_sequence_seconds"] == pytest.approx(1)
    assert summary["simulated_sequence_seconds"] == pytest.approx(0.5)  # as configured
    assert again["simulated_sequences"] == summary["simulated_sequences"]

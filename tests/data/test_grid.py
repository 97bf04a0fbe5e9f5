"""Bins must fit the grid on which spikes lie."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import small_config, small_recording

from neuroformer.audit import audit
from neuroformer.config import ConfigError
from neuroformer.data.grid import grid_problem, spike_grid
from neuroformer.data.prepared import prepare
from neuroformer.recording import Recording, open_recording
from neuroformer.recording.formats.arrays import from_arrays
from neuroformer.recording.formats.npz import write_npz


def counts(dt: float) -> Recording:
    return from_arrays({"spikes": np.random.default_rng(0).poisson(0.4, (5, round(60 / dt))), "spikes_dt": dt})


def config(dt: float):
    window = {"dt": dt, "current": dt, "past": 2 * dt, "frames": 0}
    return small_config(window=window, inputs=[], targets=[], loss={"contrast": []})


def bare(rec: Recording, times: np.ndarray) -> Recording:
    return replace(rec, spike_times=times, meta={}, domain=np.array([[0.0, times.max() + 1]]))


@pytest.mark.parametrize("grid", [0.1, 1 / 30, 0.02])
def test_finer_bins_than_the_counts_are_refused_by_name(grid, tmp_path):
    rec = counts(grid)
    assert grid_problem(rec, config(round(grid, 9))) == "" and grid_problem(rec, config(round(2 * grid, 9))) == ""
    for dt in (grid / 2, grid / 10, 1.5 * grid):
        with pytest.raises(ConfigError, match=r"window.dt is .* grid of .* say window.dt=") as e:
            prepare(rec, config(dt))
        told = float(str(e.value).split("window.dt=")[1].split()[0])
        assert grid_problem(rec, config(told)) == ""
    assert audit(rec).named("bins_beside_grid") is not None
    assert spike_grid(open_recording(write_npz(rec, tmp_path / "a.npz"))) == grid


def test_a_grid_shows_in_the_times_alone():
    rng = np.random.default_rng(0)
    rec = counts(0.1)
    on_grid = bare(rec, np.floor(rec.spike_times / 0.1) * 0.1 + 0.05)
    late = rng.uniform(0, 1e-3, 600)[np.floor(rec.spike_times / 0.1 + 1e-6).astype(int)]  # frames do not come exactly
    jitter = bare(rec, on_grid.spike_times + late)
    for one in (on_grid, jitter):
        assert spike_grid(one) == pytest.approx(0.1, rel=1e-3)
    # planes that take turns: each unit has a phase of its own
    turns = on_grid.spike_times + 0.013 * rec.spike_units
    order = np.argsort(turns)
    planes = replace(bare(rec, turns[order]), spike_units=rec.spike_units[order])
    assert spike_grid(planes) == pytest.approx(0.1, rel=1e-3)


def test_spikes_at_any_time_have_no_grid_that_matters():
    for seed in range(5):
        rec = small_recording(seed=seed, rate=0.5 + 4 * seed, frames=False)
        assert grid_problem(rec, config(0.01)) == ""
        for digits in (3, 4, 5):  # milliseconds, and finer clocks
            rounded = replace(rec, spike_times=np.round(rec.spike_times, digits))
            assert grid_problem(rounded, config(0.05)) == "" and grid_problem(rounded, config(0.002)) == ""

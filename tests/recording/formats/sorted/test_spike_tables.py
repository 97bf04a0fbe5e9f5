"""Spikes of tables and MATLAB files: the same spikes, units and columns, whatever way they are stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import cells

from neuroformer.cli import main
from neuroformer.recording import RecordingError, open_recording

IDS = np.array([3, 7, 12])
AREAS = np.array(["VISp", "CA1", "VISp"])


def some_spikes(rng, count):
    rows = np.sort(np.concatenate([np.arange(3), rng.integers(0, 3, count)]))
    return np.round(rng.uniform(0, 60, len(rows)), 6), rows


def write_csv(path, times, rows):
    lines = (f"{t!r},{IDS[r]},{AREAS[r]},{i}" for i, (t, r) in enumerate(zip(times.tolist(), rows, strict=True)))
    path.write_text("time,cluster,area,spike\n" + "\n".join(lines) + "\n")


def write_parquet(path, times, rows):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"time": times, "cluster": IDS[rows], "area": list(AREAS[rows])}), path)


def write_parquet_of_units(path, times, rows):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    trains = [np.sort(times[rows == r]) for r in range(3)]
    pq.write_table(pa.table({"unit": IDS, "spike_times": trains, "area": list(AREAS)}), path)


def write_mat(path, times, rows):
    from scipy.io import savemat

    trains = cells([np.sort(times[rows == r])[:, None] for r in range(3)])
    savemat(path, {"s": {"units": {"st": trains, "region": cells(list(AREAS)), "id": IDS[:, None]}}})


def write_mat_structures(path, times, rows):
    from scipy.io import savemat

    savemat(path, {"units": [{"st": np.sort(times[rows == r]), "region": AREAS[r], "id": IDS[r]} for r in range(3)]})


def write_mat73(path, times, rows):
    """As MATLAB lays out cells in version 7.3: references into #refs#, texts as numbers of characters."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as f:
        group, refs = f.create_group("s/units"), f.create_group("#refs#")

        def cell(name, values, kind):
            made = []
            for i, value in enumerate(values):
                refs[f"{name}{i}"] = value
                refs[f"{name}{i}"].attrs["MATLAB_class"] = np.bytes_(kind)
                made.append(refs[f"{name}{i}"].ref)
            group.create_dataset(name, (1, len(made)), h5py.ref_dtype, data=np.array([made], h5py.ref_dtype))
            group[name].attrs["MATLAB_class"] = np.bytes_("cell")

        cell("st", [np.sort(times[rows == r])[None] for r in range(3)], "double")
        cell("region", [np.array([[ord(c)] for c in area], np.uint16) for area in AREAS], "char")
        group["id"] = IDS[None].astype(float)
        group["id"].attrs["MATLAB_class"] = np.bytes_("double")
    with open(path, "r+b") as f:
        f.write(b"MATLAB 7.3 MAT-file".ljust(512))


OF_UNITS = {"spikes": "s.units.st", "columns": {"area": "s.units.region", "id_there": "s.units.id"}}
WRITERS = {
    "a.csv": (write_csv, {}),
    "b.parquet": (write_parquet, {"spikes": "time", "units": "cluster"}),
    "c.parquet": (write_parquet_of_units, {}),
    "d.mat": (write_mat, OF_UNITS),
    "e.mat": (
        write_mat_structures,
        {"spikes": "units.st", "columns": {"area": "units.region", "id_there": "units.id"}},
    ),
    "f.mat": (write_mat73, OF_UNITS),
    "g.mat": (write_mat, {"columns": {"area": "s.units.region"}}),  # the only cells of times
}


@pytest.mark.parametrize("file", WRITERS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1.0, 1e-3]))
def test_every_spike_is_of_its_unit(tmp_path_factory, file, seed, scale):
    rng = np.random.default_rng(seed)
    times, rows = some_spikes(rng, int(rng.integers(3, 80)))
    write, options = WRITERS[file]
    path = tmp_path_factory.mktemp("s") / file
    write(path, times, rows)
    rec = open_recording(path, scale=scale, **options)
    for row in range(3):
        np.testing.assert_array_equal(rec.spike_times[rec.spike_units == row], np.sort(times[rows == row]) * scale)
    assert list(rec.units["area"]) == list(AREAS)
    if file.endswith("mat"):
        assert file == "g.mat" or list(rec.units["id_there"]) == list(IDS)
    else:
        assert list(rec.units["id"]) == list(IDS) and "spike" not in rec.units


def test_a_matrix_of_counts(tmp_path):
    from scipy.io import savemat

    counts = np.random.default_rng(0).poisson(0.3, (4, 50))
    savemat(tmp_path / "a.mat", {"d": {"spikes": counts.T, "depth": np.arange(4.0)}})
    rec = open_recording(tmp_path / "a.mat", spikes="d.spikes", dt=0.02, columns={"depth": "d.depth"})
    np.testing.assert_array_equal(rec.domain, [[0, 1.0]])
    edges = 0.02 * np.arange(51)
    for unit in range(4):
        found = np.histogram(rec.spike_times[rec.spike_units == unit], edges)[0]
        np.testing.assert_array_equal(found, counts[unit])
    with pytest.raises(RecordingError, match=r"'d.spikes' is a matrix \(50, 4\) of counts; give dt"):
        open_recording(tmp_path / "a.mat", spikes="d.spikes")


@pytest.mark.parametrize(
    "options, told",
    [
        ({}, "say which are the spikes, .*s.a .2 cells.; s.b .2 cells.; s.n"),
        ({"spikes": "s.c"}, "has no 's.c'; it has: s.a"),
        ({"spikes": "s"}, "'s' is a structure"),
        ({"spikes": "s.words"}, "expected numbers in each"),
        ({"spikes": "s.a", "columns": {"area": "s.three"}}, "expected one value for each of 2 units"),
        ({"spikes": "s.three", "units": "s.n"}, "expected one unit a spike"),
        ({"spikes": "s.a", "scale": 0.0}, "seconds above 0"),
    ],
)
def test_what_is_not_there_is_said(tmp_path, options, told):
    from scipy.io import savemat

    trains = cells([np.arange(4.0), np.arange(5.0)])
    inside = {"a": trains, "b": trains, "n": 3, "three": np.arange(3), "words": cells(["x", "yy"])}
    savemat(tmp_path / "a.mat", {"s": inside})
    with pytest.raises(RecordingError, match=told):
        open_recording(tmp_path / "a.mat", **options)


def test_the_mapping_stands_in_the_yaml_and_inspect_takes_it(tmp_path, capsys):
    times, rows = some_spikes(np.random.default_rng(0), 50)
    write_mat(tmp_path / "a.mat", times, rows)
    asked = ["recording.options.spikes=s.units.st", "recording.options.columns={area: s.units.region}"]
    assert main(["inspect", str(tmp_path / "a.mat"), *asked]) == 0
    shown = capsys.readouterr().out
    assert "from 3 units" in shown and "columns: {area: s.units.region}" in shown

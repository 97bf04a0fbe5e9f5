"""Every array of every format, in every kind of value: it is read as it is, or one sentence says why not."""

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from kinds_of_values import KINDS, SAME, WHOLE, same, use
from samples import empty_nwb, save_nwb

from neuroformer.config import ConfigError
from neuroformer.recording import (
    BehaviorVariable,
    FrameSeries,
    ObservedIntervals,
    Recording,
    RecordingError,
    open_recording,
)
from neuroformer.recording.recording import Traces

UNITS, SPIKES = 4, 400
Arrays = dict[str, np.ndarray]


class CannotHoldError(Exception):
    """The format has no place for such an array."""


@dataclass
class Layout:
    """Arrays by name, and how they become a recording; ``write`` may refuse a type that the format cannot hold."""

    arrays: Arrays
    read: Callable[[Arrays, Path], Recording]
    refused: tuple[str, ...] = ()  # arrays of which even another type of whole numbers is refused


def _spikes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return np.sort(rng.integers(0, 120, SPIKES)), rng.integers(0, UNITS, SPIKES)


def _npy(arrays: Arrays, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values, allow_pickle=values.dtype.hasobject)


def torch_brain() -> Layout:
    times, units = _spikes()
    rows = np.arange(0, 120, 5)
    arrays = {
        "spikes/timestamps": times,
        "spikes/unit_index": units,
        "units/id": np.arange(UNITS),
        "units/depth": np.arange(UNITS),
        "domain/start": np.array([0]),
        "domain/end": np.array([120]),
        "speed/timestamps": np.arange(60),
        "speed/values": np.arange(60) % 9,
        "gaze/timestamps": np.arange(60),
        "gaze/pos": np.arange(120).reshape(60, 2) % 9,
        "trials/start": rows,
        "trials/end": rows + 5,
        "trials/choice": rows // 5 % 2,
    }
    kinds = {"spikes": "IrregularTimeSeries", "units": "ArrayDict", "speed": "IrregularTimeSeries"}
    kinds |= {"gaze": "IrregularTimeSeries", "domain": "Interval", "trials": "Interval"}

    def read(arrays: Arrays, folder: Path) -> Recording:
        import h5py

        with h5py.File(folder / "a.h5", "w") as f:
            f.attrs["object"] = "Data"
            for name, values in arrays.items():
                f[name] = _for_hdf5(values)
            for group, kind in kinds.items():
                f[group].attrs["object"] = kind
        return open_recording(folder / "a.h5", check=False)

    return Layout(arrays, read)


def _for_hdf5(values: np.ndarray) -> np.ndarray:
    """HDF5 holds texts as bytes, and no dates; objects are texts of any length."""
    import h5py

    if values.dtype.kind == "O":
        return values.astype(str).astype(h5py.string_dtype())
    return (
        values.astype("S") if values.dtype.kind == "U" else values.astype("i8") if values.dtype.kind == "M" else values
    )


def nwb() -> Layout:
    pynwb = pytest.importorskip("pynwb")
    file, (times, units) = empty_nwb(), _spikes()
    file.add_unit_column("depth", "a depth")
    for unit in range(UNITS):
        file.add_unit(spike_times=times[units == unit].astype(float), obs_intervals=[[0.0, 120.0]], depth=float(unit))
    file.add_trial_column("choice", "a choice")
    for start in range(0, 120, 5):
        file.add_trial(start_time=float(start), stop_time=start + 5.0, choice=start // 5 % 2)
    stamps = np.arange(60.0)
    speed = pynwb.TimeSeries(name="speed", data=stamps % 9, unit="cm/s", timestamps=stamps)
    file.create_processing_module("behavior", "what it did").add(speed)
    images = np.random.default_rng(0).integers(0, 120, (60, 8, 8)).astype(np.uint8)
    file.add_stimulus(pynwb.image.ImageSeries(name="movie", data=images, unit="n.a.", format="raw", timestamps=stamps))
    names = [f"units/{k}" for k in ("spike_times", "spike_times_index", "id", "depth", "obs_intervals")]
    names += [f"intervals/trials/{k}" for k in ("start_time", "stop_time", "choice", "id")]
    names += [f"processing/behavior/speed/{k}" for k in ("data", "timestamps")]
    names += [f"stimulus/presentation/movie/{k}" for k in ("data", "timestamps")]
    made: dict[str, bytes] = {}

    def whole(folder: Path) -> bytes:
        if not made:
            made["file"] = save_nwb(file, folder / "whole.nwb").read_bytes()
        return made["file"]

    def read(arrays: Arrays, folder: Path) -> Recording:
        import h5py

        (folder / "a.nwb").write_bytes(whole(folder))
        with h5py.File(folder / "a.nwb", "r+") as f:
            for name, values in arrays.items():
                if values is base[name]:
                    continue
                about = dict(f[name].attrs)
                del f[name]
                f[name] = _for_hdf5(values)
                for key, value in about.items():
                    f[name].attrs[key] = value
        return open_recording(folder / "a.nwb", check=False)

    import tempfile

    import h5py

    with tempfile.TemporaryDirectory() as place:
        whole(Path(place))
        with h5py.File(Path(place) / "whole.nwb") as f:
            base = {name: f[name][()] for name in names}
    base |= {k: v.astype(np.int64) for k, v in base.items() if v.dtype.kind == "f"}
    return Layout(dict(base), read)


def matlab() -> Layout:
    times, units = _spikes()
    arrays = {"t": times, "cluster": units + 1, "region": np.arange(UNITS) * 7}

    def read(arrays: Arrays, folder: Path) -> Recording:
        from scipy.io import savemat

        savemat(folder / "a.mat", {k: v if v.dtype.kind != "M" else v.astype("i8") for k, v in arrays.items()})
        options = {"spikes": "t", "units": "cluster", "columns": {"region": "region"}}
        return open_recording(folder / "a.mat", **options)

    return Layout(arrays, read)


def matlab_cells() -> Layout:
    times, units = _spikes()
    arrays = {f"unit{u}": times[units == u] for u in range(UNITS)}

    def read(arrays: Arrays, folder: Path) -> Recording:
        from scipy.io import savemat

        cells = np.empty(len(arrays), object)
        cells[:] = [v if v.dtype.kind != "M" else v.astype("i8") for v in arrays.values()]
        savemat(folder / "a.mat", {"st": cells})
        return open_recording(folder / "a.mat", spikes="st")

    return Layout(arrays, read)


def matlab_counts() -> Layout:
    arrays = {"counts": np.random.default_rng(0).integers(0, 2, (UNITS, 120))}

    def read(arrays: Arrays, folder: Path) -> Recording:
        from scipy.io import savemat

        savemat(folder / "a.mat", {k: v if v.dtype.kind != "M" else v.astype("i8") for k, v in arrays.items()})
        return open_recording(folder / "a.mat", spikes="counts", dt=1.0)

    return Layout(arrays, read)


def csv() -> Layout:
    times, units = _spikes()
    arrays = {"time": times, "unit": units, "depth": units * 10}

    def read(arrays: Arrays, folder: Path) -> Recording:
        columns = [[_word(v) for v in np.ravel(column).tolist()] for column in arrays.values()]
        rows = [",".join(row) for row in _rows(columns)]
        (folder / "a.csv").write_text("\n".join([",".join(arrays), *rows]) + "\n")
        return open_recording(folder / "a.csv")

    return Layout(arrays, read)


def _word(value) -> str:
    if isinstance(value, bytes):
        return value.decode()
    return "" if value != value else str(value)


def _rows(columns: list[list[str]]) -> list[list[str]]:
    import itertools

    return [list(row) for row in itertools.zip_longest(*columns, fillvalue="")]


def parquet() -> Layout:
    pa = pytest.importorskip("pyarrow")
    times, units = _spikes()
    arrays = {"time": times, "unit": units, "depth": units * 10}

    def read(arrays: Arrays, folder: Path) -> Recording:
        import pyarrow.parquet as pq

        try:
            table = pa.table({k: pa.array(np.ravel(v)) for k, v in arrays.items()})
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
            raise CannotHoldError from e
        pq.write_table(table, folder / "a.parquet")
        return open_recording(folder / "a.parquet")

    return Layout(arrays, read)


def phy() -> Layout:
    times, units = _spikes()
    arrays = {
        "spike_times": times * 10,
        "spike_clusters": units,
        "spike_templates": units,
        "amplitudes": np.ones(SPIKES, int),
        "templates": np.random.default_rng(0).integers(0, 9, (UNITS, 8, 6)),
        "channel_positions": np.arange(12).reshape(6, 2),
        "channel_map": np.arange(6),
        "whitening_mat_inv": np.eye(6, dtype=int),
    }

    def read(arrays: Arrays, folder: Path) -> Recording:
        _npy(arrays, folder)
        (folder / "params.py").write_text("sample_rate = 10\n")
        (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n0\tgood\n1\tmua\n2\tgood\n3\tnoise\n")
        return open_recording(folder)

    return Layout(arrays, read)


def alf() -> Layout:
    times, units = _spikes()
    rows = np.arange(0, 120, 5)
    arrays = {
        "spikes.times": times,
        "spikes.clusters": units,
        "clusters.depths": np.arange(UNITS) * 20,
        "clusters.channels": np.arange(UNITS) * 2,
        "channels.brainLocationIds_ccf_2017": np.arange(12) + 50,
        "wheel.position": np.arange(60) % 9,
        "wheel.timestamps": np.arange(60),
        "licks.times": np.arange(9),
        "trials.intervals": np.stack([rows, rows + 5], 1),
        "trials.choice": rows // 5 % 2,
    }

    def read(arrays: Arrays, folder: Path) -> Recording:
        _npy(arrays, folder)
        return open_recording(folder)

    return Layout(arrays, read)


def pynapple() -> Layout:
    times, units = _spikes()
    span = {"start": np.array([0]), "end": np.array([120])}
    rows = np.arange(0, 120, 5)
    files = {
        "units": {"t": times, "index": units * 2, "keys": np.arange(UNITS) * 2, **span},
        "speed": {"t": np.arange(60), "d": np.arange(60) % 9, **span},
        "movie": {"t": np.arange(60), "d": np.random.default_rng(0).integers(0, 9, (60, 8, 8)), **span},
        "trials": {"start": rows, "end": rows + 5},
    }
    kinds = {"units": "TsGroup", "speed": "Tsd", "movie": "TsdTensor", "trials": "IntervalSet"}

    def read(arrays: Arrays, folder: Path) -> Recording:
        for file, kind in kinds.items():
            mine = {k.split("/")[1]: v for k, v in arrays.items() if k.startswith(file)}
            np.savez(folder / f"{file}.npz", type=np.array([kind]), **mine)
        return open_recording(folder)

    return Layout({f"{file}/{k}": v for file, mine in files.items() for k, v in mine.items()}, read)


def spikeinterface() -> Layout:
    times, units = _spikes()
    arrays = {
        "sample_index": times * 10,
        "unit_index": units,
        "segment_index": np.zeros(SPIKES, int),
        "unit_ids": np.arange(UNITS),
        "rate": np.array(10),
        "property": np.arange(UNITS) * 3,
    }

    def read(arrays: Arrays, folder: Path) -> Recording:
        fields = ("sample_index", "unit_index", "segment_index")
        if any(arrays[k].shape != (SPIKES,) for k in fields):
            raise CannotHoldError
        vector = np.zeros(SPIKES, [(k, arrays[k].dtype) for k in fields])
        for key in fields:
            vector[key] = arrays[key]
        (folder / "properties").mkdir(exist_ok=True)
        np.save(folder / "spikes.npy", vector, allow_pickle=True)
        np.save(folder / "properties" / "snr.npy", arrays["property"], allow_pickle=True)
        facts = {"sampling_frequency": arrays["rate"].tolist(), "unit_ids": arrays["unit_ids"].tolist()}
        (folder / "numpysorting_info.json").write_text(json.dumps(facts | {"num_segments": 1}, default=str))
        return open_recording(folder)

    return Layout(arrays, read)


def spikeinterface_packed() -> Layout:
    times, units = _spikes()
    arrays = {
        "unit_ids": np.arange(UNITS),
        "num_segment": np.array([1]),
        "sampling_frequency": np.array([10]),
        "spike_indexes_seg0": times * 10,
        "spike_labels_seg0": units,
    }

    def read(arrays: Arrays, folder: Path) -> Recording:
        np.savez(folder / "a.npz", **arrays)
        return open_recording(folder / "a.npz")

    return Layout(arrays, read)


def suite2p() -> Layout:
    rng = np.random.default_rng(0)
    events = rng.integers(0, 9, (UNITS, 120)) * (rng.random((UNITS, 120)) < 0.1)
    arrays = {"F": rng.integers(0, 9, (UNITS, 120)), "Fneu": rng.integers(0, 9, (UNITS, 120)), "spks": events}
    arrays["iscell"] = np.ones((UNITS, 2), int)

    def read(arrays: Arrays, folder: Path) -> Recording:
        _npy(arrays, folder)
        return open_recording(folder, rate_hz=1.0, events="deconvolved")

    return Layout(arrays, read)


def original() -> Layout:
    rng = np.random.default_rng(0)
    arrays = {
        "spikerates_dt_1": rng.integers(0, 2, (UNITS, 120)),
        "behavior_speed_dt_2": np.arange(60) % 9,
        "stimulus_dt_2": rng.integers(0, 9, (60, 8, 8)),
        "train_intervals": np.arange(0, 120, 5),
    }

    def read(arrays: Arrays, folder: Path) -> Recording:
        _npy(arrays, folder)
        return open_recording(folder)

    return Layout(arrays, read)


def python() -> Layout:
    """The container itself, as a script fills it."""
    times, units = _spikes()
    rows = np.arange(0, 120, 5)
    arrays = {
        "spike_times": times,
        "spike_units": units,
        "unit_id": np.arange(UNITS),
        "unit_depth": np.arange(UNITS),
        "domain": np.array([[0, 120]]),
        "start": rows,
        "stop": rows + 5,
        "choice": rows // 5 % 2,
        "rest_start": rows[:2],
        "rest_stop": rows[:2] + 3,
        "speed_times": np.arange(60),
        "speed": np.arange(60) % 9,
        "images": np.random.default_rng(0).integers(0, 120, (6, 8, 8)),
        "frames_times": np.arange(60),
        "frames_index": np.arange(60) % 6,
        "traces": np.random.default_rng(0).integers(0, 9, (60, UNITS)),
        "traces_times": np.arange(60),
        "observed": np.array([[0, 120]] * UNITS),
        "observed_units": np.arange(UNITS),
        "truth": np.array(3),
    }

    def read(a: Arrays, folder: Path) -> Recording:
        return Recording(
            name="m",
            spike_times=a["spike_times"],
            spike_units=a["spike_units"],
            units={"id": a["unit_id"], "depth": a["unit_depth"]},
            domain=a["domain"],
            trials={"start": a["start"], "stop": a["stop"], "choice": a["choice"]},
            intervals={"rest": {"start": a["rest_start"], "stop": a["rest_stop"]}},
            behavior={"speed": BehaviorVariable(a["speed_times"], a["speed"])},
            frames=FrameSeries(a["images"], a["frames_times"], a["frames_index"]),
            traces=Traces(a["traces_times"], a["traces"]),
            observed=ObservedIntervals(a["observed"], a["observed_units"]),
            truth={"seed": a["truth"]},
        )

    return Layout(arrays, read)


LAYOUTS = [
    torch_brain,
    nwb,
    matlab,
    matlab_cells,
    matlab_counts,
    csv,
    parquet,
    phy,
    alf,
    pynapple,
    spikeinterface,
    spikeinterface_packed,
    suite2p,
    original,
    python,
]

SLOW_TO_OPEN = (nwb,)


def _left_out_as_coarse(rec: Recording) -> bool:
    """Whether a part was left out, and said to be, since its times know the moment to some milliseconds only."""
    return any("left out" in note and "knows steps of" in note for note in rec.meta.get("notes", ()))


def check(make, folder: Path, monkeypatch, every: int) -> None:
    """Each ``every``-th pair of an array and a kind of value."""
    monkeypatch.setattr("neuroformer.recording.formats.matlab.look_first", lambda *a: None)  # a process for each file
    layout = make()
    (folder / "base").mkdir()
    expected, wrong, seen = layout.read(dict(layout.arrays), folder / "base"), [], 0
    for row, (key, kind) in enumerate((key, kind) for key in layout.arrays for kind in KINDS):
        if row % every:
            continue
        place, new = folder / str(row), KINDS[kind](layout.arrays[key])
        place.mkdir()
        unchanged = kind in SAME and np.array_equal(np.asarray(new, float), layout.arrays[key])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                rec = layout.read(layout.arrays | {key: new}, place)
                if unchanged and not _left_out_as_coarse(rec):
                    same(rec, expected)
                use(rec)
            seen += 1
        except CannotHoldError:
            continue
        except (RecordingError, ConfigError) as e:
            if unchanged and kind in WHOLE and key not in layout.refused:
                wrong.append(f"{key} {kind}: refused: {e}")
        except Exception as e:
            wrong.append(f"{key} {kind}: {type(e).__name__}: {e}")
    assert not wrong, "\n".join(wrong)
    assert seen > len(KINDS) * len(layout.arrays) / every / 4


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda f: f.__name__)
def test_files_take_every_kind_of_value(make, tmp_path, monkeypatch):
    check(make, tmp_path, monkeypatch, 29 if make in SLOW_TO_OPEN else 13)


@pytest.mark.slow
@pytest.mark.parametrize("make", LAYOUTS, ids=lambda f: f.__name__)
def test_files_take_every_kind_of_value_long(make, tmp_path, monkeypatch):
    check(make, tmp_path, monkeypatch, 1)

"""A recording trains, decodes and simulates to the same numbers, whichever format it came in."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import small_config
from samples import save_alf

import neuroformer
from neuroformer.recording import BehaviorVariable, FrameSeries, Recording, open_recording, write_recording

LONG = 100  # recordings
RATE = 30_000  # samples per second
OWN = (".npz", ".recording", ".nwb", ".h5")


def random_recording(seed: int) -> Recording:
    """Something to train on: units, trials, gaps, rates, clocks and types of numbers as they come."""
    rng = np.random.default_rng(seed)
    start = float(rng.choice([0.0, -3.7, 1234.5678, 1.7e9]))
    seconds, units = float(rng.integers(24, 36)), int(rng.integers(1, 6))
    rate = rng.uniform(2, 20)
    times = np.sort(rng.uniform(0, seconds, rng.poisson(units * rate * seconds)))
    domain = np.array([[0.0, seconds]])
    if rng.random() < 0.4:  # a gap
        domain = np.array([[0.0, seconds / 2 - 1], [seconds / 2, seconds]])
        times = times[(times < domain[0, 1]) | (times >= domain[1, 0])]
    by_trials = rng.random() < 0.4 and len(domain) == 1
    edges = np.arange(0.0, seconds - 1.9, 2.0)
    at = np.unique(np.round(rng.uniform(0, seconds, 300), 6))
    speed = np.sin(at / 2) + 0.1 * rng.normal(size=len(at))
    shown = np.arange(0, seconds, 0.25)
    images = rng.integers(0, 255, (5, 8, 8)).astype(rng.choice(["u1", "f4", ">i2"]))
    ids = np.arange(units) * 3 if rng.random() < 0.5 else np.array([f"u{i}" for i in range(units)])
    frames = FrameSeries(images, shown + start, np.arange(len(shown)) % 5) if rng.random() < 0.4 else None
    choice = rng.integers(0, 2, len(edges)).astype(rng.choice(["i1", ">i4", "f8"]))
    return Recording(
        name="m",
        spike_times=times + start,
        spike_units=rng.integers(0, units, len(times)).astype(rng.choice(["u1", "i8", ">i4"])),
        units={"id": ids},
        domain=domain + start,
        trials={"start": edges + start, "stop": edges + 2.0 + start, "choice": choice} if by_trials else {},
        behavior={"speed": BehaviorVariable(at + start, speed.astype(rng.choice(["f4", "f8", ">f4"])), "cm/s")},
        frames=frames,
    )


def scores(path: Path, rec: Recording, folder: Path, options: dict) -> dict:
    """Every number of a tiny run on a file, and the simulated spikes; the clock's numbers left out."""
    tree = {"split": {"by": "trials" if rec.num_trials else "blocks", "block": 2.4, "allow_leak": True}}
    tree["window"] = {"dt": 0.02, "current": 0.1, "past": 0.1, "target_past": 0.1}
    tree["window"] |= {"frames": 0.3 if rec.frames is not None else 0.0}
    tree |= {"loss": {"contrast": []}, "inputs": [], "decode": {"lags": [0.1]}, "train": {"steps": 2}}
    tree |= {"targets": [{"name": "speed"}] if "speed" in rec.behavior else []}
    tree["model"] = {"width": 8, "frame_encoder": {"kind": "patches", "stride": [1, 2, 2], "layers": 0}}
    config = small_config(**tree, recording={"path": str(path), "options": options})
    metrics = neuroformer.train(config, folder).metrics
    found = {k: v for k, v in metrics.items() if "second" not in k} | neuroformer.evaluate(folder, baselines=False)
    if config.targets:
        found |= neuroformer.decode(folder, baselines=["ridge"])["speed"].scores
    simulator = neuroformer.Simulator(folder, accelerator="cpu")
    made = simulator.simulate()
    found |= simulator.compare(made) | {"simulated": made.sha256()}
    return {k: v for k, v in found.items() if "_seconds" not in k and v == v}


# -- formats that hold everything ------------------------------------------------------------------------------------


def through_files(rec: Recording, folder: Path, suffixes=OWN) -> dict[Path, dict]:
    """Files with the options to open them."""
    own = {suffix: {"check": False} if suffix in (".nwb", ".h5") else {} for suffix in suffixes}
    return {write_recording(rec, folder / f"m{suffix}"): options for suffix, options in own.items()}


def check(rec: Recording, files: dict[Path, dict], folder: Path) -> None:
    """All files hold the recording; scores of each are those of the first."""
    for path, options in files.items():
        assert open_recording(path, **options).sha256() == rec.sha256(), path
    found = {path: scores(path, rec, folder / f"run{i}", options) for i, (path, options) in enumerate(files.items())}
    first = next(iter(found.values()))
    assert np.isfinite(first["bits_per_spike"]) and len(first) > 10
    for path, other in found.items():
        assert other == first, path


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_formats_that_hold_everything(tmp_path):
    pytest.importorskip("pynwb")
    rec = random_recording(3)
    check(rec, through_files(rec, tmp_path, (".npz", ".nwb")), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(LONG))
def test_formats_that_hold_everything_long(seed, tmp_path):
    pytest.importorskip("pynwb")
    rec = random_recording(seed)
    check(rec, through_files(rec, tmp_path), tmp_path)


# -- formats that hold spikes and units, which are only read ---------------------------------------------------------


def random_spikes(seed: int) -> Recording:
    """As a sorter has them: whole samples from the first one on, every unit with some."""
    rng = np.random.default_rng(seed)
    units, seconds = int(rng.integers(1, 6)), float(rng.integers(24, 36))
    samples = rng.integers(0, int(seconds * RATE), rng.poisson(units * rng.uniform(4, 15) * seconds))
    samples = np.concatenate([[0], np.sort(samples)])
    rows = np.concatenate([np.arange(units), rng.integers(0, units, len(samples))])[: len(samples)]
    order = np.lexsort((rows, samples))
    times = samples[order] / RATE
    ids = np.sort(rng.permutation(50)[:units])
    return Recording("m", times, rows[order], {"id": ids}, np.array([[0.0, np.nextafter(times[-1], np.inf)]]))


def sorted_files(rec: Recording, folder: Path) -> dict[Path, dict]:
    """The spikes in every layout of sorters, tables and other tools, the order of a file where it has none of its own."""
    from scipy.io import savemat

    rng = np.random.default_rng(rec.num_spikes)
    times, labels = rec.spike_times, np.asarray(rec.units["id"])[rec.spike_units]
    shuffled = rng.permutation(len(times))
    for name in ("csv", "mat", "pynapple", "packed"):
        (folder / name).mkdir()
    lines = [f"{float(times[i])!r},{labels[i]}" for i in shuffled.tolist()]
    (folder / "csv" / "m.csv").write_text("\n".join(["time,unit", *lines]))
    savemat(folder / "mat" / "m.mat", {"t": times[shuffled], "cluster": labels[shuffled].astype(np.uint8)})
    save_alf(folder / "alf" / "m", spikes__times=times, spikes__clusters=labels.astype(np.uint32))
    samples = np.rint(times * RATE)
    sorter = folder / "phy" / "m"
    sorter.mkdir(parents=True)
    np.save(sorter / "spike_times.npy", samples.astype(np.uint64)[:, None])
    np.save(sorter / "spike_clusters.npy", labels.astype(np.int32))
    (sorter / "params.py").write_text(f"sample_rate = {RATE}\n")
    facts = {"unit_ids": rec.units["id"], "num_segment": [1], "sampling_frequency": [RATE]}
    np.savez(
        folder / "packed" / "m.npz", **facts, spike_indexes_seg0=samples.astype(np.int64), spike_labels_seg0=labels
    )
    span = {"start": rec.domain[:, 0], "end": rec.domain[:, 1]}
    facts = {"type": np.array(["TsGroup"]), "keys": rec.units["id"]}
    np.savez(folder / "pynapple" / "m.npz", **facts, **span, t=times, index=labels)
    files: dict[Path, dict] = {
        folder / "csv" / "m.csv": {},
        folder / "alf" / "m": {},
        sorter: {},
        folder / "packed" / "m.npz": {},
    }
    files |= {folder / "mat" / "m.mat": {"spikes": "t", "units": "cluster"}, folder / "pynapple" / "m.npz": {}}
    return files


def test_formats_of_spikes(tmp_path):
    rec = random_spikes(1)
    files = sorted_files(rec, tmp_path)
    for path, options in files.items():
        assert open_recording(path, **options).sha256() == rec.sha256(), path
        assert open_recording(path, **options).unit_ids == rec.unit_ids
    check(rec, {tmp_path / "phy" / "m": {}, tmp_path / "csv" / "m.csv": {}}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(LONG))
def test_formats_of_spikes_long(seed, tmp_path):
    rec = random_spikes(seed)
    check(rec, sorted_files(rec, tmp_path) | through_files(rec, tmp_path), tmp_path)

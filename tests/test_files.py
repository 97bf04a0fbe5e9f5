"""Files are written whole or not at all, and a full disk ends in one sentence."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import small_recording

from neuroformer import files
from neuroformer.files import merge_values, read_values
from neuroformer.recording import open_recording, write_recording


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failure_leaves_what_was_there(tmp_path, kind):
    path = tmp_path / "a"

    def write(part: Path, text: str):
        if kind == "folder":
            part.mkdir()
        (part / "x" if kind == "folder" else part).write_text(text)

    def read() -> str:
        return (path / "x" if kind == "folder" else path).read_text()

    with files.replacing(path) as part:
        write(part, "first")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as part:
        write(part, "half")
        raise KeyboardInterrupt
    assert read() == "first" and leftovers(tmp_path) == []
    with files.replacing(path) as part:
        write(part, "second")
        assert read() == "first"
    assert read() == "second" and leftovers(tmp_path) == []


def test_what_a_kill_left_is_removed_once_it_is_old(tmp_path):
    for name, age in ((".a.1.part", 7200), (".a.2.part", 0), (".ab.1.part", 7200)):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    files.write_atomic(tmp_path / "a", b"whole")
    assert sorted(leftovers(tmp_path)) == [".a.2.part", ".ab.1.part"]


def test_written_once(tmp_path):
    files.write_once(tmp_path / "a", b"first")
    files.write_once(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first" and leftovers(tmp_path) == []


def test_hdf5_is_what_was_written(tmp_path):
    x = np.random.default_rng(0).random((300, 200))
    with files.replacing_hdf5(tmp_path / "a.h5") as f:
        f.create_dataset("x", data=x, chunks=(7, 11), compression="gzip")
        for i in range(500):
            f.create_group(f"g/{i}").attrs["i"] = i
    with h5py.File(tmp_path / "a.h5") as f:
        assert np.array_equal(f["x"][()], x) and f["g/499"].attrs["i"] == 499


def under_a_limit(code: str, folder: Path, blocks: int) -> subprocess.CompletedProcess:
    """Python code in a process that may write files of ``blocks`` kilobytes at most."""
    command = f"ulimit -f {blocks}; exec {sys.executable} -c '{code}'"
    here = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=folder, env=here)


WRITE = """
import sys
import numpy as np
from neuroformer.cli import _message
from neuroformer.recording import open_recording, write_recording
import dataclasses
rec = open_recording("good.npz")
times = np.sort(np.random.default_rng(0).uniform(0, rec.domain[-1, 1], 300000))
big = dataclasses.replace(rec, spike_times=times, spike_units=np.zeros(len(times), int), domain=[[0, 1e3]])
try:
    write_recording(big, sys.argv[1] if len(sys.argv) > 1 else "NAME")
except OSError as e:
    sys.exit(_message(e))
"""


@pytest.mark.parametrize("name", ["a.npz", "a.nwb", "a.h5", "a.recording"])
def test_a_disk_that_is_full_keeps_the_recording_that_was_there(tmp_path, name):
    rec = small_recording()
    write_recording(rec, tmp_path / "good.npz")
    write_recording(rec, tmp_path / name)
    before = open_recording(tmp_path / name).sha256()
    code = WRITE.replace("NAME", name)
    if name == "a.recording":
        code = code.replace("write_recording(big", "write_store(big").replace(
            f'"{name}")', f'"{name}", overwrite=True)'
        )
        code = code.replace(
            "import sys\n", "import sys\nfrom neuroformer.recording.formats.folder import write_store\n", 1
        )
    out = under_a_limit(code, tmp_path, blocks=1000)
    assert out.returncode == 1, out.stderr
    assert len(out.stderr.strip().splitlines()) == 1 and "file too large; raise the limit" in out.stderr, out.stderr
    assert f"{name}: " in out.stderr
    assert open_recording(tmp_path / name).sha256() == before
    assert leftovers(tmp_path) == []


BATCH = """
import sys
from pathlib import Path
import numpy as np
from neuroformer.cli import _message
from neuroformer.generation.store import SimulationFolder
from neuroformer.generation.rollout import WindowResult
from neuroformer.generation.spikes import Spikes
rng = np.random.default_rng(0)
folder = SimulationFolder(Path("parts"), {"a": 1}, 4)
count = lambda n: Spikes(*rng.integers(0, 1 << 40, (3, n)))
class which:
    ident = segment = start = np.zeros(4)
try:
    folder.write(0, which, [WindowResult(0, count(10), 0, 10, 1)])
    folder.write(0, which, [WindowResult(1, count(200000), 0, 10, 1)])
except OSError as e:
    sys.exit(_message(e))
"""


def test_a_disk_that_is_full_keeps_the_finished_part_of_a_simulation(tmp_path):
    out = under_a_limit(BATCH, tmp_path, blocks=200)
    assert out.returncode == 1, out.stderr
    assert len(out.stderr.strip().splitlines()) == 1 and "file too large; raise the limit" in out.stderr
    assert [p.name for p in sorted((tmp_path / "parts").iterdir())] == ["batch-0000-window-000000.h5", "plan.json"]


def _merge(job):
    path, who = job
    for k in range(10):
        merge_values(path, {f"{who}-{k}": k})


def test_values_merged_by_several_processes_are_all_there(tmp_path):
    path = tmp_path / "summary.json"
    merge_values(path, {"before": 1.5})
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_merge, [(path, who) for who in "abc"])
    found = read_values(path)
    assert found.pop("before") == 1.5
    assert found == {f"{who}-{k}": k for who in "abc" for k in range(10)}


@pytest.mark.parametrize("text", ['{"bits": 0.5, "num', "[1, 2]", "", "\x00\xff", "[" * 20_000])
def test_damaged_values_are_named_and_kept(tmp_path, text):
    path = tmp_path / "summary.json"
    path.write_text(text)
    for act in (lambda: read_values(path), lambda: merge_values(path, {"a": 1})):
        with pytest.raises(ValueError, match=r"summary\.json is damaged .*move it away"):
            act()
    assert path.read_text() == text
    assert read_values(tmp_path / "none.json") == {}

"""The benchmark of sizes: what it measures, and what it says of a size that fails."""

import resource
import subprocess
import sys
import time

import pytest

from neuroformer.bench import scale
from neuroformer.cli import main


def own_peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_a_size_is_measured(monkeypatch):
    monkeypatch.setattr(scale, "GENERATED", 50)
    monkeypatch.setattr(scale, "REPEATS", 1)
    before = time.process_time()
    found = scale.measure(6, 5.0, 3)
    took = time.process_time() - before
    assert set(found) == {"windows", "microseconds_per_spike", "peak_gb", "tokens_per_second_generate"}
    assert found["windows"] == 3
    # a step of some five spikes, and fifty tokens, are no longer than the whole measurement
    assert found["microseconds_per_spike"] < 1e6 * took and found["tokens_per_second_generate"] > 50 / took
    assert found["peak_gb"] * 1e9 == pytest.approx(own_peak(), rel=0.1)


def test_every_size_has_a_process_and_one_that_fails_is_named(monkeypatch, tmp_path):
    (tmp_path / "neuroformer").mkdir()
    (tmp_path / "neuroformer" / "__init__.py").touch()
    asked = []

    def answer(command, env, **_):
        other = env["PYTHONPATH"].startswith(str(tmp_path))
        asked.append((command[2], other, command[4:]))
        if command[2] == "9" and other or command[2] == "5" and other and not command[4:]:
            return subprocess.CompletedProcess(command, 1, "", "Traceback\nMemoryError")
        line = '{"windows": 16, "microseconds_per_spike": 2.0, "peak_gb": 1.0, "tokens_per_second_generate": 3.0}'
        return subprocess.CompletedProcess(command, 0, f"a remark\n{line}\n", "")

    monkeypatch.setattr(subprocess, "run", answer)
    found = scale.run(tmp_path, ((5, 2.0), (9, 1.0)))
    few = ["16"]  # windows, where a default batch does not fit
    assert asked == [
        *(("5", False, []), ("5", True, []), ("5", True, few)),
        *(("9", False, []), ("9", True, []), ("9", True, few)),
    ]
    assert found["other_windows"] == [16, None]
    assert found["microseconds_per_spike"] == [2.0, 2.0] and found["other_peak_gb"] == [1.0, None]
    assert found["failed"] == {"other_9": "MemoryError"} and not found["checked"]


def test_a_folder_without_a_package_is_refused(tmp_path, capsys):
    assert main(["bench", "scale", "--checkout", str(tmp_path)]) == 2
    assert "give the root of a checkout" in capsys.readouterr().err


def test_one_core_is_what_is_measured(monkeypatch):
    """The environment of a worker puts the checkout first and takes one thread."""
    from neuroformer.bench.checkout import ROOT, environment

    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    found = environment(ROOT)
    assert found["PYTHONPATH"].startswith(str(ROOT)) and found["OMP_NUM_THREADS"] == "1"

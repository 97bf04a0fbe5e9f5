"""The benchmark runs blind on someone's GPU: what of it can run here, does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from neuroformer.kernels import configs

from benchmarks.kernels import cases as kernel_cases
from benchmarks.kernels import contestants as kernel_contestants
from benchmarks.kernels import gpu as kernels
from benchmarks.kernels import model_step as kernel_model_step
from benchmarks.kernels import rows as kernel_rows
from benchmarks.kernels import worker as kernel_worker

ROOT = Path(__file__).parents[2]


on_a_cpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device to run it on")


@on_a_cpu
def test_without_a_gpu_it_says_so_and_exits_with_3():
    """From a bare checkout: -S leaves installed packages out, the repository comes from the path."""
    site = str(Path(torch.__file__).parents[1])
    code = "import sys; sys.path.append(sys.argv.pop()); import runpy; "
    code += "runpy.run_module('benchmarks.kernels.gpu', run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, site],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout == "kernels: no CUDA device here; nothing checked, nothing timed (exit code 3)\n"


SHAPES = [
    kernel_contestants.AttentionShape("cross", 3, 4, 6, heads=2, width=16),
    kernel_contestants.AttentionShape("self", 3, 5, causal=True, heads=2, width=16),
    kernel_contestants.AttentionShape("frames", 2, 5, 7, frames=True, heads=2, width=16),
    kernel_contestants.AttentionShape("shared", 4, 5, 7, frames=True, shared=2, heads=2, width=16),
]


@on_a_cpu
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_attention_contestants_compute_the_same(shape):
    built = shape.build("cpu")
    asked, keys = (built[name].lengths_B.tolist() for name in ("q_layout", "k_layout"))
    read = range(len(asked)) if built["k_index"] is None else built["k_index"].tolist()
    pairs = sum(n * keys[g] for n, g in zip(asked, read, strict=True)) * (0.5 if shape.causal else 1)
    # of 32 features: two products forward and five backward; 12 tensors of two bytes a number are read or written
    assert shape.work(built) == (2 * 7 * pairs * 32, 2 * 32 * 6 * (sum(asked) + sum(keys)))
    entries = kernel_contestants.attention_contestants(shape, built)
    grads = {}
    packed = ["triton", "SDPA, padded"]
    if not shape.causal:  # nested tensors have no causal attention on a CPU
        packed.append("SDPA, nested")
    for name in (*packed, "SDPA, born padded", "eager, padded"):
        grads[name] = entries[name]()()
    for name in packed[1:]:
        for ours, theirs in zip(grads["triton"], grads[name], strict=True):
            torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0.05)
    for ours, theirs in zip(grads["eager, padded"], grads["SDPA, born padded"], strict=True):
        torch.testing.assert_close(ours.nan_to_num(), theirs.nan_to_num(), atol=0.05, rtol=0.05)


@on_a_cpu
def test_loss_and_decode_contestants_compute_the_same():
    shape = kernel_contestants.LossShape("loss", 28, 90, features=32)
    built = shape.build("cpu")
    entries = kernel_contestants.loss_contestants(shape, built)
    for ours, theirs in zip(entries["triton"]()(), entries["eager"]()(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0.05)
    for shared in (False, True):
        decode = kernel_contestants.DecodeShape("decode", 4, 9, shared, heads=2, width=16)
        built = decode.build("cpu")
        entries = kernel_contestants.decode_contestants(decode, built)
        ours, theirs = (make()().reshape(4, 2, 16) for make in entries.values())
        q, _, _, _, lengths, _ = built["call"]
        asked = lengths.sum() if not shared else lengths[built["k_index"]].sum()
        assert decode.work(built) == (4 * asked * 32, 2 * 32 * 2 * (lengths.sum() + len(q)))
        torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.02)


@on_a_cpu
def test_rows_are_checked_on_their_own_batches(monkeypatch):
    """All right as they are; and a kernel that is wrong is found."""
    for shape in SHAPES:
        kernel_rows.check_attention(shape, "cpu")
    kernel_rows.check_loss(kernel_contestants.LossShape("loss", 28, 90, features=32), "cpu")
    for shared in (False, True):
        decode = kernel_contestants.DecodeShape("decode", 4, 9, shared, heads=2, width=16)
        kernel_rows.check_decode(decode, "cpu")
    size = kernel_contestants.TwinSize(16, 1, (1, 0, 1, 0), units=9, bins=3, windows=2, spikes=3, past=3, frames=4)
    kernel_rows.check_step(kernel_contestants.StepShape("step", size), "cpu")
    right = kernel_rows.attention
    monkeypatch.setattr(kernel_rows, "attention", lambda *args, **more: right(*args, **more) * 1.05)
    with pytest.raises(AssertionError, match="cross: out"):
        kernel_rows.check_attention(SHAPES[0], "cpu")


def test_the_step_of_the_reference_has_its_size():
    size = kernel_contestants.STEP_SHAPES[0].size
    from benchmarks.kernels.twin import Twin

    with torch.device("meta"):
        network = Twin(size, "triton", "triton")
    assert 18e6 < sum(p.numel() for p in network.parameters()) < 28e6


def test_every_check_has_a_name_of_its_own():
    names = [name for name, _ in kernel_worker.all_checks()]
    assert len(names) == len(set(names))
    assert {name.split()[0] for name in names} == {"row:", "attention", "cross-entropy", "decode", "map"}
    assert sum(name.startswith("row: ") for name in names) == sum(len(f[1]) for f in kernel_worker.FAMILIES)
    assert sum(name.split(": ")[-1] in kernel_worker.SANITIZED for name in names) >= 4
    small = [case.name for case in kernel_cases.SMALL_ATTENTION]
    assert all(any(name.endswith(each) for name in names) for each in small)


class Pretend:
    """Messages of a child that checks, crashes in one contestant, and is started again."""

    def __init__(self, crash: bool):
        self.crash = crash

    def __call__(self, arguments, seconds):
        if arguments[0] == "check":
            yield {"plan": ["row: row", "row: late", "attention float32: b", "row: model"]}
            yield {"check": "row: row", "result": "passed"}
            yield {"check": "attention float32: b", "result": "AssertionError: b"}
            yield {"check": "row: model", "result": "skipped: No module named 'x'"}
            yield {"end": 0, "why": "exit code 0", "errors": ""}
            return
        given = json.loads(arguments[1])
        assert given["checked"] == ["row"], "what did not pass is not timed"
        good = {"ms": 1.0, "called_ms": 2.0, "how": "graph", "mb": 3, "tflops": 1, "gbs": 2, "share": 0.5}
        for name in ("triton", "SDPA, padded", "varlen flash"):
            if f"row|{name}" in given["done"]:
                continue
            yield {"start": f"row|{name}"}
            if self.crash and name == "SDPA, padded":
                yield {"end": -6, "why": "exit code -6", "errors": "illegal memory access"}
                return
            ms = {"triton": 1.0, "SDPA, padded": 4.0, "varlen flash": 1.5}[name]
            yield {"row": "row", "contestant": name, "result": good | {"ms": ms}, "facts": {"flops": 1}}
        yield {"set": {"device": "pretended"}}
        yield {"end": 0, "why": "exit code 0", "errors": ""}


@pytest.mark.parametrize("crash", [False, True])
def test_results_survive_a_crash(tmp_path, monkeypatch, crash):
    monkeypatch.setattr(kernels, "work", Pretend(crash))
    monkeypatch.setattr(kernels, "CHECKERS", 1)
    said = []
    bench = kernels.Bench(tmp_path, 5, said.append)
    bench.check()
    bench.measure()
    table = (tmp_path / "results.md").read_text()
    assert "| row | 1.0000 | varlen flash | 1.50 | " + ("- |" if crash else "4.00 |") in table
    assert ("the process died" in table) == crash
    assert bench.failures() == ["row: late", "attention float32: b"]
    assert "- FAILED attention float32: b: AssertionError: b" in table
    assert json.loads((tmp_path / "results.json").read_text())["device"] == "pretended"


class CpuClock:
    """Takes each step once."""

    graphs, spoilt = True, False

    def __init__(self, device, graphs):
        pass

    def median(self, run, seconds):
        run()
        return 1.0

    def on_device(self, step, seconds):
        return self.median(step, seconds)

    def time(self, step, seconds=1.0):
        step()
        return {"ms": 1.0, "called_ms": 2.0, "how": "graph", "mb": 1.0}


@on_a_cpu
def test_the_worker_from_end_to_end(monkeypatch, capsys):
    """Every branch of the measuring process except the device itself, on batches of a few tokens."""
    contest = kernel_contestants
    size = kernel_contestants.TwinSize(16, 1, (1, 1, 1, 1), units=9, bins=3, windows=2, spikes=3, past=3, frames=4)
    families = (
        ("attention", SHAPES[:2], contest.attention_contestants),
        ("cross-entropy", [contest.LossShape("loss", 28, 70, features=16)], contest.loss_contestants),
        ("decode", [contest.DecodeShape("decode", 2, 5, heads=1, width=16)], contest.decode_contestants),
        ("step", [contest.StepShape("step", size)], contest.step_contestants),
    )
    few = {kind: tiles[:1] for kind, tiles in configs.CANDIDATES.items()}
    monkeypatch.setattr(configs, "CANDIDATES", few)
    monkeypatch.setattr(kernel_worker, "FAMILIES", families)
    monkeypatch.setattr(kernel_worker, "DEVICE", "cpu")
    monkeypatch.setattr(kernel_worker, "Clock", CpuClock)
    monkeypatch.setattr(kernel_worker, "environment", lambda: {"device": "none"})
    monkeypatch.setattr(kernel_worker, "ceilings", lambda clock: {"bf16_tflops": 1.0, "copy_gbs": 1.0})
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda call, **_: call)
    checked = ["cross", "self", "loss", "step"]
    kernel_worker.Measurer(checked=checked, done=["cross|SDPA, padded"], seconds=500).run()
    messages = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = {(m["row"], m["contestant"]): m["result"] for m in messages if "row" in m}
    assert ("cross", "SDPA, padded") not in rows, "done before"
    assert rows["decode", "triton"] == {"failed": "not timed: its check did not pass"}
    assert "no backward on a CPU" in rows["cross", "FlexAttention"]["failed"]
    for key in (
        ("cross", "triton"),
        ("self", "triton, tuned"),
        ("loss", "compiled"),
        ("loss", "triton, tuned"),
        ("decode", "SDPA, padded cache"),
        ("step", "triton"),
        ("step", "SDPA, padded"),
    ):
        assert "failed" not in rows[key], (key, rows[key])

    monkeypatch.setattr(kernel_worker, "all_checks", lambda: [("a: b", lambda: None), ("c: d", lambda: 1 / 0)])
    monkeypatch.setattr(kernel_worker, "warm", lambda part, parts: None)
    kernel_worker.check("0", 1, [])
    messages = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert messages[:2] == [{"plan": ["a: b", "c: d"]}, {"begin": "a: b"}]
    results = [m["result"] for m in messages if "check" in m]
    assert results == ["passed", "ZeroDivisionError: division by zero"]
    kernel_worker.check("0", 1, ["c: d"])
    assert '"begin": "c: d"' not in capsys.readouterr().out


class Dying:
    """Messages of checking processes: each dies in the second check that it begins."""

    names = ("a x: 0", "a x: 1", "a x: 2", "a x: 3")

    def __init__(self):
        self.starts = 0

    def __call__(self, arguments, seconds):
        assert arguments[:3] == ["check", "0", "1"]
        done, self.starts = json.loads(arguments[3]), self.starts + 1
        yield {"plan": list(self.names)}
        for i, name in enumerate(n for n in self.names if n not in done):
            yield {"begin": name}
            if i == 1:
                yield {"end": -14, "why": "exit code -14", "errors": "hangs"}
                return
            yield {"check": name, "result": "passed"}
        yield {"end": 0, "why": "exit code 0", "errors": ""}


def test_a_check_that_kills_its_process_costs_no_other_check(tmp_path, monkeypatch):
    dying = Dying()
    monkeypatch.setattr(kernels, "work", dying)
    monkeypatch.setattr(kernels, "CHECKERS", 1)
    bench = kernels.Bench(tmp_path, 5, lambda text: None)
    bench.check()
    died = "the process died in it: exit code -14"
    assert list(bench.results["checks"].values()) == ["passed", died, "passed", died]
    assert dying.starts == 3 and len(bench.failures()) == 3
    assert json.loads((tmp_path / "results.json").read_text())["checks"] == bench.results["checks"]


class Spoiling:
    """Messages of measuring processes: a capture fails in every one, and spoils it."""

    def __init__(self):
        self.given = []

    def __call__(self, arguments, seconds):
        given = json.loads(arguments[1])
        self.given.append(given)
        for number in range(6):
            row = f"row {number}"
            if f"{row}|triton" in given["done"]:
                continue
            yield {"start": f"{row}|triton"}
            result = {
                "ms": 1.0,
                "called_ms": 1.0,
                "how": "called",
                "mb": 1,
                "tflops": 1,
                "gbs": 1,
                "share": 1,
            }
            yield {"row": row, "contestant": "triton", "result": result}
            if given["graphs"]:
                yield {"end": kernels.SPOILT, "why": "exit code 86", "errors": ""}
                return
        yield {"end": 0, "why": "exit code 0", "errors": ""}


def test_captures_that_fail_cost_a_process_each_and_are_given_up(tmp_path, monkeypatch):
    spoiling = Spoiling()
    monkeypatch.setattr(kernels, "work", spoiling)
    bench = kernels.Bench(tmp_path, 5, lambda text: None)
    bench.measure()
    assert [given["graphs"] for given in spoiling.given] == [True] * kernels.FAILED_CAPTURES + [False]
    assert len(bench.results["rows"]) == 6 and not bench.failures() and not bench.results["notes"]


def test_a_child_is_killed_with_all_that_it_started(tmp_path):
    """Else a compiler that it started would hold the pipe open."""
    code = "import subprocess, time; subprocess.Popen(['sleep', '60']); print('[1]', flush=True); "
    code += "print('{\"a\": 1}', flush=True); print('a remark', flush=True); time.sleep(60)"
    messages = list(kernels._messages([sys.executable, "-S", "-E", "-c", code], dict(os.environ), 4.0))
    assert messages[0] == {"a": 1} and len(messages) == 2
    assert messages[1]["end"] == -9 and messages[1]["why"] == "out of time" and "a remark" in messages[1]["errors"]


def test_bars():
    result = {"ms": 1.0, "called_ms": 2.0, "how": "graph", "mb": 10}
    slower = lambda ratio, mb=100: result | {"ms": ratio, "mb": mb}
    rows = {
        "15 spikes to 700": {"triton": result, "SDPA, padded": slower(4.0), "varlen flash": slower(1.2)},
        "id head, 100,000 units": {"triton": result, "compiled": slower(1.6, 79)},
        "step": {"triton": result, "SDPA, padded": {"failed": "skipped: no einops"}},
    }
    said = kernels.bars({name: {"contestants": entry} for name, entry in rows.items()})
    assert [line.split(": ")[1].split(",")[0] for line in said] == [
        "NOT REACHED",
        "reached",
        "reached",
        "NOT REACHED",
        "not measured",
        "reached",
    ]


@on_a_cpu
def test_the_model_gives_one_loss_on_both_sides(monkeypatch):
    """The step that is timed, on a small model: the fused kernels (interpreted) against padded SDPA."""
    from helpers import small_config, small_recording

    from neuroformer.ops import table

    monkeypatch.setattr(table, "has_triton", lambda x: True)
    # heads of 16, as the kernels need them
    config = small_config(model={"width": 32, "heads": 2, "dropout": 0.0})
    shape = kernel_model_step.ModelShape("small", 4, lambda: (small_recording(), config))
    entries = kernel_model_step.model_contestants(shape, shape.build("cpu"))
    before = table.ATTENTION_AUTO
    ours, theirs = (entries[name]()() for name in ("triton", "SDPA, padded"))
    torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)
    kernel_rows.check_model(shape, "cpu")
    assert table.ATTENTION_AUTO is before


@on_a_cpu
def test_warming_runs_a_tile(monkeypatch):
    monkeypatch.setattr(kernel_worker, "DEVICE", "cpu")
    calls = []
    monkeypatch.setattr(kernel_worker.contest.AttentionShape, "build", lambda *_: calls.append(1) or 1 / 0)
    monkeypatch.setattr(kernel_worker.contest.LossShape, "build", lambda *_: calls.append(1) or 1 / 0)
    kernel_worker.warm(0, 4)
    kernel_worker.warm(1, 4)
    assert len(calls) > 20

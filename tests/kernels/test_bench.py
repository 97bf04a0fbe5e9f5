"""The benchmark runs blind on someone's GPU: what of it can run here, does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from neuroformer.bench import kernel_cases, kernel_contestants, kernel_worker, kernels

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_gpu_it_says_so_and_exits_with_3():
    """From a bare checkout: -S leaves installed packages out, the repository comes from the path."""
    site = str(Path(torch.__file__).parents[1])
    code = "import sys; sys.path.append(sys.argv.pop()); import runpy; "
    code += "runpy.run_module('neuroformer.bench.kernels', run_name='__main__', alter_sys=True)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, site], cwd=ROOT, capture_output=True, text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert done.stdout == "bench kernels: no CUDA device here; nothing checked, nothing timed\n"


SHAPES = [
    kernel_contestants.AttentionShape("cross", 3, 4, 6, heads=2, width=16),
    kernel_contestants.AttentionShape("self", 3, 5, causal=True, heads=2, width=16),
    kernel_contestants.AttentionShape("frames", 2, 5, 7, frames=True, heads=2, width=16),
    kernel_contestants.AttentionShape("shared", 4, 5, 7, frames=True, shared=2, heads=2, width=16),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_attention_contestants_compute_the_same(shape):
    built = shape.build("cpu")
    flops, num_bytes = shape.work(built)
    assert flops > 0 and num_bytes > 0
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
        assert min(decode.work(built)) > 0
        torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0.02)


def test_the_step_of_the_reference_has_its_size():
    size = kernel_contestants.STEP_SHAPES[0].size
    from neuroformer.bench.twin import Twin

    with torch.device("meta"):
        network = Twin(size, "triton", "triton")
    assert 18e6 < sum(p.numel() for p in network.parameters()) < 28e6


def test_every_check_has_a_name_of_its_own():
    names = [name for name, _ in kernel_worker.all_checks()]
    assert len(names) == len(set(names))
    assert {name.split()[0] for name in names} == {"attention", "cross-entropy", "decode", "map"}
    assert sum(name.split(": ")[-1] in kernel_worker.SANITIZED for name in names) >= 4
    small = [case.name for case in kernel_cases.SMALL_ATTENTION]
    assert all(any(name.endswith(each) for name in names) for each in small)


class Pretend:
    """Messages of a child that checks, crashes in one contestant, and is started again."""

    def __init__(self, crash: bool):
        self.crash = crash

    def __call__(self, arguments, seconds):
        if arguments[0] == "check":
            yield {"plan": ["attention bfloat16: a", "attention float32: b"]}
            yield {"check": "attention bfloat16: a", "result": "passed"}
            yield {"end": 0, "why": "exit code 0", "errors": ""}
            return
        given = json.loads(arguments[1])
        assert given["wrong"] == ["attention float32"], "what did not report has failed"
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
    assert bench.failures() == ["attention float32: b"]
    assert json.loads((tmp_path / "results.json").read_text())["device"] == "pretended"

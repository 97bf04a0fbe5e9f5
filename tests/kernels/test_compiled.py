"""The kernels compile ahead of time for GPUs that are not here, and cost what the stored table says.

The table is ``compiled.json``; ``compile_kernels.py`` writes it. It holds for one version of Triton: with
another, the kernels must still compile, and only what would not run fails.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton")

HERE = Path(__file__).parent
STORED = json.loads((HERE / "compiled.json").read_text())
SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_89": 99 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024}

MAIN = (
    "attention_forward 32 bf16, 15 queries",
    "attention_backward_owned 32 bf16, 15 queries",
    "attention_dq 32 bf16, 405 queries",
    "attention_dkdv 32 bf16, 405 queries",
    "cross_entropy_forward 100000 classes",
    "cross_entropy_weight_gradient 100000 classes",
    "decode_alone 32 fp32",
    "decode_shared 32 bf16",
)


def check(names: tuple[str, ...], architectures: tuple[str, ...]) -> None:
    # the interpreter of this process compiles nothing
    if triton.__version__.startswith("3.2."):  # which does not know Blackwell
        architectures = tuple(a for a in architectures if a != "100")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(HERE / "compile_kernels.py"), *architectures, *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    same_compiler = found.pop("triton") == STORED["triton"]
    assert set(names) <= set(found)
    for name, costs in found.items():
        for architecture, cost in costs.items():
            assert cost["shared"] <= SHARED_LIMIT[architecture], (name, architecture, cost)
            if same_compiler:
                stored = STORED[name][architecture]
                assert cost == stored, f"{name} on {architecture} costs {cost}, the table says {stored}"


def test_every_main_kernel_on_sm_90():
    check(MAIN, ("90",))


def test_attention_on_sm_80_and_sm_100():
    check(MAIN[:2], ("80", "100"))


@pytest.mark.slow
def test_every_kernel_everywhere():
    check((), ("80", "89", "90", "100"))


@pytest.mark.slow
def test_every_check_of_a_gpu_compiles_as_it_is_called():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(HERE / "dry_run.py"), "90"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["failed"] and found["kernels"] > 50


def test_the_table_has_every_architecture_and_fits_its_shared_memory():
    """sm_89 stands for all cards with 100 KB: tiles of an H100 would not start there."""
    for name, costs in STORED.items():
        if name != "triton":
            assert set(costs) == set(SHARED_LIMIT), name
            for architecture, cost in costs.items():
                assert cost["shared"] <= SHARED_LIMIT[architecture], (name, architecture)


def test_the_main_kernels_spill_nothing_on_sm_90():
    for name in MAIN:
        assert STORED[name]["sm_90"]["stack"] <= 16, name

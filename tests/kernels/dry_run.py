"""Compiles every kernel that ``make gpu`` checks with, by the path of a real call, for a GPU that is not here.

    python tests/kernels/dry_run.py 90 [part of a check's name]

Prints JSON: how many kernels were compiled, the seconds that took, and which checks failed to compile or to launch. The
driver is a stand-in that knows a card's limits and launches nothing, so results are not looked at.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
import triton.compiler
from neuroformer.kernels import attention_map, cross_entropy, decode_attention, spike_attention
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver

from benchmarks.kernels import cases as kernel_cases
from benchmarks.kernels import worker as kernel_worker
from neuroformer.ops import eager

LIMITS = {"max_shared_mem": 227 << 10, "max_num_regs": 65536, "multiprocessor_count": 132, "warpSize": 32}
LOADED = (None, None, 0, 0, 1024)  # module, function, registers, spills, most threads


class Nowhere(DriverBase):
    """What Triton asks of a driver; launches check their grids and do nothing."""

    def __init__(self, architecture: int):
        self.target, self.utils = GPUTarget("cuda", architecture, 32), self

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_properties(self, device: int) -> dict[str, int]:
        return LIMITS

    def load_binary(self, *_: Any) -> tuple:
        return LOADED

    def launcher_cls(self, source: Any, metadata: Any):
        def launch(x: int, y: int, z: int, *_: Any) -> None:
            assert 0 < x < 2**31 and 0 < y < 2**16 and 0 < z < 2**16, (x, y, z)

        return launch

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_benchmarker(self):
        raise NotImplementedError

    def get_empty_cache_for_benchmark(self):
        raise NotImplementedError

    def clear_cache(self, cache: Any) -> None:
        pass


def main(architecture: int, part: str) -> dict[str, Any]:
    driver.set_active(Nowhere(architecture))
    seconds: list[float] = []
    compile_one = triton.compiler.compile

    def timed(*args: Any, **more: Any):
        began = time.perf_counter()
        built = compile_one(*args, **more)
        seconds.append(time.perf_counter() - began)
        return built

    triton.compiler.compile = timed
    for module in (spike_attention, cross_entropy, decode_attention, attention_map):
        module.check_runnable = lambda *_: None  # a CPU tensor will do
    kernel_worker.DEVICE = "cpu"
    kernel_cases.check_close = lambda *_: None  # nothing was computed
    for name, oracle in (
        ("run_attention", eager.attention),
        ("run_cross_entropy", eager.marked_cross_entropy),
    ):
        run = getattr(kernel_cases, name)
        setattr(
            kernel_cases,
            name,
            lambda call, *rest, run=run, oracle=oracle: {} if call is oracle else run(call, *rest),
        )
    failed = {}
    for name, run in kernel_worker.all_checks():
        if part not in name or name.startswith("row: ") or "CUDA graph" in name:
            continue
        try:
            run()
        except Exception as error:  # noqa: BLE001  # reported by name
            failed[name] = f"{type(error).__name__}: {error}"[-300:]
    return {"kernels": len(seconds), "seconds": round(sum(seconds), 1), "failed": failed}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), "".join(sys.argv[2:3]))))

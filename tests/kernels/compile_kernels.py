"""Compiles the kernels ahead of time, without a GPU, and prints what each costs as JSON.

    python tests/kernels/compile_kernels.py 80 90 100 [--only NAME]

Registers, shared memory and stack (where spilled registers go) come from ``cuobjdump`` on the cubin.
Run in a process of its own: the tests' process has Triton's interpreter, which compiles nothing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from neuroformer.kernels import configs, spike_attention_backward, spike_attention_forward
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

INT64 = {"Q_OFFSETS", "K_OFFSETS", "SEED", "TARGET", "LOW", "HIGH", "K_START", "K_LENGTH", "K_INDEX"}
INT32 = {"TILES", "ORDER"}
EXACT = {"LSE", "DELTA", "SCRATCH", "Q_TIMES", "K_TIMES", "FREQS", "PEAK", "TOTAL", "ACC", "LOSS"}
FLOATS = {"window", "keep_scale"}

OPTIONS = {"CAUSAL": False, "ORDERED": False, "ROTARY": False, "WINDOW": False, "DROPOUT": False}
EXTRAS = {"CAUSAL": True, "ROTARY": True, "WINDOW": True, "DROPOUT": True}


def signature(kernel, constants: dict, dtype: str) -> tuple[dict[str, str], dict]:
    """Argument types by the kernels' naming rule, and what Triton would find divisible by 16."""
    types, aligned = {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            types[name] = "constexpr"
            continue
        if name in INT64:
            types[name] = "*i64"
        elif name in INT32:
            types[name] = "*i32"
        elif name in EXACT:
            types[name] = "*fp32"
        elif name.isupper():
            types[name] = f"*{dtype}"
        else:
            types[name] = "fp32" if name in FLOATS else "i32"
        if types[name][0] == "*" or name.startswith("stride"):
            aligned[(i,)] = [["tt.divisibility", 16]]
    return types, aligned


def attention_cases():
    """(name, kernel, constants, tile) of spike attention at 32 wide heads, and the awkward 128."""
    for width, dtype in ((32, "bf16"), (128, "bf16"), (32, "fp32")):
        size = "fp32" if dtype == "fp32" else f"{width}"
        shape = {"E": width, "PE": width, "SCALE": width**-0.5}
        torch_dtype = __import__("torch").float32 if dtype == "fp32" else __import__("torch").bfloat16
        for mean in (15, 405):
            longest = mean * 2 if mean == 15 else mean
            plan = configs.attention_plan(mean * 64, longest, 64, width, torch_dtype, False)
            names = {"ORDER": None, "Q_TIMES": None, "K_TIMES": None, "FREQS": None, "SEED": None}
            base = {**shape, **OPTIONS, **names}
            yield f"forward_{size}_q{mean}", spike_attention_forward.attention_forward, base, plan[:4], dtype
            if plan[4]:
                more = {"ONE_TILE": bool(plan[5])} | ({"SCRATCH": None} if plan[5] else {})
                kernel = spike_attention_backward.attention_backward_owned
                yield f"owned_{size}_q{mean}", kernel, {**base, **more}, plan[6:], dtype
            else:
                for kernel in (
                    spike_attention_backward.attention_dq,
                    spike_attention_backward.attention_dkdv,
                ):
                    yield f"{kernel.__name__}_{size}_q{mean}", kernel, base, plan[6:], dtype
    return


def compile_one(kernel, constants, tile, dtype, target) -> dict[str, int]:
    constants = {**constants, "BM": tile[0], "BN": tile[1]}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    types, aligned = signature(kernel, constants, dtype)
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    built = triton.compile(source, target=target, options={"num_warps": tile[2], "num_stages": tile[3]})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        shown = subprocess.run([cuobjdump(), "-res-usage", file.name], capture_output=True, text=True).stdout
    found = dict(re.findall(r"(REG|STACK):(\d+)", shown))
    return {
        "registers": int(found["REG"]),
        "shared": built.metadata.shared,
        "stack": int(found["STACK"]),
        "warps": tile[2],
    }


def cuobjdump() -> str:
    bundled = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return str(bundled) if bundled.exists() else str(shutil.which("cuobjdump"))


if __name__ == "__main__":
    import time

    for arch in (int(a) for a in sys.argv[1:] if a.isdigit()):
        for name, kernel, constants, tile, dtype in attention_cases():
            t = time.time()
            print(
                arch,
                name,
                tile,
                compile_one(kernel, constants, tile, dtype, GPUTarget("cuda", arch, 32)),
                "%.1f" % (time.time() - t),
                flush=True,
            )

"""Compiles the kernels ahead of time, without a GPU, and prints what each costs as JSON.

    python tests/kernels/compile_kernels.py 80 89 90 100 > tests/kernels/compiled.json

Registers per thread, shared memory in bytes, and stack in bytes (where spilled registers go), as
``cuobjdump`` reads them from the cubin. A process of its own: under Triton's interpreter nothing compiles.
"""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message="TRITON_DEFAULT_FP_FUSION")

import torch  # noqa: E402
import triton  # noqa: E402
from neuroformer.kernels import attention_map, configs, cross_entropy_kernels, decode_attention  # noqa: E402
from neuroformer.kernels.common import padded  # noqa: E402
from neuroformer.kernels.spike_attention_backward import attention_backward_owned  # noqa: E402
from neuroformer.kernels.spike_attention_forward import attention_forward  # noqa: E402
from neuroformer.kernels.spike_attention_split import attention_dkdv, attention_dq  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

# The kernels' naming rule: tensors are upper case, and these are not of the inputs' dtype.
TYPES = {
    "*i64": "Q_OFFSETS K_OFFSETS TARGET LOW ROW STOP DBASE K_START K_LENGTH Q_LABELS K_LABELS MAP",
    "*i32": "TILES ORDER",
    "*fp32": "BASE FIRST DFIRST MOST LSE DELTA SCRATCH PEAK TOTAL CHOSEN ACC LOSS PULL DLOSS",
}
TYPE_OF = {name: kind for kind, names in TYPES.items() for name in names.split()}
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

PLAIN = {"CAUSAL": False, "ORDERED": False, "ORDER": None}
SHARED = {"CAUSAL": False, "ORDERED": True}

Case = tuple[str, Any, dict[str, Any], tuple[int, ...] | list[int], str]


def attention_cases() -> Iterator[Case]:
    """Spike windows (mean 15 queries) and frames (405), with keys of their own and shared ones."""
    for width, dtype, options in (
        (32, "bf16", PLAIN),
        (32, "bf16", SHARED),
        (128, "bf16", PLAIN),
        (32, "fp32", PLAIN),
    ):
        shape = {"E": width, "PE": padded(width), "SCALE": width**-0.5} | options
        label = f"{width} {dtype}" + (", shared keys" if options is SHARED else "")
        for mean, longest in ((15, 30), (405, 405)):
            plan = configs.attention_plan(mean * 64, longest, 64, width, DTYPES[dtype])
            name = f"{label}, {mean} queries"
            yield f"attention_forward {name}", attention_forward, shape, plan[:4], dtype
            if plan[4]:
                owned = shape | {"ONE_TILE": bool(plan[5])} | ({"SCRATCH": None} if plan[5] else {})
                yield f"attention_backward_owned {name}", attention_backward_owned, owned, plan[6:], dtype
            else:
                yield f"attention_dq {name}", attention_dq, shape, plan[6:], dtype
                yield f"attention_dkdv {name}", attention_dkdv, shape, plan[6:], dtype


def cross_entropy_cases() -> Iterator[Case]:
    """Many units, few units, and wide states."""
    for name, classes, features in (
        ("100000 classes", 100_000, 256),
        ("20 classes", 20, 256),
        ("5000 classes, 512 features", 5000, 512),
        ("400 classes", 400, 256),
    ):
        plan = configs.cross_entropy_plan(8192, classes, features, torch.bfloat16)
        shape = {"D": features, "PD": padded(features), "GRAD": True, "BASE_GRAD": True, "BOUNDED": bool(plan[-1])}
        shape |= {} if plan[-1] else {"STOP": None}
        forward = cross_entropy_kernels.cross_entropy_forward
        yield f"cross_entropy_forward {name}", forward, shape, plan[:4], "bf16"
        backward = cross_entropy_kernels.cross_entropy_weight_gradient
        yield f"cross_entropy_weight_gradient {name}", backward, shape, plan[5:9], "bf16"


def other_cases() -> Iterator[Case]:
    shape = {"D": 256, "PD": 256, "GRAD": True}
    combine = cross_entropy_kernels.cross_entropy_combine
    yield "cross_entropy_combine", combine, shape | {"ORDERED": True}, (16, 16, 4, 2), "bf16"
    shape = {"E": 32, "PE": 32, "SCALE": 32**-0.5, "SPLIT": True}
    for dtype in ("bf16", "fp32"):
        for shared in (False, True):
            keys, warps, stages, _ = configs.decode_plan(1024, 700, 32, DTYPES[dtype], shared=shared)
            kernel = decode_attention.decode_shared if shared else decode_attention.decode_alone
            name = f"{'decode_shared' if shared else 'decode_alone'} 32 {dtype}"
            yield name, kernel, shape, (16, keys, warps, stages), dtype
    del shape["SPLIT"]
    yield "decode_combine", decode_attention.decode_combine, shape, (16, 16, 1, 2), "bf16"
    options = shape | PLAIN | {"PER_HEAD": False}
    yield "attention_map", attention_map.attention_map_kernel, options, (32, 64, 4, 2), "bf16"


def compile_one(kernel, constants: dict, tile, dtype: str, target: GPUTarget) -> dict[str, int]:
    rows, keys, warps, stages = tile
    types_of = TYPE_OF | ({"ORDER": "*i64"} if kernel.arg_names[0] in ("H", "W") else {})  # rows of a loss
    constants = {n: v for n, v in (constants | {"BM": rows, "BN": keys}).items() if n in kernel.arg_names}
    types, aligned = {}, []
    for i, name in enumerate(kernel.arg_names):
        kind = types_of.get(name, f"*{dtype}" if name.isupper() else "i32")
        if name in constants:
            kind = "constexpr"
        types[name] = kind
        if kind[0] == "*" or name.startswith("stride"):  # as Triton finds them in real calls
            aligned.append(i)
    source = source_of(kernel, types, constants, aligned)
    built = triton.compile(source, target=target, options={"num_warps": warps, "num_stages": stages})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        command = [cuobjdump(), "-res-usage", file.name]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = dict(re.findall(r"(REG|STACK):(\d+)", shown))
    return {"registers": int(used["REG"]), "shared": built.metadata.shared, "stack": int(used["STACK"])}


def source_of(kernel, types: dict[str, str], constants: dict, aligned: list[int]) -> ASTSource:
    """What Triton compiles: argument types, constants, and which arguments are multiples of 16."""
    if "constexprs" in inspect.signature(ASTSource).parameters:
        attributes = {(i,): [["tt.divisibility", 16]] for i in aligned}
        return ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=attributes)
    from triton.backends.compiler import AttrsDescriptor  # Triton 3.2

    types = {name: kind for name, kind in types.items() if kind != "constexpr"}
    return ASTSource(kernel, types, constants, AttrsDescriptor.from_hints(dict.fromkeys(aligned, 16)))


def cuobjdump() -> str:
    bundled = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    return str(bundled) if bundled.exists() else str(shutil.which("cuobjdump"))


def main(names: list[str], architectures: list[str]) -> dict[str, dict[str, dict[str, int]]]:
    """{kernel and case: {architecture: cost}}; all cases where ``names`` is empty."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for architecture in architectures:
        target = GPUTarget("cuda", int(architecture), 32)
        for name, kernel, constants, tile, dtype in (*attention_cases(), *cross_entropy_cases(), *other_cases()):
            if names and name not in names:
                continue
            cost = compile_one(kernel, constants, tile, dtype, target)
            found.setdefault(name, {})[f"sm_{architecture}"] = cost
    return found


if __name__ == "__main__":
    targets = [a for a in sys.argv[1:] if a.isdigit()]
    table = main([a for a in sys.argv[1:] if not a.isdigit()], targets)
    lines = [f"  {json.dumps(name)}: {json.dumps(costs)}" for name, costs in table.items()]
    print("{\n" + ",\n".join([f'  "triton": "{triton.__version__}"', *lines]) + "\n}")

"""Child process of ``benchmarks.kernels.gpu``: checks or measures, and reports in lines of JSON."""

from __future__ import annotations

import contextlib
import datetime
import functools
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from benchmarks.kernels import cases, rows
from benchmarks.kernels import contestants as contest
from benchmarks.kernels.clock import Clock
from benchmarks.kernels.gpu import SPOILT
from benchmarks.kernels.model_step import MODEL_SHAPES, model_contestants
from neuroformer.bench.checkout import make_importable

DEVICE = "cuda"
Check = tuple[str, Callable[[], None]]

FAMILIES: tuple[tuple[str, tuple[Any, ...], Callable[..., Any]], ...] = (
    ("attention", contest.ATTENTION_SHAPES, contest.attention_contestants),
    ("cross-entropy", contest.LOSS_SHAPES, contest.loss_contestants),
    ("decode", contest.DECODE_SHAPES, contest.decode_contestants),
    ("step", contest.STEP_SHAPES, contest.step_contestants),
    ("model", MODEL_SHAPES, model_contestants),
)
ROW_CHECKS = {
    "attention": rows.check_attention,
    "cross-entropy": rows.check_loss,
    "decode": rows.check_decode,
    "step": rows.check_step,
    "model": rows.check_model,
}
ATTENTION_TILES = ("forward", "owned", "split")
LOSS_TILES = ("cross_entropy_forward", "cross_entropy_backward")
SLOW_TO_PREPARE = ("SDPA, nested", "eager, padded", "FlexAttention")


def tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def all_checks() -> list[Check]:
    """(family and dtype: name, check); the large ones are too slow for the interpreter. Rows that are timed come first,
    each by its own name: without its check it has no time.
    """
    found: list[Check] = [
        (f"row: {shape.name}", functools.partial(ROW_CHECKS[family], shape, DEVICE))
        for family, shapes, _ in FAMILIES
        for shape in shapes
    ]

    def add(family: str, some: Iterable[Any], run: Callable[[Any, str], None]) -> None:
        for case in some:
            dtype = str(case.dtype).removeprefix("torch.")
            found.append((f"{family} {dtype}: {case.name}", functools.partial(run, case, DEVICE)))

    add("attention", (*cases.LARGE_ATTENTION, *cases.SMALL_ATTENTION), cases.check_attention)
    add("cross-entropy", (*cases.LARGE_CROSS_ENTROPY, *cases.SMALL_CROSS_ENTROPY), cases.check_cross_entropy)
    add("decode", (*cases.LARGE_DECODE, *cases.SMALL_DECODE), cases.check_decode)
    add("map", cases.SMALL_MAPS, functools.partial(cases.check_map, per_head=True))
    add("map of all heads", cases.SMALL_MAPS, functools.partial(cases.check_map, per_head=False))
    found.append(("decode bfloat16: in a CUDA graph", lambda: cases.check_decode_in_graph(DEVICE)))
    return found


SANITIZED = ("cross bf16", "shared keys, split", "units bf16", "bf16")


CHECK_S = 90  # whole seconds of one check, compilation included; what hangs ends this process
START_S = 60  # more for the first one: libraries are read from disk, by several processes at once
ROW_S = 120  # whole seconds of a contestant of a row, its compilation included


def check(part: str, parts: int, done: list[str]) -> None:
    """Checks one by one; each is announced first, so that whoever reads knows in which one this process died."""
    checks = all_checks()
    if part == "sanitizer":
        checks = [each for each in checks if each[0].split(": ")[-1] in SANITIZED]
    else:
        checks = checks[int(part) :: parts]
    tell({"plan": [name for name, _ in checks]})
    seconds = CHECK_S + START_S
    for name, run in checks:
        if name in done:
            continue
        tell({"begin": name})
        if part != "sanitizer":
            signal.alarm(seconds)  # not caught: it ends this process even inside a kernel that never returns
            seconds = CHECK_S
        try:
            run()
            torch.cuda.synchronize()
            tell({"check": name, "result": "passed"})
        except ImportError as error:  # the model's own step needs more than the kernels do
            tell({"check": name, "result": f"skipped: {error}"})
        except Exception as error:  # noqa: BLE001  # whatever it is, it is reported by name
            tell({"check": name, "result": f"{type(error).__name__}: {error}"[:600]})
            torch.cuda.synchronize()  # after a fault of the device every later check would fail: end here
        gc.collect()
        torch.cuda.empty_cache()  # several processes share the card
    signal.alarm(0)
    if part != "sanitizer":
        warm(int(part), parts)


def warm(part: int, parts: int) -> None:
    """Compiles this process's share into the caches on disk: candidate tiles, then what the compiled contestants need."""
    from neuroformer.kernels import configs  # pyright: ignore[reportMissingImports]

    shapes = [
        (contest.AttentionShape("", 4, 15, 20), contest.attention_contestants),
        (contest.AttentionShape("", 4, 15, causal=True), contest.attention_contestants),
        (contest.LossShape("", 140, 5000), contest.loss_contestants),
    ]
    jobs = [
        (shape, contestants, kind, tile)
        for shape, contestants in shapes
        for kind in (LOSS_TILES if isinstance(shape, contest.LossShape) else ATTENTION_TILES)
        for tile in configs.CANDIDATES[kind]
    ]
    for shape, contestants, kind, tile in jobs[part::parts]:
        trial: dict[str, Any] = {kind: tile}
        if kind in ("owned", "split"):
            trial["backward"] = kind
        with contextlib.suppress(Exception), configs.forced(**trial):  # the tuning says which do not fit
            contestants(shape, shape.build(DEVICE))["triton"]()()
    compiled = [(shape, contestants, "compiled") for _, shapes, contestants in FAMILIES[1:2] for shape in shapes]
    compiled += [(shape, contestants, "FlexAttention") for _, shapes, contestants in FAMILIES[:1] for shape in shapes]
    for shape, contestants, name in compiled[part::parts]:
        with contextlib.suppress(Exception):  # the measurement says why
            contestants(shape, shape.build(DEVICE))[name]()()
        gc.collect()
        torch.cuda.empty_cache()


def ceilings(clock: Clock) -> dict[str, float]:
    """What this card does at its best, now: a bf16 product and a copy."""
    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    until = time.monotonic() + 0.5
    while time.monotonic() < until:  # an idle card clocks low
        torch.mm(a, b)
        torch.cuda.synchronize()
    tflops = 2 * 8192**3 / clock.median(lambda: a @ b, 1.0) / 1e9
    source = torch.empty(2**30, dtype=torch.int8, device=DEVICE)
    target = torch.empty_like(source)
    gbs = 2 * 2**30 / clock.median(lambda: target.copy_(source), 1.0) / 1e6
    return {"bf16_tflops": tflops, "copy_gbs": gbs}


def tiles_of(kinds: tuple[str, ...], step: Callable[[], object], clock: Clock, seconds: float) -> dict[str, Any]:
    """The best tiles of the candidates for one step, one kind of tile after the other."""
    from neuroformer.kernels import configs  # pyright: ignore[reportMissingImports]

    best, chosen = clock.on_device(step, 0.1), {}
    until = time.monotonic() + seconds
    for kind in kinds:
        for tile in configs.CANDIDATES[kind]:
            if time.monotonic() > until:
                return chosen
            trial = {name: value for name, value in chosen.items() if kind == "forward" or name != "backward"}
            trial[kind] = tile
            if kind in ("owned", "split"):
                trial["backward"] = kind
            with configs.forced(**trial):
                try:
                    step()
                    torch.cuda.synchronize()
                except Exception:  # noqa: BLE001  # a tile that does not fit the card is no candidate
                    torch.cuda.synchronize()
                    continue
                took = clock.on_device(step, 0.05)
            if took < 0.98 * best:
                best, chosen = took, trial
    return chosen


class Measurer:
    """Times rows, contestant by contestant.

    ``checked``: rows whose checks passed; ``done``: what need not be timed again; ``graphs``: whether steps are captured.
    """

    def __init__(self, checked: list[str], done: list[str], seconds: float, graphs: bool = True):
        self.checked, self.done = checked, done
        self.deadline = time.monotonic() + seconds
        self.clock = Clock(DEVICE, graphs)

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def run(self) -> None:
        self.limits = ceilings(self.clock)
        tell({"set": {"ceilings": {k: round(v, 1) for k, v in self.limits.items()}, **environment()}})
        for slow in (False, True):  # what may take long to prepare comes after everything else
            for _, shapes, contestants in FAMILIES:
                for shape in shapes:
                    self.row(shape, contestants, slow)
            if not slow:
                for family, shapes, contestants in FAMILIES[:2]:
                    for shape in shapes:
                        self.tune(family, shape, contestants)

    def begin(self, key: str) -> bool:
        """Announce a contestant of a row, unless it is done already; what hangs in it ends this process."""
        if key in self.done:
            return False
        tell({"start": key})
        signal.alarm(ROW_S)
        return True

    def end(self, row: str, contestant: str, result: dict[str, Any], **more: Any) -> None:
        signal.alarm(0)
        tell({"row": row, "contestant": contestant, "result": result, **more})
        if self.clock.spoilt:
            os._exit(SPOILT)  # at once: taking such a process apart may crash

    def row(self, shape: Any, contestants: Callable, slow: bool) -> None:
        whole = f"{shape.name}|*{int(slow)}"
        if whole in self.done:
            return
        try:
            built = shape.build(DEVICE)
            facts = dict(zip(("flops", "bytes"), shape.work(built), strict=True))
            entries = contestants(shape, built)
        except Exception as error:  # noqa: BLE001  # reported by name
            why = "skipped" if isinstance(error, ImportError) else "building"
            if not slow and self.begin(f"{shape.name}|triton"):
                self.end(shape.name, "triton", {"failed": f"{why}: {error}"})
            return
        for name, prepare in entries.items():
            if (name in SLOW_TO_PREPARE) == slow and self.begin(f"{shape.name}|{name}"):
                self.end(shape.name, name, self.contestant(shape.name, name, prepare, facts), facts=facts)
        tell({"done": whole})
        del built, entries
        gc.collect()
        torch.cuda.empty_cache()

    def contestant(self, row: str, name: str, prepare: Callable, facts: dict) -> dict[str, Any]:
        if name.startswith("triton") and row not in self.checked:
            return {"failed": "not timed: its check did not pass"}
        if self.left() < 10:
            return {"failed": "not timed: out of time"}
        try:
            return self.shares(self.clock.time(prepare()), facts)
        except ImportError as error:
            return {"failed": f"skipped: {error}"}
        except Exception as error:  # noqa: BLE001  # a contestant that cannot play is reported by name
            torch.cuda.synchronize()
            return {"failed": f"{type(error).__name__}: {error}"[:300]}

    def shares(self, result: dict[str, Any], facts: dict) -> dict[str, Any]:
        """Adds rates, and the share of the floor that the measured ceilings put under the case."""
        seconds = result["ms"] / 1e3
        tflops, gbs = facts["flops"] / seconds / 1e12, facts["bytes"] / seconds / 1e9
        share = max(tflops / self.limits["bf16_tflops"], gbs / self.limits["copy_gbs"])
        return result | {"tflops": tflops, "gbs": gbs, "share": share}

    def tune(self, family: str, shape: Any, contestants: Callable) -> None:
        """Sweeps the tiles of attention and cross-entropy, and times the winners as one more contestant."""
        if shape.name not in self.checked or self.left() < 75 or not self.clock.graphs:
            return
        if not self.begin(f"{shape.name}|triton, tuned"):
            return
        tuned: dict[str, Any] = {}
        try:
            result = self.tuned(family, shape, contestants, tuned)
        except Exception as error:  # noqa: BLE001  # reported by name
            torch.cuda.synchronize()
            result = {"failed": f"{type(error).__name__}: {error}"[:300]}
        tell({"tuned": tuned})
        self.end(shape.name, "triton, tuned", result)

    def tuned(self, family: str, shape: Any, contestants: Callable, tuned: dict) -> dict[str, Any]:
        from neuroformer.kernels import configs  # pyright: ignore[reportMissingImports]

        built = shape.build(DEVICE)
        facts = dict(zip(("flops", "bytes"), shape.work(built), strict=True))
        step = contestants(shape, built)["triton"]()
        step()
        kinds = ATTENTION_TILES if family == "attention" else LOSS_TILES
        gc.freeze()  # every capture collects garbage, and would look through all of a compiler's objects
        try:
            chosen = tiles_of(kinds, step, self.clock, 8.0)
        finally:
            gc.unfreeze()
        tuned[shape.name] = chosen
        with configs.forced(**chosen):
            return self.shares(self.clock.time(step), facts)


def environment() -> dict[str, str]:
    import triton

    card = torch.cuda.get_device_properties(0)
    return {
        "device": f"{card.name}, {card.multi_processor_count} multiprocessors",
        "versions": f"PyTorch {torch.__version__}, Triton {triton.__version__}",
        "date": datetime.date.today().isoformat(),
    }


def main(arguments: list[str]) -> None:
    make_importable()
    torch.backends.cuda.matmul.allow_tf32 = False
    if arguments[0] == "check":
        check(arguments[1], int(arguments[2]), json.loads(arguments[3]))
    else:
        Measurer(**json.loads(arguments[1])).run()


if __name__ == "__main__":
    main(sys.argv[1:])

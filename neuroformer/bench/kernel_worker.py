"""Child process of ``neuroformer.bench.kernels``: checks or measures, and reports in lines of JSON."""

from __future__ import annotations

import contextlib
import datetime
import functools
import gc
import json
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from neuroformer.bench import kernel_cases as cases
from neuroformer.bench import kernel_contestants as contest
from neuroformer.bench.kernel_model_step import MODEL_SHAPES, model_contestants
from neuroformer.bench.kernels import make_importable

DEVICE = "cuda"
Check = tuple[str, Callable[[], None]]

# Which checks vouch for which rows.
FAMILIES = (
    ("attention", contest.ATTENTION_SHAPES, contest.attention_contestants),
    ("cross-entropy", contest.LOSS_SHAPES, contest.loss_contestants),
    ("decode", contest.DECODE_SHAPES, contest.decode_contestants),
    ("step", contest.STEP_SHAPES, contest.step_contestants),
    ("model", MODEL_SHAPES, model_contestants),
)
NEEDS = {"step": ("attention", "cross-entropy"), "model": ("attention", "cross-entropy")}
ATTENTION_TILES = ("forward", "owned", "split")
LOSS_TILES = ("cross_entropy_forward", "cross_entropy_backward")
SLOW_TO_PREPARE = ("SDPA, nested", "eager, padded", "FlexAttention")


def tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def all_checks() -> list[Check]:
    """(family and dtype: name, check); the large ones are too slow for the interpreter."""
    found: list[Check] = []

    def add(family: str, some: Iterable[Any], run: Callable[[Any, str], None]) -> None:
        for case in some:
            dtype = str(case.dtype).removeprefix("torch.")
            found.append((f"{family} {dtype}: {case.name}", functools.partial(run, case, DEVICE)))

    add("attention", (*cases.LARGE_ATTENTION, *cases.SMALL_ATTENTION), cases.check_attention)
    add("cross-entropy", (*cases.LARGE_CROSS_ENTROPY, *cases.SMALL_CROSS_ENTROPY), cases.check_cross_entropy)
    add("decode", (*cases.LARGE_DECODE, *cases.SMALL_DECODE), cases.check_decode)
    add("map", cases.SMALL_MAPS, functools.partial(cases.check_map, per_head=True))
    found.append(("decode bfloat16: in a CUDA graph", lambda: cases.check_decode_in_graph(DEVICE)))
    return found


SANITIZED = ("cross bf16", "shared keys, split", "units bf16", "bf16")


CHECK_S = 90  # whole seconds of one check, compilation included; what hangs ends this process


def check(part: str, parts: int, done: list[str]) -> None:
    """Checks one by one; each is announced first, so that whoever reads knows in which one this process died."""
    checks = all_checks()
    if part == "sanitizer":
        checks = [each for each in checks if each[0].split(": ")[-1] in SANITIZED]
    else:
        checks = checks[int(part) :: parts]
    tell({"plan": [name for name, _ in checks]})
    for name, run in checks:
        if name in done:
            continue
        tell({"begin": name})
        if part != "sanitizer":
            signal.alarm(CHECK_S)  # not caught: it ends this process even inside a kernel that never returns
        try:
            run()
            torch.cuda.synchronize()
            tell({"check": name, "result": "passed"})
        except Exception as error:  # noqa: BLE001  # whatever it is, it is reported by name
            tell({"check": name, "result": f"{type(error).__name__}: {error}"[:600]})
            torch.cuda.synchronize()  # after a fault of the device every later check would fail: end here
    signal.alarm(0)
    if part != "sanitizer":
        warm(int(part), parts)


def warm(part: int, parts: int) -> None:
    """Compiles this process's share of the candidate tiles into Triton's cache on disk, for the tuning."""
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


class Clock:
    """Milliseconds of a step: on the device (replayed from a CUDA graph) and as called."""

    def __init__(self):
        self.flush = torch.empty(256 * 2**20, dtype=torch.int8, device=DEVICE)

    def median(self, run: Callable[[], object], seconds: float) -> float:
        """The level-2 cache is flushed before each run, whose launch hides behind the flush."""
        pairs = []
        began = time.monotonic()
        while len(pairs) < 5 or (len(pairs) < 60 and time.monotonic() - began < seconds):
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            self.flush.zero_()
            start.record()
            run()
            stop.record()
            pairs.append((start, stop))
            if len(pairs) % 20 == 0:
                torch.cuda.synchronize()
        torch.cuda.synchronize()
        return statistics.median(start.elapsed_time(stop) for start, stop in pairs)

    def on_device(self, step: Callable[[], object], seconds: float) -> float:
        """Without the launches, which a captured graph does at once."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = step()
        took = self.median(graph.replay, seconds)
        del kept
        return took

    def time(self, step: Callable[[], object], seconds: float = 1.0) -> dict[str, Any]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        result: dict[str, Any] = {"mb": (torch.cuda.max_memory_allocated() - before) / 2**20}
        result["called_ms"] = self.median(step, seconds / 2)
        try:
            result |= {"ms": self.on_device(step, seconds / 2), "how": "graph"}
        except Exception as error:  # noqa: BLE001  # not every contestant can be captured
            torch.cuda.synchronize()
            result |= {"ms": result["called_ms"], "how": "called", "no_graph": str(error)[:200]}
        return result


def ceilings(clock: Clock) -> dict[str, float]:
    """What this card does at its best, now: a bf16 product and a copy."""
    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    tflops = 2 * 8192**3 / clock.median(lambda: a @ b, 1.0) / 1e9
    source = torch.empty(2**30, dtype=torch.int8, device=DEVICE)
    target = torch.empty_like(source)
    gbs = 2 * 2**30 / clock.median(lambda: target.copy_(source), 1.0) / 1e6
    return {"bf16_tflops": tflops, "copy_gbs": gbs}


def tiles_of(
    kinds: tuple[str, ...], step: Callable[[], object], clock: Clock, seconds: float
) -> dict[str, Any]:
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
            try:
                with configs.forced(**trial):
                    step()
                    took = clock.on_device(step, 0.05)
            except Exception:  # noqa: BLE001  # a tile that does not fit the card is no candidate
                torch.cuda.synchronize()
                continue
            if took < 0.98 * best:
                best, chosen = took, trial
    return chosen


class Measurer:
    def __init__(self, wrong: list[str], done: list[str], seconds: float):
        self.wrong, self.done = wrong, done
        self.deadline = time.monotonic() + seconds
        self.clock = Clock()

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def run(self) -> None:
        self.limits = ceilings(self.clock)
        tell({"set": {"ceilings": {k: round(v, 1) for k, v in self.limits.items()}, **environment()}})
        for slow in (False, True):  # what may take long to prepare comes after everything else
            for family, shapes, contestants in FAMILIES:
                for shape in shapes:
                    self.row(family, shape, contestants, slow)
            if not slow:
                self.tune()

    def row(self, family: str, shape: Any, contestants: Callable, slow: bool) -> None:
        built = None
        try:
            built = shape.build(DEVICE)
            facts = dict(zip(("flops", "bytes"), shape.work(built), strict=True))
            entries = contestants(shape, built)
        except Exception as error:  # noqa: BLE001  # reported by name
            key, why = f"{shape.name}|triton", "skipped" if isinstance(error, ImportError) else "building"
            if key not in self.done and not slow:
                tell({"row": shape.name, "contestant": "triton", "result": {"failed": f"{why}: {error}"}})
            return
        for name, prepare in entries.items():
            if (name in SLOW_TO_PREPARE) != slow or f"{shape.name}|{name}" in self.done:
                continue
            tell({"start": f"{shape.name}|{name}"})
            result = self.contestant(family, name, prepare, facts)
            tell({"row": shape.name, "contestant": name, "result": result, "facts": facts})
        del built, entries
        gc.collect()
        torch.cuda.empty_cache()

    def blame(self, family: str) -> list[str]:
        """Failed families of checks in the dtype that is timed: what is wrong is not timed."""
        needed = [f"{each} bfloat16" for each in NEEDS.get(family, (family,))]
        return [each for each in needed if each in self.wrong]

    def contestant(self, family: str, name: str, prepare: Callable, facts: dict) -> dict[str, Any]:
        blame = self.blame(family)
        if name.startswith("triton") and blame:
            return {"failed": f"not timed: the checks of {', '.join(blame)} failed"}
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

    def tune(self) -> None:
        """Sweeps the tiles of attention and cross-entropy, and times the winners as one more contestant."""
        tuned: dict[str, Any] = {}
        for family, shapes, contestants in FAMILIES[:2]:
            for shape in shapes:
                if self.blame(family) or self.left() < 75 or f"{shape.name}|triton, tuned" in self.done:
                    continue
                tell({"start": f"{shape.name}|triton, tuned"})
                try:
                    result = self.tuned(family, shape, contestants, tuned)
                except Exception as error:  # noqa: BLE001  # reported by name
                    torch.cuda.synchronize()
                    result = {"failed": f"{type(error).__name__}: {error}"[:300]}
                tell({"row": shape.name, "contestant": "triton, tuned", "result": result})
                tell({"set": {"tuned": tuned}})

    def tuned(self, family: str, shape: Any, contestants: Callable, tuned: dict) -> dict[str, Any]:
        from neuroformer.kernels import configs  # pyright: ignore[reportMissingImports]

        built = shape.build(DEVICE)
        facts = dict(zip(("flops", "bytes"), shape.work(built), strict=True))
        step = contestants(shape, built)["triton"]()
        step()
        kinds = ATTENTION_TILES if family == "attention" else LOSS_TILES
        chosen = tiles_of(kinds, step, self.clock, 12.0)
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

"""Checks the fused kernels on a GPU, then times them against everything else there is.

    python -m benchmarks.kernels.gpu [--out DIRECTORY] [--minutes 7.5]

Needs PyTorch, Triton, NumPy, einops and this repository, installed or not. Exit codes: 0 all right, 1 something failed
or was not timed (the table says what), 3 no CUDA device. A row is timed only if the check on its own batch passed.

The work is done by child processes: a crash on the device ends one child, and the others' results stay.
``results.json`` and ``results.md`` are written anew after every check and every row.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from neuroformer.bench.checkout import ROOT

# processes that check: most of their time goes into compiling
CHECKERS = max(2, min(8, (os.cpu_count() or 2) // 2))
CHECK_SHARE = 0.45  # of the time, at most
LATE = "did not finish"
SPOILT = 86  # exit code of a measuring process that a failed capture left unfit for more
STARTS = 20  # of measuring processes, at most
FAILED_CAPTURES = 4  # after so many nothing is captured any more


def work(arguments: list[str], seconds: float) -> Iterator[dict[str, Any]]:
    """Messages of a child process, line by line; the last one says how it ended."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    # several processes compile: each with helpers of its own they would be too many, and outlive it
    environment.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    command = [sys.executable, "-u", "-m", "benchmarks.kernels.worker", *arguments]
    yield from _messages(command, environment, seconds)


def _messages(command: list[str], environment: dict[str, str], seconds: float) -> Iterator[dict[str, Any]]:
    child = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=os.setpgrp,
    )
    assert child.stdout is not None and child.stderr is not None
    errors: deque[str] = deque(maxlen=200)
    drain = threading.Thread(target=lambda stream: errors.extend(stream), args=(child.stderr,), daemon=True)
    drain.start()

    def kill() -> None:
        """The child and whatever it started: a compiler that lives on would keep the pipes open."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    out_of_time = threading.Event()  # said by the timer itself: two clock readings could disagree with it

    def stop() -> None:
        out_of_time.set()
        kill()

    timer = threading.Timer(max(seconds, 1.0), stop)
    timer.start()
    try:
        for line in child.stdout:
            try:
                message = json.loads(line)
            except ValueError:  # some library's remark, or what compute-sanitizer found
                errors.append(line)
                continue
            if isinstance(message, dict):
                yield message
        child.wait()
    finally:
        timer.cancel()
        kill()
        child.wait()
    drain.join(timeout=5)
    ending = "out of time" if out_of_time.is_set() else f"exit code {child.returncode}"
    yield {"end": child.returncode, "why": ending, "errors": "".join(errors)[-1500:]}


class Bench:
    """One run: results so far, time left, and the files they are written to."""

    def __init__(self, out: Path, minutes: float, say):
        self.out, self.say = out, say
        self.deadline = time.monotonic() + 60 * minutes
        self.results: dict[str, Any] = {"checks": {}, "rows": {}, "notes": [], "tuned": {}}
        self.lock = threading.Lock()

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "results.json").write_text(json.dumps(self.results, indent=1) + "\n")
        (self.out / "results.md").write_text(as_markdown(self.results))

    def note(self, text: str) -> None:
        self.results["notes"].append(text)
        self.say(text)

    def check(self) -> None:
        """Every case, in a few processes at once; a case that does not report has failed."""
        seconds = CHECK_SHARE * self.left()
        checks = self.results["checks"]

        def one(part: int) -> None:
            """Run checks; if a process dies, only its current check is lost, and the next process continues after it."""
            done: list[str] = []
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                begun = None
                last: dict[str, Any] = {}
                for last in work(["check", str(part), str(CHECKERS), json.dumps(done)], until - time.monotonic()):
                    with self.lock:
                        if "plan" in last:
                            missing = [name for name in last["plan"] if name not in checks]
                            checks.update(dict.fromkeys(missing, f"{LATE} ({part})"))
                        elif "begin" in last:
                            begun = last["begin"]
                        elif "check" in last:
                            checks[last["check"]] = last["result"]
                            done.append(last["check"])
                            begun = None
                        self.save()
                if not last.get("end"):
                    return
                with self.lock:
                    self.note(f"checking process {part}: {last['why']}\n{last['errors'][-600:]}")
                    if begun is None and not done:
                        return  # it cannot even start
                    if begun is not None:
                        checks[begun] = f"the process died in it: {last['why']}"
                        done.append(begun)

        threads = [threading.Thread(target=one, args=(part,)) for part in range(CHECKERS)]
        threads.append(threading.Thread(target=self.sanitize, args=(min(seconds, 100.0),)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wrong = {name: result for name, result in checks.items() if not fine(result)}
        self.say(f"{len(checks) - len(wrong)} of {len(checks)} checks passed")
        for name, result in wrong.items():
            self.say(f"FAILED {name}: {result}")
        if not checks:
            self.note("no check reported anything")
        self.save()

    def sanitize(self, seconds: float) -> None:
        """A few cases under compute-sanitizer, where there is one."""
        places = os.pathsep.join((os.environ.get("PATH", ""), "/usr/local/cuda/bin"))
        tool = shutil.which("compute-sanitizer", path=places)
        if tool is None:
            with self.lock:
                self.results["sanitizer"] = "compute-sanitizer is not installed"
            return
        command = [
            tool,
            "--tool",
            "memcheck",
            "--error-exitcode",
            "9",
            sys.executable,
            "-u",
            "-m",
            "benchmarks.kernels.worker",
            "check",
            "sanitizer",
            "1",
            "[]",
        ]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",  # so that reading beyond a tensor is seen
        }
        passed, last = [], {}
        for last in _messages(command, environment, seconds):
            if last.get("result") == "passed":
                passed.append(last["check"])
        state = "clean" if last.get("end") == 0 else f"{last.get('why')}: {str(last.get('errors'))[-400:]}"
        with self.lock:
            self.results["sanitizer"] = f"{state}; cases: {', '.join(passed) or 'none'}"

    def checked(self) -> list[str]:
        """Rows whose own check passed."""
        passed = [name for name, result in self.results["checks"].items() if result == "passed"]
        return [name.removeprefix("row: ") for name in passed if name.startswith("row: ")]

    def measure(self) -> None:
        """Rows one after another; if a child dies in a contestant, the next child continues after it."""
        done: list[str] = []
        failed_captures = 0
        for _ in range(STARTS):
            current, already = None, len(done)
            given = {"checked": self.checked(), "done": done, "seconds": self.left() - 8}
            given["graphs"] = failed_captures < FAILED_CAPTURES
            last: dict[str, Any] = {}
            for last in work(["measure", json.dumps(given)], self.left()):
                if "start" in last:
                    current = last["start"]
                elif "set" in last:
                    self.results.update(last["set"])
                elif "tuned" in last:
                    self.results["tuned"].update(last["tuned"])
                elif "done" in last:
                    done.append(last["done"])
                elif "row" in last:
                    self._put(last["row"], last["contestant"], last["result"], last.get("facts", {}))
                    done.append(f"{last['row']}|{last['contestant']}")
                    current = None
                self.save()
            if last.get("end") == 0 or self.left() < 20:
                return
            if last.get("end") == SPOILT:
                failed_captures += 1
                continue
            self.note(f"measuring process: {last.get('why')}\n{str(last.get('errors'))[-600:]}")
            if current is None:
                if len(done) == already:  # it gets nowhere
                    return
                continue
            row, contestant = current.split("|")
            self._put(row, contestant, {"failed": f"the process died: {last.get('why')}"}, {})
            done.append(current)

    def _put(self, row: str, contestant: str, result: dict[str, Any], facts: dict[str, Any]) -> None:
        entry = self.results["rows"].setdefault(row, {"facts": {}, "contestants": {}})
        entry["facts"].update(facts)
        entry["contestants"][contestant] = result
        text = result.get("failed") or f"{result['ms']:.4f} ms ({result['how']})"
        self.say(f"{row} | {contestant} | {text}")

    def failures(self) -> list[str]:
        bad = [name for name, result in self.results["checks"].items() if not fine(result)]
        for row, entry in self.results["rows"].items():
            ours = entry["contestants"].get("triton", {"failed": "not timed"})
            why = ours.get("failed", "skipped")
            bad += [] if why.startswith("skipped") else [f"{row}: {why}"]
        return bad if self.results["rows"] else [*bad, "nothing was timed"]


def fine(result: str) -> bool:
    """Whether a check says nothing against the kernels: it passed, or something that it needs is not installed."""
    return result == "passed" or result.startswith("skipped: ")


def as_markdown(results: dict[str, Any]) -> str:
    """The table: a row for each case, milliseconds of each contestant, and what share of the card we use."""
    checks = results["checks"]
    passed = sum(result == "passed" for result in checks.values())
    failed = [f"- FAILED {name}: {result}" for name, result in checks.items() if not fine(result)]
    lines = [
        "; ".join(str(results.get(key, "unknown")) for key in ("device", "versions", "date")),
        "",
        f"{passed} of {len(checks)} checks passed. Sanitizer: {results.get('sanitizer', 'not run')}.",
        f"Ceilings measured in this run: {results.get('ceilings', {})}.",
        *(["", *failed] if failed else []),
        *(["", *results["notes"]] if results["notes"] else []),
        "",
        "| case | contestant | ms on the device | ms as called | TFLOP/s | GB/s | share of ceiling | MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, entry in results["rows"].items():
        for name, result in entry["contestants"].items():
            lines.append(f"| {row} | {name} | {' | '.join(_cells(result))} |")
    lines += ["", "| case | ours, ms | best of the others | ratio | ratio to SDPA, padded |"]
    lines += ["|---|---|---|---|---|"]
    lines += [_ratio_line(row, entry["contestants"]) for row, entry in results["rows"].items()]
    lines += ["", "Bars:", "", *[f"- {line}" for line in bars(results["rows"])]]
    lines += ["", "Tiles that beat the table:", ""]
    lines += [f"- {row}: {tiles}" for row, tiles in results.get("tuned", {}).items() if tiles]
    return "\n".join([*lines, ""])


def _cells(result: dict[str, Any]) -> list[str]:
    if "failed" in result:
        return [str(result["failed"])[:120].replace("\n", " ").replace("|", "/"), *[""] * 5]
    device = f"{result['ms']:.4f}" if result["how"] == "graph" else "no graph"
    rates = [f"{result['tflops']:.3g}", f"{result['gbs']:.4g}", f"{100 * result['share']:.0f} %"]
    return [device, f"{result['called_ms']:.4f}", *rates, f"{result['mb']:.0f}"]


def _ratios(contestants: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]] | None:
    """Our best result, and how many times longer each other contestant takes; None where a side is missing.

    Like is compared with like: device times where both have one, times as called elsewhere.
    """
    timed = {name: result for name, result in contestants.items() if "failed" not in result}
    ours = [timed[name] for name in ("triton", "triton, tuned") if name in timed]
    others = {name: result for name, result in timed.items() if not name.startswith("triton")}
    if not ours or not others:
        return None
    best = min(ours, key=lambda result: result["ms"])

    def ratio(other: dict[str, Any]) -> float:
        key = "ms" if other["how"] == best["how"] else "called_ms"
        return other[key] / best[key]

    return best, {name: ratio(other) for name, other in others.items()}


def _ratio_line(row: str, contestants: dict[str, Any]) -> str:
    found = _ratios(contestants)
    if found is None:
        return f"| {row} | - | - | - | - |"
    best, ratios = found
    rival = min(ratios, key=lambda name: ratios[name])
    padded = [ratio for name, ratio in ratios.items() if name.startswith("SDPA, padded")]
    cells = [f"{best['ms']:.4f}", rival, f"{ratios[rival]:.2f}", f"{padded[0]:.2f}" if padded else "-"]
    return f"| {row} | {' | '.join(cells)} |"


def bars(rows: dict[str, Any]) -> list[str]:
    """What was aimed at, and what this run reached of it; rows are known by what their names begin with."""
    found = {row: pair for row, entry in rows.items() if (pair := _ratios(entry["contestants"])) is not None}
    out = []

    def bar(text: str, names: list[str], value: Callable[[str], float | None], limit: float) -> None:
        values = {name: got for name in names if (got := value(name)) is not None}
        if not values:
            out.append(f"{text}: not measured")
            return
        worst = min(values, key=lambda name: values[name])
        verdict = "reached" if values[worst] >= limit else "NOT REACHED"
        out.append(f"{text}: {verdict}, least {values[worst]:.2f} in '{worst}'")

    best = lambda name: min(found[name][1].values())
    padded = lambda name: found[name][1].get("SDPA, padded")

    def memory(name: str) -> float | None:
        other = rows[name]["contestants"].get("compiled", {}).get("mb")
        return None if other is None else other / max(found[name][0]["mb"], 1e-6)

    ragged = [name for name in found if "spikes to" in name or name.startswith("self, causal")]
    large = [name for name in found if "100,000 units" in name]
    steps = [name for name in found if "training step" in name]
    bar("attention of ragged spikes, 1.3 times the best of the others", ragged, best, 1.3)
    bar("attention of ragged spikes, 3 times padded SDPA", ragged, padded, 3.0)
    bar("100,000 units, 1.5 times compiled PyTorch", large, lambda n: found[n][1].get("compiled"), 1.5)
    bar("100,000 units, 8 times less memory than compiled PyTorch", large, memory, 8.0)
    bar("training step, 2 times padded SDPA", steps, padded, 2.0)
    bar("no case slower than 0.9 times the best", list(found), best, 0.9)
    return out


say_now = functools.partial(print, flush=True)  # whoever is killed has said everything


def main(argv: list[str] | None = None, say=say_now) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels.gpu", description="Check, then time, the fused kernels."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-kernels")
    parser.add_argument("--minutes", type=float, default=7.5)
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        say("kernels: no CUDA device here; nothing checked, nothing timed (exit code 3)")
        return 3
    if importlib.util.find_spec("triton") is None:
        say("kernels: Triton is not installed; nothing checked, nothing timed")
        return 1
    bench = Bench(options.out, options.minutes, say)
    bench.check()
    bench.measure()
    bench.save()
    failures = bench.failures()
    say((options.out / "results.md").read_text())
    say(f"results in {options.out}; " + ("all right" if not failures else f"{len(failures)} failures"))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

"""Times of a step on a GPU: replayed from a CUDA graph, and as called."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


class Clock:
    """Milliseconds of a step: on the device (replayed from a CUDA graph) and as called.

    Attributes
    ----------
    graphs : whether to capture at all
    spoilt : a capture failed. PyTorch's allocator and its random numbers then stay in the mode of a capture, so this
        process must end.
    """

    def __init__(self, device: str, graphs: bool = True):
        self.graphs, self.spoilt = graphs, False
        self.flush = torch.empty(256 * 2**20, dtype=torch.int8, device=device)

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
        try:
            with torch.cuda.graph(graph):
                kept = step()
        except Exception:
            self.spoilt = True
            raise
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
        why = waits(step) if self.graphs else "not tried"
        if why is None:
            try:
                return result | {"ms": self.on_device(step, seconds / 2), "how": "graph"}
            except Exception as error:  # noqa: BLE001  # not every contestant can be captured
                why = f"{type(error).__name__}: {error}"
        return result | {"ms": result["called_ms"], "how": "called", "no_graph": why[:200]}


def waits(step: Callable[[], object]) -> str | None:
    """Where a step waits for the device, which no captured graph can; None where it does not."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except Exception as error:  # noqa: BLE001  # it runs without this mode, so the wait is what fails
        return f"{type(error).__name__}: {error}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
    return None

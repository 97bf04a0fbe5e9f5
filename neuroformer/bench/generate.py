"""Closed-loop rollout at the reference's size, against the naive loop with the same weights and random numbers."""

from __future__ import annotations

import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroformer.bench import reference_size
from neuroformer.bench.checkout import make_importable
from neuroformer.bench.naive_loop import naive_rollout
from neuroformer.bench.plain import plain
from neuroformer.config import GenerateConfig
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.generation import cuda_graph as graph_module
from neuroformer.generation import rollout as module
from neuroformer.generation.rollout import SpikeLoop, rollout_windows
from neuroformer.generation.sequences import simulation_device
from neuroformer.generation.spikes import Sequences, Spikes
from neuroformer.model.fixed_stepper import FixedStepper, Places
from neuroformer.model.network import Neuroformer
from neuroformer.model.stepper import Next, Stepper

THREADS, MEAN_SPIKES, SEED = 2, 15, 0
CASES = {"single": (1, 1), "64_stimuli": (64, 1), "64_samples": (1, 64)}  # stimuli, samples of each


class Scheduled(Stepper):
    """A stepper whose windows end after a given number of spikes; untrained weights would end them anywhere."""

    lengths_W: Tensor  # set before every window

    def __init__(self, model: Neuroformer, batch: Batch):
        super().__init__(model, batch)
        self.num_fed = 0

    def after(self, which: Tensor, tick: Tensor, unit: Tensor, count: Tensor) -> Next:
        over = self.lengths_W[self.rows[which]] <= self.num_fed
        return ScheduledNext(self, which, tick, unit, count, over)

    def feed(self, tick: Tensor, unit: Tensor) -> None:
        self.num_fed += 1
        super().feed(tick, unit)


class ScheduledFixed(FixedStepper):
    """The same of steps that are replayed."""

    lengths_W: Tensor

    def __init__(self, model: Neuroformer, batch: Batch, places: Places):
        super().__init__(model, batch, places)
        self.lengths_A = places.put("lengths", self.lengths_W)

    def after(self, which: Tensor, tick: Tensor, unit: Tensor, count: Tensor) -> Next:
        return ScheduledNext(self, which, tick, unit, count, self.lengths_A < self.filled_A)


class ScheduledNext(Next):
    """Ends the windows that are ``over``, and no other."""

    def __init__(self, stepper: Stepper, which: Tensor, tick: Tensor, unit: Tensor, count: Tensor, over: Tensor):
        super().__init__(stepper, which, tick, unit, count)
        self.over = over

    def dt_log_p(self) -> Tensor:
        logits = super().dt_log_p()
        end = torch.where(self.over, 0.0, float("-inf")).to(logits.dtype)
        return torch.cat([logits[:, :-1].masked_fill(self.over[:, None], float("-inf")), end[:, None]], 1)


def sequences(stimuli: int, samples: int, windows: int, shape) -> Sequences:
    """Sequences that begin one second apart, in the single segment of the recording; their past is empty."""
    start = np.repeat(np.arange(stimuli) * round(0.2 / shape.dt) + shape.past + 20, samples)
    ident = np.arange(stimuli * samples)
    return Sequences(np.zeros_like(start), start, start + windows * shape.current, ident, start.copy())


def schedule(num_sequences: int, windows: int) -> np.ndarray:
    """(windows, sequences) Poisson(15) spikes of each window."""
    return np.random.default_rng(1).poisson(MEAN_SPIKES, (windows, num_sequences)).clip(1, 60)


@contextlib.contextmanager
def scheduled() -> Iterator[None]:
    """Within the block, windows have the numbers of spikes that :func:`_windows` gives them."""
    originals = module.Stepper, graph_module.FixedStepper
    module.Stepper, graph_module.FixedStepper = Scheduled, ScheduledFixed
    try:
        yield
    finally:
        module.Stepper, graph_module.FixedStepper = originals


def _windows(
    model: Neuroformer, prepared: Prepared, what: Sequences, lengths: np.ndarray, replay: bool | None
) -> Iterator[Spikes]:
    windows = rollout_windows(SpikeLoop(model, prepared.asking(GenerateConfig(), SEED), what, replay=replay))
    for number in lengths:
        Scheduled.lengths_W = ScheduledFixed.lengths_W = torch.from_numpy(number).to(model.device)
        yield next(windows).made


def ours(
    model: Neuroformer,
    prepared: Prepared,
    what: Sequences,
    lengths: np.ndarray,
    *,
    replay: bool | None = None,
) -> tuple[Spikes, float]:
    """The spikes of all windows, and the seconds that took."""
    with scheduled():
        begin = time.perf_counter()
        parts = list(_windows(model, prepared, what, lengths, replay))
        return Spikes.join(parts), time.perf_counter() - begin


def pace(
    model: Neuroformer,
    prepared: Prepared,
    what: Sequences,
    lengths: np.ndarray,
    *,
    replay: bool | None,
    start: int,
) -> tuple[float, float]:
    """Tokens/s after the first ``start`` windows, and the seconds that those took: a long simulation compiles and
    captures at its start only. Each window's spikes are on the CPU before the next begins, so no clock runs ahead.
    """
    with scheduled():
        begin, times = time.perf_counter(), []
        for _ in _windows(model, prepared, what, lengths, replay):
            times.append(time.perf_counter() - begin)
    return float(lengths[start:].sum() / (times[-1] - times[start - 1])), times[start - 1]


def naive(model: Neuroformer, prepared: Prepared, what: Sequences, lengths: np.ndarray) -> tuple[Spikes, float]:
    """The same of the naive loop, one sequence after another."""
    model = plain(model)
    begin, parts = time.perf_counter(), []
    for q in range(len(what)):
        start = int(what.start[q])
        for new in naive_rollout(
            model, prepared.builder, int(what.segment[q]), start, lengths[:, q], int(what.ident[q]), SEED
        ):
            tick, unit = np.array(new, np.int64).T
            parts.append(Spikes(np.full(len(new), q), tick + start, unit))
    return Spikes.join(parts), time.perf_counter() - begin


def agree(model: Neuroformer, prepared: Prepared) -> bool:
    """In float64, do both give the same spikes: two stimuli, two windows?"""
    double = model.double()
    what, lengths = sequences(2, 1, 2, prepared.builder.shape), schedule(2, 2) // 3 + 1
    same = _same(*(side(double, prepared, what, lengths)[0] for side in (ours, naive)))
    model.float()
    return same


def graph_agrees(model: Neuroformer, prepared: Prepared, num_sequences: int = 24) -> bool:
    """In float64, do replayed steps give the spikes of the others, over three windows?"""
    double = model.double()
    what, lengths = sequences(num_sequences // 2, 2, 3, prepared.builder.shape), schedule(num_sequences, 3)
    same = _same(*(ours(double, prepared, what, lengths, replay=on)[0] for on in (True, False)))
    model.float()
    return same


def _same(a: Spikes, b: Spikes) -> bool:
    a, b = a.ordered(), b.ordered()
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("sequence", "tick", "unit")) and len(a.tick) > 0


def run(repeats: int = 3, windows: int = 2) -> dict[str, Any]:
    """First the check, then both sides in turn, in this process.

    Returns
    -------
    dict
        ``checked``; for one sequence, for 64 with different stimuli and for 64 samples of one trial:
        ``ratio_*`` (tokens/s over the naive loop's, the median of paired runs), ``tokens_per_second_*``;
        ``tokens_per_second_naive``, ``seconds_per_window_*``.
    """
    torch.set_num_threads(THREADS)
    model, p = reference_size.prepared()
    out: dict[str, Any] = {"bench": "generate", "checked": agree(model, p)}
    if not out["checked"]:
        return out
    one = sequences(1, 1, windows, p.builder.shape)
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    for repeat in range(repeats + 1):
        lengths = schedule(1, windows)
        naive_rate = lengths.sum() / naive(model, p, one, lengths)[1]
        for name, (stimuli, samples) in CASES.items():
            what = sequences(stimuli, samples, windows, p.builder.shape)
            lengths = schedule(len(what), windows)
            rate = lengths.sum() / ours(model, p, what, lengths)[1]
            if repeat:  # the first round warms up
                pairs[name].append((rate, naive_rate))
    for name, found in pairs.items():
        rate = statistics.median(a for a, _ in found)
        out[f"ratio_{name}"] = statistics.median(a / b for a, b in found)
        out[f"tokens_per_second_{name}"] = rate
        out[f"seconds_per_window_{name}"] = MEAN_SPIKES / rate
    return out | {
        "tokens_per_second_naive": statistics.median(b for found in pairs.values() for _, b in found),
        "parameters": sum(x.numel() for x in model.parameters()),
        "windows": windows,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }


def run_gpu(num_sequences: int = 512, windows: int = 40, start: int = 6, device: str = "cuda") -> dict[str, Any] | None:
    """Tokens/s of 512 sequences with as many stimuli on one GPU, by a CUDA graph and without; None where there is none.

    Returns
    -------
    dict
        ``tokens_per_second*`` after the first ``start`` windows, ``seconds_to_start*`` of those (medians of three);
        ``failed*`` where a way failed; ``profile``, what took the device's time in some windows.
    """
    if device == "cuda" and not torch.cuda.is_available():
        return None
    make_importable()
    model, p = reference_size.prepared(seconds=200.0)
    out: dict[str, Any] = {"bench": "generate", "checked": agree(model, p)}
    model = model.to(device if device != "cuda" else simulation_device("gpu"))
    what = sequences(num_sequences, 1, windows, p.builder.shape)
    lengths = schedule(num_sequences, windows)
    # the graph comes last: where a capture fails, what follows in this process may fail as well
    for name, on in (("_without_graph", False), ("", True)):
        try:
            if on:
                out["checked_graph"] = graph_agrees(model, p)
            found = [pace(model, p, what, lengths, replay=on, start=start) for _ in range(3)]
        except Exception as error:  # noqa: BLE001  # one way that fails says nothing about the other
            out |= {f"failed{name}": f"{type(error).__name__}: {error}"[:2000], "checked": False}
            continue
        rates, begun = zip(*found, strict=True)
        out[f"tokens_per_second{name}"] = statistics.median(rates)
        out[f"seconds_to_start{name}"] = statistics.median(begun)
    if device == "cuda" and "failed" not in out:
        out["profile"] = profile(lambda: ours(model, p, what, lengths[:start]))
    out["checked"] &= out.get("checked_graph", False)
    return out | {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "sequences": num_sequences,
        "windows": windows,
        "torch": torch.__version__,
    }


def profile(call: Callable[[], object]) -> str:
    """A table of the kernels that took most of the device's time."""
    from torch.profiler import ProfilerActivity

    try:
        with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as taken:
            call()
        return taken.key_averages().table(sort_by="self_cuda_time_total", row_limit=20, max_name_column_width=60)
    except Exception as error:  # noqa: BLE001  # not every machine lets itself be profiled
        return f"none: {type(error).__name__}: {error}"

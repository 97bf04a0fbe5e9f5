"""How fast behavior is decoded at the reference's size: many windows at once, and one at a time as data come in."""

from __future__ import annotations

import dataclasses
import platform
import time
from typing import Any

import numpy as np
import torch

from neuroformer.bench import reference_size
from neuroformer.config import TargetConfig
from neuroformer.data.prepared import prepare
from neuroformer.decoding.decode import predict_targets
from neuroformer.decoding.stream import StreamDecoder
from neuroformer.model.network import Neuroformer
from neuroformer.recording import BehaviorVariable

NUM_WINDOWS, NUM_STREAMED = 2000, 200


def run(threads: int = 2, num_windows: int = NUM_WINDOWS, num_streamed: int = NUM_STREAMED) -> dict[str, Any]:
    """Windows of 50 ms without frames, 400 units, speed and gaze; an untrained model of the reference's size.

    Returns
    -------
    dict
        ``batch_seconds`` for ``windows``, batches built from the recording included; ``stream_ms_median`` and
        ``stream_ms_p99`` of one window from its last spike to its values, after ten windows; ``checked``: both give
        the same values.
    """
    torch.set_num_threads(threads)
    seconds = num_windows * 0.05 + 1
    rec = reference_size.recording(seconds)
    t = np.arange(0, seconds, 0.05)
    gaze = BehaviorVariable(t, np.stack([np.sin(t), np.cos(t)], 1))
    rec = dataclasses.replace(rec, behavior={"speed": BehaviorVariable(t, np.sin(t / 3)), "gaze": gaze})
    config = dataclasses.replace(
        reference_size.config(frames=False), targets=(TargetConfig("speed"), TargetConfig("gaze"))
    )
    config = dataclasses.replace(config, decode=dataclasses.replace(config.decode, lags=(0.25,)))
    prepared = prepare(rec, config)
    torch.manual_seed(0)
    model = Neuroformer(config, rec.num_units, prepared.normalization).eval()
    windows = _from_the_start(prepared, num_windows)
    predict_targets(model, prepared, windows[:64])
    start = time.perf_counter()
    batch = predict_targets(model, prepared, windows)
    batch_seconds = time.perf_counter() - start
    took, streamed = _stream(model, prepared, min(num_streamed, num_windows))
    checked = all(np.allclose(streamed[n], batch[n][: len(streamed[n])], atol=1e-4) for n in batch)
    return {
        "bench": "decode",
        "checked": checked,
        "windows": len(windows),
        "batch_seconds": batch_seconds,
        "stream_ms_median": 1e3 * float(np.median(took[10:])),
        "stream_ms_p99": 1e3 * float(np.percentile(took[10:], 99)),
        "streamed_windows": len(took),
        "parameters": sum(p.numel() for p in model.parameters()),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _from_the_start(prepared, count: int):
    from neuroformer.data.windows import Windows

    return Windows(np.zeros(count, np.int64), np.arange(count) * prepared.builder.shape.current)


def _stream(model: Neuroformer, prepared, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Seconds of each window, and the values by target."""
    rec, current = prepared.rec, prepared.config.window.current
    stream = StreamDecoder(model, prepared.normalization)
    edges = np.searchsorted(rec.spike_times, np.arange(count + 1) * current)
    took, values = [], []
    for w in range(count):
        times, units = (x[edges[w] : edges[w + 1]] for x in (rec.spike_times, rec.spike_units))
        start = time.perf_counter()
        stream.push_spikes(times, units)
        values += stream.advance((w + 1) * current)
        took.append(time.perf_counter() - start)
    return np.array(took), {n: np.concatenate([v.values[n] for v in values]) for n in values[0].values}

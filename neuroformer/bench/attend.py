"""The cost of capturing maps in a forward pass; the maps must first agree with the plain loop."""

from __future__ import annotations

import platform
import resource
import time
from typing import Any

import numpy as np
import torch

from neuroformer.analysis.attention import AttentionCapture
from neuroformer.config import from_dict
from neuroformer.data.prepared import Prepared, prepare
from neuroformer.model.attention import Block
from neuroformer.model.network import Neuroformer
from neuroformer.ops import attention_map
from neuroformer.recording import Recording, open_recording

BATCH = 256
DEMO = {
    "window": {"dt": 0.01, "current": 0.05, "past": 1.0, "frames": 0.15},
    "inputs": [{"name": "pupil"}],
    "split": {"by": "trials", "claim": "repeats"},
    "model": {
        "width": 64,
        "frame_encoder": {"kind": "conv3d", "kernel": [1, 9, 9], "stride": [1, 3, 3], "channels": 64},
        "blocks": [{"attend": a} for a in ("past", "frames", "behavior", "current", "current")],
    },
}


def run(repeats: int = 3, num_windows: int = 1024) -> dict[str, Any]:
    """The shape of ``configs/demo.yaml``, untrained: forward passes alone, and with every block's maps.

    Times are processor seconds of this process, both sides alternating. Peak memory: growth of the process' peak
    from capturing one stretch to capturing three times as much.

    Returns
    -------
    dict
        ``ratio`` (median over repeats; the bar is 1.3), ``ratio_rolled_out``, ``peak_growth_mb``, and the shapes.
    """
    torch.manual_seed(0)
    rec = open_recording("synthetic:demo", num_trials=15)
    model, prepared = _model(rec)
    windows = prepared.windows("train")
    capture = lambda **options: AttentionCapture(model, rec.unit_ids, **options)
    checked = _agree(model, prepared.builder(windows[:32]), rec.unit_ids)
    made = list(prepared.batches(windows[:num_windows], BATCH))
    seconds: dict[str, list[float]] = {"forward": [], "maps": [], "rolled_out": []}
    for _ in range(repeats + 1):
        seconds["forward"].append(_seconds(lambda: [_forward(model, b) for b in made]))
        seconds["maps"].append(_seconds(lambda: [c.add(b) for c in [capture()] for b in made]))
        seconds["rolled_out"].append(_seconds(lambda: [c.add(b) for c in [capture(rollout=True)] for b in made]))
    ratio = lambda side: float(
        np.median(np.array(seconds[side][1:]) / seconds["forward"][1:])
    )  # the first one warms up
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    before, once = peak(), capture()
    for _ in range(3):
        for batch in made:
            once.add(batch)
    return {
        "bench": "attend",
        "checked": checked,
        "ratio": ratio("maps"),
        "ratio_rolled_out": ratio("rolled_out"),
        "forward_ms_a_batch": 1000 * float(np.median(seconds["forward"][1:])) / len(made),
        "peak_growth_mb": peak() - before,
        "batch": BATCH,
        "windows": len(made) * BATCH,
        "repeats": repeats,
        "units": rec.num_units,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _model(rec: Recording) -> tuple[Neuroformer, Prepared]:
    prepared = prepare(rec, from_dict(DEMO))
    return Neuroformer(prepared.config, rec.num_units, prepared.normalization).eval(), prepared


@torch.no_grad()
def _forward(model: Neuroformer, batch) -> None:
    model(batch)


def _seconds(do) -> float:
    start = time.process_time()
    do()
    return time.process_time() - start


def _agree(model: Neuroformer, batch, unit_ids: list[str]) -> bool:
    """Every block's sums against the plain loop over sequences."""
    capture = AttentionCapture(model, unit_ids)
    labels = capture.labels(batch)
    plain = {}

    def observe(block: Block, name: str):
        def observer(q, k, v, layout, k_layout, k_index) -> None:
            size = (len(unit_ids), len(capture.columns[block.attend].names))
            plain[name] = attention_map(
                q,
                k,
                None,
                layout,
                k_layout,
                labels.query_T,
                labels.key[block.attend],
                size,
                per_head=False,
                k_index=k_index,
                causal=block.attend == "current",
                impl="eager",
            )

        return observer

    for name, block in zip(capture.names, capture.blocks, strict=True):
        block.observer = observe(block, name)
    _forward(model, batch)
    capture.add(batch)
    return all(torch.allclose(plain[k], v, rtol=1e-4, atol=1e-6) for k, v in capture.sums.items())

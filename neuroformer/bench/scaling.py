"""A plan on paper: bytes and operations of training on so many sessions with so many GPUs, by formula from one measured step.

What is counted: the parameters of a network for one session (its rows and the trunk), and the floating-point operations of matrix
products in a step over a few windows of it. What follows: everything per step and per pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from neuroformer.bundle.cohort import Cohort, own_names
from neuroformer.config import from_dict
from neuroformer.data.prepared import prepare
from neuroformer.model.network import Neuroformer
from neuroformer.recording.synthetic import cohort
from neuroformer.training.module import Losses, Microbatch
from neuroformer.training.steps import RECORDINGS

SPIKE, BIN, NUMBER = 12 + 12, 8, 4  # bytes: of a spike in arrays and index, of a bin in the index, of a weight
STATE = 4  # a weight, AdamW's two moments, the average
PROBED = 32  # windows


def run(
    sessions: Sequence[int] = (10, 300, 3000),
    gpus: Sequence[int] = (1, 8, 64),
    *,
    units: int = 1000,
    hours: float = 1.0,
    rate_hz: float = 3.0,
    width: int = 64,
    batch_size: int = 256,
) -> dict[str, Any]:
    """Of sessions of so many units, hours and spikes per second and unit; a GPU's share of a batch has ``batch_size`` windows.

    Returns
    -------
    dict
        ``trunk`` and ``rows`` (of one session), parameters; ``gflop_a_window`` of forward and backward passes; ``plan``: for each
        number of sessions and GPUs, ``disk_gb`` (arrays and index), ``rows_gb`` (rows with their state, on disk), ``gpu_mb``
        (trunk, and the rows of a step's recordings, with their state, without activations), ``sent_mb`` (gradients that each
        process sends and receives in a step), ``tflop_a_step`` of one GPU, ``steps_a_pass`` through all training data.
    """
    rec = cohort(0, num_units=units, duration_s=60.0, rate_hz=rate_hz)
    config = from_dict(
        {"window": {"frames": 0.0}, "model": {"width": width}, "recording": {"path": "synthetic:cohort"}}
    )
    prepared = prepare(rec, config)
    model = Neuroformer(prepared.config, units, prepared.normalization)
    own = own_names(model)
    rows = sum(p.numel() for name, p in model.named_parameters() if name in own)
    trunk = sum(p.numel() for p in model.parameters()) - rows
    batch = prepared.builder(prepared.windows("train")[:PROBED])
    with FlopCounterMode(display=False) as counted:
        Losses(Cohort([model]))(Microbatch(batch))["loss"].backward()
    flop = counted.get_total_flops() / batch.num_windows
    window, dt = prepared.config.window.current, prepared.config.window.dt
    plan = []
    for n in sessions:
        disk = n * hours * 3600 * (units * rate_hz * SPIKE + BIN / dt)
        for processes in gpus:
            together = min(n, RECORDINGS)
            plan.append(
                {
                    "sessions": n,
                    "gpus": processes,
                    "disk_gb": disk / 1e9,
                    "rows_gb": n * rows * STATE * NUMBER / 1e9,
                    "gpu_mb": (trunk + together * rows) * (STATE + 1) * NUMBER / 1e6,
                    "sent_mb": (trunk + together * rows) * NUMBER / 1e6 if processes > 1 else 0.0,
                    "tflop_a_step": flop * batch_size / 1e12,
                    "steps_a_pass": 0.6 * n * hours * 3600 / window / (batch_size * processes),
                }
            )
    out = {
        "bench": "scaling",
        "units": units,
        "hours": hours,
        "rate_hz": rate_hz,
        "width": width,
        "trunk": trunk,
        "rows": rows,
    }
    return out | {"gflop_a_window": flop / 1e9, "batch_size": batch_size, "plan": plan, "torch": torch.__version__}

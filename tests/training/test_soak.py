"""Memory over a long run."""

import gc
import sys
from pathlib import Path

import pytest
import torch
from helpers import small_config, small_recording

from neuroformer.training.loop import Trainer
from neuroformer.training.train import train


def resident_mib() -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x)
    return float(line.split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_memory_stays_flat_over_ten_thousand_steps(tmp_path, monkeypatch):
    """With evaluations, checkpoints and the log: neither resident memory nor the number of tensors grows."""
    model = {
        "width": 8,
        "heads": 1,
        "dropout": 0.1,
        "frame_encoder": {"kind": "conv3d", "kernel": [2, 4, 4], "stride": [1, 4, 4]},
    }
    settings = {
        "steps": 10_000,
        "batch_size": 4,
        "evaluate_every": 1000,
        "average": 0.9,
        "checkpoint_every": 3.0,
        "accelerator": "cpu",
    }
    seen, advance = {}, Trainer._advance

    def watched(self, pieces):
        advance(self, pieces)
        if self.progress.step % 1000 == 0:
            del pieces
            gc.collect()
            tensors = sum(isinstance(x, torch.Tensor) for x in gc.get_objects())
            seen[self.progress.step] = (resident_mib(), tensors)

    monkeypatch.setattr(Trainer, "_advance", watched)
    config = small_config(model=model, train=settings)
    train(small_recording(seconds=60.0), config, tmp_path, progress=False)
    print({step: (round(mib, 1), tensors) for step, (mib, tensors) in seen.items()})
    mib, tensors = zip(*(seen[step] for step in sorted(seen)), strict=True)
    assert len(seen) == 10
    assert len(set(tensors[1:])) == 1
    # the first two thousand steps fill caches and arenas
    assert max(mib[2:]) - mib[1] < 16

"""Two trainings of one network, eager and fused, run the same curve; the golden one is stored."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.kernels.twin import TwinSize, train_twin
from neuroformer.ops.tolerance import check_close

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
GOLDEN = Path(__file__).parent / "twin_golden.json"
SIZE = TwinSize(16, 1, (1, 1, 1, 1), units=30, bins=4, windows=3, spikes=6, past=10, frames=9)


@pytest.mark.parametrize("steps", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_twins(steps):
    golden = torch.tensor(json.loads(GOLDEN.read_text())[:steps], dtype=torch.float64)
    exact = torch.tensor(train_twin(SIZE, "eager", "eager", steps, torch.float64), dtype=torch.float64)
    torch.testing.assert_close(exact, golden, rtol=1e-6, atol=1e-6)
    eager = torch.tensor(train_twin(SIZE, "eager", "eager", steps))
    fused = torch.tensor(train_twin(SIZE, "triton", "triton", steps, device=DEVICE))
    check_close("loss curve", fused, eager, golden)
    if steps == 50:
        assert golden[-4:].mean() < 0.5 * golden[:4].mean(), "the twins learn nothing"

"""The two sides of the benchmark of a training step compute the same thing, and memory is measured."""

import numpy as np
import pytest
import torch
from helpers import small_recording

from neuroformer.bench.padded import padded_loss
from neuroformer.bench.reference_size import config
from neuroformer.bench.train import peak_memory
from neuroformer.bundle.cohort import Cohort
from neuroformer.config import from_dict, to_dict
from neuroformer.data.prepared import prepare
from neuroformer.model.network import Neuroformer
from neuroformer.training.module import Losses, Microbatch


@pytest.mark.parametrize("frames", [True, False])
def test_both_sides_have_the_same_loss_and_gradients(frames):
    tree = to_dict(config(frames))
    tree["split"]["block"] = 4.0
    tree["model"] |= {"width": 16, "heads": 2}
    tree["model"]["frame_encoder"] |= {"kernel": [2, 4, 4], "stride": [1, 2, 2], "layers": 1}
    c = from_dict(tree)
    rec = small_recording()
    prepared = prepare(rec, c)
    torch.manual_seed(0)
    model = Neuroformer(c, rec.num_units, prepared.normalization).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    batch = prepared.builder(
        prepared.windows("train")[8:16]
    )  # the first ones lack frames, which we drop and padding keeps
    grads = []
    for loss in (Losses(Cohort([model]))(Microbatch(batch))["loss"], padded_loss(model, batch, dropout=0.2)):
        model.zero_grad()
        loss.backward()
        grads.append([loss.detach()] + [p.grad for p in model.parameters() if p.grad is not None and p.grad.any()])
    assert len(grads[0]) == len(grads[1]) > 50
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-10) for a, b in zip(*grads, strict=True))


def test_peak_memory_sees_what_is_gone_again():
    def step():
        np.ones(2**23).sum()  # 64 MiB

    assert 60 * 2**20 < peak_memory(step) < 100 * 2**20

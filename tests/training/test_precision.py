"""Ways to compute the same thing: half precision, recomputed activations, compiled blocks."""

import math

import pytest
import torch
from helpers import small_config, small_model, small_recording
from safetensors.torch import load_file

from neuroformer.bundle.cohort import Cohort
from neuroformer.config import ConfigError
from neuroformer.losses import loss_terms
from neuroformer.training.module import Losses, Microbatch
from neuroformer.training.train import make_fabric, train


@pytest.fixture
def ready():
    """A float32 model in training mode, and a batch."""
    model, prepared = small_model()
    model = model.float().train()
    return model, prepared.builder(prepared.windows("train")[:40])


def gradient(model, terms):
    model.zero_grad()
    terms["loss"].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_of_the_network_not_of_the_losses(ready, dtype):
    model, batch = ready
    exact = Losses(Cohort([model]))(Microbatch(batch))
    with torch.autocast("cpu", dtype):
        half = Losses(Cohort([model]))(Microbatch(batch))
        output = model(batch)
    # the same outputs, raised to float32 before anything is computed from them
    for name, x in output.targets.items():
        assert x.dtype == dtype
        output.targets[name] = x.float()
    seen = output.observed
    assert seen.dt_nll_T.dtype == seen.id_nll_S.dtype == seen.log_rate_WBU.dtype == torch.float32
    raised = loss_terms(model, batch, output)
    assert "contrast_neural_frames" in half
    for name, x in half.items():
        assert x.dtype == torch.float32
        assert x.item() == pytest.approx(exact[name].item(), rel=0.02), name
        assert name == "loss" or x.item() == raised[name].item(), name
    a, b = gradient(model, exact), gradient(model, half)
    assert torch.nn.functional.cosine_similarity(a, b, 0) > 0.99


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_trains_and_goes_on_bit_for_bit(tmp_path, precision, monkeypatch):
    from neuroformer.training.loop import Trainer
    from neuroformer.training.stopping import Stopped

    settings = {"steps": 8, "evaluate_every": 4, "checkpoint_every": 1e6, "lr": 1e-3, "precision": precision}
    c, rec = small_config(train=settings), small_recording()
    scores = {}
    for name in ("single", "whole"):
        with_ = c if name == "whole" else small_config(train=settings | {"precision": "32"})
        scores[name] = train(rec, with_, tmp_path / name, progress=False)[1]["valid_best_likelihood"]
    assert scores["whole"] == pytest.approx(scores["single"], abs=0.02) and math.isfinite(scores["whole"])
    advance = Trainer._advance

    def stopped(self, pieces):
        self.signal = 15 if self.progress.step == 4 else None
        advance(self, pieces)

    monkeypatch.setattr(Trainer, "_advance", stopped)
    with pytest.raises(Stopped):
        train(rec, c, tmp_path / "parts", progress=False)
    monkeypatch.undo()
    train(rec, c, tmp_path / "parts", progress=False, resume=True)
    a, b = (load_file(tmp_path / n / "weights" / "likelihood.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_float16s_scale_survives_a_stop(tmp_path, monkeypatch):
    from neuroformer.training.loop import Trainer

    c = small_config(train={"steps": 4, "evaluate_every": 2, "precision": "16-mixed", "checkpoint_every": 0.0})
    seen, step = [], Trainer._step

    def watched(self, pieces):
        scaler = self.fabric.strategy.precision.scaler
        if not seen:
            scaler.load_state_dict(scaler.state_dict() | {"scale": 1024.0})
        if len(seen) == 2:
            seen.append(None)
            raise KeyboardInterrupt
        seen.append(scaler.get_scale())
        return step(self, pieces)

    monkeypatch.setattr(Trainer, "_step", watched)
    with pytest.raises(KeyboardInterrupt):
        train(small_recording(), c, tmp_path, progress=False)
    train(small_recording(), c, tmp_path, progress=False, resume=True)
    assert seen == [1024.0, 1024.0, None, 1024.0, 1024.0]


def test_a_device_without_float64_is_not_taken(monkeypatch):
    """Apple's, which Lightning takes where it may choose."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert make_fabric(small_config(train={"accelerator": "auto"})).device == torch.device("cpu")
    with pytest.raises(ConfigError, match="no CUDA device; set train.accelerator=auto or cpu"):
        make_fabric(small_config(train={"accelerator": "gpu"}))

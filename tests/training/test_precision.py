"""Ways to compute the same thing: half precision, recomputed activations, compiled blocks."""

import math

import pytest
import torch
from helpers import small_config, small_model, small_recording
from safetensors.torch import load_file

from neuroformer.bundle.cohort import Cohort
from neuroformer.losses import loss_terms
from neuroformer.training.module import Losses, Share, make_optimizer, set_up_blocks
from neuroformer.training.train import train


@pytest.fixture
def ready():
    """A float32 model in training mode, and a batch."""
    model, prepared = small_model()
    model = model.float().train()
    if model.what_where is not None:
        model.what_where.dropout.p = 0.0
    return model, prepared.builder(prepared.windows("train")[:40])


def gradient(model, terms):
    model.zero_grad()
    terms["loss"].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_of_the_network_not_of_the_losses(ready, dtype):
    model, batch = ready
    exact = Losses(Cohort([model]))(Share(batch))
    with torch.autocast("cpu", dtype):
        half = Losses(Cohort([model]))(Share(batch))
        output = model(batch)
    # the same outputs, raised to float32 before anything is computed from them
    for name, x in output.targets.items():
        assert x.dtype == dtype
        output.targets[name] = x.float()
    assert output.dt_nll_T.dtype == output.id_nll_S.dtype == output.log_rate_WBU.dtype == torch.float32
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


def saved_bytes(model, batch):
    """Bytes that a forward pass keeps for the backward pass, each storage once."""
    kept = {}

    def pack(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        terms = Losses(Cohort([model]))(Share(batch))
    return sum(kept.values()), terms


def test_recomputed_blocks_give_the_same_gradients_from_less_memory():
    blocks = [{"attend": a, "layers": 4} for a in ("current", "past", "frames")]
    model, prepared = small_model(
        config=small_config(
            model={
                "dropout": 0.3,
                "blocks": blocks,
                "width": 16,
                "heads": 2,
                "time_features": 4,
                "history_filters": 2,
                "frame_encoder": {"kernel": [2, 4, 4], "stride": [1, 2, 2], "layers": 4},
            }
        )
    )
    model, batch = model.float().train(), prepared.builder(prepared.windows("train")[:60])
    found = []
    for recompute in (False, True):
        set_up_blocks(model, small_config(train={"recompute": recompute}).train)
        torch.manual_seed(0)  # dropout is drawn again as it was drawn
        size, terms = saved_bytes(model, batch)
        found.append((size, float(terms["loss"]), gradient(model, terms)))
    (all_, loss, grad), (less, loss_2, grad_2) = found
    assert loss == loss_2 and torch.allclose(grad, grad_2, rtol=1e-5, atol=1e-7)
    assert less < 0.4 * all_, less / all_


@pytest.mark.slow
def test_compiled_blocks_give_the_same_losses_whatever_the_lengths(ready):
    """Whole graphs, compiled once for all lengths: a batch of another length is no new compilation."""
    from torch._dynamo.utils import counters

    model, _ = ready
    _, prepared = small_model()
    eager = small_model()[0].float().train()
    eager.load_state_dict(model.state_dict())
    if eager.what_where is not None:
        eager.what_where.dropout.p = 0.0
    torch._dynamo.reset()
    counters.clear()
    set_up_blocks(model, small_config(train={"compile": True}).train)
    optimizers = [make_optimizer(Cohort([m]), prepared.config.train) for m in (model, eager)]
    windows, graphs = prepared.windows("train"), []
    for i, num in enumerate([40, 33, 7, 64, 21, 50]):
        batch = prepared.builder(windows[i * 10 : i * 10 + num])
        a, b = (Losses(Cohort([m]))(Share(batch)) for m in (model, eager))
        assert float(a["loss"]) == pytest.approx(float(b["loss"]), rel=1e-5)
        x, y = gradient(model, a), gradient(eager, b)
        assert torch.allclose(x, y, rtol=1e-3, atol=1e-5)
        for optimizer in optimizers:
            optimizer.step()
        graphs.append(counters["stats"]["unique_graphs"])
    assert not counters["graph_break"]
    # projections of tokens and of contexts (current, among frames, cross), and what follows attention
    assert graphs[0] <= 5 and len(set(graphs[1:])) == 1 and graphs[-1] <= graphs[0] + 1

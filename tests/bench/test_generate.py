"""The benchmark of the rollout: both sides give the same spikes, on a model of a test's size."""

import numpy as np
import torch
from helpers import small_config, small_model

from neuroformer.bench import generate as module
from neuroformer.bench.generate import agree, naive, ours, schedule, sequences
from neuroformer.bench.reference_size import config
from neuroformer.cli import main
from neuroformer.data.windows import Windows
from neuroformer.model.stepper import Stepper


def plain_model():
    """Without behavior, which the naive loop lacks."""
    model = {"frame_encoder": {"kind": "conv3d", "kernel": [2, 4, 4], "stride": [1, 2, 2], "layers": 2}}
    return small_model(config=small_config(model=model, inputs=[], targets=[], loss={"contrast": [], "rates": 0.0}))


def test_the_rollout_and_the_naive_loop_give_the_same_spikes():
    net, p = plain_model()
    assert agree(net, p)
    # and the check can fail: another weight on one side
    net.double()
    what, lengths = sequences(2, 1, 2, p.builder.shape), schedule(2, 2)
    a = ours(net, p, what, lengths)[0]
    assert len(a.tick) == lengths.sum()
    with torch.no_grad():
        net.observation.unit.weight.mul_(-3.0)
    b = naive(net, p, what, lengths)[0]
    assert len(b.tick) == lengths.sum() and not np.array_equal(a.ordered().unit, b.ordered().unit)


def test_the_benchmark_of_a_gpu_runs_but_for_the_gpu(monkeypatch, capsys):
    net, p = plain_model()
    monkeypatch.setattr(module.reference_size, "prepared", lambda seconds: (net, p))
    clock, found = iter([(50.0, 2.0), (90.0, 4.0), (70.0, 3.0), (500.0, 9.0), (900.0, 7.0), (700.0, 8.0)]), []

    def timed(*given, **options):
        found.append(pace(*given, **options))
        return next(clock)

    pace = module.pace
    monkeypatch.setattr(module, "pace", timed)
    result = module.run_gpu(num_sequences=3, windows=3, start=1, device="cpu")
    assert result is not None and result["checked"] and result["checked_graph"]
    assert (result["tokens_per_second_without_graph"], result["seconds_to_start_without_graph"]) == (70.0, 3.0)
    assert (result["tokens_per_second"], result["seconds_to_start"]) == (700.0, 8.0)
    assert len(found) == 6 and np.isfinite(found).all()
    monkeypatch.setattr(module, "pace", pace)

    def fail(*_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(module, "graph_agrees", fail)
    result = module.run_gpu(num_sequences=3, windows=2, start=1, device="cpu")
    assert result is not None and not result["checked"] and "not permitted" in result["failed"]
    assert "tokens_per_second_without_graph" in result and "tokens_per_second" not in result
    if not torch.cuda.is_available():
        assert main(["bench", "generate-gpu"]) == 3
        assert "needs one GPU" in capsys.readouterr().out


def test_the_references_size():
    c = config()
    assert [(b.attend, b.layers) for b in c.model.blocks] == [
        ("current", 6),
        ("past", 6),
        ("frames", 6),
        ("current", 6),
    ]
    assert c.model.width == 256 and c.model.heads == 8 and c.model.frame_encoder.layers == 6


def test_keys_serve_their_own_windows_whoever_shares_or_ends():
    """Steps of many sequences, of which some share a clip and some end, are those of each alone."""
    net, p = plain_model()
    ticks = np.array([40, 40, 45, 60, 60, 60, 75, 300, 305])
    segment = np.zeros_like(ticks)
    rng = np.random.default_rng(0)
    path = [(np.sort(rng.integers(0, 5, 8)), rng.integers(0, 6, 8)) for _ in ticks]
    ends = [2, 8, 1, 3, 5, 1, 1, 7, 2]

    def states(which):
        windows = Windows(segment[which], ticks[which])
        from neuroformer.data.tokens import encode_past

        stepper = Stepper(net, p.builder(windows, past=encode_past(p.index, windows, p.builder.shape)))
        out = {int(q): [h] for q, h in zip(which, stepper.h_AD, strict=True)}
        for step in range(8):
            mine = np.array(which)[stepper.rows.numpy()]
            stay = np.flatnonzero([ends[q] > step for q in mine])
            if len(stay) == 0:
                break
            stepper.keep(torch.from_numpy(stay))
            mine = mine[stay]
            tick, unit = (torch.tensor([int(path[q][k][step]) for q in mine]) for k in (0, 1))
            stepper.feed(tick, unit)
            for q, h in zip(mine, stepper.h_AD, strict=True):
                out[int(q)].append(h)
        return out

    with torch.no_grad():
        together = states(np.arange(len(ticks)))
        for q in range(len(ticks)):
            alone = states(np.array([q]))[q]
            assert len(alone) == len(together[q]) == ends[q] + 1
            assert torch.allclose(torch.stack(alone), torch.stack(together[q]), atol=1e-10)

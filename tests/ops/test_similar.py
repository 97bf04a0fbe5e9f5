"""Attention in parts of similar lengths is attention."""

import pytest
import torch

from neuroformer.ops import Ragged, attention, similar

LENGTHS = torch.tensor([3, 0, 9, 1, 40, 2, 2, 5, 1, 30, 4, 6])


def case(name):
    """Query lengths, key lengths, who reads which keys, and options."""
    if name == "causal":
        return LENGTHS, LENGTHS, None, {"causal": True}
    if name == "shared":
        return LENGTHS, torch.tensor([6, 0, 41, 3, 3, 17, 1, 2, 9]), torch.arange(12) % 9, {}
    return LENGTHS, LENGTHS.roll(3) * 3, None, {}


@pytest.mark.parametrize("name", ["own", "shared", "causal"])
def test_parts_give_what_the_plain_loop_gives(name):
    q_lengths, k_lengths, k_index, options = case(name)
    torch.manual_seed(0)
    q_layout = Ragged.from_lengths(q_lengths)
    k_layout = q_layout if name == "causal" else Ragged.from_lengths(k_lengths)
    q = torch.randn(q_layout.total, 2, 8, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(k_layout.total, 2, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    found = similar.parts(q_layout, k_layout, k_index)
    assert found is not None and found is similar.parts(q_layout, k_layout, k_index)
    assert len(found.keys.token_N) < 0.6 * len(k_layout) * k_layout.max_length
    results = []
    for impl in ("eager", "sdpa"):
        out = attention(q, k, v, q_layout, k_layout, k_index=k_index, impl=impl, **options)
        results.append((out, *torch.autograd.grad((out * out.detach().roll(1, 0)).sum(), (q, k, v))))
    for eager, sdpa in zip(*results, strict=True):
        torch.testing.assert_close(sdpa, eager)


def test_equal_lengths_stay_together():
    layout = Ragged.from_lengths(torch.full((32,), 7))
    assert similar.parts(layout, layout, None) is None

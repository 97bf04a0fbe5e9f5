"""The padded implementation of attention maps, against the plain loop."""

import pytest
import torch

from neuroformer.ops import Ragged, attention, attention_map, attention_with_map
from neuroformer.ops import maps as ops_maps


def case(causal, shared, seed=0):
    g = torch.Generator().manual_seed(seed)
    q_layout = Ragged.from_lengths(torch.tensor([3, 0, 7, 1, 4, 2]))
    k_layout = (
        q_layout
        if causal
        else Ragged.from_lengths(torch.tensor([5, 0, 2]) if shared else torch.tensor([5, 2, 0, 9, 1, 4]))
    )
    index = None if causal or not shared else torch.tensor([2, 0, 0, 1, 2, 0])
    draw = lambda n: torch.randn(n, 2, 4, generator=g, dtype=torch.float64)
    label = lambda n, m: torch.randint(-1, m, (n,), generator=g)
    q, k = draw(q_layout.total), draw(k_layout.total)
    labels = label(q_layout.total, 3), label(k_layout.total, 5)
    return (q, k, None, q_layout, k_layout, *labels, (3, 5)), {"k_index": index, "causal": causal}


@pytest.mark.parametrize(("causal", "shared"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("per_head", [True, False])
@pytest.mark.parametrize("small_pieces", [False, True])
def test_padded_is_the_plain_loop(causal, shared, per_head, small_pieces, monkeypatch):
    if small_pieces:
        monkeypatch.setattr(ops_maps, "MAX_WEIGHTS", 1)
    args, options = case(causal, shared)
    ours = attention_map(*args, per_head=per_head, impl="padded", **options)
    plain = attention_map(*args, per_head=per_head, impl="eager", **options)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-9)
    assert ours.sum() > 0


@pytest.mark.parametrize(("causal", "shared"), [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("impl", ["padded", "eager"])
def test_one_pass_gives_the_attention_and_its_map(causal, shared, impl):
    (q, k, _, q_layout, k_layout, *labels), options = case(causal, shared, seed=1)
    v = torch.randn(k.shape, generator=torch.Generator().manual_seed(2), dtype=k.dtype)
    out, found = attention_with_map(q, k, v, q_layout, k_layout, *labels, per_head=False, impl=impl, **options)
    torch.testing.assert_close(out, attention(q, k, v, q_layout, k_layout, impl="eager", **options))
    alone = attention_map(q, k, None, q_layout, k_layout, *labels, per_head=False, impl="eager", **options)
    torch.testing.assert_close(found, alone, rtol=1e-6, atol=1e-9)

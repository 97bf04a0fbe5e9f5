"""Properties of spike attention: exact against float64, nothing leaks, nothing depends on the run."""

import pytest
import torch
from neuroformer.kernels import configs, worklist
from neuroformer.kernels.spike_attention import spike_attention

from benchmarks.kernels import cases
from neuroformer.ops import Ragged, attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("case", cases.SMALL_ATTENTION, ids=lambda c: c.name)
def test_outputs_and_gradients(case):
    cases.check_attention(case, DEVICE)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [16, 32, 60, 128])
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, None])
@pytest.mark.parametrize("backward", ["owned", "split"])
@pytest.mark.parametrize("causal", [False, True])
def test_every_length_width_and_dtype(dtype, width, length, backward, causal):
    q_lengths = cases.QUERIES if length is None else (length,)
    k_lengths = cases.KEYS if length is None else (length,)
    case = cases.AttentionCase("grid", q_lengths, k_lengths, 1, width, dtype, backward, None, causal)
    cases.check_attention(case, DEVICE)


@pytest.mark.skipif(DEVICE == "cuda", reason="float64 is for the interpreter")
@pytest.mark.parametrize("backward", ["owned", "split"])
def test_gradcheck_in_float64(backward):
    q_layout, k_layout = cases.layout((3, 2), DEVICE), cases.layout((2, 4), DEVICE)
    g = torch.Generator().manual_seed(0)
    inputs = [cases.draw(g, n, 1, 16, device=DEVICE).requires_grad_() for n in (5, 6, 6)]

    def call(q, k, v):
        return spike_attention(q, k, v, q_layout, k_layout)[0]

    with configs.forced(backward=backward):
        assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


def test_the_same_bits_every_time():
    case = cases.SMALL_ATTENTION[2]
    first = cases.run_attention(spike_attention, case, DEVICE, case.dtype)
    again = cases.run_attention(spike_attention, case, DEVICE, case.dtype)
    for name in first:
        assert torch.equal(first[name], again[name]), name


def test_slices_of_a_fused_projection_and_an_expanded_gradient():
    layout = cases.layout((5, 9), DEVICE)
    qkv = torch.randn(14, 3, 2, 16, device=DEVICE, requires_grad=True)
    out = attention(*qkv.unbind(1), layout, layout, impl="triton")
    out.sum().backward()
    expected = qkv.grad.clone()
    qkv.grad = None
    attention(*qkv.unbind(1), layout, layout, impl="eager").sum().backward()
    torch.testing.assert_close(expected, qkv.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["owned", "split"])
def test_other_sequences_do_not_matter(kind):
    """A sequence alone gives the bits that it gives in a batch."""
    g = torch.Generator().manual_seed(1)
    q, k, v = (cases.draw(g, n, 1, 16, dtype=torch.float32, device=DEVICE) for n in (40, 60, 60))
    batch = cases.layout((7, 33), DEVICE), cases.layout((20, 40), DEVICE)
    alone = cases.layout((33,), DEVICE), cases.layout((40,), DEVICE)
    with configs.forced(backward=kind):
        together = attention(q, k, v, *batch, impl="triton")[7:]
        assert torch.equal(together, attention(q[7:], k[20:], v[20:], *alone, impl="triton"))


def test_work_lists():
    layout = Ragged.from_lengths(torch.tensor([0, 5, 0, 9, 4]))
    items = worklist.tiles(layout, 4).tolist()
    assert [x for x in items if x[0] >= 0] == [[1, 0], [1, 4], [3, 0], [3, 4], [3, 8], [4, 0]]
    assert worklist.tiles(layout, 4) is worklist.tiles(layout, 4)
    short = worklist.tiles(layout, 16).tolist()
    assert short == [[1, 0], [3, 0], [4, 0], [-1, 0], [-1, 0]]
    index = torch.tensor([1, 0, 1, 1, 0])
    group = worklist.groups(layout, index, 3)
    assert group.offsets.tolist() == [0, 9, 18, 18]
    assert group.order.tolist() == [*range(5), *range(14, 18), *range(5, 14)]


def test_opcheck():
    case = cases.SMALL_ATTENTION[0]
    q_layout, k_layout = cases.layout((3, 2), DEVICE), cases.layout((2, 4), DEVICE)
    inputs, _ = cases.AttentionCase("op", (3, 2), (2, 4), 1, 16, case.dtype).tensors(DEVICE)
    inputs = [x.requires_grad_() for x in inputs]
    plan = configs.attention_plan(5, 3, 2, 16, case.dtype)
    none = torch.zeros(0, 2, dtype=torch.int32, device=DEVICE)
    tiles = worklist.tiles(q_layout, plan[0])
    arguments = (*inputs, q_layout.offsets, k_layout.offsets, None, tiles, none, none, False, plan)
    torch.library.opcheck(torch.ops.neuroformer.spike_attention.default, arguments)


def test_compiles_without_graph_breaks():
    q_layout, k_layout = cases.layout((3, 2), DEVICE), cases.layout((6,), DEVICE)
    index = torch.tensor([0, 0], device=DEVICE)
    inputs, _ = cases.AttentionCase("compile", (3, 2), (6,), 1, 16).tensors(DEVICE)
    inputs = [x.requires_grad_() for x in inputs]

    def step(q, k, v):
        first = attention(q, q, q, q_layout, q_layout, causal=True, impl="triton")
        return attention(first, k, v, q_layout, k_layout, k_index=index, impl="triton")

    expected = step(*inputs)
    expected_grads = torch.autograd.grad(expected.sum(), inputs)
    q_layout, k_layout = cases.layout((3, 2), DEVICE), cases.layout((6,), DEVICE)
    got = torch.compile(step, backend="aot_eager", fullgraph=True)(*inputs)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got.sum(), inputs), expected_grads)


def test_refusals():
    layout = cases.layout((2,), DEVICE)
    x = torch.zeros(2, 1, 8, device=DEVICE)
    with pytest.raises(ValueError, match="head widths 16 to 128, got 8"):
        attention(x, x, x, layout, layout, impl="triton")

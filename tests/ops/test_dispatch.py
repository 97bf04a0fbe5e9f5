"""The dispatcher: implementations agree, auto reads its table, and what cannot be done is refused by name."""

import subprocess
import sys

import pytest
import torch

from neuroformer.ops import Ragged, attention, marked_cross_entropy, table
from neuroformer.ops.tolerance import check_close, tolerance

FEW = torch.tensor([3, 0, 9, 1])
MANY = torch.tensor([5, 0, 12, 7])


def inputs(q_lengths=FEW, k_lengths=MANY, width=16):
    torch.manual_seed(0)
    q_layout, k_layout = Ragged.from_lengths(q_lengths), Ragged.from_lengths(k_lengths)
    q = torch.randn(q_layout.total, 2, width, requires_grad=True)
    k, v = (torch.randn(k_layout.total, 2, width, requires_grad=True) for _ in range(2))
    return q, k, v, q_layout, k_layout


@pytest.mark.parametrize(("causal", "shared"), [(False, False), (False, True), (True, False)])
def test_sdpa_is_eager(causal, shared):
    arguments = inputs(k_lengths=torch.tensor([6, 0, 4]) if shared else MANY)
    k_index = torch.tensor([2, 0, 0, 1]) if shared else None
    results = []
    for impl in ("eager", "sdpa"):
        out = attention(*arguments, k_index=k_index, causal=causal, impl=impl)
        results.append((out, *torch.autograd.grad(out.square().sum(), arguments[:3])))
    for eager, sdpa in zip(*results, strict=True):
        torch.testing.assert_close(sdpa, eager, rtol=1e-5, atol=1e-5)


def test_causal_with_fewer_keys_than_queries_sees_no_padding():
    arguments = inputs(q_lengths=torch.tensor([6, 4]), k_lengths=torch.tensor([2, 9]))
    sdpa = attention(*arguments, causal=True, impl="sdpa")
    torch.testing.assert_close(sdpa, attention(*arguments, causal=True, impl="eager"))


@pytest.mark.parametrize(("causal", "shared"), [(False, False), (False, True), (True, False)])
def test_flex_is_eager(causal, shared):
    arguments = inputs()
    given = {"k_index": torch.tensor([2, 0, 0, 1]) if shared else None, "causal": causal, "return_lse": True}
    with torch.no_grad():
        out, lse = attention(*arguments, **given, impl="flex")
        expected = attention(*arguments, **given, impl="eager")
    torch.testing.assert_close(out, expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse, expected[1], rtol=1e-5, atol=1e-5)


def test_auto_on_a_cpu():
    arguments = inputs()
    q = arguments[0]
    assert table.pick_attention(q) == "sdpa"
    assert table.pick_attention(q, return_lse=True) == "eager"
    assert table.pick_cross_entropy(q[:, 0], q[:, 0]) == "pieces"
    torch.testing.assert_close(attention(*arguments), attention(*arguments, impl="sdpa"))


def test_every_row_of_the_tables_names_an_implementation():
    for rows, known in (
        (table.ATTENTION_AUTO, table.ATTENTION),
        (table.CROSS_ENTROPY_AUTO, table.CROSS_ENTROPY),
        (table.DECODE_AUTO, table.DECODE),
        (table.MAP_AUTO, table.MAP),
    ):
        assert {impl for impl, _, _ in rows} <= set(known)
        assert rows[-1][1:] == (None, None), "the last row takes every device and dtype"


@pytest.mark.parametrize(
    ("impl", "given", "message"),
    [
        ("fastest", {}, "impl 'fastest' is unknown; choose one of auto, eager, sdpa, flex, triton"),
        ("sdpa", {"return_lse": True}, "'sdpa' does not know return_lse"),
        ("flex", {}, "'flex' has no backward on a CPU"),
        ("auto", {"causal": True, "k_index": torch.arange(4)}, "k_index cannot be given with it"),
    ],
)
def test_refusals(impl, given, message):
    arguments = inputs()
    with pytest.raises(ValueError, match=message):
        attention(*arguments, **given, impl=impl)


def test_dtypes_that_disagree_are_refused():
    q, *others = inputs()
    with pytest.raises(ValueError, match="dtypes disagree"):
        attention(q.half(), *others)


def test_cross_entropy_checks_its_shapes():
    h, w, b, base = torch.zeros(3, 4), torch.zeros(5, 4), torch.zeros(5), torch.zeros(2, 5)
    n = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="target is .2,. for 3 rows"):
        marked_cross_entropy(h, w, b, n[:2], n, base, n, n.float())
    with pytest.raises(ValueError, match="shapes disagree"):
        marked_cross_entropy(h, w, b[:4], n, n, base, n, n.float())
    with pytest.raises(ValueError, match="base is .2, 4. for 5 classes"):
        marked_cross_entropy(h, w, b, n, n, base[:, :4], n, n.float())


def test_cross_entropy_under_autocast_rounds_as_a_product_does():
    """So that float32 weights meet the kernels, which take one dtype, and eager gives what it gave."""
    torch.manual_seed(0)
    h, w, b, base, first = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5), torch.randn(2, 5), torch.randn(3)
    n = torch.zeros(3, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        loss = marked_cross_entropy(h, w, b, n, n, base, n, first)
    expected = marked_cross_entropy(h.bfloat16(), w.bfloat16(), b, n, n, base, n, first)
    assert torch.equal(loss, expected) and loss.dtype == torch.float32


def test_importing_the_operations_loads_no_triton():
    code = "import sys, neuroformer.ops; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_tolerance_comes_from_data():
    exact = torch.tensor([1.0, 2.0], dtype=torch.float64)
    eager = torch.tensor([1.0, 2.0 + 1e-3], dtype=torch.float32)
    assert tolerance(exact, eager) == pytest.approx(2e-3, rel=1e-2)
    check_close("inside", exact.float() + 1.9e-3, eager, exact)
    for wrong in (exact.float() + 2.1e-3, torch.tensor([float("nan"), 2.0])):
        with pytest.raises(AssertionError, match="outside: error"):
            check_close("outside", wrong, eager, exact)

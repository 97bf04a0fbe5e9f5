"""Properties of the marked cross-entropy: exact against float64, blind outside the support."""

import pytest
import torch
from neuroformer.kernels import configs
from neuroformer.kernels.cross_entropy import marked_cross_entropy

from benchmarks.kernels import cases
from neuroformer.ops import marked_cross_entropy as dispatched

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("case", cases.SMALL_CROSS_ENTROPY, ids=lambda c: c.name)
def test_loss_and_gradients(case):
    cases.check_cross_entropy(case, DEVICE)


def test_every_split_gives_the_same():
    case = cases.SMALL_CROSS_ENTROPY[0]
    for splits in (1, 3):
        with configs.forced(class_splits=splits, row_splits=splits):
            cases.check_cross_entropy(case, DEVICE)


def test_classes_outside_the_support_are_not_read():
    """Blocks that no row may choose hold NaN, and nothing comes of it but zero gradients."""
    floats, (target, low, high), dloss = cases.CrossEntropyCase("nan", 40, 256, 16).tensors(DEVICE)
    low, high = low.clamp(64, 127), torch.full_like(high, 192)
    target = low
    floats[1][:64] = floats[1][192:] = float("nan")
    floats = [x.requires_grad_() for x in floats]
    loss = marked_cross_entropy(*floats, target, low, high)
    loss.backward(dloss)
    assert loss.isfinite().all()
    assert floats[0].grad.isfinite().all()
    assert not floats[1].grad[:64].any() and not floats[1].grad[192:].any()


def test_a_certain_target_costs_nothing_and_an_impossible_one_everything():
    floats, (target, low, high), _ = cases.CrossEntropyCase("sure", 20, 100, 16).tensors(DEVICE)
    sure = marked_cross_entropy(*floats, target, target, target + 1)
    torch.testing.assert_close(sure, torch.zeros_like(sure), atol=1e-5, rtol=0)
    outside = marked_cross_entropy(*floats, (low - 1).clamp(min=0), low.clamp(min=1), high)
    assert outside.isinf().all()


@pytest.mark.skipif(DEVICE == "cuda", reason="float64 is for the interpreter")
@pytest.mark.parametrize("base", [False, True])
def test_gradcheck_in_float64(base):
    case = cases.CrossEntropyCase("gradcheck", 9, 80, 16, torch.float64, base=base)
    floats, indices, _ = case.tensors(DEVICE)
    floats = [x.double().requires_grad_() for x in floats]
    call = lambda h, w, b, *base: marked_cross_entropy(h, w, b, *indices, *base)
    assert torch.autograd.gradcheck(call, floats, fast_mode=True)


def test_a_base_outside_the_support_is_not_read():
    """It may hold NaN there; its gradient is zero there; and it needs none for the others to have theirs."""
    (h, w, b, base), (target, low, high), _ = cases.CrossEntropyCase("x", 40, 90, 16, base=True).tensors(DEVICE)
    classes = torch.arange(90, device=DEVICE)
    outside = (classes < low[:, None]) | (classes >= high[:, None])
    base[outside] = float("nan")
    for x in (h, w, b, base):
        x.requires_grad_()
    marked_cross_entropy(h, w, b, target, low, high, base).sum().backward()
    assert not base.grad[outside].any() and base.grad[~outside].any() and base.grad.isfinite().all()
    expected, h.grad = h.grad, None
    marked_cross_entropy(h, w, b, target, low, high, base.detach()).sum().backward()
    assert torch.equal(h.grad, expected)


def test_no_rows_at_all():
    (h, w, b), (target, low, high), _ = cases.CrossEntropyCase("none", 1, 90, 16).tensors(DEVICE)
    h, w = h[:0].requires_grad_(), w.requires_grad_()
    loss = marked_cross_entropy(h, w, b, target[:0], low[:0], high[:0])
    loss.sum().backward()
    assert loss.shape == (0,) and not w.grad.any()


def test_no_gradient_no_work_for_it():
    floats, indices, _ = cases.SMALL_CROSS_ENTROPY[0].tensors(DEVICE)
    with torch.no_grad():
        quiet = marked_cross_entropy(*floats, *indices)
    floats[1].requires_grad_()
    loss = marked_cross_entropy(*floats, *indices)
    loss.sum().backward()
    assert torch.equal(quiet, loss.detach()) and floats[1].grad.isfinite().all()


def test_opcheck_and_compile():
    floats, indices, _ = cases.CrossEntropyCase("op", 9, 70, 16).tensors(DEVICE)
    floats = [x.requires_grad_() for x in floats]
    plan = configs.cross_entropy_plan(9, 70, 16, torch.float32)
    torch.library.opcheck(
        torch.ops.neuroformer.marked_cross_entropy.default,
        (*floats, None, *indices, None, None, None, True, plan),
    )
    base = torch.randn(9, 70, device=DEVICE, requires_grad=True)
    torch.library.opcheck(
        torch.ops.neuroformer.marked_cross_entropy.default,
        (*floats, base, *indices, None, None, None, True, plan),
    )
    loss = torch.compile(dispatched, backend="aot_eager", fullgraph=True)(*floats, *indices, impl="triton")
    torch.testing.assert_close(loss, marked_cross_entropy(*floats, *indices))
    loss.sum().backward()


def test_refusals():
    floats, indices, _ = cases.SMALL_CROSS_ENTROPY[0].tensors(DEVICE)
    with pytest.raises(ValueError, match="takes one dtype, got h torch.float32 and weight torch.bfloat16"):
        dispatched(floats[0], floats[1].bfloat16(), floats[2], *indices, impl="triton")
    with pytest.raises(ValueError, match="impl 'flex' is unknown"):
        dispatched(*floats, *indices, impl="flex")

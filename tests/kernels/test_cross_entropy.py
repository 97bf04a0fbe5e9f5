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
    (h, w, b, base, first), (_, low, row), dloss = cases.CrossEntropyCase("nan", 40, 256, 16).tensors(DEVICE)
    low = low.clamp(64, 255)
    w[:64] = base[:, :64] = float("nan")
    floats = [x.requires_grad_() for x in (h, w, b, base, first)]
    loss = cases.call_cross_entropy(marked_cross_entropy, floats, [low, low, row])
    loss.backward(dloss)
    assert loss.isfinite().all()
    assert all(x.grad.isfinite().all() for x in floats)
    assert not w.grad[:64].any() and not base.grad[:, :64].any()


def test_the_lowest_class_has_another_base_and_what_lies_below_none():
    """Base rows that a row does not read may hold NaN; its own lowest class takes ``first`` in their place."""
    (h, w, b, base, first), (target, low, row), _ = cases.CrossEntropyCase("x", 40, 90, 16).tensors(DEVICE)
    row = torch.arange(40, device=DEVICE)
    base = torch.randn(40, 90, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    classes = torch.arange(90, device=DEVICE)
    unread = classes <= low[:, None]
    base[unread] = float("nan")
    floats = [x.requires_grad_() for x in (h, w, b, base, first)]
    cases.call_cross_entropy(marked_cross_entropy, floats, [target, low, row]).sum().backward()
    assert not base.grad[unread].any() and base.grad[~unread].all() and base.grad.isfinite().all()
    assert torch.equal(first.grad != 0, low >= 0)
    expected, h.grad = h.grad, None
    floats[3:] = base.detach(), first.detach()
    cases.call_cross_entropy(marked_cross_entropy, floats, [target, low, row]).sum().backward()
    assert torch.equal(h.grad, expected)


def test_a_certain_target_costs_nothing_and_an_impossible_one_everything():
    floats, (target, low, row), _ = cases.CrossEntropyCase("sure", 20, 100, 16).tensors(DEVICE)
    last = torch.full_like(target, 99)
    sure = cases.call_cross_entropy(marked_cross_entropy, floats, [last, last, row])
    torch.testing.assert_close(sure, torch.zeros_like(sure), atol=1e-5, rtol=0)
    outside = cases.call_cross_entropy(marked_cross_entropy, floats, [last - 1, last, row])
    assert outside.isinf().all()


def test_gradients_of_a_base_do_not_depend_on_the_order_of_rows():
    """Many rows share one of the base: what they add to it is summed in integers, so that any order gives the same bits."""
    floats, indices, dloss = cases.CrossEntropyCase("order", 60, 70, 16).tensors(DEVICE)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    found = []
    for which in (torch.arange(60, device=DEVICE), order):
        h, w, b, base, first = floats
        base = base.clone().requires_grad_()
        some = [h[which], w, b, base, first[which]]
        loss = cases.call_cross_entropy(marked_cross_entropy, some, [x[which] for x in indices])
        loss.backward(dloss[which])
        found.append(base.grad)
    assert torch.equal(*found)


@pytest.mark.skipif(DEVICE == "cuda", reason="float64 is for the interpreter")
@pytest.mark.parametrize("classes", [30, 80])  # from 64 on the interpreter's rows are sorted
def test_gradcheck_in_float64(classes):
    floats, indices, _ = cases.CrossEntropyCase("gradcheck", 9, classes, 16, torch.float64).tensors(DEVICE)
    floats = [x.double().requires_grad_() for x in floats]
    call = lambda *floats: cases.call_cross_entropy(marked_cross_entropy, list(floats), indices)
    assert torch.autograd.gradcheck(call, floats, fast_mode=True)


def test_no_rows_at_all():
    (h, w, b, base, first), (target, low, row), _ = cases.CrossEntropyCase("none", 1, 90, 16).tensors(DEVICE)
    h, w, base = h[:0].requires_grad_(), w.requires_grad_(), base.requires_grad_()
    loss = marked_cross_entropy(h, w, b, target[:0], low[:0], base, row[:0], first[:0])
    loss.sum().backward()
    assert loss.shape == (0,) and not w.grad.any() and not base.grad.any()


def test_no_gradient_no_work_for_it():
    floats, indices, _ = cases.SMALL_CROSS_ENTROPY[0].tensors(DEVICE)
    with torch.no_grad():
        quiet = cases.call_cross_entropy(marked_cross_entropy, floats, indices)
    floats[1].requires_grad_()
    loss = cases.call_cross_entropy(marked_cross_entropy, floats, indices)
    loss.sum().backward()
    assert torch.equal(quiet, loss.detach()) and floats[1].grad.isfinite().all()


def test_opcheck_and_compile():
    floats, indices, _ = cases.CrossEntropyCase("op", 9, 70, 16).tensors(DEVICE)
    floats = [x.requires_grad_() for x in floats]
    plan = configs.cross_entropy_plan(9, 70, 16, torch.float32)
    torch.library.opcheck(
        torch.ops.neuroformer.marked_cross_entropy.default, (*floats, *indices, None, None, True, plan)
    )
    call = torch.compile(dispatched, backend="aot_eager", fullgraph=True)
    loss = cases.call_cross_entropy(call, floats, indices, impl="triton")
    torch.testing.assert_close(loss, cases.call_cross_entropy(marked_cross_entropy, floats, indices))
    loss.sum().backward()


def test_refusals():
    floats, indices, _ = cases.SMALL_CROSS_ENTROPY[0].tensors(DEVICE)
    with pytest.raises(ValueError, match="impl 'flex' is unknown"):
        cases.call_cross_entropy(dispatched, floats, indices, impl="flex")
    floats[1] = floats[1].bfloat16()
    with pytest.raises(ValueError, match="takes one dtype, got h torch.float32 and weight torch.bfloat16"):
        cases.call_cross_entropy(dispatched, floats, indices, impl="triton")

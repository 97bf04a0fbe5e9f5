"""Properties of the marked cross-entropy: exact against float64, blind outside the support."""

import pytest
import torch
from neuroformer.kernels import configs
from neuroformer.kernels.cross_entropy import marked_cross_entropy

from neuroformer.bench import kernel_cases as cases
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
def test_gradcheck_in_float64():
    floats, indices, _ = cases.CrossEntropyCase("gradcheck", 9, 80, 16, torch.float64).tensors(DEVICE)
    floats = [x.requires_grad_() for x in floats]
    assert torch.autograd.gradcheck(lambda *x: marked_cross_entropy(*x, *indices), floats, fast_mode=True)


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
        (*floats, *indices, None, None, None, True, plan),
    )
    loss = torch.compile(dispatched, backend="aot_eager", fullgraph=True)(*floats, *indices, impl="triton")
    torch.testing.assert_close(loss, marked_cross_entropy(*floats, *indices))
    loss.sum().backward()


def test_refusals():
    floats, indices, _ = cases.SMALL_CROSS_ENTROPY[0].tensors(DEVICE)
    base = torch.zeros(1, 200, device=DEVICE), torch.zeros(65, dtype=torch.int64, device=DEVICE)
    with pytest.raises(ValueError, match="does not know base_RC"):
        dispatched(*floats, *indices, base_RC=base[0], base_row_N=base[1], impl="triton")
    with pytest.raises(ValueError, match="impl 'flex' is unknown"):
        dispatched(*floats, *indices, impl="flex")

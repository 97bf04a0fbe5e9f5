"""Properties of decode attention and of attention maps."""

import importlib

import pytest
import torch
from neuroformer.kernels import configs

from benchmarks.kernels import cases
from neuroformer.ops import attention, attention_map, decode_attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("case", cases.SMALL_DECODE, ids=lambda c: c.name)
def test_decode(case):
    cases.check_decode(case, DEVICE)


@pytest.mark.parametrize("splits", [1, 3])
def test_decode_splits(splits):
    with configs.forced(key_splits=splits):
        cases.check_decode(cases.SMALL_DECODE[1], DEVICE)
        cases.check_decode(cases.SMALL_DECODE[3], DEVICE)


@pytest.mark.parametrize("shared", [False, True])
def test_decode_implementations_agree(shared):
    case = cases.SMALL_DECODE[3 if shared else 0]
    arguments, options = case.arguments(DEVICE, torch.float32)
    eager, sdpa, triton = (
        decode_attention(*arguments, case.capacity, **options, impl=impl) for impl in ("eager", "sdpa", "triton")
    )
    torch.testing.assert_close(sdpa, eager)
    torch.testing.assert_close(triton, eager)


def test_decode_opcheck():
    importlib.import_module("neuroformer.kernels.decode_attention")  # registers the op
    case = cases.SMALL_DECODE[0]
    arguments, _ = case.arguments(DEVICE, case.dtype)
    plan = configs.decode_plan(6, 80, 32, case.dtype, shared=False)
    torch.library.opcheck(torch.ops.neuroformer.decode_attention.default, (*arguments, None, None, None, plan))


@pytest.mark.parametrize("per_head", [True, False])
@pytest.mark.parametrize("case", cases.SMALL_MAPS, ids=lambda c: c.name)
def test_map(case, per_head):
    cases.check_map(case, DEVICE, per_head)


def test_a_map_of_everything_sums_to_the_queries():
    layout = cases.layout((5, 12), DEVICE)
    q, k = (torch.randn(17, 2, 16, device=DEVICE) for _ in range(2))
    _, lse = attention(q, k, k, layout, layout, return_lse=True, impl="triton")
    units = torch.arange(17, device=DEVICE) % 4
    total = attention_map(q, k, lse, layout, layout, units, units, (4, 4), impl="triton")
    queries = torch.bincount(units).double()
    torch.testing.assert_close(total.sum(-1), queries.expand(2, -1), atol=1e-5, rtol=1e-5)


def test_map_opcheck():
    importlib.import_module("neuroformer.kernels.attention_map")  # registers the op
    layout = cases.layout((3, 2), DEVICE)
    q = torch.randn(5, 1, 16, device=DEVICE)
    labels = torch.zeros(5, dtype=torch.int64, device=DEVICE)
    tiles = torch.tensor([[0, 0], [1, 0]], dtype=torch.int32, device=DEVICE)
    torch.library.opcheck(
        torch.ops.neuroformer.attention_map.default,
        (
            q,
            q,
            torch.zeros(1, 5, device=DEVICE),
            labels,
            labels,
            tiles,
            None,
            layout.offsets,
            layout.offsets,
            1,
            1,
            False,
            True,
            [32, 32, 4, 1],
        ),
    )


def test_refusals():
    case = cases.SMALL_DECODE[0]
    arguments, _ = case.arguments(DEVICE, case.dtype)
    with pytest.raises(ValueError, match="decode attention impl 'flex' is unknown"):
        decode_attention(*arguments, 80, impl="flex")
    narrow = [x[..., :8] for x in arguments[:3]]
    with pytest.raises(ValueError, match="head widths 16 to 128, got 8"):
        decode_attention(*narrow, *arguments[3:], 80, impl="triton")

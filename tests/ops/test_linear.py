"""Linear maps: every library gives the same product and gradients, and what it cannot do is refused by name."""

import pytest
import torch

from neuroformer.bench.plain import plain
from neuroformer.model.layers import Linear, Mlp
from neuroformer.ops import linear
from neuroformer.ops.tolerance import check_close

onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch was built without oneDNN")


def product(shape, bias, dtype, impl):
    m, k, n = shape
    torch.manual_seed(0)
    x, weight, b = torch.randn(m, k), torch.randn(n, k), torch.randn(n)
    given = [v.to(dtype).requires_grad_() for v in ([x, weight, b] if bias else [x, weight])]
    out = linear(*given, impl=impl)
    upstream = torch.randn(out.shape).to(dtype)
    return {"out": out.detach(), **dict(zip("xwb", torch.autograd.grad(out, given, upstream), strict=False))}


@onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 7, 3), (33, 64, 256), (50, 256, 64), (129, 75, 75)])
def test_onednn_is_within_tolerance_of_float64(shape, bias):
    exact, eager, got = (
        product(shape, bias, dtype, impl)
        for dtype, impl in ((torch.float64, "torch"), (torch.float32, "torch"), (torch.float32, "onednn"))
    )
    for name in exact:
        check_close(name, got[name], eager[name], exact[name])


@onednn
def test_only_gradients_that_are_wanted_are_made():
    x, weight = torch.randn(40, 16), torch.randn(8, 16, requires_grad=True)
    linear(x, weight, impl="onednn").sum().backward()
    assert x.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(8, -1))


@onednn
def test_batched_rows_keep_their_shape():
    x, weight = torch.randn(3, 0, 5, 16), torch.randn(8, 16)
    assert linear(x, weight).shape == (3, 0, 5, 8)
    x = torch.randn(3, 4, 5, 16)
    assert linear(x, weight, impl="onednn").shape == (3, 4, 5, 8)


def test_what_onednn_cannot_do_is_refused_by_name():
    x, weight = torch.randn(64, 64, dtype=torch.float64), torch.randn(512, 64, dtype=torch.float64)
    with pytest.raises(ValueError, match="'onednn' takes float32 on a CPU, got torch.float64"):
        linear(x, weight, impl="onednn")
    with pytest.raises(ValueError, match="'mkl' is unknown"):
        linear(x, weight, impl="mkl")
    torch.testing.assert_close(linear(x, weight), x @ weight.T)
    x = torch.randn(4096, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight.float()).dtype == torch.bfloat16


def test_plain_layers_share_their_weights():
    model = torch.nn.Sequential(Linear(4, 4), torch.nn.GELU(), Linear(4, 4))
    twin = plain(model)
    assert [type(x) for x in twin] == [torch.nn.Linear, torch.nn.GELU, torch.nn.Linear]
    assert all(a is b for a, b in zip(twin.parameters(), model.parameters(), strict=True))


def test_a_compiler_sees_through_large_products():
    """It cannot follow questions about this machine; they must not be asked while it traces."""
    compiled = torch.compile(linear, fullgraph=True, backend="eager")
    x, weight = torch.randn(3, 256), torch.randn(512, 256)
    torch.testing.assert_close(compiled(x, weight), x @ weight.T, rtol=1e-4, atol=1e-4)


def test_gelu_with_the_product_is_gelu_after_it():
    mlp, x = Mlp(256), torch.randn(5, 256)
    expected = plain(mlp)(x).detach()
    torch.testing.assert_close(mlp(x).detach(), expected, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), expected, rtol=1e-5, atol=1e-5)

"""Checks of the rows that are timed, on the very batches that are timed: what is wrong has no time.

Attention, losses and decoding are held against float64, by the tolerance of all checks; the training steps against
the same network on the operations of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels import model_step as kernel_model_step
from benchmarks.kernels.cases import call_cross_entropy
from benchmarks.kernels.contestants import AttentionShape, DecodeShape, LossShape, StepShape
from benchmarks.kernels.twin import Twin
from neuroformer.ops import attention, decode_attention, eager, marked_cross_entropy
from neuroformer.ops.tolerance import check_close

ROWS_AT_ONCE = 512  # of a loss in float64: 100,000 classes take 0.4 GB a tensor
STEP_TOLERANCE = 0.02  # relative, of the loss and of the norm of all gradients, in bfloat16


def check_attention(shape: AttentionShape, device: str) -> None:
    built = shape.build(device)
    layouts = built["q_layout"], built["k_layout"]
    options = {"k_index": built["k_index"], "causal": shape.causal}

    def run(call: Callable[..., Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        qkv = [x.detach().to(dtype).requires_grad_() for x in built["qkv"]]
        out = call(*qkv, *layouts, **options)
        grads = torch.autograd.grad(out, qkv, built["dout"].to(dtype))
        return dict(zip(("out", "dq", "dk", "dv"), (out.detach(), *grads), strict=True))

    alone = lambda *args, **more: eager.attention(*args, **more)[0]
    exact, rounded = run(alone, torch.float64), run(alone, torch.bfloat16)
    got = run(lambda *args, **more: attention(*args, **more, impl="triton"), torch.bfloat16)
    _compare(shape.name, got, rounded, exact)


def check_loss(shape: LossShape, device: str) -> None:
    built = shape.build(device)
    num_rows = len(built["floats"][0])

    def run(call: Callable[..., Tensor], dtype: torch.dtype | None, at_once: int) -> dict[str, Tensor]:
        floats = [x.detach() if dtype is None else x.detach().to(dtype) for x in built["floats"]]
        floats = [x.requires_grad_() for x in floats]
        losses = []
        for first in range(0, num_rows, at_once):  # gradients add up
            part = slice(first, first + at_once)
            h, weight, bias, base, least_base_N = floats
            some = [h[part], weight, bias, base, least_base_N[part]]
            loss = call_cross_entropy(call, some, [x[part] for x in built["indices"]])
            loss.sum().backward()
            losses.append(loss.detach())
        names = ("h", "weight", "bias", "base", "least_base")
        grads = {f"gradient of {name}": x.grad for name, x in zip(names, floats, strict=True)}
        return {"loss": torch.cat(losses)} | grads

    exact = run(eager.marked_cross_entropy, torch.float64, ROWS_AT_ONCE)
    rounded = run(eager.marked_cross_entropy, None, num_rows)
    got = run(lambda *args: marked_cross_entropy(*args, impl="triton"), None, num_rows)
    _compare(shape.name, got, rounded, exact)


def check_decode(shape: DecodeShape, device: str) -> None:
    built = shape.build(device)
    q, k, v, start, lengths, longest = built["call"]

    def oracle(dtype: torch.dtype) -> Tensor:
        cast = [x.to(dtype) for x in (q, k, v)]
        return eager.decode_attention(cast[0], cast[1], cast[2], start, lengths, k_index=built["k_index"])

    more = {"k_index": built["k_index"], "q_layout": built["q_layout"]}
    got = decode_attention(q, k, v, start, lengths, longest, **more, impl="triton")
    check_close(shape.name, got, oracle(torch.bfloat16), oracle(torch.float64))


def check_step(shape: StepShape, device: str) -> None:
    batch = shape.build(device)["batch"]

    def run(impl: str, loss_impl: str) -> tuple[float, float]:
        torch.manual_seed(0)
        network = Twin(shape.size, impl, loss_impl).to(device)
        with torch.autocast(device, torch.bfloat16):
            loss = network(batch)
        loss.backward()
        return float(loss.detach()), gradient_norm(network)

    _compare_steps(run("triton", "triton"), run("sdpa", "eager"))


def check_model(shape: kernel_model_step.ModelShape, device: str) -> None:
    """Without dropout, whose random numbers the two sides draw in other orders."""
    built = shape.build(device)

    def run(impl: str, loss_impl: str) -> tuple[float, float]:
        losses, share = kernel_model_step.losses_of(built)
        losses.eval()
        with kernel_model_step.chosen(impl, loss_impl), torch.autocast(device, torch.bfloat16):
            loss = losses(share)["loss"]
        loss.backward()
        return float(loss.detach()), gradient_norm(losses)

    _compare_steps(run("triton", "triton"), run("sdpa", "eager"))


def gradient_norm(module: torch.nn.Module) -> float:
    squares = [p.grad.double().square().sum() for p in module.parameters() if p.grad is not None]
    return float(torch.stack(squares).sum().sqrt())


def _compare(name: str, got: dict[str, Any], rounded: dict[str, Any], exact: dict[str, Any]) -> None:
    for key in exact:
        check_close(f"{name}: {key}", got[key], rounded[key], exact[key])


def _compare_steps(got: tuple[float, float], expected: tuple[float, float]) -> None:
    for name, a, b in zip(("loss", "norm of the gradients"), got, expected, strict=True):
        if not abs(a - b) <= STEP_TOLERANCE * abs(b):  # NaN fails too
            raise AssertionError(f"{name}: {a:.6g} with the fused kernels, {b:.6g} with PyTorch's")

"""A training step of the model itself: fused kernels against the same weights on padded SDPA.

Unlike the kernels' other benchmarks it needs the package's own dependencies; where one is missing, the row is
skipped by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from neuroformer.ops import table

Step = Callable[[], object]


def _reference() -> tuple[Any, Any]:
    from neuroformer.bench import reference_size

    return reference_size.recording(), reference_size.config()


@dataclass(frozen=True)
class ModelShape:
    """What to train: ``make`` gives a recording and a configuration."""

    name: str
    windows: int = 160
    make: Callable[[], tuple[Any, Any]] = _reference

    def build(self, device: str) -> dict[str, Any]:
        from neuroformer.data.prepared import prepare

        prepared = prepare(*self.make())
        batch = prepared.builder(prepared.windows("train")[: self.windows])
        return {"prepared": prepared, "batch": batch.to(torch.device(device)), "device": device}

    def work(self, built: dict[str, Any]) -> tuple[float, float]:
        return 0.0, 0.0  # not counted


MODEL_SHAPES = (ModelShape("the model: training step of the reference's size, batch 160"),)


@contextlib.contextmanager
def chosen(impl: str, loss_impl: str) -> Iterator[None]:
    """Within the block ``auto`` means these two, everywhere."""
    before = table.ATTENTION_AUTO, table.CROSS_ENTROPY_AUTO
    table.ATTENTION_AUTO, table.CROSS_ENTROPY_AUTO = ((impl, None, None),), ((loss_impl, None, None),)
    try:
        yield
    finally:
        table.ATTENTION_AUTO, table.CROSS_ENTROPY_AUTO = before


def losses_of(built: dict[str, Any]) -> tuple[Any, Any]:
    """The model with its losses, always of the same weights, and the batch as they take it."""
    from neuroformer.bundle.cohort import Cohort
    from neuroformer.losses import denominators
    from neuroformer.model.network import Neuroformer
    from neuroformer.training.module import Losses, Microbatch

    prepared = built["prepared"]
    torch.manual_seed(0)
    model = Neuroformer(prepared.config, prepared.rec.num_units, prepared.normalization).to(built["device"])
    return Losses(Cohort([model])), Microbatch(built["batch"], denominators(model, built["batch"]))


def model_contestants(shape: ModelShape, built: dict[str, Any]) -> dict[str, Callable[[], Step]]:
    """Name to a function that prepares a training step; both begin with the same weights."""

    def train(impl: str, loss_impl: str) -> Step:
        from neuroformer.training.module import parameter_groups

        losses, share = losses_of(built)
        device = built["device"]
        cuda = device == "cuda"
        groups = parameter_groups(losses.cohort, built["prepared"].config.train)
        optimiser = torch.optim.AdamW(groups, lr=1e-4, fused=cuda, capturable=cuda)

        def run():
            optimiser.zero_grad(set_to_none=True)
            # weights cast inside a captured graph must not outlive it
            with chosen(impl, loss_impl), torch.autocast(device, torch.bfloat16, cache_enabled=False):
                loss = losses(share)["loss"]
            loss.backward()
            optimiser.step()
            return loss.detach()

        return run

    return {"triton": lambda: train("triton", "triton"), "SDPA, padded": lambda: train("sdpa", "pieces")}

"""Kernel tests run on a CPU through Triton's interpreter, which ``tests/conftest.py`` chooses."""

import importlib.util

import pytest
import torch

if importlib.util.find_spec("triton") is None:  # as on macOS and Windows, where there is none
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def dirty_memory(monkeypatch):
    """Scratch memory full of NaN: what a kernel does not write must not be read."""
    empty, empty_like, new_empty = torch.empty, torch.empty_like, torch.Tensor.new_empty

    def dirty(make):
        def made(*args, **kwargs):
            x = make(*args, **kwargs)
            if isinstance(x, torch.Tensor) and type(x) is torch.Tensor and x.is_floating_point():
                x.fill_(float("nan"))
            return x

        return made

    monkeypatch.setattr(torch, "empty", dirty(empty))
    monkeypatch.setattr(torch, "empty_like", dirty(empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", dirty(new_empty))

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    # The kernels are tested in Triton's interpreter. Triton decides when it is imported, which torch.compile
    # and Lightning do on their own, so whoever comes first must find it decided.
    os.environ["TRITON_INTERPRET"] = "1"
if "NEUROFORMER_CACHE" not in os.environ:  # nothing that a test makes stays in the user's cache
    os.environ["NEUROFORMER_CACHE"] = tempfile.mkdtemp(prefix="neuroformer-tests-")
    atexit.register(shutil.rmtree, os.environ["NEUROFORMER_CACHE"], ignore_errors=True)
sys.path.insert(0, str(Path(__file__).parent / "support"))
torch.set_num_threads(1)  # tests are many small operations; threads only get in their way


@pytest.fixture(autouse=True)
def no_rows_by_the_clock(monkeypatch):
    """What training logs depends on its steps alone: a slow machine adds rows, and runs that are compared would differ."""
    monkeypatch.setattr("neuroformer.training.loop.LONGEST_SILENCE_S", float("inf"))


@pytest.fixture(scope="module")
def extended():
    """A pretrained model with three heads more, its recording, and the labelled windows."""
    from driven import CHOICE, PLACE, SPEED, pretrained

    from neuroformer.decoding.finetune import extend
    from neuroformer.studies.folds import labelled_windows

    model, prepared = extend(*pretrained(), [SPEED, PLACE, CHOICE])
    windows, _ = labelled_windows(prepared)
    return model, prepared, windows

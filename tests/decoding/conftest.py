"""What several modules of tests share."""

import pytest
from decoding.driven import CHOICE, PLACE, SPEED, pretrained

from neuroformer.decoding.finetune import extend
from neuroformer.decoding.folds import labelled_windows


@pytest.fixture(scope="module")
def extended():
    model, prepared = extend(*pretrained(), [SPEED, PLACE, CHOICE])
    windows, _ = labelled_windows(prepared)
    return model, prepared, windows

"""Two models of two halves of the training data."""

import numpy as np
import pytest
from helpers import small_config, small_recording

from neuroformer.config import ConfigError
from neuroformer.data.prepared import prepare
from neuroformer.studies import halves
from neuroformer.studies.halves import Agreement, agreement, half_config


def test_halves_share_no_training_data_and_hold_out_the_same():
    rec, config = small_recording(), small_config(targets=[], loss={})
    whole, *parts = (prepare(rec, c).split for c in (config, half_config(config, 0), half_config(config, 1)))
    trained = [{tuple(b) for b in s.intervals("train").tolist()} for s in parts]
    assert trained[0] and trained[1] and not trained[0] & trained[1]
    assert sum(s.seconds("train") for s in parts) == pytest.approx(whole.seconds("train"), rel=0.2)
    for part in ("valid", "test"):
        assert all(np.array_equal(s.intervals(part), whole.intervals(part)) for s in parts)
    with pytest.raises(ConfigError, match="half 2 does not exist"):
        half_config(config, 2)


def test_what_units_see_is_compared_and_nothing_is_trained_twice(tmp_path, monkeypatch):
    train = {"steps": 2, "batch_size": 8, "accelerator": "cpu"}
    prepared = prepare(small_recording(), small_config(targets=[], loss={}, train=train))
    few = {"windows": 4, "starts": 1, "steps": 2, "progress": False}
    found = agreement(prepared, tmp_path, **few)
    assert found.field_UU.shape == found.clip_UU.shape == (6, 6)
    assert np.abs(found.field_UU).max() <= 1 + 1e-9 and np.isfinite(found.clip_UU).all()
    monkeypatch.setattr(halves, "train", None)
    np.testing.assert_array_equal(agreement(prepared, tmp_path, **few).clip_UU, found.clip_UU)


def test_medians_tell_units_from_others():
    r = np.array([[0.9, 0.1, 0.2], [0.0, 0.8, 0.1], [0.1, 0.2, 0.7]])
    found = Agreement(["a", "b", "c"], r, r.T).summary()
    assert found["fields_halves_r_median"] == 0.8
    assert found["mei_halves_r_of_others_median"] == pytest.approx(0.1)

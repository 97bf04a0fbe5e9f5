"""Recordings on disk: the same as in memory, made once, read again when they change, few of them open at a time."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from helpers import small_config, small_recording

from neuroformer.config import ConfigError, RecordingConfig, member_config
from neuroformer.data import stored
from neuroformer.data.prepared import prepare
from neuroformer.data.stored import StoredPrepared, recordings_to_train
from neuroformer.recording.formats.folder import write_store
from neuroformer.recording.formats.npz import write_npz
from neuroformer.recording.recording import ObservedIntervals


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path


def of_files(folder, num=2, **more):
    recs = [dataclasses.replace(small_recording(i), name=f"m{i}", **more) for i in range(num)]
    paths = [write_npz(rec, folder / f"{rec.name}.npz") for rec in recs]
    return recs, dataclasses.replace(small_config(), recordings=tuple(RecordingConfig(str(p)) for p in paths))


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(torch.nan_to_num(a.float()), torch.nan_to_num(b.float()))
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b)


@pytest.mark.parametrize("observed", [False, True])
def test_what_lies_on_disk_is_what_was_prepared(cache, observed):
    seen = ObservedIntervals(np.array([[0.0, 40.0], [5.0, 31.0]]), np.array([0, 1])) if observed else None
    recs, config = of_files(cache, observed=seen)
    config, closed = recordings_to_train(config)
    for i, (rec, one) in enumerate(zip(recs, closed, strict=True)):
        assert (one.name, one.num_spikes, one.duration) == (rec.name, rec.num_spikes, rec.duration)
        assert one.has("frames") and one.has("speed") and not one.has("nothing")
        alone = member_config(config, i)
        for _ in range(2):  # made, then read
            ours, theirs = StoredPrepared(one, alone), prepare(rec, alone)
            assert ours.describe() == theirs.describe() and ours.normalization == theirs.normalization
            windows = ours.windows("train")[:9]
            assert same(ours.builder(windows), theirs.builder(theirs.windows("train")[:9]))
            assert (ours.index.observed is None) == (not observed)


def test_it_is_read_once_and_again_when_the_file_changes(cache, monkeypatch):
    recs, config = of_files(cache)
    opened = []
    true = stored.open_one
    monkeypatch.setattr(stored, "open_one", lambda one: opened.append(one.path) or true(one))
    for _ in range(2):
        for i, one in enumerate(recordings_to_train(config)[1]):
            StoredPrepared(one, member_config(config, i))
    assert opened == [r.path for r in config.recordings]
    write_npz(dataclasses.replace(small_recording(7), name="m1"), cache / "m1.npz")
    os.utime(cache / "m1.npz", ns=(1, 1))
    changed = recordings_to_train(config)[1][1]
    assert len(opened) == 3 and changed.num_spikes == small_recording(7).num_spikes
    assert StoredPrepared(changed, member_config(config, 1)).index.keys.size <= changed.num_spikes


def test_a_folder_of_arrays_is_not_copied(cache):
    rec = small_recording()
    paths = [write_store(dataclasses.replace(rec, name=n), cache / f"{n}.recording") for n in "ab"]
    config = dataclasses.replace(small_config(), recordings=tuple(RecordingConfig(str(p)) for p in paths))
    recordings_to_train(config)
    assert not list((cache / "cache").rglob(stored.ARRAYS))
    twice = dataclasses.replace(config, recordings=(config.recordings[0],) * 2)
    with pytest.raises(ConfigError, match="are both called 'a'"):
        recordings_to_train(twice)


def test_few_are_open_at_a_time(cache, monkeypatch):
    monkeypatch.setattr(stored, "MOST_OPEN", 2)
    _, config = of_files(cache, 3)
    every = [StoredPrepared(r, member_config(config, i)) for i, r in enumerate(recordings_to_train(config)[1])]
    first = every[0].index.keys.copy()
    for p in (*every, *every):
        assert len(p.builder(p.windows("valid")[:2]).tick_W) == 2 and len(stored._open) <= 2
    assert np.array_equal(every[0].index.keys, first)

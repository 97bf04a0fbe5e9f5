"""A run that is stopped anywhere goes on as if it had never been stopped, bit for bit."""

import errno
import multiprocessing
import os
import resource
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import small_config, small_recording
from safetensors.torch import load_file

from neuroformer.config import ConfigError, RecordingConfig
from neuroformer.training import checkpoint, loop
from neuroformer.training import checkpoint as checkpoints
from neuroformer.training.checkpoint import FILE, CheckpointError, load_checkpoint
from neuroformer.training.stopping import Stopped
from neuroformer.training.train import train, train_several

FORK = multiprocessing.get_context("fork")


def config(steps=24, **settings):
    """Dropout, an average, jitter and validation: everything that could lose its place."""
    settings = {
        "steps": steps,
        "batch_size": 32,
        "evaluate_every": 7,
        "average": 0.9,
        "accelerator": "cpu",
        "checkpoint_every": 0.0,
    } | settings
    return small_config(model={"dropout": 0.2}, train=settings)


def run(folder, c, resume=True):
    train(small_recording(seconds=60.0), c, folder, progress=False, resume=resume)


def run_several(folder, c, resume=True):
    """Windows of both recordings in every step, and rows that leave memory after it."""
    loop.KEPT_STEPS = 0
    recs = [replace(small_recording(i, num_units=4, seconds=60.0), name=name) for i, name in enumerate("ab")]
    c = replace(c, recordings=tuple(RecordingConfig("unused", name=r.name) for r in recs))
    c = replace(c, train=replace(c.train, batch_size=2 * c.train.batch_size))
    train_several(recs, c, folder, progress=False, resume=resume)


def weights(folder):
    files = sorted((folder / "weights").rglob("*.safetensors"))
    return {f"{f.relative_to(folder)}.{k}": v for f in files for k, v in load_file(f).items()}


def assert_same_run(a, b):
    x, y = weights(a), weights(b)
    assert x.keys() == y.keys() and len(x) > 50
    assert [k for k in x if not torch.equal(x[k], y[k])] == []
    assert (a / "log/metrics.csv").read_text() == (b / "log/metrics.csv").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that was never stopped, and how long it took."""
    folder = tmp_path_factory.mktemp("whole")
    start = time.perf_counter()
    run(folder, config())
    assert not (folder / FILE).exists()
    return folder, time.perf_counter() - start


def kill_and_resume(folder, c, num_kills, longest_s, seed, run=run):
    """Real processes, each killed at a random moment; the last one ends the run. Returns the kills."""
    rng = np.random.default_rng(seed)
    kills = 0
    while True:
        process = FORK.Process(target=run, args=(folder, c))
        process.start()
        if kills < num_kills:
            process.join(rng.uniform(0.02, longest_s))
            if process.is_alive():
                process.kill()
                kills += 1
        process.join()
        if process.exitcode == 0:
            return kills
        assert process.exitcode == -signal.SIGKILL


def test_kills_at_random_moments_change_no_bit(whole, tmp_path):
    folder, seconds = whole
    assert kill_and_resume(tmp_path, config(), 3, 0.6 * seconds, seed=0) == 3
    assert_same_run(folder, tmp_path)


def in_a_process(run, folder, c):
    """Seconds of a whole run, in a process of its own."""
    start = time.perf_counter()
    process = FORK.Process(target=run, args=(folder, c))
    process.start()
    process.join()
    assert process.exitcode == 0
    return time.perf_counter() - start


def test_kills_of_several_recordings_change_no_bit(tmp_path):
    c = config(steps=12)
    seconds = in_a_process(run_several, tmp_path / "whole", c)
    kill_and_resume(tmp_path / "killed", c, 2, 0.6 * seconds, 0, run_several)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert len([k for k in weights(tmp_path / "whole") if "likelihood/1.safetensors" in k]) > 5


@pytest.mark.slow
@pytest.mark.parametrize("run", [run, run_several])
def test_twenty_kills_change_no_bit(tmp_path, run):
    c = config(steps=400, evaluate_every=50, workers=1)
    seconds = in_a_process(run, tmp_path / "whole", c)
    assert kill_and_resume(tmp_path / "killed", c, 20, 0.08 * seconds, 1, run) == 20
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_kill_while_writing_leaves_the_checkpoint_before(whole, tmp_path):
    def die_at_the_ninth_step():
        before = os.replace
        saved = []

        def replace(a, b):
            saved.append(str(b).endswith(FILE))
            if sum(saved) == 9:
                os.kill(os.getpid(), signal.SIGKILL)
            before(a, b)

        os.replace = replace
        run(tmp_path, config())

    process = FORK.Process(target=die_at_the_ninth_step)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.glob(f".{FILE}.*.part"))  # what it was writing
    assert checkpoints._header(tmp_path / FILE)["progress"]["step"] == 8
    run(tmp_path, config())
    assert_same_run(whole[0], tmp_path)


def test_a_full_disk_leaves_the_checkpoint_before(whole, tmp_path, monkeypatch):
    sync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 15:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path, config())
    monkeypatch.undo()
    assert not list(tmp_path.glob(f".{FILE}.*.part"))
    assert 0 < checkpoints._header(tmp_path / FILE)["progress"]["step"] < 24
    run(tmp_path, config())
    assert_same_run(whole[0], tmp_path)


def test_a_disk_that_refuses_to_write_is_an_oserror(tmp_path):
    """The tensors are written by a library with errors of its own."""
    from neuroformer.bundle.saving import save_tensors

    save_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(10)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"x\.safetensors could not be written"):
            save_tensors(tmp_path / "x.safetensors", {"x": torch.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_file(tmp_path / "x.safetensors")["x"].tolist() == [0.0] * 10
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_saves_and_stops(whole, tmp_path, name, monkeypatch):
    from neuroformer.training.loop import Trainer

    number, advance = getattr(signal, name), Trainer._advance

    def signalled(self, pieces):
        if self.progress.step == 11:
            os.kill(os.getpid(), number)
        advance(self, pieces)

    before = signal.getsignal(number)
    monkeypatch.setattr(Trainer, "_advance", signalled)
    with pytest.raises(Stopped, match=f"{name}: saved at step 12 of 24"):
        run(tmp_path, config(checkpoint_every=1e6))
    monkeypatch.undo()
    assert signal.getsignal(number) == before
    assert checkpoints._header(tmp_path / FILE)["progress"]["step"] == 12
    run(tmp_path, config(checkpoint_every=1e6))
    assert_same_run(whole[0], tmp_path)


def test_a_second_interrupt_does_not_wait(tmp_path, monkeypatch):
    from neuroformer.training.loop import Trainer

    def interrupted_twice(self, pieces):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("went on")

    monkeypatch.setattr(Trainer, "_advance", interrupted_twice)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, config())


def test_patience_survives_a_stop(tmp_path):
    """Early stopping counts evaluations across the break."""
    c = config(steps=40, evaluate_every=2, patience=3, lr=1e-30)
    run(tmp_path / "whole", c)
    kill_and_resume(tmp_path / "killed", c, 1, 0.3, seed=3)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert len((tmp_path / "whole" / "log" / "metrics.csv").read_text().splitlines()) < 10


def test_workers_change_no_bit(whole, tmp_path):
    run(tmp_path, config(workers=2, checkpoint_every=1e6))
    assert_same_run(whole[0], tmp_path)


@pytest.fixture
def stopped(tmp_path):
    """A folder with a checkpoint at some step, its configuration, and what its data are."""
    c = config(steps=4)
    process = FORK.Process(target=run, args=(tmp_path, config(steps=10_000)))
    process.start()
    while not (tmp_path / FILE).exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    return tmp_path, config(steps=10_000), c


def test_what_does_not_fit_is_refused_by_name(stopped):
    folder, c, other = stopped
    with pytest.raises(ConfigError, match="train.steps is 4, was 10000"):
        run(folder, other)
    with pytest.raises(CheckpointError, match="another recording than this one: its spikes differs"):
        train(small_recording(seed=1, seconds=60.0), c, folder, progress=False, resume=True)
    whole = (folder / FILE).read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", b"\x00" * 64):
        (folder / FILE).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"{FILE} is damaged"):
            load_checkpoint(folder / FILE, c, {})


def test_a_checkpoint_of_an_older_network_is_refused_by_name(tmp_path, monkeypatch):
    config = small_config(train={"checkpoint_every": 0.0})
    path = tmp_path / FILE
    with monkeypatch.context() as older:
        older.setattr(checkpoint, "FORMAT", 1)
        checkpoint.save_checkpoint(path, {"model.x": torch.zeros(1)}, checkpoint.Progress(), config, {})
    with pytest.raises(CheckpointError, match="has format 1, of a run that another version of neuroformer began"):
        load_checkpoint(path, config, {})

"""The plan of a step's memory: what is short is cut into pieces before the first step, and told."""

import csv
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer import memory
from neuroformer.bundle.cohort import Cohort
from neuroformer.memory import free_memory, give_back, kept_bytes
from neuroformer.training import loop
from neuroformer.training.checkpoint import FILE, load_checkpoint
from neuroformer.training.memory import BACKWARD, StepMemory, step_memory
from neuroformer.training.module import Losses, Microbatch
from neuroformer.training.scoring import validation
from neuroformer.training.train import make_fabric, train

TRAIN = {"steps": 4, "batch_size": 48, "evaluate_every": 4, "checkpoint_every": 0.0}


def logged(folder):
    rows = csv.DictReader((folder / "log" / "metrics.csv").open())
    return [float(v) for r in rows for v in r.values() if v]


def planned(config):
    model, prepared = small_model(small_recording(), config)
    return step_memory(Cohort([model.float()]), [prepared], make_fabric(config))


@pytest.mark.parametrize("share", [0.4, 0.0])
def test_a_batch_that_does_not_fit_is_cut_and_gives_the_same(tmp_path, monkeypatch, capsys, share):
    config = small_config(loss={"contrast": []}, train=TRAIN)
    train(small_recording(), config, tmp_path / "whole", progress=False)
    assert "pieces" not in capsys.readouterr().out
    plan = planned(config)
    short = plan._replace(free=plan.fixed + share * plan.each * plan.windows)
    monkeypatch.setattr(loop, "step_memory", lambda *_: short)
    seen, step = [], loop.Trainer._step
    monkeypatch.setattr(loop.Trainer, "_step", lambda self, pieces: (seen.append(len(pieces)), step(self, pieces))[1])
    train(small_recording(), config, tmp_path / "cut", progress=False)
    wanted = 3 if share else plan.windows
    assert set(seen) == {wanted} and f"in {wanted} pieces" in capsys.readouterr().out
    assert logged(tmp_path / "cut") == pytest.approx(logged(tmp_path / "whole"), rel=2e-4, abs=1e-5)


def test_what_is_needed_follows_the_batch():
    one, two = (planned(small_config(train=TRAIN | {"batch_size": n})) for n in (40, 80))
    assert one[:2] == two[:2] and (one.windows, two.windows) == (40, 80) and one.free > 0
    assert two.needed - one.needed == pytest.approx(40 * one.each) and one.each > 1000


def test_what_is_planned_is_near_what_a_whole_batch_keeps():
    config = small_config(train=TRAIN)
    model, prepared = small_model(small_recording(), config)
    losses, plan = Losses(Cohort([model.float()])).train(), planned(config)
    batch = prepared.builder(prepared.windows("train")[: plan.windows])
    assert 0.7 < BACKWARD * kept_bytes(lambda: losses(Microbatch(batch))["loss"], losses) / plan.needed < 1.4


def test_a_run_goes_on_in_as_many_pieces_as_it_began_with(tmp_path, monkeypatch):
    config = small_config(train=TRAIN)
    monkeypatch.setattr(loop, "step_memory", lambda *_: StepMemory(0.0, 4.0, 48.0, 48))
    monkeypatch.setattr("neuroformer.training.train.save_bundle", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(small_recording(), config, tmp_path, progress=False)
    monkeypatch.undo()
    data = {}
    assert load_checkpoint(tmp_path / FILE, config, data)[1].pieces == 4


def test_the_least_of_machine_container_and_process_counts(tmp_path, monkeypatch):
    limit, use = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "CGROUPS", ((str(limit), str(use)),))
    cpu = torch.device("cpu")
    whole = free_memory(cpu)
    limit.write_text("max\n")
    use.write_text("5\n")
    assert free_memory(cpu) == pytest.approx(whole, rel=0.2)
    limit.write_text("1000005\n")
    assert free_memory(cpu) == 1_000_000
    use.write_text("2000000\n")
    assert free_memory(cpu) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ulimit -v is Linux's")
def test_a_limit_of_the_process_counts():
    code = (
        "import resource, torch; from neuroformer.memory import free_memory; "
        "b = free_memory(torch.device('cpu')); size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
        "resource.setrlimit(resource.RLIMIT_AS, (size + 10**8,) * 2); print(free_memory(torch.device('cpu')))"
    )
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0 < float(out) <= 10**8


def test_validation_has_a_budget_of_windows_spread_over_the_recording(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "VALID_STEPS", 1)
    seen = []
    add = validation.Scores.add
    monkeypatch.setattr(validation.Scores, "add", lambda self, m, b, o: (seen.append(b.tick_W), add(self, m, b, o))[1])
    config = small_config(train=TRAIN | {"batch_size": 20, "steps": 2, "evaluate_every": 1})
    prepared, _ = train(small_recording(), config, tmp_path, progress=False)
    every = torch.from_numpy(prepared.windows("valid").tick)
    ticks = torch.cat(seen).view(2, -1)
    assert len(every) > 40 and ticks.shape[1] == 20 and torch.equal(*ticks)
    assert ticks[0, 0] == every[0] and ticks[0, -1] == every[-1]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's account of this process")
def test_free_memory_among_what_is_used_goes_back_to_the_system():
    resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    held = [bytearray(100_000) for _ in range(2000)]  # small enough to lie on the heap
    last = held[-1]
    held.clear()
    before = resident()
    give_back()
    assert resident() < before - 100e6 and len(last) == 100_000

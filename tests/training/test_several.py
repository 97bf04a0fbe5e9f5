"""Several recordings, one trunk: what is shared, what is drawn, what is kept, and that it goes on exactly."""

import dataclasses
import os
import re
import signal

import numpy as np
import pytest
import torch
from helpers import small_config, small_recording
from safetensors.torch import load_file

import neuroformer
from neuroformer.bundle.bundle import load_model, read_bundle
from neuroformer.bundle.checks import BundleError
from neuroformer.bundle.cohort import Cohort, own_names
from neuroformer.config import ConfigError, from_dict, member_config
from neuroformer.data.automatic import settled
from neuroformer.data.prepared import prepare
from neuroformer.data.recordings import lacking, open_recordings
from neuroformer.data.splits import make_split
from neuroformer.model.network import Neuroformer
from neuroformer.recording.formats.npz import write_npz
from neuroformer.training import loop
from neuroformer.training.loop import Trainer
from neuroformer.training.module import Average
from neuroformer.training.scoring.scores import score
from neuroformer.training.scoring.validation import VALID_STEPS
from neuroformer.training.steps import StepSampler
from neuroformer.training.stopping import Stopped
from neuroformer.training.train import initial_cohort, prepare_recordings, train_several

TRAIN = {
    "steps": 12,
    "batch_size": 32,
    "evaluate_every": 5,
    "average": 0.9,
    "accelerator": "cpu",
    "checkpoint_every": 1e6,
}


def recordings():
    """Two with everything, and one shorter list of things: no frames, no pupil, no gaze."""
    a = dataclasses.replace(small_recording(0), name="a")
    b = dataclasses.replace(small_recording(1, num_units=9, seconds=90.0), name="b")
    c = small_recording(2, num_units=4, seconds=60.0, frames=False)
    return [a, b, dataclasses.replace(c, name="c", behavior={"speed": c.behavior["speed"]})]


def config(**train):
    names = [{"path": "unused", "name": n} for n in "abc"]
    return small_config(
        recordings=names,
        model={
            "dropout": 0.1,
            "width": 16,
            "heads": 2,
            "frame_encoder": {"kind": "conv3d", "kernel": [2, 4, 4], "stride": [1, 2, 2]},
        },
        train=TRAIN | train,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    members, metrics = train_several(recordings(), config(), folder, progress=False)
    return folder, members, metrics


# -- what is shared ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["none", "gaussian"])
def test_exactly_what_follows_the_number_of_units_is_a_recordings_own(likelihood):
    def shapes(num_units):
        rec = small_recording(num_units=num_units)
        c = config()
        if likelihood != "none":
            rec = dataclasses.replace(rec, traces=traces(num_units))
            c = dataclasses.replace(
                small_config(
                    targets=[],
                    loss={"contrast": []},
                    traces={"likelihood": likelihood},
                    window={"dt": 0.05, "current": 0.1, "past": 0.1, "frames": 0.15},
                )
            )
        alone = dataclasses.replace(c, recordings=())
        p = prepare(rec, alone)
        model = Neuroformer(alone, num_units, p.normalization)
        return {k: v.shape for k, v in model.named_parameters()}, own_names(model)

    (a, own), (b, _) = shapes(5), shapes(6)
    assert own == {k for k in a if a[k] != b[k]}


def traces(num_units):
    from neuroformer.recording.recording import Traces

    t = np.arange(0, 40, 0.05)
    values = np.random.default_rng(0).standard_normal((len(t), num_units)).astype(np.float32)
    return Traces(t, values)


def test_the_trunk_is_one_and_rows_are_apart():
    cohort = initial_cohort(prepare_recordings(recordings(), config()), config())
    a, b, c = (cohort[i] for i in range(3))
    assert a.first is b.first is c.first
    ours, theirs = a.frames, b.frames
    assert ours.encoder.filter.weight is theirs.encoder.filter.weight and "frames" not in c.streams
    assert ours.readout.feature[1].weight is theirs.readout.feature[1].weight
    assert a.observation.unit is not b.observation.unit and ours.encoder.mean is not theirs.encoder.mean
    # c attends to current, past, current: the last block of its three is the last of everybody's five
    assert [x.attend for x in a.blocks] == ["current", "past", "frames", "behavior", "current"]
    assert [x.attend for x in c.blocks] == ["current", "past", "current"]
    assert c.blocks[2].mlp[1].weight is a.blocks[4].mlp[1].weight
    assert len(cohort.named()) == len({id(p) for p in cohort.parameters()}) == len(list(cohort.parameters()))
    back = initial_cohort(prepare_recordings(recordings(), config()), dataclasses.replace(config(), seed=1))
    back.load_tensors(cohort.tensors())
    assert all(torch.equal(x, back.tensors()[k]) for k, x in cohort.tensors().items())


def test_other_frame_sizes_have_places_of_their_own():
    a, b = recordings()[:2]
    images = np.random.default_rng(0).integers(0, 255, (24, 12, 8), dtype=np.uint8)
    b = dataclasses.replace(b, frames=dataclasses.replace(b.frames, images=images))
    c = dataclasses.replace(config(), recordings=config().recordings[:2])
    cohort = initial_cohort(prepare_recordings([a, b], c), c)
    x, y = (cohort[i].frames.encoder for i in range(2))
    assert x.grid == (2, 3, 3) and y.grid == (2, 5, 3) and x.filter.weight is y.filter.weight
    assert [p is q for p, q in zip(x.position, y.position, strict=True)] == [True, False, True]


def test_frames_at_another_rate_share_a_filter_of_one_frame_only():
    a, b = recordings()[:2]
    b = dataclasses.replace(b, frames=dataclasses.replace(b.frames, times=b.frames.times * 0.5))
    c = dataclasses.replace(config(), recordings=config().recordings[:2])
    with pytest.raises(ConfigError, match="'a' shows a frame every 0.05 s, 'b' every 0.025 s"):
        initial_cohort(prepare_recordings([a, b], c), c)
    encoder = dataclasses.replace(c.model.frame_encoder, kernel=(1, 4, 4))
    c = dataclasses.replace(c, model=dataclasses.replace(c.model, frame_encoder=encoder))
    cohort = initial_cohort(prepare_recordings([a, b], c), c)
    x, y = (cohort[i].frames.encoder for i in range(2))
    assert x.filter.weight is y.filter.weight and x.position[0] is not y.position[0]


def test_other_classes_have_a_head_of_their_own_and_other_columns_are_refused():
    def labelled(rec, classes, *words):
        t = rec.behavior["speed"].times
        values = np.arange(len(t)) % classes
        variable = neuroformer.recording.BehaviorVariable(t, values, classes=words)
        return dataclasses.replace(rec, behavior={"kind": variable})

    tree = {"recordings": [{"path": "x"}, {"path": "y"}], "inputs": [], "loss": {"contrast": []}}
    c = small_config(**tree, targets=[{"name": "kind", "kind": "classification"}])
    a, b = recordings()[:2]
    abc = ("a", "b", "c")
    for first, second, same in (
        ((3,), (3,), True),
        ((3,), (4,), False),
        ((3, *abc), (3, *abc), True),
        ((3, *abc), (3, "a", "b", "d"), False),
    ):
        cohort = initial_cohort(prepare_recordings([labelled(a, *first), labelled(b, *second)], c), c)
        heads = [cohort[i].targets["kind"] for i in range(2)]
        assert (heads[0].query is heads[1].query) == same and heads[0].rows.weight is not heads[1].rows.weight
    wide = dataclasses.replace(b.behavior["gaze"], values=np.tile(b.behavior["gaze"].values, 2), columns=())
    b = dataclasses.replace(b, behavior=b.behavior | {"gaze": wide})
    c = dataclasses.replace(config(), recordings=config().recordings[:2])
    with pytest.raises(ConfigError, match=r"'a' and 'b' cannot share 'targets\.gaze\.out"):
        initial_cohort(prepare_recordings([a, b], c), c)


# -- what is lacking, and what they are called ---------------------------------------------------------------


def test_what_a_recording_lacks_is_skipped_for_it_alone():
    lacks = lacking(recordings(), config())
    assert lacks == [[], [], ["frames", "pupil", "gaze"]]
    of_c = member_config(config(), 2, lacks[2])
    assert of_c.window.frames == 0 and not of_c.inputs and [t.name for t in of_c.targets] == ["speed"]
    assert not of_c.loss.contrast and of_c.recording.name == "c"
    with pytest.raises(ConfigError, match="none of c has the frames"):
        lacking(recordings()[2:], dataclasses.replace(config(), recordings=config().recordings[2:]))


def test_a_list_of_paths_a_glob_and_names(tmp_path):
    for i in range(3):
        write_npz(dataclasses.replace(small_recording(i), name=f"mouse{i}"), tmp_path / f"mouse{i}.npz")
    c, recs = open_recordings(from_dict({"recordings": str(tmp_path / "mouse*.npz")}))
    assert [r.path for r in c.recordings] == [str(tmp_path / f"mouse{i}.npz") for i in range(3)]
    assert settled(from_dict({"recordings": [r.path for r in c.recordings]}), recs) == c
    assert len({r.name for r in recs}) == 3
    with pytest.raises(ConfigError, match=r"recordings\[0\]\.path is .*; no file or folder matches"):
        open_recordings(from_dict({"recordings": [str(tmp_path / "rat*")]}))
    twice = {"recordings": [str(tmp_path / "mouse0.npz")] * 2}
    with pytest.raises(ConfigError, match=r"are both called .*recordings\.1\.name="):
        open_recordings(from_dict(twice))
    twice["recordings"][1] = {"path": twice["recordings"][1], "name": "again"}
    assert open_recordings(from_dict(twice))[1][1].name == "again"
    with pytest.raises(ConfigError, match="recording is 'x.npz'; expected nothing where recordings are given"):
        from_dict({"recordings": ["y.npz"], "recording": {"path": "x.npz"}})


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_a_share_keeps_the_first_stretches_of_training_and_validation(share):
    rec = small_recording(seconds=200.0)
    c = small_config(recording={"share": share})
    whole, some = make_split(rec, small_config()), make_split(rec, c)
    for part in ("train", "valid"):
        assert some.seconds(part) == pytest.approx(share * whole.seconds(part), abs=0.011)
        every = np.concatenate([np.arange(*b[1:]) for b in whole.blocks[part]])
        kept = np.concatenate([np.arange(*b[1:]) for b in some.blocks[part]])
        assert np.array_equal(kept, every[: len(kept)])
    assert np.array_equal(some.blocks["test"], whole.blocks["test"])


# -- what is drawn -------------------------------------------------------------------------------------------


def drawn(steps, num):
    it = iter(steps)
    return [[(p.recording, p.windows.segment.tolist(), p.windows.tick.tolist()) for p in next(it)] for _ in range(num)]


def grouped(**train):
    """Three recordings, of which a step holds windows of two."""
    members = prepare_recordings(recordings(), config(batch_size=64, **train))
    steps = StepSampler(members)
    assert steps.together == 2 and steps.group == 32
    return members, steps


@pytest.mark.parametrize("balance", ["windows", "equal"])
def test_a_deck_holds_every_recording_as_configured_and_every_window_once_an_epoch(balance):
    members, steps = grouped(balance=balance, jitter=False)
    deck = sum(steps.deck)
    every = drawn(steps, 3 * deck)
    cards = [p[0] for d in every for p in d]
    assert len(cards) == 6 * deck and cards[:deck] != cards[deck : 2 * deck]
    for start in range(0, len(cards), deck):
        count = np.bincount(cards[start : start + deck], minlength=3)
        expected = steps.num_groups if balance == "windows" else [max(steps.num_groups)] * 3
        assert count.tolist() == expected
    for r, member in enumerate(members):
        mine = [p for d in every for p in d if p[0] == r][: 2 * steps.num_groups[r]]
        for epoch in (mine[: steps.num_groups[r]], mine[steps.num_groups[r] :]):
            seen = [(s, t) for _, ss, ts in epoch for s, t in zip(ss, ts, strict=True)]
            all_of_it = member.windows("train")
            assert sorted(seen) == sorted(zip(all_of_it.segment.tolist(), all_of_it.tick.tolist(), strict=True))
    for first in (1, deck - 1, deck + 3):
        assert drawn(StepSampler(members, first=first), 5) == every[first : first + 5]


# -- what is kept --------------------------------------------------------------------------------------------


def test_the_bundle_gives_each_recording_its_model(trained):
    folder, members, metrics = trained
    bundle = read_bundle(folder)
    assert [m.name for m in bundle.recordings] == ["a", "b", "c"]
    assert bundle.recordings[2].lacks == ["frames", "pupil", "gaze"]
    shown = repr(bundle)
    assert "a: 6 units;" in shown and "c: 4 units, without frames, pupil, gaze" in shown
    bits = []
    for member in members:
        model = load_model(folder, recording=member.rec.name)
        assert model.num_units == member.rec.num_units and not model.training
        bits.append(score(model, member, "valid", VALID_STEPS * TRAIN["batch_size"] // 3).bits())
    assert metrics["valid_best_likelihood"] == pytest.approx(np.mean(bits), abs=1e-5)
    with pytest.raises(BundleError, match=r"holds several recordings \(a, b, c\); say which"):
        load_model(folder)
    with pytest.raises(BundleError, match="no recording 'd'"):
        load_model(folder, recording="d")
    with pytest.raises(BundleError, match="no weights for 'nothing'"):
        load_model(bundle, "nothing", "a")
    one = load_model(bundle.of("b"))
    assert one.num_units == 9 and bundle.of("b").config.recording.name == "b"
    columns = (folder / "log" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"valid/bits_per_spike", "valid/bits_per_spike/b", "valid/gaze_score/c"} <= set(columns)
    (folder / "recordings" / "0.json").rename(folder / "away")  # one is opened without the others
    assert load_model(folder, recording="b").num_units == 9
    (folder / "away").rename(folder / "recordings" / "0.json")


def test_a_step_moves_the_rows_of_its_recording_alone(tmp_path):
    c = config(steps=1, average=0.0, evaluate_every=1, batch_size=64)
    members = prepare_recordings(recordings(), c)
    before = initial_cohort(members, c).tensors()
    train_several(recordings(), c, tmp_path, progress=False)
    after = weights_of(tmp_path)
    moved = {k for k in after if not torch.equal(after[k], before[k])}
    which = {str(r) for r, _ in StepSampler(members).drawn(0)}
    owners = {m[1] for k in moved if (m := re.match(r"recordings\.(\d)", k))}
    assert owners == which and len(which) == 2 and "first" in moved


def weights_of(folder, objective="likelihood"):
    """Everything that a run of several keeps, by the name in a cohort."""
    out = load_file(folder / "weights" / f"{objective}.safetensors")
    for file in (folder / "weights" / objective).iterdir():
        out |= {f"recordings.{file.stem}.{k}": x for k, x in load_file(file).items()}
    return out


def test_few_rows_in_memory_give_the_same_bits_as_all(tmp_path, monkeypatch):
    """Rows that leave memory and come back have lost nothing, and those that no step touches move no more."""
    for kept in (0, 4):
        monkeypatch.setattr(loop, "KEPT_STEPS", kept)
        train_several(recordings(), config(), tmp_path / str(kept), progress=False)
    few, all_ = (weights_of(tmp_path / str(kept)) for kept in (0, 4))
    assert few.keys() == all_.keys() and all(torch.equal(few[k], all_[k]) for k in few)
    assert not (tmp_path / "0" / "rows").exists()


def test_an_average_that_waited_is_the_one_that_followed_every_step():
    p = torch.nn.Parameter(torch.zeros(3))
    cohort = torch.nn.ParameterList([p])
    cohort.__dict__["__len__"] = lambda: 1
    every, late = Average(cohort, 0.9), Average(cohort, 0.9)
    with torch.no_grad():
        p += 1.0
    for step in range(1, 30):
        every.follow([p], step, step)
    late.follow([p], 1, 17)
    late.follow([p], 18, 29)
    assert torch.allclose(every.of[p], late.of[p], atol=1e-6) and 0.9 < float(every.of[p][0]) < 1


def test_a_stopped_run_of_several_goes_on_bit_for_bit(trained, tmp_path, monkeypatch):
    folder = trained[0]
    advance = Trainer._advance

    def signalled(self, pieces):
        if self.progress.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(self, pieces)

    monkeypatch.setattr(Trainer, "_advance", signalled)
    monkeypatch.setattr(loop, "KEPT_STEPS", 0)
    with pytest.raises(Stopped):
        train_several(recordings(), config(), tmp_path, progress=False, resume=True)
    monkeypatch.undo()
    train_several(recordings(), config(), tmp_path, progress=False, resume=True)
    for file in (folder / "weights").glob("*.safetensors"):
        x, y = (weights_of(place, file.stem) for place in (folder, tmp_path))
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    assert (folder / "log/metrics.csv").read_text() == (tmp_path / "log/metrics.csv").read_text()


def test_one_recording_in_a_list_is_one_recording(tmp_path):
    rec = recordings()[0]
    c = dataclasses.replace(config(steps=3), recordings=())
    train_several([rec], c, tmp_path / "plain", progress=False)
    listed = dataclasses.replace(c, recordings=config().recordings[:1])
    train_several([rec], listed, tmp_path / "listed", progress=False)
    x, y = (load_file(tmp_path / n / "weights" / "likelihood.safetensors") for n in ("plain", "listed"))
    assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    assert load_model(tmp_path / "listed").config.recording.name == "a"


def test_a_cohort_of_one_keeps_the_models_names():
    p = prepare(small_recording(), small_config())
    model = Neuroformer(small_config(), 6, p.normalization)
    assert Cohort([model]).tensors().keys() == model.state_dict().keys()

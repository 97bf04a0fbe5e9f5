"""Steps of one shape, as a CUDA graph replays them: the same spikes, and nothing that a graph could not hold."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording
from torch.utils._python_dispatch import TorchDispatchMode

from neuroformer.config import GenerateConfig, InterventionConfig
from neuroformer.generation import cuda_graph as graph_module
from neuroformer.generation import rollout as module
from neuroformer.generation.interventions import UnitInterventions
from neuroformer.generation.rollout import rollout, rollout_true_past
from neuroformer.generation.sequences import sequences_of
from neuroformer.generation.spikes import Spikes
from neuroformer.model import fixed_stepper

CONFIG = GenerateConfig(samples=3, max_seconds=0.5)


@pytest.fixture
def replayed(monkeypatch):
    """Runs a rollout as on a GPU, but for the capture."""

    def run(function, *args):
        with monkeypatch.context() as m:
            m.setattr(module, "_replays", lambda model: True)
            return function(*args)

    return run


def small(**changes):
    return small_model(small_recording(num_trials=10), small_config(split={"by": "trials"}, **changes))


def unequal(p, config=CONFIG):
    """Sequences of which some end early: at last a third is left, and new places pay."""
    what = sequences_of(p.asking(config))
    what.stop[: 2 * len(what) // 3] -= 25
    what.stop[1] -= 10
    return what


def cells(spikes):
    return list(zip(spikes.sequence.tolist(), spikes.tick.tolist(), spikes.unit.tolist(), strict=True))


@pytest.mark.parametrize(
    "model",
    [{}, {"blocks": [{"attend": "past"}, {"attend": "frames"}]}],
    ids=str,
)
def test_replayed_steps_draw_the_same_spikes(model, replayed):
    net, p = small(model=model)
    what = unequal(p)
    made = rollout(net, p.asking(CONFIG, 3), what)
    again = replayed(rollout, net, p.asking(CONFIG, 3), what)
    assert cells(again.spikes) == cells(made.spikes) and len(made.spikes.tick) > 60
    assert again.guard_hits == made.guard_hits


@pytest.mark.parametrize("options", [{"top_p": 0.7}, {"temperature": 0.0}])
def test_however_they_are_drawn(options, replayed):
    net, p = small()
    config = dataclasses.replace(CONFIG, max_tokens=30, **options)
    what = unequal(p)
    made = rollout(net, p.asking(config, 0), what)
    assert cells(replayed(rollout, net, p.asking(config, 0), what).spikes) == cells(made.spikes)


def test_room_grows_and_the_guard_counts_alike(replayed, monkeypatch):
    net, p = small()
    what = unequal(p)
    monkeypatch.setattr(fixed_stepper, "ROOM", 2)
    config = dataclasses.replace(CONFIG, temperature=3.0)
    most = int(np.bincount(rollout(net, p.asking(config, 0), what).spikes.sequence).max())
    for max_tokens in (3, 1000):
        config = dataclasses.replace(config, max_tokens=max_tokens)
        made = rollout(net, p.asking(config, 0), what)
        again = replayed(rollout, net, p.asking(config, 0), what)
        assert cells(again.spikes) == cells(made.spikes) and again.guard_hits == made.guard_hits
        assert (made.guard_hits > 0) == (max_tokens == 3)
    assert most > 8


INTERVENTIONS = [
    {"do": "silence", "units": [0, 1], "start": 0.1},
    {"do": "drive", "units": [2], "value": 30.0, "stop": 0.3},
    {"do": "clamp", "units": [3], "value": -1.0},
]


def test_units_are_intervened_on_alike(replayed):
    net, p = small()
    chosen = tuple(InterventionConfig(**one) for one in INTERVENTIONS)
    units = UnitInterventions(chosen, net.num_units, p.split.dt, 3)
    what = unequal(p)
    for max_tokens in (4, 1000):
        config = dataclasses.replace(CONFIG, max_tokens=max_tokens)
        run = lambda c=config: rollout(net, p.asking(c, 3), what, units=units)
        made, again = run(), replayed(run)
        assert cells(again.spikes) == cells(made.spikes) and again.guard_hits == made.guard_hits
        assert (made.guard_hits > 0) == (max_tokens == 4)
    assert not ((made.spikes.unit < 2) & (made.spikes.tick - what.start[made.spikes.sequence] >= 10)).any()


def test_windows_after_the_true_past_are_replayed_as_well(replayed):
    net, p = small()
    what = unequal(p)
    config = dataclasses.replace(CONFIG, batch_size=7)
    made = rollout_true_past(net, p.asking(config, 3), what)
    again = replayed(rollout_true_past, net, p.asking(config, 3), what)
    assert cells(again.spikes) == cells(made.spikes) and again.guard_hits == made.guard_hits


class Capturable(TorchDispatchMode):
    """Refuses what waits for the device or depends on values, and notes the storages that come from outside."""

    WAITS = (
        "_local_scalar_dense",
        "nonzero",
        "unique",
        "masked_select",
        "equal",
        "is_nonzero",
        "item",
        "lift_fresh",
        "_to_copy",
        "bincount",
    )

    def __init__(self):
        super().__init__()
        self.made: set[int] = set()
        self.alive: list = []  # so that no address is used twice
        self.outside: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "_to_copy":
            assert (kwargs or {}).get("device") in (None, args[0].device), func
        else:
            assert name not in self.WAITS, func
        if name in ("index", "index_put", "index_put_"):
            assert all(i is None or i.dtype == torch.int64 for i in args[1]), func
        if name == "repeat_interleave":
            assert (kwargs or {}).get("output_size") is not None, func
        given = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        before = {x.untyped_storage().data_ptr() for x in given}
        self.outside |= before - self.made
        out = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves(out):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in before:
                self.made.add(x.untyped_storage().data_ptr())
                self.alive.append(x)
        return out


@pytest.mark.parametrize("options", [{}, {"top_p": 0.7}, {"interventions": INTERVENTIONS}], ids=str)
def test_a_step_waits_for_nothing_and_lives_in_its_places(options, replayed, monkeypatch):
    """What a graph needs: no question to the device, no shape that depends on values, and from window to window no
    memory from outside but the places, the weights and what the captured step keeps."""
    net, p = small()
    seen, windows = [], []
    call = graph_module._Step.__call__

    def watched(step):
        with Capturable() as mode:
            call(step)
        places = step.stepper.places
        kept = [
            *net.parameters(),
            *net.buffers(),
            *places.held.values(),
            *places.stored.values(),
            step.scan.kinds,
        ]
        assert mode.outside <= {x.untyped_storage().data_ptr() for x in kept}
        seen.append(mode)
        windows.append(id(step))

    monkeypatch.setattr(graph_module._Step, "__call__", watched)
    options = dict(options)
    chosen = tuple(InterventionConfig(**one) for one in options.pop("interventions", ()))
    units = UnitInterventions(chosen, net.num_units, p.split.dt, 0)
    config = dataclasses.replace(CONFIG, samples=2, **options)
    what = sequences_of(p.asking(dataclasses.replace(config, max_seconds=0.2)))
    replayed(lambda: rollout(net, p.asking(config, 0), what, units=units))
    assert len(seen) > 8 and len(set(windows)) < 5  # later windows replay the step of an earlier one


def test_capturable_catches_what_a_graph_cannot_hold():
    x = torch.arange(4.0)
    for wrong in (
        lambda: x[x > 1],
        lambda: float(x.sum()),
        lambda: torch.nonzero(x),
        lambda: torch.tensor([1.0]) + x,
    ):
        with pytest.raises(AssertionError), Capturable():
            wrong()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_graph_draws_the_same_spikes():
    net, p = small()
    what = unequal(p)
    made = rollout(net, p.asking(CONFIG, 3), what)
    net.to("cuda")
    for replay in (True, False):
        loop = module.SpikeLoop(net, p.asking(CONFIG, 3), what, replay=replay)
        spikes = Spikes.join([part.made for part in module.rollout_windows(loop)]).ordered()
        assert cells(spikes) == cells(made.spikes)

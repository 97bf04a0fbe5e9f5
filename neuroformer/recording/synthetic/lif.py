"""``synthetic:hubs``: leaky integrate-and-fire neurons, a few of which drive many others.

The network of Neuroformer's simulated-connectivity experiment (Antoniades et al., ICLR 2024, section on hub
neurons): every neuron integrates its own noise; the spike of a hub lifts the potential of each of its targets
after that synapse's delay. Targets of one hub fire together without driving each other, which is what a pairwise
measure mistakes for coupling. Its ``truth`` holds

- ``coupling`` (target, source): the kick of the potential, in units of the threshold; 0 where there is no synapse
- ``coupling_delay_s`` (target, source); ``is_hub`` (units,)

The potential follows ``tau dv = (mean - v) dt + noise sqrt(2 tau) dW`` in Euler steps of ``dt_s``; it spikes at
1, returns to 0 and stays there for ``refractory_s``. A kick comes before the step whose end tests the threshold,
so a target answers after its delay exactly. :func:`simulate_brian` runs the same network in Brian2.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from neuroformer.recording.recording import Recording, RecordingError
from neuroformer.recording.synthetic.parameters import check_above, check_numbers, from_overrides, stream

HUBS_SHA256 = "7ab7ba149b733a54c948bbe45e3d434a06d87b72c826da2357b2833c2548eabb"


@dataclass(frozen=True)
class HubParameters:
    """Everything that, with a seed, determines ``synthetic:hubs``. Times in s, potentials in units of threshold."""

    num_units: int = 300
    num_hubs: int = 3
    targets_per_hub: int = 30
    num_stretches: int = 40  # stretches run side by side, each from rest
    stretch_s: float = 30.0
    settle_s: float = 0.5  # at the start of each stretch, left out
    gap_s: float = 1.0
    dt_s: float = 0.001
    tau_s: float = 0.02
    mean: float = 0.55
    noise: float = 0.2  # standard deviation of the free potential
    refractory_s: float = 0.002
    weight: tuple[float, float] = (0.25, 0.45)  # uniform
    delay_ms: tuple[int, int] = (1, 10)  # uniform over whole milliseconds, both ends included

    def __post_init__(self):
        check_numbers("synthetic:hubs", self)
        check_above("synthetic:hubs", self, ("num_units", "num_stretches"), 1)
        check_above("synthetic:hubs", self, ("stretch_s", "dt_s", "tau_s", "noise"), 0)
        if self.num_hubs * (1 + self.targets_per_hub) > self.num_units:
            raise RecordingError(
                f"synthetic:hubs: {self.num_hubs} hubs with {self.targets_per_hub} targets each need more than "
                f"num_units = {self.num_units} neurons"
            )
        if self.delay_ms[0] * 1e-3 < self.dt_s:
            raise RecordingError(
                f"synthetic:hubs: delay_ms starts at {self.delay_ms[0]}; expected a step of dt_s or more"
            )


@dataclass(frozen=True)
class Synapses:
    """(synapses,) target, source, kick and delay in steps."""

    target: np.ndarray
    source: np.ndarray
    weight: np.ndarray
    delay: np.ndarray


def hubs(seed: int = 0, **overrides) -> Recording:
    """Hub neurons and their targets; the module's docstring lists what ``truth`` holds.

    Parameters
    ----------
    seed : int
    overrides
        Fields of :class:`HubParameters`.

    Raises
    ------
    RecordingError
        Unknown or impossible parameter.
    """
    p = from_overrides("synthetic:hubs", HubParameters, overrides)
    synapses = draw_synapses(p, seed)
    stretch, step, unit = simulate(p, synapses, stream(seed, "noise"))
    return to_recording(p, synapses, seed, stretch, (step + 0.5) * p.dt_s, unit)


def draw_synapses(p: HubParameters, seed: int) -> Synapses:
    rng = stream(seed, "synapses")
    order = rng.permutation(p.num_units)
    source = np.repeat(order[: p.num_hubs], p.targets_per_hub)
    target = order[p.num_hubs : p.num_hubs + len(source)]
    weight = np.round(rng.uniform(*p.weight, len(source)), 6)
    delay_ms = rng.integers(p.delay_ms[0], p.delay_ms[1] + 1, len(source))
    return Synapses(target, source, weight, np.rint(delay_ms * 1e-3 / p.dt_s).astype(np.int64))


def simulate(p: HubParameters, s: Synapses, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Stretch, step within it (settling left out) and unit of every spike."""
    shape = (p.num_stretches, p.num_units)
    leak = p.dt_s / p.tau_s
    spread = p.noise * np.sqrt(2 * leak)
    rest = int(round(p.refractory_s / p.dt_s))
    settle = int(round(p.settle_s / p.dt_s))
    v, since = np.full(shape, p.mean), np.full(shape, rest)
    longest = int(s.delay.max(initial=0)) + 1
    fired = np.zeros((longest, *shape), bool)  # of the last steps, as a ring
    found = []
    for step in range(settle + int(round(p.stretch_s / p.dt_s))):
        # each neuron is the target of one synapse at most
        v[:, s.target] += s.weight * fired[(step - s.delay) % longest, :, s.source].T
        v += leak * (p.mean - v)
        v += spread * rng.standard_normal(shape)
        since += 1
        v[since < rest] = 0.0
        spikes = v >= 1.0
        fired[step % longest] = spikes
        if spikes.any():
            v[spikes] = 0.0
            since[spikes] = 0
            if step >= settle:
                stretch, unit = np.nonzero(spikes)
                found.append(np.stack([stretch, np.full(len(unit), step - settle), unit]))
    out = np.concatenate(found, 1) if found else np.zeros((3, 0), np.int64)
    return out[0], out[1], out[2]


def simulate_brian(p: HubParameters, s: Synapses, seconds: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Times (s) and units of one continuous run of the same network in Brian2 (Stimberg et al., eLife 2019).

    Raises
    ------
    RecordingError
        Brian2 is not installed.
    """
    try:
        import brian2 as b  # pyright: ignore[reportMissingImports]
    except (ImportError, AttributeError) as e:  # AttributeError: made for an older NumPy
        raise RecordingError(f"Brian2 is not there ({e}); pip install 'neuroformer[brian]'") from None
    b.start_scope()
    b.prefs.codegen.target = "numpy"
    b.seed(seed)
    b.defaultclock.dt = p.dt_s * b.second
    names = {"tau": p.tau_s * b.second, "mean": p.mean, "noise": p.noise}
    group = b.NeuronGroup(
        p.num_units,
        "dv/dt = (mean - v) / tau + noise * sqrt(2 / tau) * xi : 1 (unless refractory)",
        threshold="v >= 1",
        reset="v = 0",
        refractory=p.refractory_s * b.second,  # pyright: ignore[reportArgumentType]
        method="euler",
        namespace=names,
    )
    group.v = p.mean
    synapses = b.Synapses(group, group, "w : 1", on_pre="v_post += w")
    synapses.connect(i=s.source, j=s.target)
    synapses.w = s.weight
    # Brian delivers after the threshold is tested, we before it
    synapses.delay = (s.delay - 1) * p.dt_s * b.second
    monitor = b.SpikeMonitor(group)
    b.Network(group, synapses, monitor).run(seconds * b.second)
    return np.asarray(monitor.t / b.second), np.asarray(monitor.i)


def to_recording(p: HubParameters, s: Synapses, seed: int, stretch, seconds, unit) -> Recording:
    """Spikes given by stretch, seconds within it and unit."""
    starts = np.round(np.arange(p.num_stretches) * (p.stretch_s + p.gap_s), 9)
    times = np.round(starts[stretch] + seconds, 9)
    order = np.lexsort((unit, times))
    coupling, delay = np.zeros((2, p.num_units, p.num_units))
    coupling[s.target, s.source] = s.weight
    delay[s.target, s.source] = s.delay * p.dt_s
    is_hub = np.isin(np.arange(p.num_units), s.source)
    return Recording(
        name="synthetic:hubs",
        spike_times=times[order],
        spike_units=unit[order].astype(np.int32),
        units={
            "id": np.array([f"n{i:03d}" for i in range(p.num_units)]),
            "cell_type": np.where(is_hub, "hub", np.where(coupling.any(1), "target", "other")),
        },
        domain=np.stack([starts, starts + p.stretch_s], 1),
        truth={"coupling": coupling, "coupling_delay_s": delay, "is_hub": is_hub},
        meta={"source": "synthetic:hubs", "seed": seed, "parameters": dataclasses.asdict(p)},
    )

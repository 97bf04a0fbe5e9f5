"""``synthetic:shared``: animals whose units differ and whose dynamics are the same.

A hidden network of a few variables is driven by what is on the screen, and every unit reads it with weights of its
own: ``z' = (-z + tanh(recurrent z + drive stimulus)) / tau``, rate ``exp(baseline + loading z + own history)``.
``circuit`` draws the network, which is one for all animals; ``seed`` draws the animal: its units, what it is
shown, its spikes. From several recordings of one circuit, a model can learn more than from each alone. Its ``truth``
holds

- ``rate`` (bins, units) float32: expected count of each bin given the stimulus and all earlier spikes;
  ``rate_times`` (bins,): onsets of those bins, each ``meta["rate_dt_s"]`` wide
- ``latent`` (bins, variables), ``loading`` (units, variables), ``recurrent``, ``drive``

With ``cell_types`` above 1, units have a column ``cell_type``: those of a type read, with positive weights, a share of the variables
of their own. What type a unit is then shows in what it follows, and hardly in how it fires.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from neuroformer.recording.recording import FrameSeries, Recording, RecordingError
from neuroformer.recording.synthetic.parameters import check_above, check_numbers, from_overrides, stream

SHARED_SHA256 = "363575f0e9d2b6a845d987a046433d785cfc2c1a602cbd85da327f444a06b0f9"
_MAX_RATE_PER_BIN = 1.0


@dataclass(frozen=True)
class SharedParameters:
    """Everything that, with a seed, determines ``synthetic:shared``. Times in s, rates in Hz."""

    circuit: int = 0  # seed of the network that all animals share
    num_units: int = 24
    duration_s: float = 600.0
    dt_s: float = 0.01
    # what is on the screen: pixels that wander independently
    frame_rate_hz: float = 20.0
    frame_size: int = 6
    pixel_tau_s: float = 0.15
    # the network
    num_latents: int = 12
    tau_s: float = 0.1
    recurrent: float = 0.9  # spectral norm of its weights: below 1, what is forgotten is forgotten
    drive: float = 2.0  # standard deviation of what the stimulus gives a variable
    # units
    rate_hz: float = 5.0
    rate_spread: float = 0.3  # standard deviation of log rate across units
    loading: float = 1.0  # standard deviation of log rate that the network gives a unit
    cell_types: int = 1  # each of which reads other variables
    self_history: tuple[float, ...] = (-2.0, -1.0, -0.5)  # log rate in the bins after an own spike

    def __post_init__(self):
        check_numbers("synthetic:shared", self)
        check_above("synthetic:shared", self, ("num_units", "frame_size", "num_latents", "cell_types"), 1)
        if self.cell_types > self.num_latents:
            raise RecordingError(
                f"synthetic:shared: cell_types is {self.cell_types}; expected at most num_latents, {self.num_latents}"
            )
        positive = ("duration_s", "dt_s", "frame_rate_hz", "pixel_tau_s", "tau_s", "rate_hz")
        check_above("synthetic:shared", self, positive, 0)

    @property
    def num_frames(self) -> int:
        return int(round(self.duration_s * self.frame_rate_hz))

    @property
    def bins_per_frame(self) -> int:
        return int(round(1 / (self.dt_s * self.frame_rate_hz)))


def shared(seed: int = 0, **overrides) -> Recording:
    """One animal of a circuit; the module's docstring lists what ``truth`` holds.

    Parameters
    ----------
    seed : int
        The animal.
    overrides
        Fields of :class:`SharedParameters`; ``circuit`` says which dynamics it has.

    Raises
    ------
    RecordingError
        Unknown or impossible parameter.
    """
    p = from_overrides("synthetic:shared", SharedParameters, overrides)
    recurrent, drive = _network(stream(p.circuit, "network"), p)
    pixels = _pixels(stream(seed, "pixels"), p)
    latent = _latents(pixels, recurrent, drive, p)
    kind = stream(seed, "types").permutation(p.num_units) % p.cell_types
    loading, baseline = _units(stream(seed, "units"), latent, kind, p)
    log_rate = np.round(latent @ loading.T + baseline, 9)
    counts, rate = _spikes(stream(seed, "spikes"), log_rate, p)
    b, unit = np.nonzero(counts)
    several = counts[b, unit]
    b, unit = np.repeat(b, several), np.repeat(unit, several)
    inside = (stream(seed, "jitter").integers(1000, size=len(b)) + 0.5) / 1000
    times = np.round((b + inside) * p.dt_s, 9)
    order = np.argsort(times, kind="stable")
    name = f"circuit{p.circuit}_animal{seed}"
    return Recording(
        name=name,
        spike_times=times[order],
        spike_units=unit[order].astype(np.int32),
        units={"id": np.array([f"{name}_u{i:03d}" for i in range(p.num_units)])}
        | ({"cell_type": np.array([f"type {k}" for k in kind])} if p.cell_types > 1 else {}),
        domain=np.array([[0.0, p.duration_s]]),
        frames=FrameSeries(
            np.clip(np.rint(128 + 45 * pixels), 0, 255).astype(np.uint8).reshape(-1, p.frame_size, p.frame_size),
            np.round(np.arange(p.num_frames) / p.frame_rate_hz, 9),
            np.arange(p.num_frames),
        ),
        truth={
            "rate": rate.astype(np.float32),
            "rate_times": np.arange(len(rate)) * p.dt_s,
            "latent": latent,
            "loading": loading,
            "recurrent": recurrent,
            "drive": drive,
        },
        meta={"source": "synthetic:shared", "seed": seed, "rate_dt_s": p.dt_s, "parameters": dataclasses.asdict(p)},
    )


def _network(rng: np.random.Generator, p: SharedParameters) -> tuple[np.ndarray, np.ndarray]:
    """(variables, variables) among each other, and (variables, pixels) from the screen."""
    n, pixels = p.num_latents, p.frame_size**2
    among = rng.standard_normal((n, n))
    among *= p.recurrent / np.linalg.norm(among, 2)
    return np.round(among, 9), np.round(p.drive / pixels**0.5 * rng.standard_normal((n, pixels)), 9)


def _pixels(rng: np.random.Generator, p: SharedParameters) -> np.ndarray:
    """(frames, pixels) stationary, unit variance, independent of each other, correlated in time."""
    keep = np.exp(-1 / (p.pixel_tau_s * p.frame_rate_hz))
    x = rng.standard_normal((p.num_frames, p.frame_size**2))
    for k in range(1, len(x)):
        x[k] = keep * x[k - 1] + np.sqrt(1 - keep**2) * x[k]
    return np.round(x, 9)


def _latents(pixels: np.ndarray, recurrent: np.ndarray, drive: np.ndarray, p: SharedParameters) -> np.ndarray:
    """(bins, variables), rounded at every step, so that the last bits of a library change nothing."""
    seen = np.round(pixels @ drive.T, 9).repeat(p.bins_per_frame, 0)
    z = np.zeros((len(seen), p.num_latents))
    for k in range(1, len(seen)):
        toward = np.tanh((recurrent * z[k - 1]).sum(1) + seen[k - 1])
        z[k] = np.round(z[k - 1] + p.dt_s / p.tau_s * (toward - z[k - 1]), 9)
    return z


def _units(
    rng: np.random.Generator, latent: np.ndarray, kind: np.ndarray, p: SharedParameters
) -> tuple[np.ndarray, np.ndarray]:
    """(units, variables) weights, and (units,) log count per bin that gives each unit about its mean rate."""
    loading = rng.standard_normal((p.num_units, p.num_latents))
    if p.cell_types > 1:
        loading = np.abs(loading) * (np.arange(p.num_latents) % p.cell_types == kind[:, None])
    loading *= p.loading / np.maximum((latent @ loading.T).std(0), 1e-9)[:, None]
    rate = p.rate_hz * np.exp(p.rate_spread * np.clip(rng.standard_normal(p.num_units), -2, 2))
    mean = rate * p.dt_s
    baseline = np.log(mean) - np.log(np.exp(latent @ loading.T).mean(0))
    return np.round(loading, 9), np.round(baseline - np.log1p(mean * np.expm1(p.self_history).sum()), 9)


def _spikes(rng: np.random.Generator, log_rate: np.ndarray, p: SharedParameters) -> tuple[np.ndarray, np.ndarray]:
    """(bins, units) int counts, Poisson given all before, and their expected values; of several spikes in a bin, later
    bins see one."""
    own = np.array(p.self_history)[::-1, None]
    fired = np.zeros((len(log_rate) + len(own), p.num_units))
    rate = np.empty_like(log_rate)
    draw = rng.random(log_rate.shape)
    for b, eta in enumerate(log_rate):
        mean = np.exp(eta + (own * fired[b : b + len(own)]).sum(0))
        rate[b] = np.round(np.minimum(mean, _MAX_RATE_PER_BIN), 12)
        fired[b + len(own)] = draw[b] >= np.exp(-rate[b])
    term = below = np.exp(-rate)
    counts = (draw >= below).astype(np.int64)
    for k in range(1, 31):
        term = term * rate / k
        below = below + term
        counts += draw >= below
    return counts, rate

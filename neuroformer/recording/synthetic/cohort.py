"""``synthetic:cohort``: many animals without a screen, of a few circuits whose dynamics are kin.

A few damped oscillations, driven by noise, are the same in kind in all animals. A circuit mixes them into the variables that its
units read: ``x = tanh(mixing modes)``, rate ``exp(baseline + loading x)``, and no spike in the bin after an own one. ``mixing`` is
partly common to all circuits. Units lie in areas, whose units read the variables alike, in every animal; the rest of a unit's
weights is its own. ``seed`` draws the animal: its course of noise, units and spikes; its circuit is ``seed`` modulo
``num_circuits``. Its ``truth`` holds ``latent`` (bins, variables), ``loading`` (units, variables) and ``baseline`` (units,).

``synthetic:cohort[0:300]`` in ``recordings`` are three hundred of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from neuroformer.recording.recording import Recording
from neuroformer.recording.synthetic.parameters import check_above, check_numbers, from_overrides, stream

COHORT_SHA256 = "4d29b237f1adf426198e3b582a05a8e0bb7c0f3682293a3c0177d11737a149df"
_DRAWN = 50  # units whose spikes are drawn together: their rates are as large as bins x units


@dataclass(frozen=True)
class CohortParameters:
    """Everything that, with a seed, determines ``synthetic:cohort``. Times in s, rates in Hz."""

    num_units: int = 200
    duration_s: float = 600.0
    dt_s: float = 0.01
    num_circuits: int = 5
    num_areas: int = 4
    # dynamics
    num_modes: int = 4
    slowest_hz: float = 1.0
    fastest_hz: float = 6.0
    decay_s: float = 0.4
    num_latents: int = 8
    kin: float = 0.7  # share of a circuit's mixing that all circuits have
    # units
    rate_hz: float = 3.0
    rate_spread: float = 0.5  # standard deviation of log rate across units
    loading: float = 1.0  # standard deviation of log rate that the variables give a unit
    alike: float = 0.5  # share of a unit's weights that are its area's

    def __post_init__(self):
        check_numbers("synthetic:cohort", self)
        check_above("synthetic:cohort", self, ("num_units", "num_circuits", "num_areas", "num_modes", "num_latents"), 1)
        positive = ("duration_s", "dt_s", "slowest_hz", "fastest_hz", "decay_s", "rate_hz")
        check_above("synthetic:cohort", self, positive, 0)


def cohort(seed: int = 0, **overrides) -> Recording:
    """One animal; the module's docstring says what is drawn.

    Parameters
    ----------
    seed : int
        The animal.
    overrides
        Fields of :class:`CohortParameters`.

    Raises
    ------
    RecordingError
        Unknown or impossible parameter.
    """
    p = from_overrides("synthetic:cohort", CohortParameters, overrides)
    circuit = seed % p.num_circuits
    latent = np.round(np.tanh(_modes(stream(seed, "course"), p) @ _mixing(circuit, p).T), 9)
    area = np.arange(p.num_units) * p.num_areas // p.num_units
    loading, baseline = _units(stream(seed, "units"), latent, area, p)
    bins, unit = _spikes(stream(seed, "spikes"), latent, loading, baseline)
    inside = (stream(seed, "jitter").integers(1000, size=len(bins)) + 0.5) / 1000
    times = np.round((bins + inside) * p.dt_s, 9)
    order = np.argsort(times, kind="stable")
    name = f"cohort_animal{seed:03d}"
    return Recording(
        name=name,
        spike_times=times[order],
        spike_units=unit[order].astype(np.int32),
        units={
            "id": np.array([f"{name}_u{i:03d}" for i in range(p.num_units)]),
            "area": np.array([f"area{a}" for a in area]),
        },
        domain=np.array([[0.0, p.duration_s]]),
        truth={"latent": latent.astype(np.float32), "loading": loading, "baseline": baseline},
        meta={"source": "synthetic:cohort", "seed": seed, "circuit": circuit, "parameters": dataclasses.asdict(p)},
    )


def _modes(rng: np.random.Generator, p: CohortParameters) -> np.ndarray:
    """(bins, 2 x modes) damped oscillations driven by noise, unit variance."""
    num = int(round(p.duration_s / p.dt_s))
    out = np.empty((num, 2 * p.num_modes))
    keep = np.exp(-p.dt_s / p.decay_s)
    for m, hz in enumerate(np.geomspace(p.slowest_hz, p.fastest_hz, p.num_modes)):
        turn = keep * np.exp(2j * np.pi * hz * p.dt_s)
        noise = rng.standard_normal((2, num))
        z = np.asarray(lfilter([1.0], [1.0, -turn], noise[0] + 1j * noise[1])) * np.sqrt(1 - keep**2)
        out[:, 2 * m], out[:, 2 * m + 1] = z.real, z.imag
    return np.round(out, 9)


def _mixing(circuit: int, p: CohortParameters) -> np.ndarray:
    """(variables, 2 x modes), rows of norm 1.5, so that the hyperbolic tangent bends them."""
    shape = (p.num_latents, 2 * p.num_modes)
    common, own = (stream(n, "mixing").standard_normal(shape) for n in (0, 1 + circuit))
    mixing = np.sqrt(p.kin) * common + np.sqrt(1 - p.kin) * own
    return np.round(1.5 * mixing / np.linalg.norm(mixing, axis=1, keepdims=True), 9)


def _units(
    rng: np.random.Generator, latent: np.ndarray, area: np.ndarray, p: CohortParameters
) -> tuple[np.ndarray, np.ndarray]:
    """(units, variables) weights, and (units,) log count per bin that gives each unit about its mean rate."""
    of_area = stream(0, "areas").standard_normal((p.num_areas, p.num_latents))[area]
    loading = np.sqrt(p.alike) * of_area + np.sqrt(1 - p.alike) * rng.standard_normal(of_area.shape)
    few = latent[:: max(1, len(latent) // 5000)]
    loading *= p.loading / np.maximum((few @ loading.T).std(0), 1e-9)[:, None]
    rate = p.rate_hz * np.exp(p.rate_spread * np.clip(rng.standard_normal(p.num_units), -2, 2))
    baseline = np.log(rate * p.dt_s) - np.log(np.exp(few @ loading.T).mean(0))
    return np.round(loading, 6), np.round(baseline, 6)


def _spikes(
    rng: np.random.Generator, latent: np.ndarray, loading: np.ndarray, baseline: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bin and unit of every spike: at most one per bin, none in the bin after an own one."""
    bins, units = [], []
    for first in range(0, len(loading), _DRAWN):
        some = slice(first, first + _DRAWN)
        silent = np.exp(-np.exp(np.round(latent @ loading[some].T + baseline[some], 6)))
        unit, bin_ = np.nonzero((rng.random(silent.shape, np.float32) >= silent).T)
        # of draws in bins that follow each other every second one stays
        place = np.arange(len(bin_))
        begins = np.r_[True, (np.diff(bin_) != 1) | (np.diff(unit) != 0)]
        kept = (place - np.maximum.accumulate(np.where(begins, place, 0))) % 2 == 0
        bins.append(bin_[kept])
        units.append(unit[kept] + first)
    return np.concatenate(bins), np.concatenate(units)

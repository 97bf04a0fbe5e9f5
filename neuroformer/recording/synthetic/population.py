"""``synthetic:population``: as many units as a two-photon microscope or several probes see, in two areas.

Units of a primary area follow movies (energy of a Gabor filter), those of a higher area less so and behavior more. Running
speed and the two angles of gaze move every rate; so does a slow drift that nobody recorded, the same for all units up
to a weight of each. A few hundred pairs are coupled. What a recording of thousands of units costs, and what a model
gains on it, is measured here. ``truth`` holds

- ``rate`` (bins, units) float32, on disk: expected count of each bin given everything before; ``rate_times`` (bins,)
- ``drift`` (bins,) of unit variance; ``drift_gain`` (units,) log rate for one standard deviation
- ``coupling`` (target, source) log rate in the bins after a spike, and ``coupling_delay_s``; up to 4,000 units
- ``stimulus_gain``, ``speed_gain`` and ``gaze_gain`` of every unit; ``rf_center`` (units, 2: x, y, in pixels)
"""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroformer.recording.recording import BehaviorVariable, FrameSeries, Recording, RecordingError
from neuroformer.recording.synthetic.movies import pan_movies
from neuroformer.recording.synthetic.parameters import (
    check_above,
    check_numbers,
    from_overrides,
    ornstein_uhlenbeck,
    stream,
)

POPULATION_SHA256 = "9779625193c9975b346950e0799ff789db025ee0f17c4a3ee7c139b9a9388063"
_MOST_PER_BIN = 1.0
_MOST_PAIRS = 4000  # units whose matrix of couplings is written out
_HALF = 2  # units see frames at half the resolution
_AHEAD = 32  # bins for which random numbers are drawn at once


@dataclass(frozen=True)
class PopulationParameters:
    """Everything that, with a seed, determines ``synthetic:population``. Rates in Hz, times in s, lengths in pixels."""

    num_units: int = 2000
    num_movies: int = 12
    num_repeats: int = 5
    trial_s: float = 20.0
    dt_s: float = 0.01
    primary: float = 0.6  # share of the units
    rate_hz: float = 0.75
    rate_spread: float = 0.8
    self_history: tuple[float, ...] = (-2.0, -1.0, -0.5)
    # movies
    frame_rate_hz: float = 30.0
    frame_size: tuple[int, int] = (64, 112)
    photo_scale: int = 3
    contrast_sigma: float = 4.0
    contrast_floor: float = 0.05
    shot_s: float = 2.0
    pan_speed: float = 40.0
    turn_rate: float = 1.0
    # receptive fields, at half the resolution
    wavelength: tuple[float, float] = (6.0, 10.0)
    sigma: float = 2.5
    stimulus_gain: tuple[float, float] = (2.0, 1.0)  # log rate between no drive and full drive: primary, higher
    # behavior
    speed_gain: tuple[float, float] = (0.2, 0.4)  # log rate for one standard deviation: primary, higher
    gaze_gain: tuple[float, float] = (0.2, 0.4)
    bout_s: float = 6.0
    run_speed: float = 14.0
    fixation_s: float = 1.0
    gaze_deg: float = 5.0
    # confound and coupling
    drift_gain: float = 0.3
    drift_tau_s: float = 120.0
    num_pairs: int = 300
    pair_weight: tuple[float, float] = (1.5, 2.5)
    pair_delay_bins: int = 3  # at most

    def __post_init__(self):
        name = "synthetic:population"
        check_numbers(name, self)
        check_above(name, self, ("num_units", "num_movies", "num_repeats", "pair_delay_bins"), 1)
        check_above(
            name, self, ("trial_s", "dt_s", "rate_hz", "frame_rate_hz", "bout_s", "fixation_s", "drift_tau_s"), 0
        )
        if self.num_frames < 1 or min(self.frame_size) < 16:
            raise RecordingError(
                f"{name}: trials of {self.trial_s:g} s, frames of {self.frame_size}; both are too small"
            )

    @property
    def num_frames(self) -> int:
        return round(self.trial_s * self.frame_rate_hz)

    @property
    def num_trials(self) -> int:
        return self.num_movies * self.num_repeats

    @property
    def num_bins(self) -> int:
        return round(self.trial_s / self.dt_s)


def population(seed: int = 0, **overrides) -> Recording:
    """Thousands of units that see, run and look around; the module's docstring says what ``truth`` holds.

    Parameters
    ----------
    seed : int
    overrides
        Fields of :class:`PopulationParameters`.

    Returns
    -------
    Recording
        Spikes; frames (one bank, repeated by index); behavior ``speed`` (cm/s), ``azimuth`` and ``elevation`` (degrees)
        at the frames' onsets; trials with ``movie`` and ``repeat``; units with ``area``.

    Raises
    ------
    RecordingError
        Unknown or impossible parameter.
    """
    p = from_overrides("synthetic:population", PopulationParameters, overrides)
    movie = np.arange(p.num_trials) % p.num_movies
    clips = pan_movies(stream(seed, "movies"), p)
    units = _units(stream(seed, "units"), p)
    drive_MFU = _drive(clips, units, p)
    behavior = _behavior(stream(seed, "behavior"), p)
    drift = ornstein_uhlenbeck(stream(seed, "drift"), (), p.num_trials * p.num_bins, p.drift_tau_s / p.dt_s).round(6)
    counts, rate = _simulate(stream(seed, "spikes"), drive_MFU, movie, behavior, drift, units, p)
    starts = np.round(np.arange(p.num_trials) * p.trial_s, 9)
    stops = np.round(starts + p.trial_s, 9)
    bins, unit = counts
    inside = (stream(seed, "jitter").integers(1000, size=len(bins)) + 0.5) / 1000
    times = bins * p.dt_s + inside * p.dt_s
    order = np.argsort(times, kind="stable")
    truth = {k: v for k, v in units.items() if k not in ("area", "even", "odd", "source", "target", "weight", "delay")}
    truth |= {"rate": rate, "rate_times": np.arange(len(rate)) * p.dt_s, "drift": drift} | _matrices(units, p)
    at = (starts[:, None] + np.arange(p.num_frames) / p.frame_rate_hz).ravel()
    series = {"speed": "cm/s", "azimuth": "deg", "elevation": "deg"}
    return Recording(
        name="synthetic:population",
        spike_times=times[order],
        spike_units=unit[order].astype(np.int32),
        units={"id": np.array([f"u{i:05d}" for i in range(p.num_units)]), "area": units["area"]},
        domain=np.stack([starts, stops], 1),
        trials={"start": starts, "stop": stops, "movie": movie, "repeat": np.arange(p.num_trials) // p.num_movies},
        frames=FrameSeries.from_presentations(clips, p.frame_rate_hz, movie.tolist(), starts.tolist()),
        behavior={k: BehaviorVariable(at, behavior[k].ravel(), unit) for k, unit in series.items()},
        truth=truth,
        meta={"source": "synthetic:population", "seed": seed, "rate_dt_s": p.dt_s, "parameters": dataclasses.asdict(p)},
    )


def _units(rng: np.random.Generator, p: PopulationParameters) -> dict[str, np.ndarray]:
    n, (height, width) = p.num_units, (side // _HALF for side in p.frame_size)
    primary = np.arange(n) < round(p.primary * n)
    of = lambda pair: np.where(primary, *pair)
    margin = 2 * p.sigma
    center = np.stack([rng.uniform(margin, side - 1 - margin, n) for side in (width, height)], 1)
    angle, turn = rng.uniform(0, np.pi, n), rng.uniform(0, 2 * np.pi, n)
    dx = np.arange(width) - center[:, :1]
    dy = np.arange(height) - center[:, 1:]
    envelope = np.exp(-(dx[:, None] ** 2 + dy[:, :, None] ** 2) / (2 * p.sigma**2))
    along = dx[:, None] * np.cos(angle)[:, None, None] + dy[:, :, None] * np.sin(angle)[:, None, None]
    wave = np.exp(2j * np.pi * along / rng.uniform(*p.wavelength, n)[:, None, None])
    filters = envelope * (wave - (envelope * wave).sum((1, 2), keepdims=True) / envelope.sum((1, 2), keepdims=True))
    source, target = rng.integers(n, size=(2, p.num_pairs))
    different = source != target
    gaze = of(p.gaze_gain) * rng.standard_normal(n)
    return {
        "area": np.where(primary, "V1", "LM"),
        "even": filters.real.reshape(n, -1),
        "odd": filters.imag.reshape(n, -1),
        "rf_center": center * _HALF,
        "stimulus_gain": of(p.stimulus_gain) * rng.uniform(0.5, 1.5, n),
        "speed_gain": of(p.speed_gain) * rng.standard_normal(n),
        "gaze_gain": np.stack([gaze * np.cos(turn), gaze * np.sin(turn)], 1),
        "drift_gain": p.drift_gain * rng.standard_normal(n),
        "mean_rate_hz": p.rate_hz
        * np.exp(p.rate_spread * np.clip(rng.standard_normal(n), -2, 2) - p.rate_spread**2 / 2),
        "source": source[different],
        "target": target[different],
        "weight": rng.uniform(*p.pair_weight, p.num_pairs)[different],
        "delay": rng.integers(1, p.pair_delay_bins + 1, p.num_pairs)[different],
    }


def _drive(clips: np.ndarray, u: dict[str, np.ndarray], p: PopulationParameters) -> np.ndarray:
    """(movies, frames, units) float32 saturating drive in [0, 1], of the frame before; rounded to 1e-4."""
    movies, frames, height, width = clips.shape
    out = np.zeros((movies, frames, p.num_units), np.float32)
    cut = clips[:, :, : height // _HALF * _HALF, : width // _HALF * _HALF]
    for m, clip in enumerate(cut):
        small = clip.reshape(frames, height // _HALF, _HALF, width // _HALF, _HALF).mean((2, 4)) / 45.0 - 128 / 45
        flat = small.reshape(frames, -1)
        energy = (flat @ u["even"].T) ** 2 + (flat @ u["odd"].T) ** 2
        out[m, 1:] = energy[:-1]
    scale = out.mean((0, 1), dtype=np.float64).clip(1e-9)
    return np.round(out / (out + scale), 4).astype(np.float32)


def _behavior(rng: np.random.Generator, p: PopulationParameters) -> dict[str, np.ndarray]:
    """Of each trial and frame: speed (bouts of running), azimuth and elevation (fixations that drift a little)."""
    from scipy.ndimage import gaussian_filter1d

    num = p.num_trials * p.num_frames
    running = ((rng.random(num) < 1 / (p.bout_s * p.frame_rate_hz)).cumsum() + rng.integers(2)) % 2
    effort = running * p.run_speed * (1 + 0.3 * ornstein_uhlenbeck(rng, (), num, 1.5 * p.frame_rate_hz).round(6))
    out = {"speed": gaussian_filter1d(np.maximum(effort, 0), 0.3 * p.frame_rate_hz)}
    fixation = (rng.random(num) < 1 / (p.fixation_s * p.frame_rate_hz)).cumsum()
    for name, share in (("azimuth", 1.0), ("elevation", 0.6)):
        places = share * p.gaze_deg * np.clip(rng.standard_normal(fixation[-1] + 1), -2.5, 2.5)
        out[name] = places[fixation] + 0.2 * ornstein_uhlenbeck(rng, (), num, 0.5 * p.frame_rate_hz).round(6)
    return {k: np.round(v, 4).reshape(p.num_trials, p.num_frames) for k, v in out.items()}


def _simulate(rng, drive_MFU, movie, behavior, drift, u, p: PopulationParameters):
    """Bins and units of all spikes, and the expected count of every bin on disk; trials side by side, each with an empty
    history."""
    trials, bins, n = p.num_trials, p.num_bins, p.num_units
    of_bin = (np.arange(bins) * p.dt_s * p.frame_rate_hz + 1e-6).astype(int)  # the frame that is on
    seen = np.stack([behavior[k] for k in ("speed", "azimuth", "elevation")], 2)
    seen = (seen - seen.mean((0, 1))) / seen.std((0, 1))
    gains = np.concatenate([u["speed_gain"][:, None], u["gaze_gain"], u["drift_gain"][:, None]], 1).T
    drift = drift.reshape(trials, bins)
    own, pad = np.array(p.self_history), max(len(p.self_history), p.pair_delay_bins)
    base = np.log(u["mean_rate_hz"] * p.dt_s) - 0.5 * (gains**2).sum(0)
    base -= np.log(np.exp(u["stimulus_gain"] * drive_MFU[:, ::10].astype(np.float64)).mean((0, 1)))
    disk: Any = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the array)
    rate = np.memmap(disk, np.float32, "w+", shape=(trials * bins, n))
    written = rate.reshape(trials, bins, n)
    recent = np.zeros((pad, trials, n), bool)  # which units fired, by age
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for b in range(bins):
        if b % _AHEAD == 0:
            draws = rng.random((min(_AHEAD, bins - b), trials, n))
        told = np.concatenate([seen[:, of_bin[b]], drift[:, b, None]], 1)
        eta = np.round(told @ gains + u["stimulus_gain"] * drive_MFU[movie, of_bin[b]] + base, 9)
        for age, weight in enumerate(own):
            eta += weight * recent[age]
        acting = recent[u["delay"] - 1, :, u["source"]]
        np.add.at(eta.T, u["target"], u["weight"][:, None] * acting)
        mu = np.round(np.minimum(np.exp(eta), _MOST_PER_BIN), 12)
        written[:, b] = mu
        fired = draws[b % _AHEAD] >= np.exp(-mu)
        trial, unit = np.nonzero(fired)
        count = _poisson_above_zero(draws[b % _AHEAD][trial, unit], mu[trial, unit])
        found.append((np.repeat(trial * bins + b, count), np.repeat(unit, count), count))
        recent = np.concatenate([fired[None], recent[:-1]])
    at, unit = (np.concatenate([f[i] for f in found]) for i in range(2))
    order = np.lexsort((unit, at))
    return (at[order], unit[order]), rate


def _poisson_above_zero(draw: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """Counts of one or more, by inverting the Poisson distribution."""
    term = np.exp(-mu)
    below, count = term.copy(), np.zeros(len(mu), np.int64)
    for k in range(1, 32):
        count += draw >= below
        term = term * mu / k
        below += term
    return count


def _matrices(u: dict[str, np.ndarray], p: PopulationParameters) -> dict[str, np.ndarray]:
    if p.num_units > _MOST_PAIRS:
        return {}
    coupling, delay = np.zeros((2, p.num_units, p.num_units), np.float32)
    np.add.at(coupling, (u["target"], u["source"]), u["weight"])
    delay[u["target"], u["source"]] = u["delay"] * p.dt_s
    return {"coupling": coupling, "coupling_delay_s": delay}

"""Built-in recordings with known truth, made from a seed in seconds.

``synthetic:demo`` is a model of primary visual cortex: energy-model receptive fields (Adelson & Bergen 1985,
JOSA A 2:284) watch natural movies through a moving eye; running and arousal scale their rates; hub units drive
others at known delays. Its ``truth`` holds

- ``rate`` (bins, units) float32: expected count of each bin given stimulus, behavior and all earlier spikes;
  ``rate_times`` (bins,): onsets of those bins, trial after trial, each ``meta["rate_dt_s"]`` wide
- ``rf_even``, ``rf_odd`` (units, h, w): quadrature pair at gaze 0; ``rf_center`` (units, 2: x, y), ``rf_orientation``
  (rad, direction of modulation), ``rf_phase``, ``rf_frequency`` (cycles a pixel), ``rf_sigma`` (pixels),
  ``rf_temporal`` (units, frames back: 0, 1, 2), ``stimulus_gain``, ``is_responsive``, ``is_simple``
- ``coupling`` (target, source) log rate while a spike acts; ``coupling_delay_s`` (target, source), ``is_hub``
- ``speed_gain`` (units,) log rate for 10 cm/s; ``pupil_gain`` (units,) and ``gaze_gain`` (units, 2: x, y) log rate
  for one standard deviation; ``baseline`` (units,) log count a bin; ``mean_rate_hz`` (units,) that it aims at

Randomness is NumPy's PCG64 in float64; whatever decides a spike is rounded first, so that the last bits of a
linear-algebra library change nothing.
"""

from __future__ import annotations

import dataclasses
import difflib
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from neuroformer.recording.movies import pan_movies
from neuroformer.recording.recording import BehaviorVariable, FrameSeries, Recording, RecordingError

DEMO_SHA256 = "37f32fef1aa83c677e2e52ae07b1e7b9f67cf60812496c780078e512aa747722"
SPLIT_PERIOD = 5  # trial i is for training, but i % 5 == 3 validates and i % 5 == 4 tests
_MAX_RATE_PER_BIN = 1.0
_INTERNAL = ("target", "hub", "weight", "delay_bins", "cell_type")  # of the units table, not of truth


@dataclass(frozen=True)
class DemoParameters:
    """Everything that, with a seed, determines ``synthetic:demo``. Rates in Hz, times in s, lengths in pixels."""

    # size
    num_units: int = 48
    num_trials: int = 45
    num_movies: int = 3
    trial_s: float = 36.0
    gap_s: float = 1.0
    dt_s: float = 0.01
    # movies: walks over photographs, cut into shots
    frame_rate_hz: float = 20.0
    frame_size: int = 32
    photo_scale: int = 3
    contrast_sigma: float = 4.0
    contrast_floor: float = 0.05
    shot_s: float = 2.0
    pan_speed: float = 40.0
    turn_rate: float = 1.0  # rad a square root of a second
    # receptive fields
    num_orientations: int = 4
    frequency: float = 0.14  # cycles a pixel
    sigma: float = 2.5
    border: float = 8.0  # centres keep this far from the edge
    simple_fraction: float = 0.15
    untuned_fraction: float = 0.06
    stimulus_gain: tuple[float, float] = (4.0, 5.5)  # log rate between no drive and full drive, uniform
    early_weight: tuple[float, float] = (0.4, 0.8)  # of the frame before; the rest is the one before that
    # rates
    rate_hz: float = 5.5
    rate_spread: float = 0.35  # standard deviation of log rate across units
    self_history: tuple[float, ...] = (-2.0, -1.0, -0.5)  # log rate in the bins after an own spike
    # hubs
    num_hubs: int = 3
    targets_per_hub: int = 8
    hub_rate_hz: float = 10.0
    hub_weight: tuple[float, float] = (1.0, 1.4)  # log rate of a target while a hub's spike acts
    hub_delay_bins: tuple[int, int] = (1, 4)  # uniform, both ends included
    hub_width_bins: int = 3
    # behavior
    speed_gain: tuple[float, float] = (0.5, 0.4)  # log rate for 10 cm/s: mean and standard deviation
    run_speed: float = 14.0
    bout_s: float = 4.0
    pupil_gain: tuple[float, float] = (0.2, 0.25)  # log rate for one standard deviation of pupil
    pupil_tau_s: float = 8.0
    gaze_gain: float = 0.25  # log rate for one standard deviation of gaze, along each unit's direction
    gaze_sd: float = 0.75
    gaze_max: int = 3
    fixation_s: tuple[float, float] = (0.6, 1.6)  # uniform
    gaze_drift: float = 0.02  # standard deviation of a step between samples

    def __post_init__(self):
        for f in dataclasses.fields(self):
            got, kind = (
                getattr(self, f.name),
                numbers.Integral if isinstance(f.default, int) else numbers.Real,
            )
            values = got if isinstance(f.default, tuple) and isinstance(got, Sequence) else (got,)
            if not all(isinstance(v, kind) and np.isfinite(float(v)) for v in values):
                raise RecordingError(f"synthetic:demo: {f.name} is {got!r}; expected like {f.default!r}")
        largest = {"num_movies": 4, "frame_size": 128}
        for name in ("num_units", "num_trials", "num_movies", "frame_size", "hub_width_bins", "gaze_max"):
            most = largest.get(name, np.inf)
            if not 1 <= getattr(self, name) <= most:
                raise RecordingError(
                    f"synthetic:demo: {name} is {getattr(self, name)}; expected 1 or more"
                    + (f", at most {most}" if name in largest else "")
                )
        for name in ("dt_s", "frame_rate_hz", "trial_s", "rate_hz", "gaze_sd", "bout_s", "pupil_tau_s"):
            if not getattr(self, name) > 0:
                raise RecordingError(f"synthetic:demo: {name} is {getattr(self, name)}; expected above 0")
        bins = self.dt_s * self.frame_rate_hz
        if abs(round(1 / bins) * bins - 1) > 1e-9 or self.num_frames < 1:
            raise RecordingError(
                f"synthetic:demo: a frame of {1 / self.frame_rate_hz:g} s is not a whole number of bins of "
                f"{self.dt_s:g} s, or a trial of {self.trial_s:g} s is shorter than a frame"
            )

    @property
    def num_frames(self) -> int:
        """Frames, and behavior samples, a trial."""
        return int(round(self.trial_s * self.frame_rate_hz))

    @property
    def bins_per_frame(self) -> int:
        return int(round(1 / (self.dt_s * self.frame_rate_hz)))


def synthetic(name: str, seed: int = 0, **overrides) -> Recording:
    """A built-in recording by name: "synthetic:demo", or "demo" for short.

    Raises
    ------
    RecordingError
        Unknown name or parameter; the message lists the known ones.
    """
    known = {"demo": demo}
    make = known.get(name.removeprefix("synthetic:"))
    if make is None:
        raise RecordingError(
            f"no built-in recording '{name}'; known: {', '.join('synthetic:' + k for k in known)}"
        )
    return make(seed, **overrides)


def demo(seed: int = 0, **overrides) -> Recording:
    """Model V1 watching movies; the module's docstring lists what ``truth`` holds.

    Parameters
    ----------
    seed : int
    overrides
        Fields of :class:`DemoParameters`.

    Returns
    -------
    Recording
        Spikes; frames (one bank, repeated by index); behavior ``speed`` (cm/s), ``gaze`` (pixels; x right, y down:
        a unit sees around its centre + gaze) and ``pupil`` (mm); trials with ``movie`` and ``repeat``.

    Raises
    ------
    RecordingError
        Unknown or impossible parameter.
    """
    p = _parameters(overrides)
    movie, repeat = _movie_order(_rng(seed, "order"), p)
    clips = pan_movies(_rng(seed, "movies"), p)
    behavior = _behavior(_rng(seed, "behavior"), p)
    units = _draw_units(_rng(seed, "units"), p)
    log_rate = static_log_rate(shifted_responses(clips, units, p), movie, behavior, units, p)
    units["baseline"] = _baseline(log_rate, units, p)
    counts, rate = _simulate(_rng(seed, "spikes"), log_rate + units["baseline"], units, p)
    starts = np.round(np.arange(p.num_trials) * (p.trial_s + p.gap_s), 9)
    stops = np.round(starts + p.trial_s, 9)
    times, spike_units = _spike_times(_rng(seed, "jitter"), counts, starts, p)
    sample_times = (starts[:, None] + np.arange(p.num_frames) / p.frame_rate_hz).ravel()
    even, odd = _pixel_filters(units, p)
    truth = {k: v for k, v in units.items() if k not in _INTERNAL} | {"rf_even": even, "rf_odd": odd}
    truth["rate_times"] = (starts[:, None] + np.arange(rate.shape[1]) * p.dt_s).ravel()
    truth["rate"] = rate.reshape(-1, p.num_units).astype(np.float32)
    series = {k: v.reshape(len(sample_times), -1) for k, v in behavior.items()}
    return Recording(
        name="synthetic:demo", spike_times=times, spike_units=spike_units,
        units={"id": np.array([f"u{i:03d}" for i in range(p.num_units)]), "cell_type": units["cell_type"]},
        domain=np.stack([starts, stops], 1),
        trials={"start": starts, "stop": stops, "movie": movie, "repeat": repeat},
        frames=FrameSeries.from_presentations(clips, p.frame_rate_hz, movie.tolist(), starts.tolist()),
        behavior={
            "speed": BehaviorVariable(sample_times, series["speed"], "cm/s"),
            "gaze": BehaviorVariable(sample_times, series["gaze"], "px", ("x", "y")),
            "pupil": BehaviorVariable(sample_times, series["pupil"], "mm"),
        },
        truth=truth,
        meta={"source": "synthetic:demo", "seed": seed, "rate_dt_s": p.dt_s,
              "parameters": dataclasses.asdict(p)},
    )  # fmt: skip


def _parameters(overrides: dict) -> DemoParameters:
    names = [f.name for f in dataclasses.fields(DemoParameters)]
    for key in overrides:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
            raise RecordingError(f"synthetic:demo has no parameter '{key}'; {hint}")
    return DemoParameters(**overrides)


def _rng(seed: int, part: str) -> np.random.Generator:
    """One stream a part, so that the size of one changes nothing in another."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *part.encode()])))


def _movie_order(rng: np.random.Generator, p: DemoParameters) -> tuple[np.ndarray, np.ndarray]:
    """(trials,) movie and its running count. Each block shows every movie once, in random order; over five blocks
    every movie falls once on a validation and once on a test position."""
    period = SPLIT_PERIOD * p.num_movies
    order: list[np.ndarray] = []
    while len(order) * period < p.num_trials:
        block = np.concatenate([rng.permutation(p.num_movies) for _ in range(SPLIT_PERIOD)])
        valid, test = block[SPLIT_PERIOD - 2 :: SPLIT_PERIOD], block[SPLIT_PERIOD - 1 :: SPLIT_PERIOD]
        if len(set(valid)) == len(set(test)) == p.num_movies:
            order.append(block)
    movie = np.concatenate(order)[: p.num_trials].astype(np.int64)
    shown = movie[:, None] == np.arange(p.num_movies)
    return movie, (shown.cumsum(0) - 1)[np.arange(p.num_trials), movie]


# -- behavior ---------------------------------------------------------------------------------------


def _ornstein_uhlenbeck(rng, shape: tuple[int, ...], samples: int, tau_s: float, p: DemoParameters):
    """(*shape, samples) stationary, zero mean, unit variance, correlation time ``tau_s``."""
    keep = np.exp(-1 / (tau_s * p.frame_rate_hz))
    x = rng.standard_normal((*shape, samples))
    for k in range(1, samples):
        x[..., k] = keep * x[..., k - 1] + np.sqrt(1 - keep**2) * x[..., k]
    return x


def _behavior(rng: np.random.Generator, p: DemoParameters) -> dict[str, np.ndarray]:
    """speed (trials, samples), gaze (trials, samples, 2), pupil (trials, samples); every trial drawn afresh."""
    n, burn = p.num_trials, int(10 * p.frame_rate_hz)
    samples = p.num_frames + burn
    switch = rng.random((n, samples)) < 1 / (p.bout_s * p.frame_rate_hz)
    running = (switch.cumsum(1) + rng.integers(2, size=(n, 1))) % 2
    effort = running * p.run_speed * (1 + 0.4 * _ornstein_uhlenbeck(rng, (n,), samples, 1.5, p))
    speed = np.maximum(effort, 0)
    smooth = np.exp(-1 / (0.4 * p.frame_rate_hz))  # inertia
    for k in range(1, samples):
        speed[:, k] = smooth * speed[:, k - 1] + (1 - smooth) * speed[:, k]
    pupil = 1.5 + 0.3 * _ornstein_uhlenbeck(rng, (n,), p.num_frames, p.pupil_tau_s, p)
    out = {"speed": speed[:, burn:], "gaze": _gaze(rng, p), "pupil": pupil}
    return {k: np.round(v, 4).astype(np.float32).astype(np.float64) for k, v in out.items()}


def _gaze(rng: np.random.Generator, p: DemoParameters) -> np.ndarray:
    """(trials, samples, 2): fixations at random places, tiny drift within them."""
    gaze = np.cumsum(p.gaze_drift * rng.standard_normal((p.num_trials, p.num_frames, 2)), 1)
    for trial in gaze:
        at = -int(rng.uniform(0, p.fixation_s[0]) * p.frame_rate_hz)
        while at < p.num_frames:
            stop = at + max(1, int(round(rng.uniform(*p.fixation_s) * p.frame_rate_hz)))
            place = np.clip(p.gaze_sd * rng.standard_normal(2), -p.gaze_max + 0.2, p.gaze_max - 0.2)
            first = max(at, 0)
            if stop > 0:
                trial[first:stop] += place - trial[first]
            at = stop
    return np.clip(gaze, -p.gaze_max, p.gaze_max)


# -- units ------------------------------------------------------------------------------------------


def _draw_units(rng: np.random.Generator, p: DemoParameters) -> dict[str, np.ndarray]:
    """Every fixed property of the units; hubs follow neither stimulus nor behavior, and nothing drives them."""
    n = p.num_units
    num_hubs = min(p.num_hubs, n // 4)
    role = rng.permutation(n)
    is_hub = role < num_hubs
    is_responsive = role >= num_hubs + int(round(p.untuned_fraction * (n - num_hubs)))
    is_simple = is_responsive & (rng.permutation(n) < p.simple_fraction * n)
    turn = rng.uniform(0, 2 * np.pi, n)
    early = rng.uniform(*p.early_weight, n)
    modulated = ~is_hub
    rate = p.rate_hz * np.exp(p.rate_spread * np.clip(rng.standard_normal(n), -2, 2) - p.rate_spread**2 / 2)
    u = {
        "is_hub": is_hub, "is_responsive": is_responsive, "is_simple": is_simple,
        "rf_center": rng.uniform(p.border, p.frame_size - 1 - p.border, (n, 2)),
        "rf_orientation": rng.integers(p.num_orientations, size=n) * np.pi / p.num_orientations,
        "rf_phase": rng.uniform(0, 2 * np.pi, n),
        "rf_frequency": np.full(n, p.frequency), "rf_sigma": np.full(n, p.sigma),
        "rf_temporal": np.stack([np.zeros(n), early, 1 - early], 1),
        "stimulus_gain": rng.uniform(*p.stimulus_gain, n) * is_responsive,
        "speed_gain": (p.speed_gain[0] + p.speed_gain[1] * rng.standard_normal(n)) * modulated,
        "pupil_gain": (p.pupil_gain[0] + p.pupil_gain[1] * rng.standard_normal(n)) * modulated,
        "gaze_gain": p.gaze_gain * np.stack([np.cos(turn), np.sin(turn)], 1) * modulated[:, None],
        "mean_rate_hz": np.where(is_hub, p.hub_rate_hz, rate),
    }  # fmt: skip
    others = rng.permutation(np.flatnonzero(~is_hub))
    per_hub = min(p.targets_per_hub, len(others) // max(num_hubs, 1)) if num_hubs else 0
    u["target"] = others[: per_hub * num_hubs]
    u["hub"] = np.repeat(np.flatnonzero(is_hub), per_hub)
    u["weight"] = rng.uniform(*p.hub_weight, len(u["target"]))
    u["delay_bins"] = rng.integers(p.hub_delay_bins[0], p.hub_delay_bins[1] + 1, len(u["target"]))
    u["coupling"], u["coupling_delay_s"] = np.zeros((n, n)), np.zeros((n, n))
    u["coupling"][u["target"], u["hub"]] = u["weight"]
    u["coupling_delay_s"][u["target"], u["hub"]] = u["delay_bins"] * p.dt_s
    kind = np.where(
        is_hub, "hub", np.where(is_simple, "simple", np.where(is_responsive, "complex", "untuned"))
    )
    return u | {"cell_type": kind}


def _pixel_filters(
    u: dict[str, np.ndarray], p: DemoParameters, shift=(0, 0)
) -> tuple[np.ndarray, np.ndarray]:
    """Even and odd (units, size, size) Gabor filters, moved by ``shift`` (x, y) pixels; zero beyond the frame and
    for units without stimulus drive. Over the whole plane both have zero mean."""
    pixel = np.arange(p.frame_size)
    dx = pixel - u["rf_center"][:, None, 0] - shift[0]
    dy = pixel - u["rf_center"][:, None, 1] - shift[1]
    envelope = np.exp(-(dx[:, None, :] ** 2 + dy[:, :, None] ** 2) / (2 * u["rf_sigma"][:, None, None] ** 2))
    cos, sin = np.cos(u["rf_orientation"]), np.sin(u["rf_orientation"])
    along = dx[:, None, :] * cos[:, None, None] + dy[:, :, None] * sin[:, None, None]
    angle = 2 * np.pi * u["rf_frequency"][:, None, None] * along + u["rf_phase"][:, None, None]
    # mean of a Gabor over the plane, relative to its envelope's
    dc = np.exp(-2 * (np.pi * u["rf_frequency"] * u["rf_sigma"]) ** 2)[:, None, None]
    even = envelope * (np.cos(angle) - dc * np.cos(u["rf_phase"])[:, None, None])
    odd = envelope * (np.sin(angle) - dc * np.sin(u["rf_phase"])[:, None, None])
    on = u["is_responsive"][:, None, None]
    return even * on, odd * on


def shifted_responses(clips: np.ndarray, u: dict[str, np.ndarray], p: DemoParameters) -> np.ndarray:
    """(movies, frames, shifts_y, shifts_x, units) quadrature responses, complex, at whole-pixel gaze from
    ``-gaze_max`` to ``gaze_max``; scaled so that the mean energy at gaze 0 is 1. Beyond the frame lies gray."""
    g = np.arange(-p.gaze_max, p.gaze_max + 1)
    movies, frames = clips.shape[:2]
    pixels = (clips.reshape(movies * frames, -1) - 128.0) / 45.0
    out = np.empty((movies * frames, len(g), len(g), p.num_units), np.complex128)
    for i, y in enumerate(g):
        for j, x in enumerate(g):
            even, odd = _pixel_filters(u, p, (x, y))
            out[:, i, j].real = pixels @ even.reshape(p.num_units, -1).T
            out[:, i, j].imag = pixels @ odd.reshape(p.num_units, -1).T
    center = out[:, p.gaze_max, p.gaze_max]
    out /= np.sqrt(np.maximum((np.abs(center) ** 2).mean(0), 1e-12))
    return out.reshape(movies, frames, len(g), len(g), -1)


def stimulus_drive(
    z: np.ndarray, gaze: np.ndarray, u: dict[str, np.ndarray], p: DemoParameters
) -> np.ndarray:
    """(frames, units) saturating drive in [0, 1] of one trial: responses ``z`` of its movie, gaze (frames, 2)."""
    at = np.clip(gaze + p.gaze_max, 0, 2 * p.gaze_max - 1e-9)
    (x, y), (fx, fy) = at.astype(int).T, (at % 1).T[..., None]
    k = np.arange(len(z))
    upper = (1 - fx) * z[k, y, x] + fx * z[k, y, x + 1]
    lower = (1 - fx) * z[k, y + 1, x] + fx * z[k, y + 1, x + 1]
    seen = (1 - fy) * upper + fy * lower
    energy = np.where(u["is_simple"], 2 * np.maximum(seen.real, 0) ** 2, np.abs(seen) ** 2)
    drive = energy / (1 + energy)
    late = np.zeros((2, p.num_units))  # a gray screen before the trial
    drive = np.concatenate([late, drive])
    w = u["rf_temporal"].T
    return w[0] * drive[2:] + w[1] * drive[1:-1] + w[2] * drive[:-2]


def static_log_rate(z, movie: np.ndarray, behavior: dict[str, np.ndarray], u: dict[str, np.ndarray], p):
    """(trials, frames, units): stimulus seen through the eye, speed, pupil and gaze, rounded to 1e-9.

    ``z`` as :func:`shifted_responses` gives it, ``movie`` (trials,) which of them each trial shows.
    """
    out = np.empty((p.num_trials, p.num_frames, p.num_units))
    for i, gaze in enumerate(behavior["gaze"]):
        out[i] = u["stimulus_gain"] * stimulus_drive(z[movie[i]], gaze, u, p)
    out += behavior["speed"][..., None] / 10 * u["speed_gain"]
    out += (behavior["pupil"][..., None] - 1.5) / 0.3 * u["pupil_gain"]
    out += behavior["gaze"] / p.gaze_sd @ u["gaze_gain"].T
    return np.round(out, 9)


def _baseline(log_rate: np.ndarray, u: dict[str, np.ndarray], p: DemoParameters) -> np.ndarray:
    """(units,) log count a bin that gives each unit about its mean rate, hubs and refractoriness included."""
    mean_count = u["mean_rate_hz"] * p.dt_s
    base = np.log(mean_count) - np.log(np.exp(log_rate).mean((0, 1)))
    base -= np.log1p(mean_count * np.expm1(p.self_history).sum())
    active = -np.expm1(-p.hub_rate_hz * p.dt_s * p.hub_width_bins)
    base[u["target"]] -= np.log1p(active * np.expm1(u["weight"]))
    return np.round(base, 9)


# -- spikes -----------------------------------------------------------------------------------------


def _simulate(rng, log_rate: np.ndarray, u: dict[str, np.ndarray], p: DemoParameters):
    """Counts (trials, bins, units) uint8 and their conditional expectation, float64; history starts empty.

    A uniform number a cell is inverted through the Poisson distribution, so that two runs from one seed share
    their noise whatever the rates are.
    """
    trials, frames, n = log_rate.shape
    bins, own = frames * p.bins_per_frame, np.array(p.self_history)
    pad = max(len(own), p.hub_delay_bins[1] + p.hub_width_bins)
    fired = np.zeros((bins + pad, trials, n))  # 0 or 1: what history acts through
    counts = np.zeros((trials, bins, n), np.uint8)
    rate = np.empty((trials, bins, n))
    log_factorial = gammaln(np.arange(32) + 1)
    for b in range(bins):
        at = b + pad
        eta = log_rate[:, b // p.bins_per_frame].copy()
        for lag, weight in enumerate(own, 1):
            eta += weight * fired[at - lag]
        acting = np.zeros((trials, len(u["target"])))
        for k in range(p.hub_width_bins):
            acting = np.maximum(acting, fired[at - u["delay_bins"] - k, :, u["hub"]].T)
        eta[:, u["target"]] += u["weight"] * acting
        mu = np.round(np.minimum(np.exp(eta), _MAX_RATE_PER_BIN), 12)
        draw, below = rng.random((trials, n)), np.zeros((trials, n))
        for k in range(31):
            below += np.exp(k * np.log(mu) - mu - log_factorial[k])
            over = draw >= below
            if not over.any():
                break
            counts[:, b] += over
        fired[at] = counts[:, b] > 0
        rate[:, b] = mu
    return counts, rate


def _spike_times(rng, counts: np.ndarray, starts: np.ndarray, p: DemoParameters):
    """Sorted times and units; a spike lies anywhere in its bin, on a grid of a thousandth of it."""
    trial, b, unit = np.nonzero(counts)
    reps = counts[trial, b, unit]
    trial, b, unit = (np.repeat(a, reps) for a in (trial, b, unit))
    inside = (rng.integers(1000, size=len(b)) + 0.5) / 1000
    times = starts[trial] + (b + inside) * p.dt_s
    order = np.argsort(times, kind="stable")
    return times[order], unit[order].astype(np.int32)

"""``synthetic:demo``: units that see, run and drive each other.

A model of primary visual cortex: energy-model receptive fields (Adelson & Bergen 1985,
JOSA A 2:284) watch natural movies through a moving eye; running and arousal scale their rates; hub units drive
others at known delays. Its ``truth`` holds

- ``rate`` (bins, units) float32: expected count of each bin given stimulus, behavior and all earlier spikes;
  ``rate_times`` (bins,): onsets of those bins, trial after trial, each ``meta["rate_dt_s"]`` wide
- ``rf_even``, ``rf_odd`` (units, h, w): quadrature pair at gaze 0; ``rf_center`` (units, 2: x, y), ``rf_orientation``
  (rad, direction of modulation), ``rf_phase``, ``rf_frequency`` (cycles per pixel), ``rf_sigma`` (pixels),
  ``rf_temporal`` (units, frames back: 0, 1, 2), ``stimulus_gain``, ``is_responsive``, ``is_simple``
- ``coupling`` (target, source) log rate while a spike acts; ``coupling_delay_s`` (target, source), ``is_hub``
- ``speed_gain`` (units,) log rate for 10 cm/s; ``pupil_gain`` (units,) and ``gaze_gain`` (units, 2: x, y) log rate
  for one standard deviation; ``baseline`` (units,) log count per bin; ``mean_rate_hz`` (units,) that it aims at

Randomness is NumPy's PCG64 in float64; whatever decides a spike is rounded first, so that the last bits of a
linear-algebra library change nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import gammaln

from neuroformer.recording.recording import BehaviorVariable, FrameSeries, Recording
from neuroformer.recording.synthetic.movies import pan_movies
from neuroformer.recording.synthetic.parameters import DemoParameters, from_overrides, ornstein_uhlenbeck, stream
from neuroformer.recording.synthetic.receptive_fields import (
    draw_units,
    mean_baseline,
    pixel_filters,
    shifted_responses,
    static_log_rate,
)

DEMO_SHA256 = "37f32fef1aa83c677e2e52ae07b1e7b9f67cf60812496c780078e512aa747722"
SPLIT_PERIOD = 5  # trial i is for training, but i % 5 == 3 validates and i % 5 == 4 tests
_MAX_RATE_PER_BIN = 1.0
_INTERNAL = ("target", "hub", "weight", "delay_bins", "cell_type")  # of the units table, not of truth


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
    p = from_overrides("synthetic:demo", DemoParameters, overrides)
    movie, repeat = _movie_order(stream(seed, "order"), p)
    clips = pan_movies(stream(seed, "movies"), p)
    behavior = _behavior(stream(seed, "behavior"), p)
    units = draw_units(stream(seed, "units"), p)
    log_rate = static_log_rate(shifted_responses(clips, units, p), movie, behavior, units, p)
    units["baseline"] = mean_baseline(log_rate, units, p)
    counts, rate = _simulate(stream(seed, "spikes"), log_rate + units["baseline"], units, p)
    starts = np.round(np.arange(p.num_trials) * (p.trial_s + p.gap_s), 9)
    stops = np.round(starts + p.trial_s, 9)
    times, spike_units = _spike_times(stream(seed, "jitter"), counts, starts, p)
    sample_times = (starts[:, None] + np.arange(p.num_frames) / p.frame_rate_hz).ravel()
    even, odd = pixel_filters(units, p)
    truth = {k: v for k, v in units.items() if k not in _INTERNAL} | {"rf_even": even, "rf_odd": odd}
    truth["rate_times"] = (starts[:, None] + np.arange(rate.shape[1]) * p.dt_s).ravel()
    truth["rate"] = rate.reshape(-1, p.num_units).astype(np.float32)
    series = {k: v.reshape(len(sample_times), -1) for k, v in behavior.items()}
    return Recording(
        name="synthetic:demo",
        spike_times=times,
        spike_units=spike_units,
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
        meta={"source": "synthetic:demo", "seed": seed, "rate_dt_s": p.dt_s, "parameters": dataclasses.asdict(p)},
    )


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


def _behavior(rng: np.random.Generator, p: DemoParameters) -> dict[str, np.ndarray]:
    """speed (trials, samples), gaze (trials, samples, 2), pupil (trials, samples); every trial drawn afresh."""
    n, burn = p.num_trials, int(10 * p.frame_rate_hz)
    samples = p.num_frames + burn
    switch = rng.random((n, samples)) < 1 / (p.bout_s * p.frame_rate_hz)
    running = (switch.cumsum(1) + rng.integers(2, size=(n, 1))) % 2
    effort = running * p.run_speed * (1 + 0.4 * ornstein_uhlenbeck(rng, (n,), samples, 1.5 * p.frame_rate_hz))
    speed = np.maximum(effort, 0)
    smooth = np.exp(-1 / (0.4 * p.frame_rate_hz))  # inertia
    for k in range(1, samples):
        speed[:, k] = smooth * speed[:, k - 1] + (1 - smooth) * speed[:, k]
    pupil = 1.5 + 0.3 * ornstein_uhlenbeck(rng, (n,), p.num_frames, p.pupil_tau_s * p.frame_rate_hz)
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

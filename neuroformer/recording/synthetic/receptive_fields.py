"""The units of ``synthetic:demo``: what each sees in the movies, and what else moves its rate."""

from __future__ import annotations

import numpy as np

from neuroformer.recording.synthetic.parameters import DemoParameters


def draw_units(rng: np.random.Generator, p: DemoParameters) -> dict[str, np.ndarray]:
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
        "is_hub": is_hub,
        "is_responsive": is_responsive,
        "is_simple": is_simple,
        "rf_center": rng.uniform(p.border, p.frame_size - 1 - p.border, (n, 2)),
        "rf_orientation": rng.integers(p.num_orientations, size=n) * np.pi / p.num_orientations,
        "rf_phase": rng.uniform(0, 2 * np.pi, n),
        "rf_frequency": np.full(n, p.frequency),
        "rf_sigma": np.full(n, p.sigma),
        "rf_temporal": np.stack([np.zeros(n), early, 1 - early], 1),
        "stimulus_gain": rng.uniform(*p.stimulus_gain, n) * is_responsive,
        "speed_gain": (p.speed_gain[0] + p.speed_gain[1] * rng.standard_normal(n)) * modulated,
        "pupil_gain": (p.pupil_gain[0] + p.pupil_gain[1] * rng.standard_normal(n)) * modulated,
        "gaze_gain": p.gaze_gain * np.stack([np.cos(turn), np.sin(turn)], 1) * modulated[:, None],
        "mean_rate_hz": np.where(is_hub, p.hub_rate_hz, rate),
    }
    others = rng.permutation(np.flatnonzero(~is_hub))
    per_hub = min(p.targets_per_hub, len(others) // max(num_hubs, 1)) if num_hubs else 0
    u["target"] = others[: per_hub * num_hubs]
    u["hub"] = np.repeat(np.flatnonzero(is_hub), per_hub)
    u["weight"] = rng.uniform(*p.hub_weight, len(u["target"]))
    u["delay_bins"] = rng.integers(p.hub_delay_bins[0], p.hub_delay_bins[1] + 1, len(u["target"]))
    u["coupling"], u["coupling_delay_s"] = np.zeros((n, n)), np.zeros((n, n))
    u["coupling"][u["target"], u["hub"]] = u["weight"]
    u["coupling_delay_s"][u["target"], u["hub"]] = u["delay_bins"] * p.dt_s
    kind = np.where(is_hub, "hub", np.where(is_simple, "simple", np.where(is_responsive, "complex", "untuned")))
    return u | {"cell_type": kind}


def pixel_filters(u: dict[str, np.ndarray], p: DemoParameters, shift=(0, 0)) -> tuple[np.ndarray, np.ndarray]:
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
            even, odd = pixel_filters(u, p, (x, y))
            out[:, i, j].real = pixels @ even.reshape(p.num_units, -1).T
            out[:, i, j].imag = pixels @ odd.reshape(p.num_units, -1).T
    center = out[:, p.gaze_max, p.gaze_max]
    out /= np.sqrt(np.maximum((np.abs(center) ** 2).mean(0), 1e-12))
    return out.reshape(movies, frames, len(g), len(g), -1)


def stimulus_drive(z: np.ndarray, gaze: np.ndarray, u: dict[str, np.ndarray], p: DemoParameters) -> np.ndarray:
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


def mean_baseline(log_rate: np.ndarray, u: dict[str, np.ndarray], p: DemoParameters) -> np.ndarray:
    """(units,) log count per bin that gives each unit about its mean rate, hubs and refractoriness included."""
    mean_count = u["mean_rate_hz"] * p.dt_s
    base = np.log(mean_count) - np.log(np.exp(log_rate).mean((0, 1)))
    base -= np.log1p(mean_count * np.expm1(p.self_history).sum())
    active = -np.expm1(-p.hub_rate_hz * p.dt_s * p.hub_width_bins)
    base[u["target"]] -= np.log1p(active * np.expm1(u["weight"]))
    return np.round(base, 9)

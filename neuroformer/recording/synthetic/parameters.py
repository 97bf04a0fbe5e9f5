"""Parameters of ``synthetic:demo``, and what all built-in recordings are made with."""

from __future__ import annotations

import dataclasses
import difflib
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from neuroformer.recording.recording import RecordingError

P = TypeVar("P")


def from_overrides(name: str, kind: type[P], overrides: dict[str, Any]) -> P:
    """The parameters of a built-in recording; an unknown name is refused with the nearest known one."""
    names = [f.name for f in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType]
    for key in overrides:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names)}"
            raise RecordingError(f"{name} has no parameter '{key}'; {hint}")
    return kind(**overrides)


def check_numbers(name: str, parameters: Any) -> None:
    """Refuse a value of another kind than the default's."""
    for f in dataclasses.fields(parameters):
        got = getattr(parameters, f.name)
        kind = numbers.Integral if isinstance(f.default, int) else numbers.Real
        values = got if isinstance(f.default, tuple) and isinstance(got, Sequence) else (got,)
        if not all(isinstance(v, kind) and np.isfinite(float(v)) for v in values):
            raise RecordingError(f"{name}: {f.name} is {got!r}; expected like {f.default!r}")


def check_above(name: str, parameters: Any, fields: Sequence[str], least: float) -> None:
    """Refuse a value below ``least``; at 0 itself, too, where that is 0."""
    for field in fields:
        value = getattr(parameters, field)
        if value < least or value <= 0:
            expected = "above 0" if least == 0 else f"{least:g} or more"
            raise RecordingError(f"{name}: {field} is {value}; expected {expected}")


def stream(seed: int, part: str) -> np.random.Generator:
    """A separate random stream for each part, so that changing the size of one does not change another."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *part.encode()])))


def ornstein_uhlenbeck(rng: np.random.Generator, shape: tuple[int, ...], samples: int, tau: float) -> np.ndarray:
    """(*shape, samples) stationary, zero mean, unit variance, correlation time of ``tau`` samples."""
    keep = np.exp(-1 / tau)
    x = rng.standard_normal((*shape, samples))
    for k in range(1, samples):
        x[..., k] = keep * x[..., k - 1] + np.sqrt(1 - keep**2) * x[..., k]
    return x


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
    frequency: float = 0.14  # cycles per pixel
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
        check_numbers("synthetic:demo", self)
        largest = {"num_movies": 4, "frame_size": 128}
        for name in ("num_units", "num_trials", "num_movies", "frame_size", "hub_width_bins", "gaze_max"):
            most = largest.get(name, np.inf)
            if not 1 <= getattr(self, name) <= most:
                raise RecordingError(
                    f"synthetic:demo: {name} is {getattr(self, name)}; expected 1 or more"
                    + (f", at most {most}" if name in largest else "")
                )
        above = ("dt_s", "frame_rate_hz", "trial_s", "rate_hz", "gaze_sd", "bout_s", "pupil_tau_s")
        check_above("synthetic:demo", self, above, 0)
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

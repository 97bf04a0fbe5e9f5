"""``synthetic:inputs``: as many periodic inputs as neurons; each neuron follows one of them.

The second simulation of Neuroformer (Antoniades et al., ICLR 2024): which input drives which neuron? The inputs are
the pixels of a small video: every pixel lights up for ``pulse_s`` once in its own period, and the neuron that it
drives fires more during that time. Its ``truth`` holds

- ``input_of_unit`` (units,): row-major place of the pixel that drives each unit
- ``period_s``, ``phase_s`` (inputs,): pixel k is lit where ``(t - phase_s[k]) % period_s[k] < pulse_s``
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from neuroformer.recording.recording import FrameSeries, Recording, RecordingError
from neuroformer.recording.synthetic.parameters import check_above, check_numbers, from_overrides, stream

INPUTS_SHA256 = "5946a9f0a2984af0033c3f1fd4dbb80f9e82c680b4802e66df14dd3e0cb68279"


@dataclass(frozen=True)
class InputParameters:
    """Everything that, with a seed, determines ``synthetic:inputs``. Times in s, rates in Hz."""

    num_units: int = 1000  # and inputs
    duration_s: float = 1200.0
    frame_rate_hz: float = 20.0
    period_s: tuple[float, float] = (0.5, 5.0)  # uniform
    pulse_s: float = 0.1
    rate_hz: float = 0.5  # while the input is dark
    lit_rate_hz: float = 15.0

    def __post_init__(self):
        check_numbers("synthetic:inputs", self)
        check_above("synthetic:inputs", self, ("num_units",), 1)
        check_above("synthetic:inputs", self, ("duration_s", "frame_rate_hz", "pulse_s", "lit_rate_hz"), 0)
        if self.pulse_s < 1 / self.frame_rate_hz or self.period_s[0] <= self.pulse_s:
            raise RecordingError(
                f"synthetic:inputs: a pulse of {self.pulse_s:g} s must last a frame or more and be shorter than the "
                f"shortest period of {self.period_s[0]:g} s"
            )

    @property
    def num_frames(self) -> int:
        return int(round(self.duration_s * self.frame_rate_hz))

    @property
    def image_size(self) -> tuple[int, int]:
        """(rows, columns) of one pixel an input, as square as can be."""
        rows = max(r for r in range(1, int(self.num_units**0.5) + 1) if self.num_units % r == 0)
        return rows, self.num_units // rows


def inputs(seed: int = 0, **overrides) -> Recording:
    """Periodic inputs and the neurons that follow them; the module's docstring lists what ``truth`` holds.

    Parameters
    ----------
    seed : int
    overrides
        Fields of :class:`InputParameters`; the size is free.

    Raises
    ------
    RecordingError
        Unknown or impossible parameter.
    """
    p = from_overrides("synthetic:inputs", InputParameters, overrides)
    rng = stream(seed, "inputs")
    period = np.round(rng.uniform(*p.period_s, p.num_units), 3)
    phase = np.round(rng.uniform(0, 1, p.num_units) * period, 3)
    input_of_unit = rng.permutation(p.num_units)
    onset = np.round(np.arange(p.num_frames) / p.frame_rate_hz, 9)
    lit = np.round((onset[:, None] - phase) % period, 6) < p.pulse_s
    rate = np.where(lit[:, input_of_unit], p.lit_rate_hz, p.rate_hz)
    frame, unit, inside = _draw_spikes(stream(seed, "spikes"), rate / p.frame_rate_hz)
    times = np.round(onset[frame] + inside / p.frame_rate_hz, 9)
    order = np.argsort(times, kind="stable")
    images = (255 * lit).astype(np.uint8).reshape(p.num_frames, *p.image_size)
    return Recording(
        name="synthetic:inputs",
        spike_times=times[order],
        spike_units=unit[order].astype(np.int32),
        units={"id": np.array([f"n{i:04d}" for i in range(p.num_units)])},
        domain=np.array([[0.0, p.duration_s]]),
        frames=FrameSeries(images, onset, np.arange(p.num_frames)),
        truth={"input_of_unit": input_of_unit, "period_s": period, "phase_s": phase},
        meta={"source": "synthetic:inputs", "seed": seed, "parameters": dataclasses.asdict(p)},
    )


def _draw_spikes(rng: np.random.Generator, mean: np.ndarray) -> tuple[np.ndarray, ...]:
    """Frame, unit and place within the frame (0 to 1) of Poisson spikes with these expected counts."""
    found = []
    for first in range(0, len(mean), 1000):  # pieces, so that memory does not follow the size
        counts = rng.poisson(mean[first : first + 1000])
        frame, unit = np.nonzero(counts)
        reps = counts[frame, unit]
        found.append(np.stack([np.repeat(frame, reps) + first, np.repeat(unit, reps)]))
    frame, unit = np.concatenate(found, 1)
    return frame, unit, (rng.integers(1000, size=len(frame)) + 0.5) / 1000

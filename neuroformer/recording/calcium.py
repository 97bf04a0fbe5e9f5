"""Calcium: traces to events by OASIS, and a threshold for each unit that is set by the noise.

Amplitudes of deconvolved events are in arbitrary units, and small ones are noise. Tokens are whole spikes, so each
unit needs a threshold:

- from a trace, by deconvolving it upside down: what OASIS finds there cannot be calcium. The threshold is
  the lowest one that leaves at most ``max_false_hz`` such events;
- from deconvolved activity alone, where the noise itself is gone, only by the shape of its amplitudes:
  where more than a tenth of the samples are above zero, most of those are noise, and the threshold is the
  one that best parts small from large (Otsu, IEEE Transactions SMC 1979). This is the less reliable way.

Source of the deconvolution: Friedrich, Zhou, Paninski, PLoS Computational Biology 2017 (OASIS), in the
package ``oasis-deconv`` (GPL-3), which is an optional dependency.
"""

from __future__ import annotations

import numpy as np

from neuroformer.recording.recording import RecordingError, Traces
from neuroformer.recording.validation import optional

MAX_FALSE_HZ = 0.02  # events a second that a threshold may let through in noise alone
METHODS = ("auto", "oasis", "deconvolved", "none")
_DENSE = 0.1  # above this fraction of samples with an event, most events are noise


def oasis(traces: np.ndarray, baseline: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Deconvolve traces, and the same traces upside down.

    Parameters
    ----------
    traces : (samples, units); NaN is bridged linearly
    baseline : estimate each unit's baseline; without, it is 0

    Returns
    -------
    events, noise : (samples, units) float64, zero or more
        ``noise`` comes from the mirrored trace, with the time constant, baseline and penalty of the real one.

    Raises
    ------
    RecordingError
        ``oasis-deconv`` is not installed, or a trace is too short or has no finite sample.
    """
    functions = optional("oasis.functions", "calcium", "deconvolving calcium traces")
    methods = optional("oasis.oasis_methods", "calcium", "deconvolving calcium traces")
    traces = np.asarray(traces, dtype=np.float64)
    if traces.ndim != 2 or len(traces) < 32:
        raise RecordingError(f"traces have shape {traces.shape}; expected (samples, units), 32 samples or more")
    events, noise = np.zeros_like(traces), np.zeros_like(traces)
    for unit in range(traces.shape[1]):
        y = _bridged(traces[:, unit], unit)
        if np.ptp(y) == 0:
            continue  # a dead region has neither events nor noise
        try:
            _, s, b, g, lam = functions.deconvolve(y, penalty=1, b=None if baseline else 0.0, b_nonneg=False)
            mirrored = np.ascontiguousarray(-(y - b))
            noise[:, unit] = methods.oasisAR1(mirrored, float(np.ravel(g)[0]), lam)[1]
        except (ValueError, ArithmeticError, np.linalg.LinAlgError) as e:
            raise RecordingError(f"OASIS failed on the trace of unit {unit}: {e}") from None
        events[:, unit] = s
    return events, noise


def thresholds(
    events: np.ndarray, noise: np.ndarray | None, rate_hz: float, max_false_hz: float = MAX_FALSE_HZ
) -> np.ndarray:
    """(units,) amplitude above which an event counts, see the top of this module.

    Parameters
    ----------
    events : (samples, units), zero or more
    noise : (samples, units) of the mirrored traces, or None where there are no traces
    rate_hz : samples per second
    """
    out = np.zeros(events.shape[1])
    allowed = int(max_false_hz * len(events) / rate_hz)
    for unit in range(events.shape[1]):
        if noise is not None:
            false = np.sort(noise[:, unit][noise[:, unit] > 0])[::-1]
            out[unit] = false[allowed] if len(false) > allowed else 0.0
        else:
            found = events[:, unit][events[:, unit] > 0]
            if len(found) > _DENSE * len(events):
                out[unit] = _parting(found)
    return out


def _parting(amplitudes: np.ndarray) -> float:
    """The amplitude at and below which the small of two classes lies: most variance between the classes."""
    x = np.sort(amplitudes)
    count = np.arange(1, len(x))
    below = np.cumsum(x)[:-1] / count
    above = (x.sum() - np.cumsum(x)[:-1]) / (len(x) - count)
    between = count * (len(x) - count) * (above - below) ** 2
    return float(x[np.argmax(between)]) if len(x) > 1 else 0.0


def keep_events(events: np.ndarray, noise: np.ndarray | None, rate_hz: float, notes: list[str], how: str) -> np.ndarray:
    """(samples, units) True where an event is above its unit's threshold; the fraction goes into the notes."""
    if not np.isfinite(rate_hz) or rate_hz <= 0:
        raise RecordingError(f"calcium activity is sampled at {rate_hz} Hz; expected two samples or more")
    found = np.nan_to_num(np.asarray(events, dtype=np.float64)) > 0
    kept = found & (events > thresholds(np.nan_to_num(events), noise, rate_hz))
    per_unit = kept.sum(0) / np.maximum(found.sum(0), 1)
    some = per_unit[found.any(0)]
    if len(some):
        notes.append(
            f"spikes are calcium events ({how}): {kept.sum():,} of {found.sum():,} kept "
            f"({kept.sum() / found.sum():.0%}; by unit {some.min():.0%} to {some.max():.0%}, "
            f"median {np.median(some):.0%}); their amplitudes, in arbitrary units, were dropped"
        )
    else:
        notes.append(f"spikes are calcium events ({how}), and there are none")
    return kept


def spikes_from_traces(
    traces: Traces, notes: list[str], method: str = "auto", deconvolved: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Spike times and units of calcium: one spike, at the sample's time, where an event passes its threshold.

    Parameters
    ----------
    method : ``oasis`` deconvolves the traces; ``deconvolved`` takes what the file has; ``auto`` takes that
        where it is there, else OASIS; ``none`` leaves the recording without spikes, for its traces alone
    deconvolved : (samples, units) activity that the file holds

    Raises
    ------
    RecordingError
        The method is unknown, or needs what is not there.
    """
    if method not in METHODS:
        raise RecordingError(f"events is '{method}'; expected one of {', '.join(METHODS)}")
    if method == "none":
        notes.append("the recording has no spikes, only traces (events='none')")
        return np.zeros(0), np.zeros(0, np.int32)
    if method == "deconvolved" and deconvolved is None:
        raise RecordingError("events='deconvolved', but there is no deconvolved activity; try events='oasis'")
    if deconvolved is not None and method != "oasis":
        how = "as the file has them, thresholded by their shape"
        kept = keep_events(deconvolved, None, traces.rate_hz, notes, how)
    else:
        events, noise = oasis(traces.values)
        how = f"OASIS, at most {MAX_FALSE_HZ:g} a second in the mirrored trace"
        kept = keep_events(events, noise, traces.rate_hz, notes, how)
    samples, units = np.nonzero(kept)
    return traces.times[samples], units.astype(np.int32)


def _bridged(y: np.ndarray, unit: int) -> np.ndarray:
    finite = np.isfinite(y)
    if not finite.any():
        raise RecordingError(f"the trace of unit {unit} has no finite sample; leave the unit out")
    if not finite.all():
        y = np.interp(np.arange(len(y)), np.flatnonzero(finite), y[finite])
    return np.ascontiguousarray(y)

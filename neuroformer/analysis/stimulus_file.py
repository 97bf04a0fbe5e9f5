"""A suite of stimuli as a session to be played, and what was measured when it was.

Shape suffixes: S stimuli, P presentations, U units.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from neuroformer.analysis.next_stimuli import KINDS, Suite
from neuroformer.config import ConfigError
from neuroformer.files import replacing, save_npz, write_atomic
from neuroformer.metrics import pearson
from neuroformer.recording import FrameSeries, Recording, write_recording

GRAY_S = 0.5  # before and after every clip
NATURAL_SHOWN = 20  # natural clips that go into the file
DELAYS_S = (0.0, 0.05, 0.1)  # of measured responses, among which the most reliable one counts
LEAST_UNITS = 3


def shown_suite(suite: Suite) -> np.ndarray:
    """(S,) places of the stimuli that are shown: all that are for a unit, and a few natural ones."""
    natural = np.flatnonzero(suite.kind_S == "natural")[:NATURAL_SHOWN]
    return np.concatenate([np.flatnonzero(suite.unit_S >= 0), natural])


def names_of(suite: Suite, unit_ids: list[str]) -> list[str]:
    """A name for every stimulus: its kind and its unit (of natural ones: a number)."""
    return [
        f"{kind}_{unit_ids[u] if u >= 0 else place}"
        for place, (kind, u) in enumerate(zip(suite.kind_S.tolist(), suite.unit_S.tolist(), strict=True))
    ]


def session_of(
    suite: Suite, unit_ids: list[str], gray: float, pixels: np.dtype, repeats: int = 10, seed: int = 0
) -> Recording:
    """The suite as a recording without spikes: every stimulus ``repeats`` times in random order, half a second of gray
    around each; a trial is a clip.

    Trials have the columns ``stimulus``, ``kind``, ``unit`` (whom it is for) and ``repeat``.

    Parameters
    ----------
    gray : pixel value between clips
    pixels : type of the recording's own pixels
    """
    rows, rng = shown_suite(suite), np.random.default_rng(seed)
    frames, pause = suite.clips_SFHX.shape[1], round(GRAY_S / suite.period_s)
    names = np.array(names_of(suite, unit_ids))
    order = np.concatenate([rng.permutation(len(rows)) for _ in range(repeats)])
    clips = suite.clips_SFHX[rows].reshape(-1, *suite.clips_SFHX.shape[2:])
    bank = np.concatenate([clips, np.full_like(clips[:1], gray)])
    if pixels.kind in "iu":
        bank = np.clip(np.rint(bank), np.iinfo(pixels).min, np.iinfo(pixels).max)
    bank = bank.astype(pixels)
    each = frames + pause
    index = np.full((len(order), each), len(bank) - 1)
    index[:, pause:] = order[:, None] * frames + np.arange(frames)
    index = np.append(index.ravel(), np.full(pause, len(bank) - 1))
    start = (np.arange(len(order)) * each + pause) * suite.period_s
    shown = rows[order]
    unit = np.array([unit_ids[u] if u >= 0 else "" for u in suite.unit_S.tolist()])
    return Recording(
        name="stimuli",
        spike_times=np.zeros(0),
        spike_units=np.zeros(0, np.int32),
        units={"id": np.array(unit_ids)},
        domain=np.array([[0.0, len(index) * suite.period_s]]),
        trials={
            "start": np.round(start, 9),
            "stop": np.round(start + frames * suite.period_s, 9),
            "stimulus": names[shown],
            "kind": suite.kind_S[shown],
            "unit": unit[shown],
            "repeat": np.repeat(np.arange(repeats), len(rows)),
        },
        frames=FrameSeries(bank, np.round(np.arange(len(index)) * suite.period_s, 9), index),
    )


def write_suite(folder: Path, suite: Suite, session: Recording, unit_ids: list[str], rate_SU: np.ndarray) -> list[Path]:
    """Everything that a rig needs, into a folder:

    - ``stimuli.npz``: the session as a recording (a run without behavior inputs simulates it: ``neuroformer generate --stimulus``); ``stimuli.nwb`` where pynwb
      is installed; ``stimuli.mp4``, the frames in the order of the session, where PyAV is
    - ``design.csv``: a row per presentation: times, stimulus, kind, unit, repeat, first frame
    - ``expected.npz``: ``stimulus`` (S,), ``unit_ids`` (U,), ``log_rate`` (S, U) that the run expects
    """
    folder.mkdir(parents=True, exist_ok=True)
    out = [write_recording(session, folder / "stimuli.npz")]
    if importlib.util.find_spec("pynwb"):
        out.append(write_recording(session, folder / "stimuli.nwb"))
    if importlib.util.find_spec("av"):
        out.append(_write_video(session, folder / "stimuli.mp4", suite.period_s))
    text = io.StringIO()
    writer = csv.writer(text)
    columns = ("start", "stop", "stimulus", "kind", "unit", "repeat")
    writer.writerow([*columns, "first_frame"])
    first = np.rint(session.trials["start"] / suite.period_s).astype(int)
    writer.writerows(zip(*(session.trials[c].tolist() for c in columns), first.tolist(), strict=True))
    write_atomic(folder / "design.csv", text.getvalue().encode())
    rows = shown_suite(suite)
    names = np.array(names_of(suite, unit_ids))[rows]
    save_npz(folder / "expected.npz", {"stimulus": names, "unit_ids": np.array(unit_ids), "log_rate": rate_SU[rows]})
    return [*out, folder / "design.csv", folder / "expected.npz"]


def _write_video(session: Recording, path: Path, period_s: float) -> Path:
    """H.264 without loss, a frame a period; pixels are scaled to bytes where they are none."""
    import av

    frames = session.frames
    assert frames is not None
    bank = np.asarray(frames.images, np.float64)
    if frames.images.dtype != np.uint8:
        bank = (bank - bank.min()) / max(float(np.ptp(bank)), 1e-12) * 255
    height, width = (n + n % 2 for n in bank.shape[1:])  # H.264 wants even sides
    padded = np.pad(np.rint(bank), ((0, 0), (0, height - bank.shape[1]), (0, width - bank.shape[2])), mode="edge")
    padded = padded.astype(np.uint8)
    with replacing(path) as part, av.open(str(part), "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=Fraction(1 / period_s).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"qp": "0"}
        for place in frames.index:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(padded[place], format="gray")))
        file.mux(stream.encode())
    return path


# -- the loop closes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClosedLoop:
    """What was expected beside what was measured.

    Attributes
    ----------
    unit_ids : of units that were measured and expected
    r : (units,) Pearson's r over stimuli between expected and measured log rates
    wins : by kind of control, the share of units that fired more to their own most exciting clip
    difference, low, high : by kind, the mean difference in spikes per second, with its 95 % interval over units
    delay_s : of the responses
    """

    unit_ids: list[str]
    r: np.ndarray
    wins: dict[str, float]
    difference: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    delay_s: float


def close_loop(measured: Recording, stimulus_S: np.ndarray, unit_ids: list[str], log_rate_SU: np.ndarray) -> ClosedLoop:
    """Compare expected rates with a recording of the session, whose trials have the columns ``stimulus``, ``kind``, ``unit``.

    Raises
    ------
    ConfigError
        A recording without these columns, or one that shares fewer than three units or stimuli.
    """
    lacking = [c for c in ("stimulus", "kind", "unit") if c not in measured.trials]
    if lacking:
        raise ConfigError(f"the trials of '{measured.name}' lack {', '.join(lacking)}, which the stimuli's design has")
    if measured.num_spikes == 0:
        raise ConfigError(f"'{measured.name}' holds no spike; give the recording in which the stimuli were shown")
    ids = [u for u in measured.unit_ids if u in unit_ids]
    names = [s for s in stimulus_S.tolist() if s in set(measured.trials["stimulus"].tolist())]
    if len(ids) < LEAST_UNITS or len(names) < 3:
        raise ConfigError(f"'{measured.name}' shares {len(ids)} units and {len(names)} stimuli with what was expected")
    delay, rate_SU = _measured_rates(measured, names, ids)
    mine = [unit_ids.index(u) for u in ids]
    expected = log_rate_SU[[stimulus_S.tolist().index(s) for s in names]][:, mine]
    r = pearson(expected, np.log(rate_SU + 0.5))
    wins, difference, low, high = {}, {}, {}, {}
    place = {s: k for k, s in enumerate(names)}
    for kind in KINDS[1:]:
        pairs = [
            (place[f"mei_{u}"], place[f"{kind}_{u}"], k)
            for k, u in enumerate(ids)
            if {f"mei_{u}", f"{kind}_{u}"} <= place.keys()
        ]
        if len(pairs) < LEAST_UNITS:
            continue
        apart = np.array([rate_SU[a, k] - rate_SU[b, k] for a, b, k in pairs])
        half = float(stdtrit(len(apart) - 1, 0.975) * apart.std(ddof=1) / np.sqrt(len(apart)))
        wins[kind], difference[kind] = float((apart > 0).mean()), float(apart.mean())
        low[kind], high[kind] = difference[kind] - half, difference[kind] + half
    return ClosedLoop(ids, r, wins, difference, low, high, delay)


def _measured_rates(measured: Recording, names: list[str], ids: list[str]) -> tuple[float, np.ndarray]:
    """The delay at which the mean over units varies most between stimuli, and (S, U) rates there."""
    start, stop = measured.trial_intervals.T
    columns = [measured.unit_ids.index(u) for u in ids]
    row = np.array([names.index(s) if s in names else -1 for s in measured.trials["stimulus"].tolist()])
    best: tuple[float, float, np.ndarray] | None = None
    for delay in DELAYS_S:
        total, seconds = np.zeros((len(names), measured.num_units)), np.zeros((len(names), 1))
        for k in np.flatnonzero(row >= 0):
            lo, hi = np.searchsorted(measured.spike_times, [start[k] + delay, stop[k] + delay])
            total[row[k]] += np.bincount(measured.spike_units[lo:hi], minlength=measured.num_units)
            seconds[row[k]] += stop[k] - start[k]
        rate = (total / seconds)[:, columns]
        spread = float(rate.var(0).mean())
        if best is None or spread > best[0]:
            best = (spread, delay, rate)
    assert best is not None
    return best[1], best[2]

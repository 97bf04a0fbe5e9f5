"""What a split would leak: in time, and through training labels that predict held-out ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuroformer.audit.findings import Finding
from neuroformer.baselines.controls import control_predictions, meaning, trial_wise
from neuroformer.config import Config, ConfigError
from neuroformer.data.splits import PARTS, Split
from neuroformer.data.windows import SpikeIndex, Windows, WindowShape, nanoseconds, tile
from neuroformer.metrics import balanced_accuracy, r2
from neuroformer.recording import Recording

HELD_OUT = ("valid", "test")
MOST_WINDOWS = 20_000  # training windows whose labels the controls see; more say nothing new
_NEIGHBORS = ("nearest", "linear", "hold")
_LONGEST_S = 120.0  # autocorrelation is looked for up to here
_ENOUGH = 200_000  # samples of it


def split_of_intervals(parts: Mapping[str, Any], config: Config) -> Split:
    """A split as somebody else made it: (N, 2) seconds for each part, every interval a segment of its own.

    Raises
    ------
    ConfigError
        A part with another name than train, valid or test, none for train or none held out, or no (N, 2).
    """
    unknown = set(parts) - set(PARTS)
    given = {k: np.asarray(v, dtype=np.float64) for k, v in parts.items() if len(v)}
    if unknown or "train" not in given or len(given) < 2:
        raise ConfigError(
            f"the parts of a split are {', '.join(map(repr, parts)) or 'none'}; expected 'train' and 'test' or "
            "'valid', each (N, 2) seconds"
        )
    for part, intervals in given.items():
        if intervals.ndim != 2 or intervals.shape[1] != 2 or not (intervals[:, 1] > intervals[:, 0]).all():
            raise ConfigError(f"'{part}' has shape {intervals.shape}; expected (N, 2), start < stop in seconds")
    rows = np.concatenate([np.c_[v, np.full(len(v), PARTS.index(k))] for k, v in given.items()])
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    # a bin more or less by rounding must not lose a window of exactly its own length
    ticks = nanoseconds(rows[:, 1] - rows[:, 0] + 1e-6) // nanoseconds(config.window.dt)
    blocks = {
        part: np.array([[n, 0, ticks[n]] for n in np.flatnonzero(rows[:, 2] == k)], np.int64).reshape(-1, 3)
        for k, part in enumerate(PARTS)
    }
    return Split(rows[:, :2], blocks, config.window.dt)


def own_split(rec: Recording) -> dict[str, np.ndarray]:
    """Parts of a split that the recording brings along (``train_domain``, ``test_intervals``, ...), by part."""
    out: dict[str, np.ndarray] = {}
    for name, table in rec.intervals.items():
        words = name.lower().replace("-", "_").split("_")
        for part, spellings in (("train", ("train",)), ("valid", ("valid", "val")), ("test", ("test",))):
            if words[0] in spellings and words[-1] in ("domain", "intervals", *spellings):
                out.setdefault(part, np.stack([table["start"], table["stop"]], 1).astype(np.float64))
    return out if "train" in out and len(out) > 1 else {}


class SplitAudit:
    """Findings and facts of one split.

    Parameters
    ----------
    isolated : windows stay within their block and never read before its segment (our own splits); else each
        interval is read as a loader would: every window in it, and the past before it
    """

    def __init__(self, rec: Recording, config: Config, split: Split, isolated: bool):
        self.rec, self.config, self.split, self.isolated = rec, config, split, isolated
        self.shape = WindowShape.from_config(config)
        w = config.window
        self.back = max(w.past, w.frames if w.frames_until == "start" else w.frames - w.current)
        self.held_out = [p for p in HELD_OUT if len(split.blocks[p])]
        num_ticks = nanoseconds(split.segments[:, 1] - split.segments[:, 0] + 1e-6) // nanoseconds(w.dt)
        none = np.zeros(0, np.int64)
        self.clock = SpikeIndex.from_ticks(none, none, none, split.segments[:, 0], num_ticks, 1, w.dt)
        self.facts: dict[str, Any] = {"split": self._facts()}

    def windows(self, part: str) -> Windows:
        return tile(self.split.blocks[part], self.shape, reach=None if self.isolated else 0)

    def findings(self) -> list[Finding | None]:
        return [
            self._overlapping(),
            self._random_windows(),
            self._gap(),
            *self._controls(),
        ]

    # -- time ----------------------------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        c, s = self.config.split, self.split
        out: dict[str, Any] = {"by": c.by if self.isolated else "given intervals", "claim": c.claim}
        out |= {f"{part}_s": s.seconds(part) for part in PARTS}
        for part in self.held_out:
            near = distances(s.intervals(part), s.intervals("train"))
            out[f"{part}_to_train_s"] = {"nearest": float(near.min()), "median": float(np.median(near))}
        return out

    def _overlapping(self) -> Finding | None:
        train = self.split.intervals("train")
        shared = {p: _shared_seconds(self.split.intervals(p), train) for p in self.held_out}
        if max(shared.values(), default=0.0) < self.config.window.dt:
            return None
        said = ", ".join(f"{s:.1f} s of {p}" for p, s in shared.items() if s)
        return Finding("overlapping_parts", "leak", f"{said} are training data too", "cut them apart", shared)

    def _random_windows(self) -> Finding | None:
        """Held-out blocks of the size of a window, with training data right beside them."""
        size = 3 * self.config.window.current + 1e-6
        for part in self.held_out:
            blocks = merged(self.split.intervals(part), self.config.window.current / 2)
            lengths = blocks[:, 1] - blocks[:, 0]
            near = distances(blocks, self.split.intervals("train"))
            if np.median(lengths) <= size and np.median(near) <= size:
                measured = {"part": part, "median_block_s": float(np.median(lengths)), "blocks": len(blocks)}
                c = self.config
                if c.split.hold_out and c.split.claim == "stimuli" and not c.targets:
                    return Finding(
                        "random_windows",
                        "warning",
                        f"held-out stimuli stand among training ones, {np.median(near):.3g} s apart",
                        "the score is of other stimuli, as split.claim says, and says nothing of other times",
                        measured,
                    )
                return Finding(
                    "random_windows",
                    "leak",
                    f"the median stretch of '{part}' lasts {np.median(lengths):.3g} s and has training data "
                    f"{np.median(near):.3g} s beside it: windows are shuffled into parts",
                    "split by blocks of a minute or by whole trials; behavior and firing hardly change within "
                    "a window, so neighbors in training give the answer away",
                    measured,
                )
        return None

    def _gap(self) -> Finding | None:
        """The share of windows whose past or frames lie in another part."""
        shares = {}
        for part in self.held_out:
            for reader, read in ((part, "train"), ("train", part)):
                share = self._reading(reader, read)
                if share > 0:
                    shares[f"{reader} reads {read}"] = share
        if not shares:
            return None
        worst = max(shares, key=lambda k: shares[k])
        reader, _, read = worst.split()
        return Finding(
            "gap_too_short",
            "leak",
            f"{shares[worst]:.1%} of the '{reader}' windows reach back into '{read}' (a window reads "
            f"{self.back:g} s before it and {self.config.window.current:g} s itself)",
            f"leave a gap of at least {self.back + self.config.window.current:g} s between the parts",
            {"shares": shares, "reach_s": self.back},
        )

    def _reading(self, reader: str, read: str) -> float:
        windows = self.windows(reader)
        if len(windows) == 0:
            return 0.0
        start = windows.starts(self.clock)
        first = start - self.back
        if self.isolated:
            first = np.maximum(first, self.clock.origins[windows.segment])
        # half a bin of slack: borders that rounding moved are none
        slack = self.config.window.dt / 2
        seen = np.stack([first + slack, start + self.config.window.current - slack], 1)
        inside = _touches(seen[seen[:, 1] > seen[:, 0]], self.split.intervals(read))
        return float(inside.sum() / len(windows))

    # -- behavior --------------------------------------------------------------------------------------

    def _controls(self) -> list[Finding | None]:
        """Autocorrelation times against the gap, and the scores of controls that see no neural data."""
        part = "test" if "test" in self.held_out else self.held_out[0]
        train, test = self.windows("train"), self.windows(part)
        if len(train) == 0 or len(test) == 0 or not self.config.targets:
            return []
        train = train[:: max(1, len(train) // MOST_WINDOWS)] if not self.isolated else train
        gap = float(distances(self.split.intervals(part), self.split.intervals("train")).min())
        ends = [w.starts(self.clock) + self.config.window.current for w in (train, test)]
        out: list[Finding | None] = []
        controls: dict[str, Any] = {}
        for target in self.config.targets:
            variable = self.rec.variable(target.name)
            read = variable.interpolate if target.kind == "regression" else variable.hold_label
            y, true = (read(t) for t in ends)
            kind = "classification" if target.kind == "classification" else "regression"
            if target.kind == "circular":  # a point on the circle is regressed as its cosine and sine
                y, true = (_on_circle(v, target.period or 2 * np.pi) for v in (y, true))
            if not np.isfinite(y).all(1).any() or np.isfinite(true).all(1).sum() < 2:
                continue
            predicted = control_predictions(self.clock, train, y, test, self.shape, kind=kind)
            predicted = {k: p for k, p in predicted.items() if k != "mean"}
            scores = {k: _score(true, p, kind) for k, p in predicted.items()}
            tau = autocorrelation_time(self.rec, target.name, self.config.window.current)
            strongest = max(scores, key=lambda k: np.nan_to_num(scores[k], nan=-np.inf), default="")
            known = "; ".join(
                filter(None, (meaning(strongest), trial_wise(self.rec.trial_intervals, ends[0], y, ends[1], true)))
            )
            best = {"neighbors": _best(scores, _NEIGHBORS)}
            rolled = [k for k in scores if k not in _NEIGHBORS]
            best["autoregression or trial time"] = _best(scores, rolled)
            controls[target.name] = {"autocorrelation_s": tau, **best}
            out.append(self._control_finding(target.name, kind, best, tau, gap, known))
        if controls:
            self.facts["controls"] = controls
        return out

    def _control_finding(self, name, kind, best, tau: float, gap: float, known: str) -> Finding | None:
        score = max(best.values(), key=lambda v: v if np.isfinite(v) else -np.inf)
        better = max(0.0, (score - 0.5) * 2) if kind == "classification" else score
        values = {"target": name, "score": score, "autocorrelation_s": tau, "gap_s": gap}
        if better > 0.5:
            measure = "balanced accuracy" if kind == "classification" else "R2"
            return Finding(
                "predictable_without_spikes",
                "warning",
                f"'{name}' is predicted with {measure} {score:.2f} without any neural data, from training labels alone: {known}",
                "a decoder is worth what it adds to that; longer blocks and gaps leave less to interpolate",
                values,
            )
        if gap < tau:
            return Finding(
                "autocorrelation_beyond_gap",
                "note",
                f"'{name}' stays like itself for {'minutes' if np.isinf(tau) else f'{tau:.3g} s'}, the nearest "
                f"training data are {gap:.3g} s away",
                "compare its score with the control's, which knows the neighboring labels",
                values,
            )
        return None


# -- arithmetic of intervals -------------------------------------------------------------------------------


def merged(intervals: np.ndarray, slack: float = 0.0) -> np.ndarray:
    """(N, 2) ascending intervals; those closer than ``slack`` are joined."""
    rows = intervals[np.argsort(intervals[:, 0], kind="stable")]
    if len(rows) == 0:
        return rows
    reach = np.maximum.accumulate(rows[:, 1])
    first = np.r_[True, rows[1:, 0] > reach[:-1] + slack]
    last = np.r_[np.flatnonzero(first)[1:] - 1, len(rows) - 1]
    return np.stack([rows[first, 0], reach[last]], 1)


def distances(intervals: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) seconds from each interval to the nearest of the others; 0 where they touch."""
    o = merged(others)
    k = np.searchsorted(o[:, 0], intervals[:, 1])
    after = np.where(k < len(o), o[np.minimum(k, len(o) - 1), 0] - intervals[:, 1], np.inf)
    before = np.where(k > 0, intervals[:, 0] - o[np.maximum(k - 1, 0), 1], np.inf)
    return np.maximum(np.minimum(before, after), 0.0)


def _touches(intervals: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) whether any of the others shares time with each interval."""
    o = merged(others)
    k = np.searchsorted(o[:, 0], intervals[:, 1]) - 1
    return (k >= 0) & (o[np.maximum(k, 0), 1] > intervals[:, 0])


def _shared_seconds(intervals: np.ndarray, others: np.ndarray) -> float:
    a, b = merged(intervals), merged(others)
    covered = lambda x, t: np.interp(
        t, x.ravel(), np.c_[np.r_[0, np.cumsum(x[:, 1] - x[:, 0])[:-1]], np.cumsum(x[:, 1] - x[:, 0])].ravel()
    )
    return float((covered(b, a[:, 1]) - covered(b, a[:, 0])).sum())


def _on_circle(values: np.ndarray, period: float) -> np.ndarray:
    angle = 2 * np.pi * values / period
    return np.concatenate([np.cos(angle), np.sin(angle)], 1)


def _score(true: np.ndarray, predicted: np.ndarray, kind: str) -> float:
    known = np.isfinite(true).all(1)
    if kind == "classification":
        return float(balanced_accuracy(true[known, 0], predicted[known, 0]).score)
    return float(np.mean(r2(true[known], predicted[known])))


def _best(scores: Mapping[str, float], names) -> float:
    values = [scores[n] for n in names if n in scores and np.isfinite(scores[n])]
    return max(values, default=float("nan"))


def autocorrelation_time(rec: Recording, name: str, step: float) -> float:
    """Seconds after which a variable's autocorrelation falls below 1/e; the longest of its columns.

    Read at every ``step`` seconds of the domain, missing values left out; infinity beyond two minutes.
    """
    variable = rec.variable(name)
    longest = float((rec.domain[:, 1] - rec.domain[:, 0]).max())
    most = max(1, round(min(_LONGEST_S, longest) / step))
    parts: list[np.ndarray] = []
    for a, b in rec.domain[:: max(1, len(rec.domain) // 200)]:
        parts.append(variable.interpolate(np.arange(a, min(b, a + _ENOUGH * step), step)))
        if sum(map(len, parts)) > _ENOUGH:
            break
    hole = np.full((most, variable.num_columns), np.nan, np.float32)  # no pair spans two intervals
    values = np.concatenate([x for part in parts for x in (part, hole)]).astype(np.float64)
    known = np.isfinite(values)
    mean = np.nanmean(np.where(known.any(0), values, 0.0), 0)
    z = np.where(known, values - mean, 0.0)
    size = 1 << int(np.ceil(np.log2(2 * len(z))))
    auto = lambda x: np.fft.irfft(np.abs(np.fft.rfft(x, size, axis=0)) ** 2, axis=0)[: most + 1]
    acf = auto(z) / np.maximum(auto(known.astype(float)), 1.0)
    below = acf < acf[:1] / np.e
    first = np.where(below.any(0), below.argmax(0) * step, np.inf)
    varies = acf[0] > 0
    return float(first[varies].max()) if varies.any() else 0.0

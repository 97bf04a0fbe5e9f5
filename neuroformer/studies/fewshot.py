"""How well behavior is read from few labels: pretrained, from scratch, and every baseline, on the same draws.

Shape suffixes: V values, K draws, C columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from neuroformer.config import Config, ConfigError, TargetConfig
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows, nanoseconds
from neuroformer.decoding.decode import (
    Decoded,
    decode_windows,
    hard_values,
    predict_targets,
    raw_targets,
    score_of,
    score_terms,
    soft_values,
    target_head,
    true_values,
)
from neuroformer.decoding.finetune import extend, finetune, know_only
from neuroformer.decoding.readouts import KERNEL
from neuroformer.decoding.run import add_baselines, add_readouts, start_decoded
from neuroformer.intervals import Estimate, over_time
from neuroformer.model.network import Neuroformer
from neuroformer.shown import Shown
from neuroformer.studies.folds import labelled_windows, pool

CHUNK_S = 1.0
PRETRAINED, SCRATCH = "pretrained", "scratch"


@dataclass(repr=False)
class FewShot(Shown):
    """A curve: predictions of every method for every amount of labels and draw, on the same held-out values.

    Attributes
    ----------
    seconds : labelled seconds of each amount
    share : each amount as a share of all labels
    decoded : by (amount, draw), with a prediction a method
    notes : what a reader of the scores must know: amounts beyond what there is, draws that lack a class
    """

    target: TargetConfig
    config: Config
    seconds: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    decoded: dict[tuple[int, int], Decoded] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        amounts = ", ".join(f"{s:.3g}" for s in self.seconds)
        return (
            f"Decoding of '{self.target.name}' from {amounts} s of labels, {self.num_draws} draw(s): {', '.join(self.methods)}"
            + "".join(f"\n  {note}" for note in self.notes)
        )

    @property
    def methods(self) -> list[str]:
        return list(next(iter(self.decoded.values())).predicted)

    @property
    def num_draws(self) -> int:
        return 1 + max(k for _, k in self.decoded)

    def rows(self) -> list[dict[str, Any]]:
        """One row an amount and method: ``score`` (mean over draws), and the paired difference of the pretrained model minus
        the method, each with its 95 % interval ``low``, ``high``.

        The interval is over held-out time (:func:`neuroformer.intervals.over_time`) and over draws of labels, with which
        the seed of every network changes; of a single draw, over held-out time alone.
        """
        return [row for a in range(len(self.seconds)) for row in self._rows(a)]

    def _rows(self, amount: int) -> list[dict[str, Any]]:
        draws = [self.decoded[amount, k] for k in range(self.num_draws)]
        terms = {
            m: score_terms(draws[0], self.target, np.stack([d.predicted[m] for d in draws], 1)) for m in self.methods
        }
        each = {m: np.array([score_terms(d, self.target, decoder=m).of_all()[:1] for d in draws]) for m in self.methods}
        out = []
        for m in self.methods:
            own = _first(over_time(terms[m], f"{self.target.name} from few labels"))
            minus = _first(over_time(terms[PRETRAINED].minus(terms[m]), f"{self.target.name}, {PRETRAINED} minus {m}"))
            row = {"seconds": self.seconds[amount], "share": self.share[amount], "method": m}
            row |= _with_ends("score", "", own.with_repeats(each[m]))
            row |= _with_ends("pretrained_minus", "pretrained_minus_", minus.with_repeats(each[PRETRAINED] - each[m]))
            out.append(row)
        return out


def _first(found: Estimate) -> Estimate:
    """The score over all columns or classes."""
    return Estimate(found.value_S[:1], found.center_S[:1], found.error_S[:1], found.degrees_S[:1], found.scale)


def _with_ends(key: str, prefix: str, found: Estimate) -> dict[str, float]:
    low, high = found.ends()[:, 0]
    return {key: float(found.value_S[0]), f"{prefix}low": float(low), f"{prefix}high": float(high)}


def draw_labels(
    prepared: Prepared, windows: Windows, labels_VC: np.ndarray, samples: int, seconds: float, seed: int
) -> Windows:
    """Windows whose labels are given away: chunks of 1 s of labelled time, in a random order, until ``seconds`` are full.

    A longer draw of the same seed holds the shorter one.
    """
    known = np.isfinite(labels_VC).all(1).reshape(-1, samples).any(1)
    rows = np.flatnonzero(known)
    dt_ns, chunk_ns = nanoseconds(prepared.config.window.dt), nanoseconds(CHUNK_S)
    chunk = np.stack([windows.segment[rows], windows.tick[rows] * dt_ns // chunk_ns], 1)
    _, chunk = np.unique(chunk, axis=0, return_inverse=True)
    order = np.random.default_rng(seed).permutation(chunk.max() + 1)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    in_order = rows[np.argsort(place[chunk.ravel()], kind="stable")]
    count = max(1, round(seconds / prepared.config.window.current))
    return windows[np.sort(in_order[:count])]


def missing_classes(prepared: Prepared, target: TargetConfig, windows: Windows) -> list[str]:
    """The classes that the training part has and the labels of these windows lack; none for other kinds."""
    scale = prepared.normalization.targets[target.name]
    drawn = true_values(prepared, windows)[target.name]
    return [scale.word(label) for label in scale.classes if not (drawn == label).any()]


def varies(labels_VC: np.ndarray) -> bool:
    """Whether there are two different labels, without which nothing can be scored."""
    known = labels_VC[np.isfinite(labels_VC).all(1)]
    return len(known) > 0 and bool((known != known[0]).any())


def amounts_in_seconds(asked: Sequence[str], total_s: float) -> list[float]:
    """ "10s", "5%" and "all" as seconds of labels, ascending; amounts beyond what there is are left out.

    Raises
    ------
    ConfigError
        An amount that is none of these.
    """
    out = {s for item in asked if 0 < (s := _seconds(item, total_s)) <= total_s + 1e-9}
    if not out:
        raise ConfigError(f"none of {', '.join(asked)} lies within the {total_s:g} s of labels that there are")
    return sorted(out)


def _seconds(item: str, total_s: float) -> float:
    try:
        if item == "all":
            return total_s
        return float(item[:-1]) / 100 * total_s if item.endswith("%") else float(item.removesuffix("s"))
    except ValueError:
        raise ConfigError(f"amount of labels {item!r} is not understood; expected like 10s, 5% or all") from None


def labelled_seconds(prepared: Prepared, target: TargetConfig) -> float:
    """Seconds of windows with a label in the training and validation parts."""
    _, labels = labelled_windows(prepared)
    known = np.isfinite(labels[target.name]).all(1).reshape(-1, target.samples).any(1)
    return float(known.sum() * prepared.config.window.current)


def fewshot(
    model: Neuroformer,
    prepared: Prepared,
    target: TargetConfig,
    amounts: Sequence[str],
    num_draws: int,
    baselines: Sequence[str],
    *,
    report: Callable[[str], object] = lambda text: None,
) -> FewShot:
    """The curve of one target on a model that was pretrained without its labels.

    Labels are drawn from the training and validation parts; scores are on ``decode.split``. The pretrained model is
    tuned as ``config.tune`` says, and kernel ridge fitted on its states; the same network from random weights trains whole, at the full learning rate. Draw k
    is also seed k of every network.

    Parameters
    ----------
    model : pretrained
    amounts : like "10s", "5%", "all"
    report : called with a line after every draw

    Raises
    ------
    ConfigError
        The run was trained with this target's labels, held-out labels that do not vary, or an amount that is not
        understood.
    """
    if target.name in {t.name for t in prepared.config.targets}:
        raise ConfigError(
            f"the run was trained with labels of '{target.name}': its few-shot curve would say nothing; pretrain without "
            "them (neuroformer train ... targets=[])"
        )
    model, prepared = extend(model, prepared, [target])
    windows, labels = labelled_windows(prepared)
    test = decode_windows(prepared, prepared.config.decode.split)
    true = true_values(prepared, test)[target.name]
    if not varies(true):
        raise ConfigError(
            f"'{target.name}' has {'one value' if np.isfinite(true).any() else 'no value'} in the '{prepared.config.decode.split}' part, "
            "so nothing can be scored; pretrain with another part held out (split.block, split.pattern)"
        )
    total = labelled_seconds(prepared, target)
    curve = FewShot(target, prepared.config)
    curve.seconds = amounts_in_seconds(amounts, total)
    curve.share = [s / total for s in curve.seconds]
    beyond = [item for item in amounts if _seconds(item, total) > total + 1e-9]
    if beyond:
        curve.notes.append(f"{', '.join(beyond)}: left out, there are {total:g} s of labels")
    for a, seconds in enumerate(curve.seconds):
        for k in range(num_draws):
            few = draw_labels(prepared, windows, labels[target.name], target.samples, seconds, k)
            absent = missing_classes(prepared, target, few)
            if absent:
                curve.notes.append(
                    f"draw {k} of {seconds:g} s has no label of {', '.join(absent)}, which no decoder can then name"
                )
            decoded = start_decoded(prepared, target, test, true)
            _add_models(decoded, model, prepared, target, few, test, k)
            add_baselines(decoded, prepared, target, few, true_values(prepared, few), test, baselines)
            curve.decoded[a, k] = decoded
            keep = np.isfinite(true).all(1)
            scores = {m: score_of(target)(true[keep], p[keep]) for m, p in decoded.predicted.items()}
            told = ", ".join(f"{m} {s:.3f}" for m, s in scores.items())
            report(f"{target.name}, {seconds:g} s of labels, draw {k}: {told}")
    return curve


def pooled(curves: Sequence[FewShot]) -> FewShot:
    """Curves of runs whose held-out parts differ as one: the same amounts and draws, scored on the values of all.

    Raises
    ------
    ConfigError
        Held-out parts that overlap, or other amounts of labels.
    """
    first = curves[0]
    if any(c.decoded.keys() != first.decoded.keys() for c in curves):
        raise ConfigError(
            "the runs have other amounts of labels and cannot be pooled; ask for amounts that each of them has, like 5%"
        )
    out = FewShot(first.target, first.config)
    out.seconds, out.share = (np.mean([getattr(c, k) for c in curves], 0).tolist() for k in ("seconds", "share"))
    out.notes = [note for c in curves for note in c.notes]
    out.decoded = {key: pool([c.decoded[key] for c in curves]) for key in first.decoded}
    step = min(_least_step(c.decoded[0, 0]) for c in curves)
    if _least_step(out.decoded[0, 0]) < 0.99 * step:
        raise ConfigError(
            "the runs' held-out parts overlap, so pooling would count values twice; train them with other parts held out, "
            "like split.pattern=[test,train,train,train,valid]"
        )
    return out


def _least_step(decoded: Decoded) -> float:
    """Seconds between neighbouring values of one segment."""
    order = np.lexsort([decoded.times, decoded.segment])
    step, same = np.diff(decoded.times[order]), np.diff(decoded.segment[order]) == 0
    return float(step[same].min(initial=np.inf))


def _add_models(decoded: Decoded, model, prepared: Prepared, target, few: Windows, test: Windows, seed: int):
    """Both networks, and a readout on the states of the first, know the drawn labels, not even the range of the others."""
    tune, known = prepared.config.tune, know_only(model, prepared, few, [target])
    tuned, _ = finetune(model, known, few, [target], tune, seed)
    head = target_head(tuned, target.name)
    own_VE = soft_values(head, raw_targets(tuned, known, test)[target.name])
    decoded.predicted[PRETRAINED] = hard_values(head, own_VE)
    # few labels are too few for a recurrent network of their own
    add_readouts(decoded, tuned, known, target, few, test, own_VE, (KERNEL,), seed)
    with torch.random.fork_rng():
        torch.manual_seed(1000 + seed)
        fresh = Neuroformer(prepared.config, model.num_units, known.normalization).to(model.first)
    whole = dataclasses.replace(tune, train="all")
    tuned, _ = finetune(fresh, known, few, [target], whole, seed, trunk_lr=1.0)
    decoded.predicted[SCRATCH] = predict_targets(tuned, known, test)[target.name]

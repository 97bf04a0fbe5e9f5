"""A trained model learns behavior from labelled windows: heads only, top blocks, everything, or low-rank adapters."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import Tensor

from neuroformer.config import Config, TargetConfig, TuneConfig
from neuroformer.data.batch import Batch
from neuroformer.data.normalization import column_scale, fit_targets
from neuroformer.data.prepared import Prepared, prepare
from neuroformer.data.splits import Split, reach_seconds
from neuroformer.data.windows import Windows
from neuroformer.decoding.adapters import add_adapters, merge_adapters
from neuroformer.decoding.closed_form import fit_ridge, linear_features, start_from
from neuroformer.decoding.decode import target_head, true_values
from neuroformer.decoding.descent import Descent
from neuroformer.model.network import Neuroformer
from neuroformer.model.targets import TargetHead
from neuroformer.ops import Ragged
from neuroformer.training.start import start_heads
from neuroformer.training.stopping import gains_enough

CLOSED = "closed form"
STARTS = ("as is", CLOSED)
TRUNK_LR = 0.1  # times tune.lr, for the trained parts of a pretrained trunk
TOP_BLOCKS = 2  # fusion blocks that train (tune.train: top)
RANK = 4  # of the adapters
BATCH_SIZE = 256  # windows
EVALUATE_EVERY = 20  # steps
PATIENCE = 5  # evaluations in which the score gains less than 1 % before stopping
HELD = 0.2  # share of the labels, in contiguous stretches, for early stopping
STRETCHES = 5  # into which the labels are cut; a share in the middle of each is set aside


def with_targets(config: Config, targets: Sequence[TargetConfig]) -> Config:
    """A run's configuration with more targets (one of the same name is replaced), on the same split.

    The gaps between blocks would follow the baselines' lags; they stay as they were in pretraining.
    """
    names = {t.name for t in targets}
    every = tuple(t for t in config.targets if t.name not in names) + tuple(targets)
    gap = config.split.gap if config.split.gap >= 0 else reach_seconds(config)
    split = dataclasses.replace(config.split, gap=gap) if config.split.by == "blocks" else config.split
    return dataclasses.replace(config, targets=every, split=split)


def extend(
    model: Neuroformer,
    prepared: Prepared,
    targets: Sequence[TargetConfig],
    split: Split | None = None,
    seed: int = 0,
    lookahead: float | None = None,
) -> tuple[Neuroformer, Prepared]:
    """A copy of a model with fresh heads for these targets, and its recording prepared with them, split as configured or
    as given; with ``lookahead``, heads that see so many seconds after a decoded moment (then all targets must be given).

    Weights that fit are kept: the trunk's all, since no lookahead changes it, and those of heads for other targets.
    """
    config = with_targets(prepared.config, targets)
    if lookahead is not None:
        config = dataclasses.replace(config, window=dataclasses.replace(config.window, lookahead=lookahead))
    rec, scale = prepared.rec, copy.deepcopy(prepared.normalization)
    scale.targets |= fit_targets(rec, prepared.split, targets)
    ready = prepare(rec, config, scale, split=split)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        out = Neuroformer(config, model.num_units, scale)
    names = tuple(f"targets.{t.name}." for t in targets)
    old = {k: v for k, v in model.state_dict().items() if not k.startswith(names)}
    missing, unexpected = out.load_state_dict(old, strict=False)
    if unexpected or any(not k.startswith(names) for k in missing):
        raise ValueError(f"the model does not fit its own configuration: {[*unexpected, *missing][:3]}")
    start_heads(out.to(model.first), ready, [t.name for t in targets])
    return out, ready


def know_only(model: Neuroformer, prepared: Prepared, windows: Windows, targets: Sequence[TargetConfig]) -> Prepared:
    """Scale and range of fresh regression heads, and of the normalisation returned, from these windows' labels alone: as
    if no others had ever been seen."""
    scale, labels = copy.deepcopy(prepared.normalization), true_values(prepared, windows)
    for target in targets:
        values = labels[target.name][np.isfinite(labels[target.name]).all(1)]
        if target.kind == "regression" and len(values):
            head, known = target_head(model, target.name), scale.targets[target.name]
            scale.targets[target.name] = column_scale(values.astype(np.float64), known.columns)
            head.rescale(scale.targets[target.name])
    return dataclasses.replace(prepared, normalization=scale)


def finetune(
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows,
    targets: Sequence[TargetConfig],
    tune: TuneConfig,
    seed: int = 0,
    trunk_lr: float = TRUNK_LR,
) -> tuple[Neuroformer, dict[str, Any]]:
    """Train heads for targets on labelled windows, and as much of the trunk as ``tune.train`` says.

    1. A share of the labels (``HELD``) is set aside. On the rest, gradient descent starts once from each head's
       ridge in closed form (:func:`fit_ridge`), and once from the head as it is; the start and the step with
       the best score on the share set aside are found. They count where they are better than the ridge alone
       and the 95 % interval of the difference (Student's t over stretches) says so too: a few seconds often do by chance.
    2. The same again on all labels, from that start up to that step, or the ridge alone. No other label has a say.

    With ``tune.steps`` 0 it is the ridge alone, and nothing is set aside.

    Parameters
    ----------
    model : its config names the targets, see :func:`extend`; it is not changed
    windows : in time order; labels that are missing are left out
    targets : trained together
    trunk_lr : times ``tune.lr``, for the trained parts of the trunk; 1 where it is not pretrained

    Returns
    -------
    Neuroformer
        In evaluation mode.
    dict
        ``start``, ``steps``, ``ridges`` (by target: what its ridge uses); where there was a choice, ``valid_score``
        (minus the loss on the share set aside), ``closed_valid_score`` (of the ridges alone), the best
        ``gain`` over it and the ``least_gain`` that counts.
    """
    if not tune.steps:
        run = _Run(model, prepared, windows, targets, tune, seed, CLOSED)
        return run.go(0, None)[0], {"start": CLOSED, "steps": 0, "ridges": run.ridges}
    fit, held = _set_aside(windows, prepared, targets, HELD)
    curves, ridges = {}, {}
    for start in STARTS:
        ridges, curves[start] = _Run(model, prepared, fit, targets, tune, seed, start, trunk_lr=trunk_lr).go(
            tune.steps, held
        )
    closed = curves[CLOSED][0]
    start, steps = max(((s, k) for s in STARTS for k in curves[s]), key=lambda c: curves[c[0]][c[1]].mean())
    gain = curves[start][steps] - closed
    least = float(student.ppf(0.975, max(1, len(gain) - 1)) * gain.std() / math.sqrt(max(1, len(gain) - 1)))
    if gain.mean() <= least:
        start, steps = CLOSED, 0
    tuned, _ = _Run(model, prepared, windows, targets, tune, seed, start, trunk_lr=trunk_lr).go(steps, None)
    info = {"start": start, "steps": steps, "valid_score": float(curves[start][steps].mean())}
    info |= {"closed_valid_score": float(closed.mean()), "gain": float(gain.mean()), "least_gain": least}
    return tuned, info | {"ridges": ridges}


def fit_heads(
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows,
    targets: Sequence[TargetConfig],
    tune: TuneConfig,
    seed: int = 0,
) -> Neuroformer:
    """A copy of a trained model whose heads go on learning from labelled windows, for ``tune.steps`` steps.

    Where labels are many but a minority of windows (the animal moves a fifth of the time), joint training shows each
    label a few times only. The trunk stays as it is, so that its states are computed once. No label is spent on
    stopping: how long it lasts is the configuration's to say.
    """
    labels = prepared.builder.labels(windows)
    known = torch.stack([torch.isfinite(labels[t.name]).all(-1).any(1) for t in targets]).any(0).numpy()
    if not known.any():
        raise ValueError(f"none of {len(windows)} windows has a label to fit the heads on")
    head_only = dataclasses.replace(tune, train="head")
    run = _Run(model, prepared, windows[known], targets, head_only, seed, "as is", anneal=True)
    return run.go(tune.steps, None)[0]


class _Run:
    """One descent, from the ridge in closed form or from the heads as they are."""

    def __init__(
        self,
        model,
        prepared: Prepared,
        windows: Windows,
        targets,
        tune: TuneConfig,
        seed: int,
        start: str,
        anneal: bool = False,
        trunk_lr: float = TRUNK_LR,
    ):
        self.trunk_lr = trunk_lr
        self.prepared, self.targets, self.tune, self.anneal = prepared, targets, tune, anneal
        self.rng = np.random.default_rng(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.model: Neuroformer = copy.deepcopy(model).requires_grad_(False).eval()
            self.windows = windows
            self.heads: dict[str, TargetHead] = {}
            self.ridges = {}
            for target in targets:
                head = target_head(self.model, target.name)
                self.heads[target.name] = head
                if start == CLOSED:
                    self._start(target, head)
            self.trainable = self._choose()
        self.seed = seed

    def _start(self, target: TargetConfig, head: TargetHead) -> None:
        features = linear_features(self.model, self.prepared, self.windows, target.name)
        ridge = fit_ridge(features, self.prepared, self.windows, target.samples)
        start_from(head, ridge)
        self.ridges[target.name] = {"uses": ridge.uses, "penalty": ridge.penalty, "cv_r2": ridge.score}

    def _choose(self) -> list[dict]:
        """Parameter groups: heads and adapters at the full rate, the trunk at ``trunk_lr`` times it."""
        tune, trunk = self.tune, []
        heads = [p for head in self.heads.values() for p in head.parameters()]
        rate = self.trunk_lr
        if tune.train == "all":
            trunk = [p for n, p in self.model.named_parameters() if not n.startswith("targets.")]
        elif tune.train == "top":
            blocks = list(self.model.blocks)[-TOP_BLOCKS:]
            trunk = [p for part in (*blocks, self.model.norm) for p in part.parameters()]
        elif tune.train == "adapters":
            trunk, rate = add_adapters(self.model, RANK), 1.0
        for p in heads + trunk:
            p.requires_grad_(True)
        groups = [{"params": heads, "lr": tune.lr}]
        return groups + ([{"params": trunk, "lr": rate * tune.lr}] if trunk else [])

    def go(self, steps: int, held: Windows | None) -> tuple[Any, dict[int, np.ndarray]]:
        """The averaged model after ``steps`` (or what each ridge used), and the scores on stretches of held windows by
        step."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            descent, curve = self._descend(steps, held)
        if held is not None:
            return self.ridges, curve
        descent.swap()
        merge_adapters(self.model)
        return self.model.requires_grad_(True).eval(), curve

    def _descend(self, steps: int, held: Windows | None) -> tuple[Descent, dict[int, np.ndarray]]:
        descent = Descent(self.trainable, steps if self.anneal else 0)
        check = None if held is None else self._stretches(held)
        curve = {} if check is None else {0: self._score(check)}
        marked = 0  # step from which on gains are counted
        batches = self._forever()
        for step in range(1, steps + 1):
            self._train_mode(True)
            descent.down(self._loss(next(batches)))
            if check is not None and (step % EVALUATE_EVERY == 0 or step == steps):
                descent.swap()
                curve[step] = self._score(check)
                descent.swap()
                if gains_enough(curve[step].mean(), curve[marked].mean()):
                    marked = step
                elif step - marked >= PATIENCE * EVALUATE_EVERY:
                    break
        return descent, curve

    # -- batches: with a frozen trunk its states are computed once ---------------------------------------------

    def _forever(self) -> Iterator[_LabelledBatch]:
        order = self.rng.permutation(len(self.windows))
        pieces = self._pieces(self.windows[order], max(1, round(len(order) / BATCH_SIZE)))
        while True:
            for i in self.rng.permutation(len(pieces)):
                yield pieces[i]

    def _stretches(self, held: Windows) -> list[_LabelledBatch]:
        return self._pieces(held, max(1, min(2 * STRETCHES, len(held) // 2)))

    def _pieces(self, windows: Windows, count: int) -> list[_LabelledBatch]:
        out = []
        for rows in np.array_split(np.arange(len(windows)), count):
            piece = _LabelledBatch(self.prepared.builder(windows[rows]).to(self.model.device))
            if self.tune.train == "head":
                with torch.no_grad():
                    self._train_mode(False)
                    piece.state = self.model.states(piece.batch)[1:]
            out.append(piece)
        return out

    def _train_mode(self, on: bool) -> None:
        """Dropout in what trains; a frozen trunk stays as it was."""
        self.model.train(on and self.tune.train != "head")
        for head in self.heads.values():
            head.train(on)

    def _raw(self, piece: _LabelledBatch) -> dict[str, Tensor]:
        h_TD, layout = self.model.states(piece.batch)[1:] if piece.state is None else piece.state
        return {name: head(piece.batch, h_TD, layout) for name, head in self.heads.items()}

    def _loss(self, piece: _LabelledBatch) -> Tensor:
        raw = self._raw(piece)
        weights = {t.name: t.weight for t in self.targets}
        return torch.stack([weights[n] * self.heads[n].loss(raw[n], piece.batch.targets[n]) for n in raw]).sum()

    @torch.no_grad()
    def _score(self, stretches: list[_LabelledBatch]) -> np.ndarray:
        """Minus the loss of each stretch: unlike R2, it does not depend on how much a short stretch varies."""
        self._train_mode(False)
        return -np.array([float(self._loss(piece)) for piece in stretches])


@dataclasses.dataclass
class _LabelledBatch:
    """A batch, and the trunk's states of it where they do not change."""

    batch: Batch
    state: tuple[Tensor, Ragged] | None = None


def _set_aside(windows: Windows, prepared: Prepared, targets, share: float) -> tuple[Windows, Windows]:
    """Windows to fit on, and a share of the labelled ones in a few contiguous stretches, away from the others where
    there is room."""
    labels = prepared.builder.labels(windows)
    exists = [torch.isfinite(labels[t.name]).all(-1).any(1) for t in targets]
    known = torch.stack(exists).any(0).numpy()
    rows = np.flatnonzero(known)
    if len(rows) < 8:
        raise ValueError(f"{len(rows)} windows have a label; at least 8 are needed, some of them to stop by")
    stretches = min(STRETCHES, len(rows) // 4)
    held_rows, clear_rows = [], np.ones(len(windows), bool)
    at = windows.bins(prepared.index)
    gap = prepared.builder.shape.reach + prepared.builder.shape.ahead
    for part in np.array_split(rows, stretches):
        size = max(1, round(share * len(part)))
        held = part[(len(part) - size) // 2 :][:size]
        held_rows.append(held)
        clear_rows &= (at < at[held[0]] - gap) | (at > at[held[-1]] + gap)
    held = np.concatenate(held_rows)
    others = np.setdiff1d(rows, held)
    clear = others[clear_rows[others]]
    return windows[clear if 2 * len(clear) >= len(others) else others], windows[held]

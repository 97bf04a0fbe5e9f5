"""The training loop, from the first step or from a checkpoint: batches in; weights, log and checkpoints out."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from neuroformer.bundle.bundle import LIKELIHOOD, STIMULUS
from neuroformer.bundle.cohort import Cohort
from neuroformer.bundle.saving import save_cohort
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.losses import denominators, observed_name
from neuroformer.memory import give_back
from neuroformer.model.frames import EnergyReadout
from neuroformer.model.layers import set_dropout
from neuroformer.training.checkpoint import (
    FILE,
    Progress,
    load_checkpoint,
    restore_tensors,
    save_checkpoint,
    state_tensors,
)
from neuroformer.training.log import LONGEST_SILENCE_S, Log
from neuroformer.training.memory import largest, step_memory
from neuroformer.training.module import (
    Average,
    Losses,
    Microbatch,
    learning_rate,
    make_optimizer,
    set_learning_rate,
)
from neuroformer.training.noise import noisy_past
from neuroformer.training.processes import Processes
from neuroformer.training.rows import Rows
from neuroformer.training.scoring.validation import Validation
from neuroformer.training.steps import RECORDINGS, StepPiece, StepSampler, step_loader
from neuroformer.training.stopping import Stopped, gains_enough, listen

GIVEN_BACK = 50  # steps, after which free memory goes back to the system
CLIP = 1.0  # largest norm of the gradient
MOST_NAMED = 16  # recordings with columns of their own in the log
KEPT_STEPS = 4  # whose recordings' rows stay in memory
FEWEST_STEPS, MOST_STEPS = 20, 200  # between evaluations, where the configuration leaves it open


class NonFiniteLoss(ValueError):
    """A term of the loss is not a number."""


class Trainer:
    """One run in one process (of one or more).

    1. Restore the checkpoint, if the run resumes.
    2. For every step: the losses of this process's pieces and their gradients; refuse a loss that is not
       finite; clip; step the optimiser; let the average follow.
    3. Log; evaluate on validation and keep the best weights of each objective; write a checkpoint when it is
       time, or when a signal asks to stop.

    Parameters
    ----------
    fabric : Fabric, launched
    recordings : Prepared
        One per recording.
    cohort : Cohort
        Their initial models; parameters that need no gradient are not changed.
    folder : Path
        Of the run: ``weights``, ``log`` and the checkpoint go there.
    origin : dict
        What else determined the start of the run, beside configuration and data; a checkpoint of another origin is
        refused.
    """

    def __init__(
        self,
        fabric: Fabric,
        recordings: Sequence[Prepared],
        cohort: Cohort,
        folder: Path,
        origin: dict[str, Any] | None = None,
    ):
        self.fabric, self.recordings, self.folder = fabric, list(recordings), folder
        self.config, self.train = cohort.config, cohort.config.train
        self.cohort, self.origin = cohort, origin or {}
        # not wrapped: which parameters a step moves depends on its recordings, so that gradients are added up here
        self.losses = Losses(cohort).to(fabric.device)
        self.average = Average(cohort, self.train.average) if self.train.average > 0 else None
        self.optimizer = make_optimizer(cohort, self.train)
        self.stepper: Any = fabric.setup_optimizers(self.optimizer)
        kept = KEPT_STEPS * RECORDINGS
        self.rows = Rows(cohort, self.optimizer, self.average, folder, kept, fabric.global_rank)
        self.shared = [x for x in cohort.trunk().values() if isinstance(x, torch.nn.Parameter)]
        self.fitted = self._starts_fitted()
        self.processes = Processes(fabric)
        self.validation = Validation(fabric, self.processes, self.recordings, cohort, self.rows, self.average)
        self.progress = Progress()
        self.signal: int | None = None

    # 1: where the run stands

    def resume(self) -> None:
        tensors, self.progress = load_checkpoint(self.folder / FILE, self.config, self._data())
        self.fabric.strategy.precision.load_state_dict(self.progress.scaler)
        restore_tensors(tensors, self.cohort, self.average, self.optimizer)
        self.rows.load(self.progress.rows)

    def save(self) -> None:
        tensors = state_tensors(self.cohort, self.average, self.optimizer)
        files = self.rows.save()
        if self.fabric.is_global_zero:
            self.log.flush()
            scaler = self.fabric.strategy.precision.state_dict()
            now = dataclasses.replace(self.progress, seconds=self._seconds(), scaler=scaler, rows=files)
            save_checkpoint(self.folder / FILE, tensors, now, self.config, self._data())
        self.fabric.barrier()
        self.rows.saved()
        self.saved_at = time.monotonic()

    def _data(self) -> dict[str, Any]:
        """Identifies what the run trains on, and what it started from."""
        if len(self.recordings) == 1:
            return self.recordings[0].describe() | self.origin
        every = {m.name: m.describe() for m in self.recordings}
        return {f"{name}'s {key}": value for name, d in every.items() for key, value in d.items()} | self.origin

    def _seconds(self) -> float:
        return self.progress.seconds + time.monotonic() - self.began_at

    # 2: steps

    def fit(self, *, bar: bool, wandb: Any = None) -> Progress:
        """Train to the last step; returns a :class:`Stopped` if a signal came first."""
        t = self.train
        self.began_at = self.saved_at = time.monotonic()
        if self.fabric.is_global_zero:
            self.log = Log(self.folder / "log" / "metrics.csv", self._columns(), self.progress.step, wandb)
        self.progress.pieces = t.accumulate or self.progress.pieces or self._planned_pieces()
        steps = StepSampler(
            self.recordings,
            first=self.progress.step,
            rank=self.fabric.global_rank,
            processes=self.fabric.world_size,
            pieces=self.progress.pieces,
        )
        batches = iter(step_loader(steps))
        # a short recording is learnt by heart within a few passes
        self.evaluate_every = t.evaluate_every or min(max(2 * steps.steps_a_pass, FEWEST_STEPS), MOST_STEPS)
        hidden = not bar or not self.fabric.is_global_zero
        if self.progress.step == 0 and self.fitted:
            self._evaluate()  # what was fitted before may be the best there is: few images are soon learnt by heart
        self.losses.train()
        with (
            listen(self),
            tqdm(
                total=t.steps, initial=self.progress.step, unit="step", disable=hidden, dynamic_ncols=True
            ) as self.bar,
        ):
            while self.progress.step < t.steps and not (t.patience and self.progress.stale >= t.patience):
                self._advance(next(batches))
        set_dropout(self.cohort, 1.0)
        self.progress.seconds = self._seconds()
        if self.fabric.is_global_zero:
            self.log.flush()
        return self.progress

    def _starts_fitted(self) -> bool:
        models = [self.cohort[i] for i in range(len(self.cohort))]
        return any(
            isinstance(m.frames.readout, EnergyReadout) and m.frames.readout.weight.weight.any()
            for m in models
            if "frames" in m.streams
        )

    def _planned_pieces(self) -> int:
        """In how many pieces a step's batch is computed; told where it is more than one."""
        self.rows.fetch(largest(self.recordings))
        plan = step_memory(self.cohort, self.recordings, self.fabric)
        smallest = min(len(p.windows("train")) for p in self.recordings)
        most = min(smallest, StepSampler(self.recordings).group) // self.fabric.world_size
        pieces = self.processes.agree(max(1, min(plan.pieces, most)))[0]
        if pieces > 1 and self.fabric.is_global_zero:
            tqdm.write(
                f"a step needs about {plan.needed / 1e9:.1f} GB, and takes {plan.free / 1e9:.1f} GB at a time at most: each batch is computed in "
                f"{pieces} pieces (train.accumulate={pieces})"
            )
        return pieces

    def _advance(self, pieces: list[tuple[StepPiece, Batch]]) -> None:
        terms = self._step(pieces)
        p, t = self.progress, self.train
        p.step += 1
        p.windows += sum(sum(piece.sizes) for piece, _ in pieces)
        p.spikes += sum(int(self.totals.get(name, 0)) for name in ("spikes", "samples"))
        last = p.step == t.steps
        if p.step % self._log_every() == 0 or self.log_is_due():
            self._log({f"train/{name}": value for name, value in terms.items()})
            self._show(terms)
        if last or p.step % self.evaluate_every == 0:
            self._evaluate()
        if last or p.step % GIVEN_BACK == 0:
            give_back()
        self.bar.update()
        signal_number, is_time = self.processes.agree(
            self.signal or 0, int(time.monotonic() - self.saved_at >= t.checkpoint_every)
        )
        if signal_number or (is_time and not last):
            self.save()
        if signal_number:
            raise Stopped(signal_number, f"saved at step {p.step} of {t.steps} in {self.folder / FILE}")

    def _step(self, pieces: list[tuple[StepPiece, Batch]]) -> dict[str, float]:
        """One optimiser step; the terms of the loss over all processes."""
        p, t, fabric = self.progress, self.train, self.fabric
        # dropout and noise follow from the step's number, so that there is no random state to keep
        torch.manual_seed(_mix(self.config.seed, p.step, fabric.global_rank))
        moved = [
            (piece, noisy_past(batch, t.past_noise).to(fabric.device, non_blocking=True)) for piece, batch in pieces
        ]
        places = list(dict.fromkeys(piece.recording for piece, _ in moved))
        self.rows.fetch(places)
        self.totals = self.processes.add_up([denominators(self.cohort[p.recording], b) for p, b in moved])
        set_learning_rate(self.optimizer, p.step, t)
        # Layer norm gives an input with noise the same size as one without: a network that trains with dropout to the end
        # moves rates too far once there is none, and a closed loop amplifies that
        for place in places:
            set_dropout(self.cohort[place], learning_rate(p.step, t))
        total: dict[str, Tensor] = {}
        for piece, batch in moved:
            with fabric.autocast():
                terms = self.losses(Microbatch(batch, self.totals, self.processes.gather(piece.sizes), piece.recording))
            fabric.backward(terms["loss"])
            for name, value in terms.items():
                total[name] = total.get(name, 0.0) + value.detach()
        moving = [*self.shared, *(x for place in places for x in self.rows.parameters(place))]
        self.processes.sum_gradients(moving)
        some = torch.nn.ParameterList(moving)  # a step's time does not grow with the recordings that it leaves alone
        norm: Any = fabric.clip_gradients(some, self.stepper, max_norm=CLIP, error_if_nonfinite=False)
        names, values = list(total), torch.stack(list(total.values()))
        *values, norm = torch.cat([self.processes.sum(values), norm.reshape(1)]).tolist()
        found = dict(zip(names, values, strict=True))
        self._refuse_non_finite(found | ({} if t.precision == "16-mixed" else {"gradient": norm}), moved)
        if self.average is not None:  # what waited for this step was as it is now in all steps between
            for place in places:
                self.average.follow(self.rows.parameters(place), self.average.followed[place] + 1, p.step)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        self.rows.changes(places, p.step + 1)
        if self.average is not None:
            self.average.follow(moving, p.step + 1, p.step + 1)
            self.average.followed |= dict.fromkeys(places, p.step + 1)
        return found

    def _refuse_non_finite(self, terms: dict[str, float], moved: list[tuple[StepPiece, Batch]]) -> None:
        bad = [name for name, value in terms.items() if not math.isfinite(value) and name != "loss"]
        if not bad and math.isfinite(terms["loss"]):
            return
        guilty = [f"{w:g} s of '{self._name(piece)}'" for piece, _ in moved for w in self._guilty(piece)][:5]
        where = f"at {', '.join(guilty)}" if guilty else "together, none of them alone"
        kept = self.folder / FILE
        there = f"the last good checkpoint is {kept}" if kept.exists() else "there is no checkpoint yet"
        raise NonFiniteLoss(
            f"step {self.progress.step + 1}: {', '.join(bad or ['loss'])} is not a finite number; windows {where}; {there}. Look at the recording there, or lower train.lr"
        )

    def _name(self, piece: StepPiece) -> str:
        return self.recordings[piece.recording].name

    @torch.no_grad()
    def _guilty(self, piece: StepPiece) -> list[float]:
        """Starts (seconds) of the windows whose own loss is not finite."""
        found = []
        self.cohort.eval()  # without dropout
        prepared, losses = self.recordings[piece.recording], Losses(self.cohort)
        starts = piece.windows.starts(prepared.index)
        for w in range(len(piece.windows)):
            one = prepared.builder(piece.windows[w : w + 1]).to(self.fabric.device)
            if not math.isfinite(float(losses(Microbatch(one, recording=piece.recording))["loss"])):
                found.append(round(float(starts[w]), 4))
        self.cohort.train()
        return found

    # 3: what comes out

    def _log_every(self) -> int:
        return max(1, min(10, self.train.steps // 2))

    def _columns(self) -> list[str]:
        kinds = dict.fromkeys(observed_name(self.cohort[i]) for i in range(len(self.cohort)))
        of = {"spikes": ("dt", "id", "rates"), "samples": ("traces",)}
        terms = [*(name for kind in kinds for name in of[kind]), *(t.name for t in self.config.targets)]
        terms += [f"contrast_{a}_{b}" for a, b in (c.pair for c in self.config.loss.contrast)]
        of = {"spikes": ("bits_per_spike", "bits_per_spike_rate_readout"), "samples": ("bits_per_sample",)}
        scores = [name for kind in kinds for name in of[kind]]
        scores += [STIMULUS] * any("frames" in self.cohort[i].streams for i in range(len(self.cohort)))
        scores += ["likelihood", *(f"{t.name}_score" for t in self.config.targets)]
        columns = [f"train/{name}" for name in (*terms, "loss")] + [f"valid/{name}" for name in scores]
        if 1 < len(self.recordings) <= MOST_NAMED:
            columns += [f"valid/{name}/{m.name}" for m in self.recordings for name in scores]
        return columns

    def log_is_due(self) -> bool:
        """Whether nothing was logged for long since steps are slow, not because the machine paused."""
        slow = self._seconds() > self.progress.step * LONGEST_SILENCE_S / self._log_every()
        return self.fabric.is_global_zero and slow and self.log.silent_s >= LONGEST_SILENCE_S

    def _log(self, values: Mapping[str, float | str]) -> None:
        if self.fabric.is_global_zero:
            self.log.add(max(0, self.progress.step - 1), values)

    def _show(self, terms: dict[str, float]) -> None:
        spikes = self.progress.spikes / max(self._seconds(), 1e-9)
        shown = {k: f"{v:.3f}" for k, v in terms.items() if k != "loss"} | {"tokens/s": f"{spikes:,.0f}"}
        if LIKELIHOOD in self.progress.best:
            shown["best_bits"] = f"{self.progress.best[LIKELIHOOD]:.3f}"
        self.bar.set_postfix(shown, refresh=False)

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Validation scores, averaged over recordings; saves the best weights of each objective to its own file."""
        mean, of_each = self.validation.scores(self.progress.step)
        self._log({f"valid/{name}": value for name, value in (mean | self._by_recording(of_each)).items()})
        p = self.progress
        p.stale += 1
        found = {LIKELIHOOD: mean[LIKELIHOOD]}
        found |= {t.name: mean[f"{t.name}_score"] for t in self.config.targets}
        found |= {STIMULUS: mean[STIMULUS]} if STIMULUS in mean else {}
        likelier = not p.best.get(LIKELIHOOD, math.nan) >= found[LIKELIHOOD]
        for objective, value in found.items():
            # a score that was not a number is beaten by any that is; where none is (no labels), the likelihood chooses
            unknown = math.isnan(value)
            if likelier if unknown else not p.best.get(objective, math.nan) >= value:
                p.best[objective] = value
                if not unknown and gains_enough(value, p.marked.get(objective, math.nan)):
                    p.marked[objective], p.stale = value, 0
                if self.fabric.is_global_zero:
                    save_cohort(self.folder, objective, self.validation.trunk(), self.validation.own(p.step))

    def _by_recording(self, of_each: list[dict[str, float]]) -> dict[str, float]:
        if not 1 < len(self.recordings) <= MOST_NAMED:
            return {}
        pairs = zip(self.recordings, of_each, strict=True)
        return {f"{name}/{m.name}": value for m, values in pairs for name, value in values.items()}


def _mix(*numbers: int) -> int:
    """One seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))

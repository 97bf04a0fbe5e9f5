"""A search over keys of the configuration, by validation bits/spike: Optuna proposes, a SQLite file stores the
trials.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroformer.config import Config, ConfigError, apply_overrides, from_dict, read_yaml, to_dict
from neuroformer.data.stored import recordings_to_train
from neuroformer.training.checkpoint import refuse_other_config
from neuroformer.training.loop import NonFiniteLoss
from neuroformer.training.stopping import Stopped
from neuroformer.training.train import train_several

FILE, STUDY = "sweep.db", "sweep"
OBJECTIVE = "valid_best_likelihood"
HEARTBEAT_S = 10
GRACE_S = 60  # a trial without a heartbeat for so long was killed, and another process continues it


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; whole numbers if both ends are whole."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)


Space = dict[str, Range | list[Any]]


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried; if it could not be run, ``score`` is None and ``reason`` says why."""

    values: dict[str, Any]
    folder: Path
    score: float | None
    reason: str = ""


def read_space(path: Path, base: Config) -> Space:
    """Keys and their possible values: a list of choices, or ``{low, high[, log][, step]}``.

    Raises
    ------
    ConfigError
        A key that the configuration lacks, an empty range, or an invalid end of a range or first choice.
    """
    space: Space = {}
    for key, given in read_yaml(path).items():
        space[key] = entry = given if isinstance(given, list) and len(given) > 1 else _range(key, given)
        for value in (entry.low, entry.high) if isinstance(entry, Range) else entry[:1]:
            changed(base, {key: value})
    if not space:
        raise ConfigError(f"{path} names no key; expected lines like `train.lr: {{low: 1e-4, high: 1e-2, log: true}}`")
    return space


def _range(key: str, given: Any) -> Range:
    try:
        found = Range(**given)
        ok = found.low < found.high and not (found.log and (found.low <= 0 or found.step)) and found.step != 0
    except TypeError:
        ok = False
    if not ok:
        raise ConfigError(
            f"the space of {key} is {given!r}; expected a list of two choices or more, or low < high (above 0 with "
            "`log: true`, which goes without `step`)"
        )
    return found


def changed(base: Config, values: dict[str, Any]) -> Config:
    """The configuration with other values of some keys."""
    return from_dict(apply_overrides(to_dict(base), [f"{k}={json.dumps(v)}" for k, v in values.items()]))


def sweep(base: Config, space: Space, folder: Path, num_trials: int, *, progress: bool) -> Iterator[Trial]:
    """Try configurations until the folder's sweep has ``num_trials`` of them, those of other processes included.

    Every trial is a run in ``trial_<number>``. Its score is the best validation bits/spike (traces: bits/sample);
    test data are never used. A trial that was stopped or killed continues from its checkpoint, in whichever process
    takes it up first. Proposals are those of the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011).

    Yields
    ------
    Trial
        As they finish.

    Raises
    ------
    ConfigError
        Optuna is not installed, or the folder holds a sweep over something else.
    Stopped
        A signal asked to end; the trial was saved.
    """
    optuna = _optuna()
    if base.train.devices * base.train.nodes > 1:
        raise ConfigError("each trial of a sweep runs in one process; start the same command several times instead")
    study = _study(optuna, base, space, folder)
    state = optuna.trial.TrialState

    def objective(trial: Any) -> float:
        # seeded by the trial's number, so that processes that start together propose different values
        study.sampler = optuna.samplers.TPESampler(seed=base.seed + trial.number, constant_liar=True)
        values = {key: _proposed(trial, key, entry) for key, entry in space.items()}
        where = trial.user_attrs.get("folder", f"trial_{trial.number}")
        trial.set_user_attr("folder", where)
        try:
            return _score(changed(base, values), folder / where, progress)
        except (ConfigError, NonFiniteLoss) as e:
            trial.set_user_attr("reason", str(e))
            raise optuna.TrialPruned from e
        except (Stopped, KeyboardInterrupt):
            _again(study, trial)
            raise

    ended: list[Any] = []
    while True:
        optuna.storages.fail_stale_trials(study)
        states = [t.state for t in study.get_trials(deepcopy=False)]
        done = states.count(state.COMPLETE) + states.count(state.PRUNED)
        if done >= num_trials:
            return
        if done + states.count(state.RUNNING) >= num_trials:
            time.sleep(1.0)  # other processes run the last trials; if one is killed, this one continues its trial
            continue
        study.optimize(objective, n_trials=1, callbacks=[lambda _, trial: ended.append(trial)])
        yield _trial(ended.pop(), folder)


def finished(folder: Path) -> list[Trial]:
    """All finished trials of a folder's sweep, best first."""
    optuna = _optuna()
    study = optuna.load_study(study_name=STUDY, storage=_storage(optuna, folder))
    state = optuna.trial.TrialState
    trials = [_trial(t, folder) for t in study.get_trials(states=(state.COMPLETE, state.PRUNED))]
    return sorted(trials, key=lambda t: -float("inf") if t.score is None else t.score, reverse=True)


def _score(config: Config, folder: Path, progress: bool) -> float:
    config, recs = recordings_to_train(config)
    _, metrics = train_several(recs, config, folder, progress=progress, resume=True)
    return metrics[OBJECTIVE]


def _proposed(trial: Any, key: str, entry: Range | list[Any]) -> Any:
    if isinstance(entry, list):  # as text, so that lists and sections may be choices too
        return json.loads(trial.suggest_categorical(key, [json.dumps(x) for x in entry]))
    if entry.whole:
        return trial.suggest_int(key, entry.low, entry.high, log=entry.log, step=entry.step or 1)
    return trial.suggest_float(key, entry.low, entry.high, log=entry.log, step=entry.step)


def _again(study: Any, trial: Any) -> None:
    """Queue the same values and folder again, for whichever process comes next."""
    study.enqueue_trial(trial.params, user_attrs={"folder": trial.user_attrs["folder"]})


def _trial(frozen: Any, folder: Path) -> Trial:
    attrs = frozen.user_attrs
    values = {k: json.loads(v) if isinstance(v, str) else v for k, v in frozen.params.items()}
    return Trial(values, folder / attrs["folder"], frozen.value, attrs.get("reason", ""))


def _study(optuna: Any, base: Config, space: Space, folder: Path) -> Any:
    study = optuna.create_study(
        study_name=STUDY, storage=_storage(optuna, folder), direction="maximize", load_if_exists=True
    )
    asked = {k: v if isinstance(v, list) else vars(v) for k, v in space.items()}
    known = study.user_attrs
    if "config" not in known:
        study.set_user_attr("space", asked)
        study.set_user_attr("config", to_dict(base))
        return study
    if known["space"] != asked:
        raise ConfigError(f"{folder} holds a sweep over {known['space']}, not over {asked}; give --run another folder")
    refuse_other_config(from_dict(known["config"]), base, folder)
    return study


def _storage(optuna: Any, folder: Path) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    make = lambda: optuna.storages.RDBStorage(
        f"sqlite:///{folder / FILE}",
        engine_kwargs={"connect_args": {"timeout": 60}},
        heartbeat_interval=HEARTBEAT_S,
        grace_period=GRACE_S,
        heartbeat_stale_trial_callback=_again,
    )
    try:
        return make()
    except Exception:  # another process is just creating the same tables
        time.sleep(1.0)
        return make()


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as e:
        raise ConfigError(f"a sweep needs the package 'optuna' ({e}); pip install 'neuroformer[sweep]'") from None
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats are experimental in Optuna
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # the command line says what happened
    return optuna

"""Simulation with a trained run in Python: what ``neuroformer generate`` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from neuroformer.baselines.energy.rates import stimulus_rates
from neuroformer.bundle.bundle import LIKELIHOOD, load_model
from neuroformer.bundle.opening import open_run
from neuroformer.config import ConfigError, GenerateConfig, InterventionConfig, from_dict, to_dict
from neuroformer.data.prepared import Prepared
from neuroformer.generation.chain import simulate_chain
from neuroformer.generation.readout import readout_rates
from neuroformer.generation.sequences import new_stimulus, prepared_whole, simulation_device
from neuroformer.generation.simulate import simulate, simulate_true_past
from neuroformer.generation.stimulus import open_stimulus, silence, stimulus_of
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording
from neuroformer.shown import NamedValues, Shown
from neuroformer.simulation_scores.drift import Chains, chain_order, chained
from neuroformer.simulation_scores.psth import compare_psth
from neuroformer.simulation_scores.recorded import RecordedTrials, recorded_trials, simulated_trials
from neuroformer.simulation_scores.scores import score_simulation
from neuroformer.simulation_scores.traces import compare_traces
from neuroformer.simulation_scores.trials import Trials

Stimulus = Recording | Mapping[str, Any] | str | Path | float


class Simulator(Shown):
    """A trained run that simulates.

    >>> simulator = Simulator("runs/demo")
    >>> base = simulator.simulate(samples=4)
    >>> silent = simulator.simulate(samples=4, interventions=[{"do": "silence", "units": [3, 7]}])

    Parameters
    ----------
    folder : of a trained run
    overrides : as on the command line, e.g. ``["recording.path=elsewhere.npz"]``
    recording : its name, in a run of several recordings
    accelerator : auto, cpu or gpu

    Raises
    ------
    ConfigError
        A recording that is not the one of the run, or no GPU where one is asked for.
    """

    def __init__(
        self, folder: str | Path, overrides: Sequence[str] = (), *, recording: str = "", accelerator: str = "auto"
    ):
        self.bundle, self.prepared = open_run(Path(folder), overrides, recording)
        self.model = load_model(self.bundle).to(simulation_device(accelerator))

    def __repr__(self) -> str:
        return f"Simulator of {self.bundle.path} on {self.model.device}: {self.prepared!r}"

    def simulate(
        self,
        stimulus: Stimulus | None = None,
        *,
        seed: int | None = None,
        folder: str | Path | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Recording:
        """A closed-loop simulation; its trials are the sequences, as :class:`~neuroformer.generation.simulate.Simulation`
        says.

        Parameters
        ----------
        stimulus : what is simulated in place of the recording: arrays under the names of the README (``frames``,
            ``frames_rate``, ...), a file, a recording whose spikes are not read, or seconds without a stimulus
        seed : of the random numbers; that of the run unless given. Simulations with the same seed pair
        folder : where finished parts are kept, from which the same call continues if it was interrupted
        options : what is under ``generate`` in a configuration: ``samples``, ``interval``, ``interventions``, ...

        Raises
        ------
        ConfigError
            An option that is not there, or a stimulus that lacks what the model reads.
        """
        p = _asked(self.prepared, options, self.prepared.config.seed if seed is None else seed)
        identity = {"weights": self.bundle.digests[LIKELIHOOD]}
        if stimulus is not None:
            p = with_stimulus(p, self.bundle.units, stimulus)
            identity["stimulus"] = p.rec.sha256()
        parts = None if folder is None else Path(folder)
        made = simulate(self.model, p, progress=progress, identity=identity, folder=parts)
        assert made is not None
        return made.recording

    def compare(self, simulated: Recording) -> dict[str, Any]:
        """A simulation beside the held-out part, as ``neuroformer generate`` puts it into ``summary.json``: see
        :func:`compared`.

        Raises
        ------
        ConfigError
            A simulation of something else, which has no recorded trials to be compared with.
        """
        return NamedValues(compared(self._same_trials(simulated), simulated))

    def score(self, simulated: Recording, *, progress: bool = False) -> dict[str, Any]:
        """Every score of a simulation of held-out trials, as ``neuroformer generate --score`` writes them; see
        :func:`neuroformer.simulation_scores.scores.score_simulation`.

        Raises
        ------
        ConfigError
            A simulation of something else, which has no recorded trials to be compared with.
        """
        return NamedValues(scored(self.model, self._same_trials(simulated), simulated, progress=progress).scores)

    def _same_trials(self, simulated: Recording) -> Prepared:
        """What the simulation was asked of, if it imitates held-out trials."""
        options = simulated.meta.get("generate")
        if options is None or simulated.meta.get("simulated_from") != self.prepared.rec.name:
            raise ConfigError(f"'{simulated.name}' is not a simulation of '{self.prepared.rec.name}'")
        p = _asked(self.prepared, options, int(simulated.meta["seed"]))
        if not imitates_trials(p.config.generate):
            raise ConfigError(
                "the simulation is of another interval, from another past or with interventions; expected "
                "held-out trials as they were"
            )
        return p


def compared(prepared: Prepared, simulated: Recording) -> dict[str, Any]:
    """A simulation of held-out trials or blocks beside them.

    Returns
    -------
    dict
        For spikes: ``simulated_sequences``, ``simulated_sequence_seconds`` (the median), ``simulated_rate_ratio`` (mean rate
        over that of the training part), ``guard_hits``; and where trials repeat a stimulus ``psth_r``, ``psth_r_ceiling``,
        ``psth_repeats_simulated`` (:func:`neuroformer.simulation_scores.psth.compare_psth`).
        For traces: :func:`neuroformer.simulation_scores.traces.compare_traces`.
    """
    p, part = prepared, prepared.config.generate.split
    if p.config.traces.likelihood != "none":
        return compare_traces(p.rec, p.split, simulated, part)
    trials, true = simulated.trials, np.asarray(p.normalization.unit_rate) / p.config.window.dt
    out: dict[str, Any] = {
        "simulated_sequences": len(trials["start"]),
        "simulated_sequence_seconds": float(np.median(trials["stop"] - trials["start"])),
        "simulated_rate_ratio": float(simulated.rates().mean() / true.mean()),
        "guard_hits": simulated.meta["guard_hits"],
    }
    found = compare_psth(p.rec, p.split, simulated, part)
    if found is not None:
        out |= {"psth_r": found.r, "psth_r_ceiling": found.ceiling, "psth_repeats_simulated": found.num_simulated}
    return out


def imitates_trials(g: GenerateConfig) -> bool:
    """Whether recorded trials can be compared with the simulation: nothing about them is changed."""
    return not g.interval and not g.interventions and g.past_from < 0


def _asked(prepared: Prepared, options: Mapping[str, Any], seed: int) -> Prepared:
    tree = to_dict(prepared.config)
    tree["generate"] = tree["generate"] | _plain(options)
    return dataclasses.replace(prepared, config=from_dict(tree | {"seed": seed}))


def _plain(value: Any) -> Any:
    """Options as a configuration file would give them."""
    if isinstance(value, InterventionConfig):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def with_stimulus(prepared: Prepared, unit_ids: list[str], stimulus: Stimulus) -> Prepared:
    """The run prepared for frames and behavior that were never recorded with spikes, or for none (seconds).

    Raises
    ------
    ConfigError
        A stimulus without what the model reads, or with frames of another size.
    """
    config = dataclasses.replace(prepared.config, targets=())
    if isinstance(stimulus, Recording):
        rec = new_stimulus(stimulus, unit_ids)
    elif isinstance(stimulus, Mapping):
        rec = stimulus_of(dict(stimulus), "stimulus", unit_ids)
    elif isinstance(stimulus, (str, Path)):
        rec = open_stimulus(stimulus, unit_ids)
    else:
        rec = silence(float(stimulus), unit_ids, config)
    if config.window.frames > 0:
        scale = prepared.normalization.frames
        assert scale is not None
        known = tuple(scale.shape)
        if rec.frames is None:
            raise ConfigError(f"the model reads frames, but {rec.name} has none")
        if tuple(rec.frames.images.shape[1:]) != known:
            got = " x ".join(map(str, rec.frames.images.shape[1:]))
            raise ConfigError(
                f"the frames of '{rec.name}' have {got} pixels; the model was trained on "
                f"{' x '.join(map(str, known))}: resize them"
            )
    return prepared_whole(rec, config, prepared.normalization)


class Scored(NamedTuple):
    """The scores of a simulation, and the trials that were compared."""

    scores: dict[str, Any]
    simulated: Trials
    held_out: Trials


def scored(model: Neuroformer, p: Prepared, simulated: Recording, *, progress: bool) -> Scored:
    """Every score of a simulation of held-out trials: windows after the true past are drawn, and the loops run on, to
    compare with.
    """
    g = p.config.generate
    after_truth = simulate_true_past(model, p, progress=progress)
    parts = recorded_trials(p.rec, p.split, g.split, g.max_seconds)
    closed, true_past = (simulated_trials(r, parts.held_out) for r in (simulated, after_truth))
    chains = _chains(model, p, simulated, parts, true_past, progress)
    stated = {"readout": readout_rates(model, p, _limited(p))}
    if p.normalization.frames is not None and p.builder.features is None:
        stated["stimulus"] = stimulus_rates(p, _limited(p))
    with tqdm(bar_format="{desc} [{elapsed}]", disable=not progress) as bar:
        scores = score_simulation(
            closed,
            parts,
            true_past=true_past,
            chains=chains,
            stated=stated,
            whole=p.builder.shape.current,
            seed=p.config.seed,
            progress=lambda what: bar.set_description_str(f"scoring: {what}"),
        )
        bar.set_description_str("scored")
    return Scored(scores, closed, parts.held_out)


def _limited(p: Prepared) -> np.ndarray:
    """The blocks that are simulated, as long as they are."""
    segment, start, stop = p.split.blocks[p.config.generate.split].T
    limit = round(p.config.generate.max_seconds / p.split.dt)
    return np.stack([segment, start, np.minimum(stop, start + limit) if limit else stop], 1)


def _chains(
    model: Neuroformer, p: Prepared, simulated: Recording, parts: RecordedTrials, true_past: Trials, progress: bool
) -> Chains:
    """The simulation run on from trial to trial for a minute, to see it drift."""
    order_LC = chain_order(parts.held_out)
    recordings = simulate_chain(model, p, simulated, order_LC, progress=progress)
    legs = [simulated_trials(r, parts.held_out) for r in recordings]
    return chained(order_LC, legs, parts, true_past, p.config.seed)

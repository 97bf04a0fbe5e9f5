"""Poisson GLMs: what a linear model of the same inputs knows of held-out spikes.

Three baselines, the strongest of which counts: ``past`` sees the spikes of all units up to the window's start,
``every`` sees every bin before the predicted one, ``same_bin`` also what the token likelihood knows of the bin itself:
the counts of units of lower index, and how often the unit itself has fired in it. Inputs and frames are those of the
model.

Memory and time are bounded whatever the recording's length and its number of units: see :class:`Budget`.

Shape suffixes: R rows (bins), F features, U units.
"""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroformer.baselines.glm.design import Choice, Design, Variant
from neuroformer.baselines.glm.model import Glm
from neuroformer.baselines.glm.own_spikes import OwnSpikes
from neuroformer.baselines.glm.search import GRID, STEP, Search, num_features, options_of, some_groups, tune
from neuroformer.baselines.poisson_regression import CELLS, PoissonFit, PoissonProblem, offset_of
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.metrics import bits_per_spike, poisson_log_likelihood

VARIANTS: tuple[Variant, ...] = ("past", "every", "same_bin")
_START = 1e4  # the first penalty that is tried
_TOLERANCE = 1e-5  # nats per spike from the optimum
_CAPACITY = ("harmonics", "components", "input_penalty", "rank", "num_basis")  # up their grids, a GLM can do more
_OF_INPUTS = ("harmonics", "clips", "components", "squares")  # what one variant's search tells the others


@dataclass(frozen=True)
class Budget:
    """How much data the steps of a fit may look at.

    Attributes
    ----------
    tune_rows, tune_counts : the first search sees so many bins, or so many bins x units if more
    search_work : bins x features x units of the second search
    fit_work : likewise of the final fit. Where it allows fewer than all training bins, the fit is to as many, or takes the
        spikes of all bins and only the expected counts from these, whichever validation prefers
    cells : bins x features that are in memory at once, of all matrices together
    least_rows : bins that are always looked at
    """

    tune_rows: int = 8_000
    tune_counts: int = 600_000
    search_work: float = 4e9
    fit_work: float = 1e10
    cells: int = 80_000_000
    least_rows: int = 8_000

    def rows(self, work: float, features: int, units: int, matrices: int) -> int:
        """Bins of each of so many matrices of features that exist at a time."""
        return max(self.least_rows, int(min(work / (features * units), self.cells / (features * matrices))))


def fit_glms(
    prepared: Prepared,
    *,
    seed: int = 0,
    budget: Budget = Budget(),
    say: Callable[[str], object] = lambda line: None,
) -> dict[str, Glm]:
    """All three variants, each starting from what the one before has found; ``say`` is called with a line before each."""
    glms: dict[str, Glm] = {}
    glm = None
    for n, variant in enumerate(VARIANTS):
        say(f"fitting the GLM '{variant}' ({n + 1} of {len(VARIANTS)})")
        glms[variant] = glm = fit_glm(prepared, variant=variant, seed=seed, like=glm, budget=budget)
    return glms


def fit_glm(
    prepared: Prepared, *, variant: Variant, seed: int = 0, like: Glm | None = None, budget: Budget = Budget()
) -> Glm:
    """Tune on validation windows, fit on training windows.

    Log link, L2 penalty on standardised features. Features of a bin: the spikes of every unit (in a large population,
    the unit's own and the population's patterns, see :class:`~neuroformer.baselines.glm.design.Design`) under
    log-spaced raised cosines of the distance to the bin (:class:`Choice`); linear inputs standardised, Fourier inputs
    by harmonics, both read at the bin's centre; principal components of the clip of frames up to the bin's end and
    their squares, or components of its Gabor energies; for ``past`` also the bin's place in the window; for ``same_bin`` the counts of units of lower
    index in the bin itself, and where validation prefers it a distribution of counts that knows the unit's own
    earlier spikes of the bin (:class:`~neuroformer.baselines.glm.own_spikes.OwnSpikes`). Options are chosen one after
    another on a part of the data, then those that add features again on all that the budget allows. Time before a
    segment's origin counts as silence, and so does, in the features, the time at which a unit was not observed; its
    counts are expected, and scored, only where it was.

    Parameters
    ----------
    prepared : the recording, as for the model
    variant : "past" sees spikes before the window, "every" those of all bins before the predicted one, "same_bin" also
        those of lower units in that bin
    seed : which training windows the searches see
    like : another variant, fitted on the same data: the search starts from its choice and keeps its inputs'
        features ("same_bin" keeps all of its choice), which saves most of the time
    budget : how much data is looked at

    Raises
    ------
    ValueError
        An unknown variant, or no training window.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant is {variant!r}; expected {' or '.join(map(repr, VARIANTS))}")
    train, valid = prepared.windows("train"), prepared.windows("valid")
    if len(train) == 0 or len(valid) == 0:
        raise ValueError(f"{len(train)} training and {len(valid)} validation windows; the GLM needs some of both")
    design = Design(prepared, variant, max(GRID["components"]), None if like is None else like.design)
    offset = torch.tensor(prepared.normalization.unit_rate).log()
    glm = Glm(design, offset, torch.tensor(prepared.normalization.unit_peak).log())
    rng = np.random.default_rng(seed)
    setting, tried, tried_on_all = _chosen(glm, train, valid, rng, like, budget)
    # features that only a group has are made beside those of all units
    rows = budget.rows(budget.fit_work, num_features(glm, train, setting), prepared.index.num_units, 1 + design.has_own)
    sample, held = _some(rng, train, rows, design), _some(rng, valid, rows, design)
    fits, from_all = _fit(glm, train, sample, held, setting)
    glm.own_spikes = _own_spikes(glm, sample, held) if variant == "same_bin" else None
    _warn_unless_converged(variant, fits)
    glm.choice = dataclasses.asdict(setting) | {
        "variant": variant,
        "form": design.form,
        "valid_bits_per_spike": bits_per_spike(*glm.log_likelihood(held)),
        "tried": tried,
        "tried_on_all": tried_on_all,
        "converged": all(f.converged for f in fits),
        "iterations": max(f.iterations for f in fits),
        "num_features": max(len(w) for w in glm.weights) - 1,
        "rows": len(sample) * design.shape.current,
        "spikes_of_rows": (len(train) if from_all else len(sample)) * design.shape.current,
        "own_spikes": glm.own_spikes is not None,
    }
    return glm


def glm_bits_per_spike(glm: Glm, prepared: Prepared, part: str = "test") -> float:
    """Bits/spike of a GLM against the null, over windows that tile the held-out blocks, empty ones included.

    The GLM's binned likelihood carries ``log k!``, as the null does, so that the figure compares with
    that of the token model, which is a likelihood of the same counts.
    """
    return bits_per_spike(*glm.log_likelihood(prepared.windows(part)))


def glm_scores(
    prepared: Prepared, *, seed: int = 0, say: Callable[[str], object] = lambda line: None
) -> dict[str, Any]:
    """Flat scores of all variants on held-out windows; ``say`` as of :func:`fit_glms`.

    Returns
    -------
    dict
        ``bits_per_spike_glm_<variant>``; ``bits_per_spike_glm``, the strongest; ``bits_per_spike_glm_within_bins``,
        ``same_bin`` minus ``every``: what the earlier spikes of the same bin (of lower units, and the unit's own) tell
        beyond all bins before. The token likelihood uses them too, so that about as much of the model's bits/spike
        speaks of coincidences finer than ``window.dt``, not of prediction in time. ``glm_form``: "full" (units see
        each other one by one) or "patterns" (a large population); ``glm_clips``, where there are frames: "pixels" or "energies";
        ``glm_seconds``.
    """
    start = time.perf_counter()
    glms = fit_glms(prepared, seed=seed, say=say)
    bits = {variant: glm_bits_per_spike(glm, prepared) for variant, glm in glms.items()}
    out: dict[str, Any] = {f"bits_per_spike_glm_{variant}": value for variant, value in bits.items()}
    out["bits_per_spike_glm"] = max(bits.values())
    out["bits_per_spike_glm_within_bins"] = bits["same_bin"] - bits["every"]
    chosen = glms["past"].choice
    if glms["past"].design.energies is not None:
        out["glm_clips"] = chosen["clips"]
    return out | {"glm_form": chosen["form"], "glm_seconds": time.perf_counter() - start}


# -- what validation chooses ---------------------------------------------------------------------------------


def _chosen(
    glm: Glm, train: Windows, valid: Windows, rng: np.random.Generator, like: Glm | None, budget: Budget
) -> tuple[Choice, list, list]:
    """The setting, and what was tried on a part of the data and on all that the budget allows."""
    design = glm.design
    rows = max(budget.tune_rows, budget.tune_counts // design.index.num_units)
    search = Search(glm, _some(rng, train, rows, design), _some(rng, valid, rows, design))
    options = [name for name in options_of(design) if like is None or name not in _OF_INPUTS]
    if design.variant == "same_bin" and like is not None:
        options = ["same_bin_penalty"]
    setting, tried = tune(search, options, Choice() if like is None else like.setting, _START, (1, -1))
    # few bins favour few features: with all of them, more may be better
    more = [name for name in options if name in _CAPACITY]
    units = sum(stop - start for start, stop in (design.groups[g] for g in search.groups))
    matrices = 2 * (len(search.groups) + design.has_own)  # of training and of validation windows
    rows = budget.rows(budget.search_work, num_features(glm, train, setting), units, matrices)
    search = Search(glm, _some(rng, train, rows, design), _some(rng, valid, rows, design))
    setting, tried_on_all = tune(search, more, setting, setting.penalty * STEP, (1,))
    return setting, tried, tried_on_all


def _some(rng: np.random.Generator, windows: Windows, rows: int, design: Design) -> Windows:
    """Windows of about so many bins, drawn at random, in time order."""
    return windows[np.sort(rng.permutation(len(windows))[: max(1, rows // design.shape.current)])]


# -- the final fit -------------------------------------------------------------------------------------------


def _fit(glm: Glm, train: Windows, sample: Windows, held: Windows, setting: Choice) -> tuple[list[PoissonFit], bool]:
    """Weights of every group, and whether the spikes of all training windows are in them.

    Expected counts of a sample beside the spikes of all windows waste no spike; but what features do where the sample has
    not been costs nothing then, so that many features are fitted to that. Held-out windows of some groups choose.
    """
    shared_RF, groups = glm.standardise(sample, setting), range(len(glm.design.groups))

    def fitted(g: int, of_all: tuple[Tensor, Tensor] | None) -> PoissonFit:
        x_RF = glm.standardise_group(shared_RF, sample, g)
        relative_F, allowed_FU = glm.relative(g)
        hidden_RU, offset = glm.design.hidden(sample, g), glm.offset[slice(*glm.design.groups[g])]
        if of_all is None:
            here = x_RF.T @ glm.design.counts(sample, g)
        else:  # a row of the sample stands for several, of a unit that the sample never saw for none
            here, rows_U = of_all
            sampled_U = _rows(len(x_RF), offset, hidden_RU)
            here, offset = here * (sampled_U > 0), offset + (rows_U / sampled_U.clamp_min(1)).clamp_min(1e-9).log()
        problem = PoissonProblem(x_RF, here, offset_of(offset, hidden_RU), relative_F, allowed_FU)
        rough = problem.fit(setting.penalty * STEP**2, None, 100 * _TOLERANCE)
        return problem.fit(setting.penalty, rough.weight_FU, _TOLERANCE)

    if len(sample) == len(train):
        fits = {g: fitted(g, None) for g in groups}
        from_all = True
    else:
        for g in groups:  # the scales of their features must be known before all windows are read
            glm.scale_group(sample, g)
        x_counts, asked = _x_counts(glm, train), some_groups(glm.design)
        ways = []
        for of_all in (False, True):
            some = {g: fitted(g, x_counts[g] if of_all else None) for g in asked}
            glm.weights = [some[g].weight_FU if g in some else Tensor() for g in groups]
            ways.append((glm.log_likelihood(held, asked)[0], some))
        from_all = ways[1][0] > ways[0][0]
        fits = ways[from_all][1]
        fits |= {g: fitted(g, x_counts[g] if from_all else None) for g in groups if g not in fits}
    glm.weights = [fits[g].weight_FU for g in groups]
    return [fits[g] for g in groups], from_all


def _rows(number: int, offset_U: Tensor, hidden_RU: Tensor | None) -> Tensor:
    """(U,) rows of so many in which each unit was observed."""
    return torch.full_like(offset_U, number) if hidden_RU is None else (~hidden_RU).sum(0).to(offset_U)


def _x_counts(glm: Glm, train: Windows) -> list[tuple[Tensor, Tensor]]:
    """(F, U) features times counts of every group, and (U,) rows in which each unit was observed, summed over all training
    windows, some at a time."""
    out: list[Tensor] = []
    rows = [torch.zeros(stop - start, dtype=torch.float64) for start, stop in glm.design.groups]
    for i in range(0, len(train), glm.design.chunk):
        part = train[i : i + glm.design.chunk]
        shared_RF = glm.shared(part)
        for g in range(len(glm.design.groups)):
            here = (glm.with_group(shared_RF, part, g).T @ glm.design.counts(part, g)).double()
            rows[g] += _rows(len(shared_RF), rows[g], glm.design.hidden(part, g))
            if i == 0:
                out.append(here)
            else:
                out[g] += here
    return [(total.float(), number.float()) for total, number in zip(out, rows, strict=True)]


def _own_spikes(glm: Glm, train: Windows, valid: Windows) -> list[OwnSpikes] | None:
    """Lines for first and further spikes, fitted on training windows; None where validation prefers Poisson counts."""
    bins = glm.design.shape.current
    few = max(1, CELLS // (bins * max(stop - start for start, stop in glm.design.groups)))
    both = [windows[:: -(-len(windows) // few)] for windows in (train, valid)]
    shared_RF = [glm.shared(windows) for windows in both]  # once for all groups: most of the work
    lines, gain = [], 0.0
    for g, weight_FU in enumerate(glm.weights):
        z_RU, valid_RU = (
            glm.log_rates(glm.with_group(x_RF, windows, g), weight_FU, g, glm.design.hidden(windows, g))
            for x_RF, windows in zip(shared_RF, both, strict=True)
        )
        lines.append(OwnSpikes.fit(z_RU, glm.design.counts(both[0], g)))
        counts_RU = glm.design.counts(both[1], g)
        poisson = poisson_log_likelihood(counts_RU.numpy(), valid_RU.double().exp().numpy())
        gain += lines[-1].log_likelihood(counts_RU, valid_RU) - poisson
    return lines if gain > 0 else None


def _warn_unless_converged(variant: str, fits: list[PoissonFit]) -> None:
    worst = max(fits, key=lambda f: f.decrement)
    if not worst.converged:
        warnings.warn(
            f"the GLM ({variant}) stopped {worst.decrement:.2g} nats/spike from its optimum after "
            f"{worst.iterations} iterations",
            stacklevel=3,
        )

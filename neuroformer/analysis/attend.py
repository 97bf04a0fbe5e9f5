"""Every map of a trained run beside its null, with what is said of them in numbers: what ``neuroformer attend`` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from neuroformer.analysis import attention, influence, nulls
from neuroformer.analysis.connectivity import agreement
from neuroformer.analysis.maps import Map
from neuroformer.analysis.pairwise import SURROGATES, pairwise_maps
from neuroformer.config import ConfigError
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.memory import free_memory
from neuroformer.model.network import Neuroformer
from neuroformer.shown import Shown

MOST_MAPPED = 500  # units of which maps are made
ARRAYS = 12  # of units x units x lags that exist at once, in 8 bytes each
NUM_FRAME_WINDOWS = 200  # windows whose attention to frames is kept one by one


@dataclass
class Attended(Shown):
    """Maps of a model, and their numbers.

    Attributes
    ----------
    maps : each beside its null
    summary : ``attend_windows``, ``attend_knock_out_windows``; ``reliability_<map>`` where it was asked for; of a
        recording whose coupling is known, ``coupling_auroc_<map>`` and ``coupling_r2_<map>``
    frames : of a model that sees frames, :func:`neuroformer.analysis.attention.frame_attention` over the first windows
    """

    maps: list[Map]
    summary: dict[str, Any] = field(default_factory=dict)
    frames: dict[str, np.ndarray] | None = None

    def __repr__(self) -> str:
        numbers = [f"  {k}: {v:.4g}" if isinstance(v, float) else f"  {k}: {v}" for k, v in self.summary.items()]
        return "\n".join([f"{len(self.maps)} maps of who acts on whom", *(f"  {m!r}" for m in self.maps), *numbers])

    def named(self, name: str) -> Map:
        """The map of that name.

        Raises
        ------
        ValueError
            There is none; the message lists what there is.
        """
        found = next((m for m in self.maps if m.name == name), None)
        if found is None:
            raise ValueError(f"there is no map '{name}'; there are: {', '.join(m.name for m in self.maps)}")
        return found


def windows_between(prepared: Prepared, start: float, stop: float) -> Windows:
    """The windows of every part of the split that begin in [start, stop) seconds, in time order.

    Raises
    ------
    ConfigError
        There is none.
    """
    parts = [prepared.windows(part) for part in prepared.split.blocks]
    every = Windows(np.concatenate([w.segment for w in parts]), np.concatenate([w.tick for w in parts]))
    at = every.starts(prepared.index)
    inside = np.flatnonzero((at >= start) & (at < stop))
    if not len(inside):
        raise ConfigError(
            f"no window lies between {start:g} and {stop:g} s; windows start from {at.min():g} to {at.max():g} s"
        )
    return every[inside[np.argsort(at[inside], kind="stable")]]


def attend(
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows | None = None,
    *,
    num_windows: int = 1000,
    num_knock_out: int = 300,
    heads: bool = False,
    gradients: bool = False,
    surrogates: int = 0,
    reliability: bool = False,
    most_units: int = MOST_MAPPED,
) -> Attended:
    """Map who acts on whom: knock-outs, attention and pairwise baselines, each beside its null.

    Parameters
    ----------
    model : in evaluation mode
    windows : to look at; by default those of the test part
    num_windows : how many of them, drawn with the configuration's seed, attention is mapped over
    num_knock_out : how many of them knock-outs and gradients are taken over
    heads : also one map of each head
    gradients : also gradient x input and integrated gradients
    surrogates : take the null from so many recordings in which each unit is shifted in time, instead of from shuffled
        identities
    reliability : also how well each map of the model repeats between two halves of the windows
    most_units : of a larger population, maps are of so many units, those with the most spikes; 0: of all. The model sees all
        units either way; ``attend_units`` of the summary says of how many maps are

    Raises
    ------
    ConfigError
        Maps of so many units do not fit into the memory that is free.
    """
    units = busiest(prepared, most_units)
    _refuse_too_many(model, model.num_units if units is None else len(units))
    everything = prepared.windows("test") if windows is None else windows
    order = np.random.default_rng(prepared.config.seed).permutation(len(everything))
    some, few = (everything[np.sort(order[:count])] for count in (num_windows, num_knock_out))

    def of_model(prepared: Prepared, some: Windows, few: Windows) -> list[Map]:
        maps = [influence.knock_out(model, prepared, few, units=units)]
        if gradients:
            maps += [influence.gradients(model, prepared, few, steps=steps, units=units) for steps in (1, 8)]
        attended = attention.attention_maps(model, prepared, some, heads=heads)
        return maps + (attended if units is None else [m.among(units) for m in attended])

    def all_maps(prepared: Prepared) -> list[Map]:
        maps = of_model(prepared, some, few)
        assert maps[0].lags_s is not None
        own = 0 if surrogates else SURROGATES  # one null is enough
        return maps + pairwise_maps(prepared, len(maps[0].lags_s), prepared.builder.shape.current, own, units)

    if surrogates:
        maps = nulls.rate_matched(all_maps, prepared, surrogates=surrogates, seed=prepared.config.seed)
    else:
        maps = [nulls.shuffled_identities(m) if m.square else m for m in all_maps(prepared)]
    summary: dict[str, Any] = {"attend_windows": len(some), "attend_knock_out_windows": len(few)}
    if units is not None:
        summary["attend_units"] = len(units)
    if reliability:
        found = nulls.split_half(lambda half: of_model(prepared, half, half[: len(few)]), some)
        summary |= {f"reliability_{_key(name)}": r for name, r in found.items()}
    frames = None
    if "frames" in model.streams:
        frames = attention.frame_attention(model, prepared, everything[:NUM_FRAME_WINDOWS])
    return Attended(maps, summary | against_truth(maps, prepared), frames)


def busiest(prepared: Prepared, most: int) -> np.ndarray | None:
    """Places, ascending, of so many units with the most spikes; None: of all."""
    number = prepared.index.num_units
    if not 0 < most < number:
        return None
    spikes = np.bincount(prepared.index.unit, minlength=number)
    return np.sort(np.argsort(-spikes, kind="stable")[:most])


def _refuse_too_many(model: Neuroformer, units: int) -> None:
    """Every pair of units has a value at each lag, in every map: known before any is made."""
    lags, free = model.past_bins + model.num_bins - 1, free_memory(torch.device("cpu"))
    needed = 8.0 * ARRAYS * units**2 * lags
    if needed > free:
        fit = int((free / (8.0 * ARRAYS * lags)) ** 0.5)
        raise ConfigError(
            f"maps of {units:,} x {units:,} units at {lags} lags need about {needed / 1e9:.3g} GB, and "
            f"{free / 1e9:.3g} GB are free; map fewer units (--units {fit}; most_units={fit} in Python), or train a run "
            "with a shorter window.past"
        )


def pooled(each: Sequence[Attended], prepared: Prepared) -> Attended:
    """The mean maps of runs with other seeds on the same recording; their spread is the null. The first run's summary
    is kept, but for how well maps agree with a known coupling.
    """
    if len(each) == 1:
        return each[0]
    named = [{m.name: m for m in one.maps} for one in each]
    shared = [m.name for m in each[0].maps if all(m.name in found for found in named)]
    maps = [nulls.average([found[name] for found in named]) for name in shared]
    return Attended(maps, each[0].summary | against_truth(maps, prepared), each[0].frames)


def against_truth(maps: Sequence[Map], prepared: Prepared) -> dict[str, float]:
    """How well each map of units by units agrees with the coupling, where a recording knows its own; else empty."""
    coupling, out = prepared.rec.truth.get("coupling"), {}
    if coupling is not None and np.any(coupling):
        place = {name: u for u, name in enumerate(prepared.rec.unit_ids)}
        for m in (m for m in maps if m.square):
            among = [place[name] for name in m.rows]
            found = agreement(m, coupling[np.ix_(among, among)])
            out |= {f"coupling_auroc_{_key(m.name)}": found["auroc"], f"coupling_r2_{_key(m.name)}": found["r2"]}
    return out


def _key(name: str) -> str:
    return name.replace(" ", "_").replace(",", "").replace("-", "_")

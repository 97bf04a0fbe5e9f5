"""What a past spike does to the prediction: knock-out (the causal map), gradient x input, integrated gradients.

Shape suffixes: W windows, V windows with one unit silenced, P past spikes, B bins, U units, L lags.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from neuroformer.analysis.maps import Map
from neuroformer.config import ConfigError
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.model.network import Neuroformer
from neuroformer.model.spikes import SpikeObservation
from neuroformer.ops import Ragged

LOG_ODDS = "change of log-odds"
MAX_CELLS = 1 << 23  # largest windows x bins x units at once


def log_odds(log_rate: Tensor) -> Tensor:
    """Log-odds that a bin holds a spike, from the log of its expected (Poisson) count."""
    return torch.log(torch.expm1(log_rate.exp()).clamp_min(1e-30))


def log_rates(model: Neuroformer, batch: Batch) -> Tensor:
    """(W, B, U) log of the expected counts, without any current spike.

    Raises
    ------
    ConfigError
        A model of traces, whose samples have no rates.
    """
    if not isinstance(model.observation, SpikeObservation):
        raise ConfigError("this run models traces; what acts on a unit is measured in the log-odds of its spikes")
    return model.expected(batch)


@torch.no_grad()
def knock_out(
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows,
    *,
    units: np.ndarray | None = None,
    reach_s: float | None = None,
    batch_size: int = 64,
) -> Map:
    """Silence a unit in the past; measure the change of every unit's predicted log-odds.

    For every window and every unit that fired within ``reach_s`` before it, all past spikes of that unit are
    removed from everything that the model sees. The value of (i, j, lag) is the mean, over all such
    occasions, of the log-odds that unit i fires in a bin with the spikes of j minus without them, ``lag`` being
    the time from j's last spike to that bin. This is a causal statement about the model, not an association.

    Parameters
    ----------
    model : Neuroformer, in evaluation mode
    windows : what to measure on
    units : places of those that are silenced, and whose predictions are looked at; None: all
    reach_s : seconds before the window; by default all of the past that the model sees
    batch_size : windows at once, before silencing

    Returns
    -------
    Map
        (units acted on, units acting, lags); NaN where a unit never fired at that lag.
    """
    dt, num_bins = prepared.split.dt, model.num_bins
    reach = _reach(model, dt, reach_s)
    num_lags = reach + num_bins - 1
    device = model.device
    chosen_U, place_U = _chosen(model, units)
    num_units = len(chosen_U)
    sums = torch.zeros(num_units * num_lags, num_units, dtype=torch.float64, device=device)
    count = torch.zeros(num_units * num_lags, dtype=torch.float64, device=device)
    bins = torch.arange(num_bins, device=device)
    step = max(1, MAX_CELLS // (num_bins * model.num_units))
    for batch in prepared.batches(windows, batch_size, device):
        base_WBU = log_odds(log_rates(model, batch))
        silenced = _silenced(batch, reach, model.num_units)
        window_V, unit_V, last_V = (x[place_U[silenced[1]] >= 0] for x in silenced)
        for which in torch.arange(len(window_V), device=device).split(step):
            w, u = window_V[which], unit_V[which]
            change = (base_WBU[w] - log_odds(log_rates(model, without(batch, w, u)))).index_select(2, chosen_U)
            lag = -last_V[which][:, None] + bins - 1  # 0: the bin after the spike
            place = (place_U[u][:, None] * num_lags + lag).flatten()
            known = lag.flatten() < num_lags
            sums.index_add_(0, place[known], change.flatten(0, 1)[known].double())
            count.index_add_(0, place[known], torch.ones_like(place[known], dtype=torch.float64))
    values = (sums / count[:, None]).view(num_units, num_lags, num_units).permute(2, 0, 1)
    values = torch.where((count > 0).view(1, num_units, num_lags), values, torch.nan)
    lags_s = np.round((np.arange(num_lags) + 1) * dt, 9)
    times, ids = count.view(1, num_units, num_lags).cpu().numpy(), _ids(prepared, chosen_U)
    return Map("knock-out", values.cpu().numpy(), LOG_ODDS, ids, ids, times, lags_s)


def _chosen(model: Neuroformer, units: np.ndarray | None) -> tuple[Tensor, Tensor]:
    """Places of the units that a map is of, and (U,) the place of each unit in it, -1 of the others."""
    every = torch.arange(model.num_units, device=model.device)
    chosen_U = every if units is None else torch.from_numpy(np.asarray(units, np.int64)).to(model.device)
    place_U = torch.full_like(every, -1)
    place_U[chosen_U] = torch.arange(len(chosen_U), device=model.device)
    return chosen_U, place_U


def _ids(prepared: Prepared, chosen_U: Tensor) -> list[str]:
    return [prepared.rec.unit_ids[u] for u in chosen_U.tolist()]


def _silenced(batch: Batch, reach: int, num_units: int) -> tuple[Tensor, Tensor, Tensor]:
    """Window, unit, and bin of the last spike of every unit that fired in the last ``reach`` bins."""
    near = batch.past_tick_P >= -reach
    key = (batch.past.row_T * num_units + batch.past_unit_P)[near]
    last = torch.full((batch.num_windows * num_units,), -reach - 1, device=key.device)
    last.scatter_reduce_(0, key, batch.past_tick_P[near], "amax")
    found = torch.nonzero(last >= -reach).squeeze(1)
    return found // num_units, found % num_units, last[found]


def without(batch: Batch, window_V: Tensor, unit_V: Tensor) -> Batch:
    """Copies of windows, each without the past spikes of one unit; current spikes are left out.

    Parameters
    ----------
    window_V, unit_V : which window each copy is of, and which unit is silent in it
    """
    lengths = batch.past.lengths_B[window_V]
    row = torch.repeat_interleave(torch.arange(len(window_V), device=lengths.device), lengths)
    start = torch.cumsum(lengths, 0) - lengths
    place = torch.arange(len(row), device=row.device) - start[row] + batch.past.offsets[:-1][window_V][row]
    keep = batch.past_unit_P[place] != unit_V[row]
    kept, rows = place[keep], row[keep]
    layout = Ragged.from_lengths(torch.bincount(rows, minlength=len(window_V)))
    none = torch.zeros(len(window_V) + 1, dtype=torch.int64, device=row.device)
    empty = batch.tick_S[:0]
    c = batch.clips
    if c is not None:
        c = dataclasses.replace(c, index_W=c.index_W[window_V], key_W=c.key_W[window_V], age_W=c.age_W[window_V])
    return Batch(
        current=Ragged(none, 0, 0),
        tick_S=empty,
        unit_S=empty,
        past=layout,
        past_tick_P=batch.past_tick_P[kept],
        past_unit_P=batch.past_unit_P[kept],
        available_W=batch.available_W[window_V],
        segment_W=batch.segment_W[window_V],
        tick_W=batch.tick_W[window_V],
        clips=c,
        inputs={k: x[window_V] for k, x in batch.inputs.items()},
    )


def _reach(model: Neuroformer, dt: float, reach_s: float | None) -> int:
    """Bins before the window; by default all of the past that the model sees."""
    if reach_s is None:
        return model.past_bins
    return min(model.past_bins, max(1, round(reach_s / dt)))


def gradients(
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows,
    *,
    steps: int = 1,
    units: np.ndarray | None = None,
    reach_s: float | None = None,
    batch_size: int = 128,
) -> Map:
    """Gradient x input of past spikes (``steps`` 1), or integrated gradients (Sundararajan et al., ICML 2017).

    The input is how much each past spike counts, 1; the baseline is 0, spikes that are of no unit (where each spike is a
    key of its own, its time can still be attended to; knock-outs take that away as well). The value of
    (i, j, lag) is the mean, over past spikes of j ``lag`` before a window's first bin, of the attribution to the
    sum over the window's bins of unit i's log-odds. Integrated gradients average the gradient at ``steps`` midpoints
    between 0 and 1. ``units``: as of :func:`knock_out`.
    """
    dt = prepared.split.dt
    reach = _reach(model, dt, reach_s)
    device = model.device
    chosen_U, place_U = _chosen(model, units)
    num_units = len(chosen_U)
    sums = torch.zeros(num_units, num_units * reach, dtype=torch.float64, device=device)
    count = torch.zeros(num_units * reach, dtype=torch.float64, device=device)
    for batch in prepared.batches(windows, batch_size, device):
        acting = place_U[batch.past_unit_P]
        near = (batch.past_tick_P >= -reach) & (acting >= 0)
        place = (acting * reach - 1 - batch.past_tick_P)[near]
        count.index_add_(0, place, torch.ones_like(place, dtype=torch.float64))
        for alpha, share in path(steps):
            weight = torch.full_like(batch.past_tick_P, float(alpha), dtype=model.first.dtype).requires_grad_()
            score = log_odds(log_rates(model, dataclasses.replace(batch, past_weight_P=weight))).sum((0, 1))
            for row, unit in enumerate(chosen_U.tolist()):
                (slope,) = torch.autograd.grad(score[unit], weight, retain_graph=row + 1 < num_units)
                sums[row].index_add_(0, place, slope[near].double() * share)
    values = torch.where(count > 0, sums / count, torch.nan).view(num_units, num_units, reach)
    name = "gradient x input" if steps == 1 else "integrated gradients"
    lags_s = np.round((np.arange(reach) + 1) * dt, 9)
    times, ids = count.view(1, num_units, reach).cpu().numpy(), _ids(prepared, chosen_U)
    return Map(name, values.cpu().numpy(), LOG_ODDS, ids, ids, times, lags_s)


def path(steps: int) -> list[tuple[float, float]]:
    """Places between a baseline (0) and the input (1) at which the gradient is taken, and the share of each in the mean."""
    return [(1.0, 1.0)] if steps == 1 else [((k + 0.5) / steps, 1 / steps) for k in range(steps)]

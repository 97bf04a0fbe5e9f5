"""Who attends to whom: maps of attention over any windows of a recording, reduced while they stream.

No attention matrix is kept beyond its batch, only sums: units x units, units x places x lags, or units x
variables.

Shape suffixes: T query tokens (SOS included), S key tokens, B windows, L queries and K keys of the longest window,
H heads, X and Y labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from neuroformer.analysis.maps import Map
from neuroformer.data.batch import Batch
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.model.attention import Block, Observer
from neuroformer.model.network import Neuroformer
from neuroformer.model.streams import PastSpikes, past_exists
from neuroformer.ops import Ragged, attention_with_map
from neuroformer.ops import maps as ops_maps

Rows = Literal["predicted", "spike"]


@dataclass
class Labels:
    """Which row of a map each token of a batch belongs to as a query, and which column as a key."""

    query_T: Tensor
    key: dict[str, Tensor]


class AttentionCapture:
    """Sums attention by label over batches; :meth:`maps` divides by how often each pair could have been attended.

    Parameters
    ----------
    model : Neuroformer, in evaluation mode
    unit_ids : names of its units
    heads : also a map of every head
    rollout : also attention rolled out across blocks, after Abnar & Zuidema, ACL 2020: each block mixes its
        tokens half with what they attend to, and attention to a stream flows on through later self-attention
    rows : "predicted": a token counts for the unit of the spike that it predicts next;
        "spike": for the unit of its own spike
    """

    def __init__(
        self,
        model: Neuroformer,
        unit_ids: list[str],
        *,
        heads: bool = False,
        rollout: bool = False,
        rows: Rows = "predicted",
    ):
        self.model, self.unit_ids, self.heads, self.rows = model, unit_ids, heads, rows
        self.blocks = [b for b in model.blocks if isinstance(b, Block)]
        self.columns = _columns(model, unit_ids)
        self.names = _block_names(self.blocks)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.rollout = _AttentionFlow(self) if rollout else None

    @torch.no_grad()
    def add(self, batch: Batch) -> None:
        """Run the model on a batch and add what its blocks attend to."""
        labels = self.labels(batch)
        seen: set[str] = set()
        if self.rollout is not None:
            self.rollout.begin(labels)
        observers = [self._observer(place, block, labels, seen) for place, block in enumerate(self.blocks)]
        with _observed(self.blocks, observers):
            self.model(batch)
        if self.rollout is not None:
            self.rollout.end()

    def _observer(self, place: int, block: Block, labels: Labels, seen: set[str]) -> Observer:
        def observe(
            q: Tensor, k: Tensor, v: Tensor, layout: Ragged, k_layout: Ragged, k_index: Tensor | None
        ) -> Tensor:
            stream, causal = block.attend, block.attend == "current"
            key = labels.key[stream]
            size = (len(self.unit_ids), len(self.columns[stream].names))
            mixed, sums = attention_with_map(
                q,
                k,
                v,
                layout,
                k_layout,
                labels.query_T,
                key,
                size,
                per_head=self.heads,
                k_index=k_index,
                causal=causal,
            )
            self._add(self.sums, self.names[place], sums)
            if stream not in seen:  # what could be attended is the same for every block of a stream
                seen.add(stream)
                self._add(self.counts, stream, _pairs(labels.query_T, key, layout, k_layout, k_index, causal, size))
            if self.rollout is not None:
                self.rollout.observe(block, q, k, layout, k_layout, k_index)
            return mixed

        return observe

    @staticmethod
    def _add(total: dict[str, Tensor], key: str, value: Tensor) -> None:
        total[key] = total[key] + value if key in total else value

    def labels(self, batch: Batch) -> Labels:
        """Labels of every query and every key of a batch; -1 for SOS, null tokens and tokens without a label."""
        device = batch.unit_S.device
        spikes = batch.current
        count = torch.arange(len(spikes) + 1, device=device)
        first = spikes.offsets[:-1] + count[:-1]
        place = torch.arange(spikes.total, device=device) + spikes.row_T
        own = torch.full((spikes.total + len(spikes),), -1, dtype=torch.int64, device=device)
        own[place + 1] = batch.unit_S
        following = torch.full_like(own, -1)
        following[place] = batch.unit_S
        assert bool((own[first] == -1).all())
        key = {"current": own}
        if "past" in self.model.streams:
            key["past"] = _past_labels(self.model, batch)
        for group in self.model.config.input_groups:
            key[group] = _input_labels(self.model, group, batch)
        if batch.clips is not None and "frames" in self.model.streams:
            key["frames"] = _frame_labels(self.model, self.model.frames.missing(batch))
        return Labels(following if self.rows == "predicted" else own, key)

    def maps(self) -> list[Map]:
        """Every map: blocks in order, then heads, then rolled out."""
        out = []
        for name, sums in self.sums.items():
            stream = self.blocks[self.names.index(name)].attend
            if not self.heads:
                out.append(self._map(name, stream, sums))
                continue
            out.append(self._map(name, stream, sums.mean(0)))
            out += [self._map(f"{name}, head {h + 1}", stream, s) for h, s in enumerate(sums)]
        if self.rollout is not None:
            out += [self._map(f"attention to {s}, rolled out", s, v) for s, v in self.rollout.sums.items()]
        return out

    def _map(self, name: str, stream: str, sums: Tensor) -> Map:
        columns = self.columns[stream]
        count = self.counts[stream].cpu().numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(count > 0, sums.cpu().numpy() / count, np.nan)
        if columns.lags_s is not None:  # labels run over time, then place
            shape = (len(values), len(columns.lags_s), -1)
            values, count = (x.reshape(shape).swapaxes(1, 2) for x in (values, count))
            names = columns.names[: values.shape[1]]
        else:
            names = columns.names
        return Map(
            name, values, "share of a token's attention", self.unit_ids, names, count, columns.lags_s, columns.grid
        )


@dataclass
class _Columns:
    names: list[str]
    lags_s: np.ndarray | None = None
    grid: tuple[int, int] | None = None


def _columns(model: Neuroformer, unit_ids: list[str]) -> dict[str, _Columns]:
    """Names of each stream's keys."""
    out = {"current": _Columns(unit_ids), "past": _Columns(unit_ids)}
    if "past" in model.streams and not _is_by_spike(model):  # labels run from the window backwards
        bins = model.past_bins
        out["past"] = _Columns(["all units"] * bins, np.round((np.arange(bins) + 1) * model.config.window.dt, 9))
    for group in model.config.input_groups:
        out[group] = _Columns([v.name for v in model.config.inputs if v.group == group])
    if "frames" in model.streams:
        frames = model.frames
        (steps, rows, columns), stride, kernel = frames.encoder.grid, frames.encoder.stride[0], frames.encoder.kernel[0]
        center = np.arange(steps) * stride + (kernel - 1) / 2
        count = (steps - 1) * stride + kernel
        lags = (count - 1 - center) * frames.period
        places = [f"row {r}, column {c}" for r in range(rows) for c in range(columns)]
        out["frames"] = _Columns(places * steps, lags, (rows, columns))
    return out


def _block_names(blocks: list[Block]) -> list[str]:
    """Names of the blocks; blocks that attend to the same stream are numbered."""
    names = []
    for i, block in enumerate(blocks):
        same = sum(b.attend == block.attend for b in blocks)
        number = sum(b.attend == block.attend for b in blocks[: i + 1])
        names.append(f"attention to {block.attend}" + (f", block {number}" if same > 1 else ""))
    return names


def _behind_null(layout: Ragged, label_S: Tensor) -> Tensor:
    out = label_S.new_full((layout.total + len(layout),), -1)
    return out.index_copy(0, torch.arange(layout.total, device=out.device) + layout.row_T + 1, label_S)


def _is_by_spike(model: Neuroformer) -> bool:
    """Whether every past spike is a key of its own, not every bin of the past."""
    stream = model.streams["past"]
    return isinstance(stream, PastSpikes) and not stream.by_bin


def _past_labels(model: Neuroformer, batch: Batch) -> Tensor:
    """The unit of each past spike, or how many bins back each bin of the past lies, after one null token per window."""
    if _is_by_spike(model):
        return _behind_null(batch.past, batch.past_unit_P)
    exists = past_exists(batch, model.past_bins)
    back = torch.arange(model.past_bins - 1, -1, -1, device=exists.device).expand(len(exists), -1)
    return _behind_null(Ragged.from_lengths(exists.sum(1)), back[exists])


def _input_labels(model: Neuroformer, group: str, batch: Batch) -> Tensor:
    """The variable of each existing sample of a group, after one null token per window."""
    exist, label = [], []
    for v in [v for v in model.config.inputs if v.group == group]:
        there = torch.isfinite(batch.inputs[v.name]).all(-1)
        exist.append(there)
        label.append(torch.full_like(there, len(label), dtype=torch.int64))
    there, labels = torch.cat(exist, 1), torch.cat(label, 1)
    return _behind_null(Ragged.from_lengths(there.sum(1)), labels[there])


def _frame_labels(model: Neuroformer, num_missing_G: Tensor) -> Tensor:
    """Time and place of each remaining token of every clip, after one null token per clip."""
    encoder = model.frames.encoder
    steps, rows, columns = encoder.grid
    size = steps * rows * columns
    last = torch.arange(steps, device=num_missing_G.device) * encoder.stride[0] + encoder.kernel[0]
    keep = (last > num_missing_G[:, None]).repeat_interleave(rows * columns, 1)
    labels = torch.arange(size, device=keep.device).expand(len(keep), -1)
    return _behind_null(Ragged.from_lengths(keep.sum(1)), labels[keep])


def _pairs(query_T, key_S, q_layout, k_layout, k_index, causal: bool, size: tuple[int, int]) -> Tensor:
    """(X, Y) float64: how many pairs of a query and a key that it could see have these labels."""
    if not causal:
        queries, keys = (
            torch.zeros(len(layout), n + 1, dtype=torch.float64, device=label.device).index_put_(
                (layout.row_T, label.where(label >= 0, n)), label.new_ones(()).double(), accumulate=True
            )[:, :n]
            for layout, label, n in ((q_layout, query_T, size[0]), (k_layout, key_S, size[1]))
        )
        return queries.T @ (keys if k_index is None else keys.index_select(0, k_index))
    total = torch.zeros(1, *size, dtype=torch.float64, device=query_T.device)
    for piece in ops_maps.pieces(q_layout, k_layout, 1, causal=True):
        cell = piece.cells(query_T, key_S, size)
        total += ops_maps.reduce(torch.ones_like(cell, dtype=torch.float64)[None], cell, size)
    return total[0]


class _AttentionFlow:
    """Attention passed on through later blocks; weights of one batch at a time, (B, L, K) for each stream."""

    def __init__(self, capture: AttentionCapture):
        self.capture = capture
        self.sums: dict[str, Tensor] = {}

    def begin(self, labels: Labels) -> None:
        self.labels = labels
        self.flow: dict[str, Tensor] = {}
        self.pieces: dict[str, ops_maps.Piece] = {}

    def observe(self, block: Block, q, k, layout: Ragged, k_layout: Ragged, k_index) -> None:
        if block.attend not in self.pieces:
            self.pieces[block.attend] = ops_maps.whole(layout, k_layout, k_index, block.attend == "current")
        p = self.pieces[block.attend].weights(q, k).mean(1)
        if block.attend == "current":
            own = self.flow.get("current")
            self.flow = {s: 0.5 * x + 0.5 * p @ x for s, x in self.flow.items() if s != "current"}
            self.flow["current"] = 0.5 * p if own is None else 0.5 * own + 0.5 * p @ own + 0.5 * p
        else:
            self.flow = {s: 0.5 * x for s, x in self.flow.items()}
            self.flow[block.attend] = self.flow.get(block.attend, 0.0) + 0.5 * p

    def end(self) -> None:
        for stream, p in self.flow.items():
            size = (len(self.capture.unit_ids), len(self.capture.columns[stream].names))
            cell = self.pieces[stream].cells(self.labels.query_T, self.labels.key[stream], size)
            AttentionCapture._add(self.sums, stream, ops_maps.reduce(p[None], cell, size)[0])


@contextmanager
def _observed(blocks: Sequence[Block], observers: Sequence[Observer]) -> Iterator[None]:
    """Inside this context, each block shows its attention to its observer."""
    try:
        for block, observer in zip(blocks, observers, strict=True):
            block.observer = observer
        yield
    finally:
        for block in blocks:
            block.observer = None


def _frame_observer(key_S: Tensor, total: Tensor) -> Observer:
    """Adds to ``total`` (windows, places) the mean attention of each window's tokens to the places ``key_S``."""

    def observe(q, k, v, layout, k_layout, k_index):
        size = (len(layout), total.shape[1])
        mixed, sums = attention_with_map(
            q, k, v, layout, k_layout, layout.row_T, key_S, size, per_head=False, k_index=k_index
        )
        total.add_(sums / layout.lengths_B[:, None])
        return mixed

    return observe


def attention_maps(
    model: Neuroformer,
    prepared: Prepared,
    windows: Windows,
    *,
    batch_size: int = 256,
    heads: bool = False,
    rollout: bool = True,
    rows: Rows = "predicted",
) -> list[Map]:
    """Attention of every block over some windows, as maps; options as in :class:`AttentionCapture`. Memory
    holds one batch and the maps, however many windows there are.
    """
    capture = AttentionCapture(model, prepared.rec.unit_ids, heads=heads, rollout=rollout, rows=rows)
    for batch in prepared.batches(windows, batch_size, model.device):
        capture.add(batch)
    return capture.maps()


def frame_attention(
    model: Neuroformer, prepared: Prepared, windows: Windows, *, batch_size: int = 256
) -> dict[str, np.ndarray]:
    """Attention to each place of the frames, window by window.

    Returns
    -------
    dict
        ``images`` (windows, height, width): the last frame that each window saw; ``times`` (windows,) its start
        (s); ``attention`` (windows, rows, columns): share of its tokens' attention, over blocks and heads;
        ``extent``: top, left, bottom and right of the grid in pixels.
    """
    encoder = model.frames.encoder
    steps, rows, columns = encoder.grid
    blocks = [b for b in model.blocks if isinstance(b, Block) and b.attend == "frames"]
    found: dict[str, list[np.ndarray]] = {"images": [], "attention": []}
    for batch in prepared.batches(windows, batch_size):
        assert batch.clips is not None
        total = torch.zeros(batch.num_windows, steps * rows * columns, dtype=torch.float64)
        observer = _frame_observer(_frame_labels(model, model.frames.missing(batch)), total)
        with torch.no_grad(), _observed(blocks, [observer] * len(blocks)):
            model(batch)
        found["attention"].append(total.view(-1, steps, rows, columns).sum(1).numpy() / max(len(blocks), 1))
        found["images"].append(prepared.builder.last_images(Windows(batch.segment_W.numpy(), batch.tick_W.numpy())))
    (_, kh, kw), (_, sh, sw) = encoder.kernel, encoder.stride
    # a token's cell: as wide as the stride, in the middle of its kernel
    top, left = (kh - sh) / 2, (kw - sw) / 2
    return {
        "images": np.concatenate(found["images"]),
        "attention": np.concatenate(found["attention"]),
        "times": windows.starts(prepared.index),
        "extent": np.array([top, left, top + rows * sh, left + columns * sw]),
    }

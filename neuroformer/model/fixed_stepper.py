"""The stepper for CUDA graphs: every tensor of a step keeps its shape and its address, window after window.

Shape suffixes: W windows, A sequences (none is dropped: A = W), S rows of key storage, L room for tokens, H heads,
E head width, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from neuroformer.data.batch import Batch
from neuroformer.model.attention import Block, Context
from neuroformer.model.network import Neuroformer
from neuroformer.model.stepper import Stepper
from neuroformer.ops import decode_attention

CHANGED = ("h_AD", "cell_A", "base_ABU", "drive_ABU", "mass_AB")  # a step reads or changes them
ROOM = 32  # tokens of a window, the first one included, that there is room for at first


@dataclass
class Places:
    """Tensors at fixed addresses, since a captured graph knows memory by its address alone.

    Attributes
    ----------
    held : by name, what steps change
    stored : by name, keys and values, with rows to spare
    bounds : by name, lengths that a step was made for
    moved : a tensor was created or grew, so earlier captures are invalid
    """

    held: dict[str, Tensor] = field(default_factory=dict)
    stored: dict[str, Tensor] = field(default_factory=dict)
    bounds: dict[str, int] = field(default_factory=dict)
    moved: bool = False

    def put(self, name: str, value: Tensor) -> Tensor:
        """Copy ``value`` into the tensor of that name and return it."""
        place = self.held.get(name)
        if place is None or place.shape != value.shape or place.dtype != value.dtype:
            self.held[name], self.moved = value.clone(), True
        else:
            place.copy_(value)
        return self.held[name]

    def store(self, name: str, value: Tensor) -> Tensor:
        """As :meth:`put`, but the tensor may have more rows; its size doubles when it must grow."""
        place = self.stored.get(name)
        if place is None or place.shape[1:] != value.shape[1:] or place.dtype != value.dtype or len(place) < len(value):
            place, self.moved = value.new_zeros(_above(len(value)), *value.shape[1:]), True
        place[: len(value)] = value
        self.stored[name] = place
        return place

    def bound(self, name: str, length: int) -> int:
        """A power of two that ``length`` has never exceeded so far."""
        if length > self.bounds.get(name, 0):
            self.bounds[name], self.moved = _above(length), True
        return self.bounds[name]


def _above(n: int) -> int:
    """The power of two from n on."""
    return 1 << max(n - 1, 0).bit_length()


class FixedStepper(Stepper):
    """A :class:`~neuroformer.model.stepper.Stepper` whose steps are always the same kernels and never wait for the
    device. Sequences that have ended are not fed. Everything that a step reads or writes lies in ``places``: creating
    a stepper for the next window with the same places prepares the captured step for that window.
    """

    def __init__(self, model: Neuroformer, batch: Batch, places: Places):
        self.places = places
        places.bound("current", ROOM)
        device = model.device
        self.every = places.put("every", torch.arange(batch.num_windows, device=device))
        self.filled_A = places.put("filled", torch.zeros_like(self.every))  # tokens of each, the first one included
        self.length_A: dict[str, Tensor] = {}  # by stream, how many keys there are
        # ... and how many are read: none by a sequence that is not fed, whose result nobody wants
        self.read_A: dict[str, Tensor] = {"current": self.filled_A + 1}
        super().__init__(model, batch)
        self.time_table = places.put("time", self.time_table)
        for name in CHANGED:
            setattr(self, name, places.put(name, getattr(self, name)))
        self.fed_A = torch.ones_like(self.filled_A, dtype=torch.bool)
        self.filled_A.add_(1)

    def keep(self, which: Tensor) -> None:
        raise TypeError("a FixedStepper drops no sequence")

    def feed_some(self, tick: Tensor, unit: Tensor, fed_A: Tensor) -> None:
        """Append one spike to the sequences ``fed_A`` (A, bool); the others stay as they are."""
        for name, length_A in (*self.length_A.items(), ("current", self.filled_A + 1)):
            self.read_A[name] = torch.where(fed_A, length_A, 0)
        cell_A, h_AD, self.fed_A = self.cell_A, self.h_AD, fed_A
        self.feed(tick, unit)
        self.cell_A = cell_A.copy_(torch.where(fed_A, self.cell_A, cell_A))
        self.h_AD = h_AD.copy_(torch.where(fed_A[:, None], self.h_AD, h_AD))
        self.filled_A.add_(fed_A)

    def _act(self, tick: Tensor, unit: Tensor, acts_A: Tensor) -> None:
        super()._act(tick, unit, acts_A & self.fed_A)

    @property
    def room(self) -> int:
        """Tokens of a window, the first one included, that fit."""
        return self.places.bounds["current"]

    def grow(self) -> None:
        """Make room for twice as many."""
        self.places.bound("current", 2 * self.room)
        for i, block in enumerate(self.blocks):
            if block.attend == "current":
                old = self.places.stored[f"current{i}"]
                new = old.new_zeros(len(self.every) * self.room, *old.shape[1:])
                width = len(old) // len(self.every)
                new.unflatten(0, (-1, self.room))[:, :width] = old.unflatten(0, (-1, width))
                self.places.stored[f"current{i}"] = new

    def _advance(self, x_AD: Tensor) -> Tensor:
        self.start_A = self.every * self.room  # of each sequence's own tokens
        self.next_A = self.start_A + self.filled_A
        return super()._advance(x_AD)

    def _keys(self, place: int, block: Block, context: Context) -> _StoredKeys:
        k, v = (
            self.places.store(f"{name}{place}", x) for name, x in zip("kv", block.keys_values(context), strict=True)
        )
        start_A, length_A = context.layout.offsets[:-1], context.layout.lengths_B
        if context.index_W is not None:
            start_A, length_A = start_A[context.index_W], length_A[context.index_W]
        name = block.attend
        self.length_A[name] = self.read_A[name] = self.places.put(f"length {name}", length_A)
        most = self.places.bound(name, context.layout.max_length)
        return _StoredKeys(self, name, k, v, self.places.put(f"start {name}", start_A), most)

    def _attend(self, place: int, q_AHE: Tensor, new_A2HE: Tensor) -> Tensor:
        # fills the KV cache as well: one kernel reads it where it lies
        room, kept = self.room, self.places.stored.get(f"current{place}")
        if kept is None or kept.shape[1:] != new_A2HE.shape[1:] or len(kept) != len(self.every) * room:
            kept = self.places.stored[f"current{place}"] = new_A2HE.new_zeros(
                len(self.every) * room, *new_A2HE.shape[1:]
            )
            self.places.moved = True
        kept.index_copy_(0, self.next_A, new_A2HE)
        return decode_attention(q_AHE, kept[:, 0], kept[:, 1], self.start_A, self.read_A["current"], room)


@dataclass
class _StoredKeys:
    """Packed keys and values of a stream, with the start of each sequence's; sequences may share them."""

    stepper: FixedStepper
    name: str
    k_SHE: Tensor
    v_SHE: Tensor
    start_A: Tensor
    max_length: int

    def read(self, q_AHE: Tensor, rows: Tensor) -> Tensor:
        length_A = self.stepper.read_A[self.name]
        return decode_attention(q_AHE, self.k_SHE, self.v_SHE, self.start_A, length_A, self.max_length)

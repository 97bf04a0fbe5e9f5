"""Parameters that belong to units: declared where they are made, so that nobody has to know them by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class UnitRows(nn.Module):
    """A parameter with one row for each unit of a recording.

    Everything else in the network is shared by all recordings of a run; a new recording needs new rows only. Whoever
    shares, adapts, stores or optimises a network finds these modules by their type.

    Parameters
    ----------
    num_units : int
    shape : int
        Of a row.
    std : float
        Of the initial values, which are normal around zero; 0: all are zero.
    pace : float
        Times ``train.lr``, for rows that end far from where they start.
    from_data : bool
        Rows start from what the recording itself says, so that no other recording's rows are a better start.
    """

    def __init__(self, num_units: int, *shape: int, std: float = 0.0, pace: float = 1.0, from_data: bool = False):
        super().__init__()
        self.weight = nn.Parameter(std * torch.randn(num_units, *shape) if std else torch.zeros(num_units, *shape))
        self.pace, self.from_data = pace, from_data

    def forward(self, unit_S: Tensor) -> Tensor:
        """(S, ...) rows of units."""
        return self.weight.index_select(0, unit_S)

"""The state of a window before its own spikes, and the output of the model.

Shape suffixes: W windows, T tokens (SOS included), S current spikes, B bins of a window, U units, P parameters,
R raw outputs, G stretches of frames, K frames of a stretch, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from neuroformer.model.attention import Context
from neuroformer.model.intensity import bounded
from neuroformer.model.surprise import Expected
from neuroformer.ops import Ragged


@dataclass
class Output:
    """The output of the model for a batch.

    Attributes
    ----------
    dt_nll_T : (T,) nats of each window's next bin after SOS and after every spike (the last: no more)
    id_nll_S : (S,) nats of each spike's unit
    log_rate_WBU : log of the expected counts
    targets : by variable, (W, values, R) raw outputs of its head
    traces_WBUP : parameters of every sample, where traces are what is modelled
    features : by name (neural, frames, groups), (W or clips, shared width), normalised
    """

    dt_nll_T: Tensor
    id_nll_S: Tensor
    log_rate_WBU: Tensor
    layout: Ragged
    targets: dict[str, Tensor] = field(default_factory=dict)
    traces_WBUP: Tensor | None = None
    features: list[tuple[Tensor, Tensor]] = field(default_factory=list)


@dataclass
class State:
    """What is computed once per window, before any current spike.

    Attributes
    ----------
    contexts : streams to attend to
    start_WD : the first token
    linear_WBU : terms of the log rates that inputs and frames give
    drive_WBU : terms that past spikes give, not yet bounded
    most_drive : bound of what they add
    expected : what :class:`~neuroformer.model.surprise.Surprise` compares spikes with
    """

    contexts: dict[str, Context]
    start_WD: Tensor
    linear_WBU: Tensor | float
    drive_WBU: Tensor | None
    most_drive: float
    expected: Expected | None = None

    @property
    def log_rate_terms(self) -> Tensor | float:
        if self.drive_WBU is None:
            return self.linear_WBU
        return self.linear_WBU + bounded(self.drive_WBU, self.most_drive)

"""What a unit's own earlier spikes of a bin say about further ones: counts that are not Poisson.

Shape suffixes: R rows (bins), U units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_PRIOR = 10.0  # inverse variance of the lines' coefficients around those of a Poisson count
_LIMIT = 30  # Newton steps
_CELLS = 500_000  # rows x units that are looked at together


@dataclass
class OwnSpikes:
    """A hurdle model on the log rate z of a Poisson regression, one pair of lines for each unit.

    A bin stays empty with probability ``exp(-m)``, ``log m = a + b z``; beyond the first spike, further ones are Poisson with
    ``log mean = c + d z``. A Poisson unit has a = 0, b = 1; one that is refractory, or a copy of another, fires once.
    Hurdle models: Mullahy, Journal of Econometrics 1986.

    Attributes
    ----------
    first_2U, further_2U : (a, b) and (c, d)
    """

    first_2U: Tensor
    further_2U: Tensor

    @classmethod
    def fit(cls, z_RU: Tensor, counts_RU: Tensor) -> OwnSpikes:
        """Maximum a posteriori, by Newton's method on some units at a time. Where no count is expected (a log rate of minus
        infinity), there is nothing to learn from."""
        each = [cls._fit(z, k) for z, k in _some_units(z_RU, counts_RU)]
        return cls(torch.cat([one.first_2U for one in each], 1), torch.cat([one.further_2U for one in each], 1))

    @classmethod
    def _fit(cls, z_RU: Tensor, counts_RU: Tensor) -> OwnSpikes:
        fired, seen = counts_RU > 0, ~torch.isneginf(z_RU)
        z_RU = z_RU.masked_fill(~seen, 0.0)
        start = lambda at: torch.tensor([[at], [1.0]], dtype=torch.float64).repeat(1, z_RU.shape[1])

        def of_first(eta: Tensor) -> tuple[Tensor, Tensor]:
            m = eta.exp()
            # d/d eta of log(1 - exp(-m)) is m / (exp(m) - 1)
            ratio = m / torch.expm1(m).clamp_min(1e-12)
            m = m * seen
            return torch.where(fired, ratio, -m), torch.where(fired, ratio * (1 - m - ratio), -m)

        def of_further(eta: Tensor) -> tuple[Tensor, Tensor]:
            mean = eta.exp()
            return torch.where(fired, counts_RU - 1 - mean, 0.0), torch.where(fired, -mean, 0.0)

        half = float(torch.tensor(0.5).log())  # of m, that is the mean of further spikes where spikes are rare
        return cls(_newton(z_RU, of_first, start(0.0)), _newton(z_RU, of_further, start(half)))

    def log_likelihood(self, counts_RU: Tensor, z_RU: Tensor) -> float:
        """Nats of all counts, as a distribution of whole numbers (no factorial is left out); none where no count is
        expected."""
        total = 0.0
        for first_2U, further_2U, (z, k) in zip(
            *(line.split(_units_at_once(z_RU), 1) for line in (self.first_2U, self.further_2U)),
            _some_units(z_RU, counts_RU),
            strict=True,
        ):
            total += OwnSpikes(first_2U, further_2U)._log_likelihood(z.double(), k.double())
        return total

    def _log_likelihood(self, z: Tensor, counts: Tensor) -> float:
        seen = ~torch.isneginf(z)
        z = z.masked_fill(~seen, 0.0)
        m = _line(self.first_2U, z).exp() * seen
        log_mean = _line(self.further_2U, z)
        further = (counts - 1).clamp_min(0)
        fired = torch.log(-torch.expm1(-m).clamp_max(-1e-300))
        fired = fired + further * log_mean - log_mean.exp() - torch.lgamma(further + 1)
        return float(torch.where(counts > 0, fired, -m).sum())


def _units_at_once(z_RU: Tensor) -> int:
    return max(1, _CELLS // max(1, len(z_RU)))


def _some_units(z_RU: Tensor, counts_RU: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    size = _units_at_once(z_RU)
    return zip(z_RU.split(size, 1), counts_RU.split(size, 1), strict=True)


def _line(line_2U: Tensor, z_RU: Tensor) -> Tensor:
    return (line_2U[0] + line_2U[1] * z_RU).clamp(-30, 5)


def _newton(z_RU: Tensor, slopes: Callable[[Tensor], tuple[Tensor, Tensor]], start_2U: Tensor) -> Tensor:
    """Where a concave sum over rows of a function of ``a + b z``, plus its prior, is largest; (2, U)."""
    line, z = start_2U.clone(), z_RU.double()
    for _ in range(_LIMIT):
        first, second = slopes(_line(line, z))
        pull = torch.stack([first.sum(0), (first * z).sum(0)]) - _PRIOR * (line - start_2U)
        aa, ab, bb = (second.sum(0) - _PRIOR, (second * z).sum(0), (second * z**2).sum(0) - _PRIOR)
        det = aa * bb - ab**2
        step = torch.stack([ab * pull[1] - bb * pull[0], ab * pull[0] - aa * pull[1]]) / det
        line = line + step.clamp(-1, 1)
        if float(step.abs().max()) < 1e-6:
            break
    return line

"""A window of five bins and four units, and what is predicted at each of its tokens if counts were Poisson."""

import matplotlib.pyplot as plt
import numpy as np

BINS, UNITS = 5, 4
SPIKES = [(1, 0), (1, 2), (3, 1)]  # (bin, unit), in the order of tokens
RATE_BU = np.outer([0.8, 1.2, 1.0, 1.1, 0.9], [0.20, 0.12, 0.15, 0.08])  # expected counts
INK, BLUE, ORANGE, PALE = "#222222", "#0072B2", "#D55E00", "#DDDDDD"


def next_bin(bin: int, unit: int) -> np.ndarray:
    """P(bin of the next spike, or the end), after a spike of ``unit`` in ``bin`` (0, -1: before the first)."""
    mass_B = RATE_BU.sum(1)
    mass_B[:bin] = 0
    if unit >= 0:  # within the bin, units are scanned in order
        mass_B[bin] = RATE_BU[bin, unit] / 2 + RATE_BU[bin, unit + 1 :].sum()
    empty = np.exp(-np.concatenate([[0], np.cumsum(mass_B)]))
    return np.append(empty[:-1] - empty[1:], empty[-1])


def next_unit(bin: int, last: tuple[int, int]) -> np.ndarray:
    """P(unit | bin): the first of the units that are left to fire."""
    rate_U = RATE_BU[bin].copy()
    if last[0] == bin and last[1] >= 0:
        rate_U[: last[1]] = 0
        rate_U[last[1]] /= 2
    before = np.concatenate([[0], np.cumsum(rate_U)[:-1]])
    p = np.exp(-before) * -np.expm1(-rate_U)
    return p / p.sum()


fig = plt.figure(figsize=(10, 6.4), layout="constrained")
top, rest = fig.subfigures(2, 1, height_ratios=(1, 1.7))
raster = top.subplots()
raster.set(xlim=(0, BINS), ylim=(UNITS - 0.5, -0.5), xlabel="bin of the window", ylabel="unit", yticks=range(UNITS))
raster.set_xticks(np.arange(BINS) + 0.5, [str(b) for b in range(BINS)])
for b in range(1, BINS):
    raster.axvline(b, c=PALE, lw=1)
for n, (b, u) in enumerate(SPIKES, 1):
    raster.plot([b + 0.35] * 2, [u - 0.35, u + 0.35], c=INK, lw=3)
    raster.text(b + 0.45, u, str(n), va="center", color=BLUE, weight="bold")

axes = rest.subplots(2, len(SPIKES) + 1, sharey="row")
steps = [(0, -1), *SPIKES]
for n, last in enumerate(steps):
    dt, unit = axes[:, n]
    happened = SPIKES[n] if n < len(SPIKES) else (BINS, None)
    p = next_bin(*last)
    dt.bar(range(BINS + 1), p, color=[ORANGE if b == happened[0] else BLUE for b in range(BINS + 1)])
    dt.axvspan(-0.6, last[0] - 0.5, color=PALE)
    dt.set_xticks(range(BINS + 1), [*map(str, range(BINS)), "end"])
    dt.set_title("at the first token" if n == 0 else f"after spike {n}", fontsize=10)
    dt.set_xlim(-0.6, BINS + 0.6)
    unit.set(xlim=(-0.6, UNITS - 0.4), xticks=range(UNITS), xlabel="unit")
    if happened[1] is None:
        unit.text(1.5, 0.3, "no unit:\nthe window ends", ha="center")
        continue
    p = next_unit(happened[0], last)
    unit.bar(range(UNITS), p, color=[ORANGE if u == happened[1] else BLUE for u in range(UNITS)])
    if last[0] == happened[0] and last[1] >= 0:
        unit.axvspan(-0.6, last[1] - 0.5, color=PALE)
axes[0, 0].set_ylabel("P(bin)")
axes[1, 0].set_ylabel("P(unit | bin)")

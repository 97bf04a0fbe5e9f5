"""Two pairs of units whose spikes correlate: one drives the other, or both follow the same slow drive."""

import matplotlib.pyplot as plt
import numpy as np

INK, BLUE, ORANGE = "#222222", "#0072B2", "#D55E00"
rng = np.random.default_rng(0)
bins, dt, lags = 1_200_000, 0.001, np.arange(-60, 61)

kernel = np.exp(-0.5 * (np.arange(-600, 601) / 150) ** 2)
slow = np.fft.irfft(
    np.fft.rfft(rng.standard_normal(bins)) * np.fft.rfft(np.roll(np.pad(kernel, (0, bins - 1201)), -600))
)
drive = np.exp(0.8 * slow / slow.std() - 0.32)
source = rng.random(bins) < 10 * dt
target = rng.random(bins) < (10 + 60 * np.roll(source, 5)) * dt  # driven 5 ms later
left, right = rng.random((2, bins)) < 10 * drive * dt


def jittered(spikes: np.ndarray) -> np.ndarray:
    """Each spike anywhere within its own stretch of 100 ms."""
    at = np.flatnonzero(spikes)
    return np.bincount(at // 100 * 100 + rng.integers(0, 100, len(at)), minlength=bins)[:bins]


def correlogram(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spikes per second of b at each lag after a spike of a."""
    at = np.flatnonzero(a)
    at = at[(at > 100) & (at < bins - 100)]
    return np.array([b[at + lag].mean() / dt for lag in lags])


fig = plt.figure(figsize=(10, 3.4), layout="constrained")
axes = fig.subplots(1, 2, sharey=True)
for ax, a, b, title in (
    (axes[0], source, target, "one drives the other"),
    (axes[1], left, right, "both follow a slow drive"),
):
    null = np.stack([correlogram(jittered(a), b) for _ in range(5)])
    ax.fill_between(lags, null.min(0), null.max(0), color=ORANGE, alpha=0.4, lw=0, label="spikes moved within 100 ms")
    ax.plot(lags, correlogram(a, b), c=BLUE, lw=1, label="recorded")
    ax.axhline(b.mean() / dt, c=INK, lw=1, ls=":", label="if they were independent")
    ax.set(title=title, xlabel="lag (ms)")
axes[0].set_ylabel("spikes/s after a spike of the other")
axes[0].legend(fontsize=8)

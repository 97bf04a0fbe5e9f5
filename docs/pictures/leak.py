"""Running speed guessed from its own neighbors in time, without any neuron: random windows, and blocks with a gap."""

import matplotlib.pyplot as plt
import numpy as np

import neuroformer
from neuroformer.metrics import pearson, r2

INK, BLUE, ORANGE = "#222222", "#0072B2", "#D55E00"
rec = neuroformer.open_recording("synthetic:demo", num_trials=10, num_units=2)
speed = rec.variable("speed")
inside = (speed.times >= rec.trial_intervals[0, 0]) & (speed.times < rec.trial_intervals[3, 1])
times, values = speed.times[inside], speed.values[inside, 0]

rng = np.random.default_rng(0)
window = ((times - times[0]) // 0.25).astype(int)  # windows of a quarter of a second
at_random = np.isin(window, rng.choice(window.max() + 1, (window.max() + 1) // 5, replace=False))
in_blocks = (times - times[0]) // 24 % 5 == 4
far = np.abs(times[:, None] - times[in_blocks]).min(1) > 1.0

fig = plt.figure(figsize=(10, 4.6), layout="constrained")
axes = fig.subplots(2, 1, sharex=True, sharey=True)
for ax, held, train, title in (
    (axes[0], at_random, ~at_random, "random windows"),
    (axes[1], in_blocks, far, "blocks, with a gap"),
):
    guess = np.interp(times[held], times[train], values[train])
    score = f"r = {pearson(values[held], guess).item():.2f}, R2 = {r2(values[held], guess).item():.2f}"
    ax.plot(times, np.where(train, values, np.nan), c=INK, lw=0.8, label="labels for training")
    ax.plot(times, np.where(held, values, np.nan), c=BLUE, lw=1.2, label="held out")
    ax.plot(times[held], guess, ".", ms=2.5, c=ORANGE, label="drawn between training labels")
    ax.set(title=f"{title}: {score}, without a single spike", ylabel="speed (cm/s)")
axes[0].legend(loc="upper right", fontsize=8, ncols=3)
axes[1].set(xlabel="time (s)", xlim=(times[0], times[0] + 135))

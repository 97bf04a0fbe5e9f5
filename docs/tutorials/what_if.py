# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Simulate an experiment, and ask what if
#
# A trained model can be asked what you cannot: the same movie with one neuron silenced, the same second once more. Here the recording is built in and its wiring
# known, so that the answer can be compared with the truth. It takes about two minutes.
#
# In Colab: `!pip install neuroformer`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import neuroformer
from neuroformer.cli.demo import CONFIG
from neuroformer.report import figures
from neuroformer.simulation_scores.whatif import auroc, rate_changes

# %% [markdown]
# ## A model
#
# What `neuroformer demo` trains on: model neurons of visual cortex that watch movies while an animal runs. Two of them are hubs that drive others.

# %%
run = Path("runs/whatif")
neuroformer.train(CONFIG, run, ["targets=[]", "train.steps=150"])
simulator = neuroformer.Simulator(run)

# %% [markdown]
# ## Held-out trials, simulated
#
# The model sees the movie, the pupil and the spikes that it generated itself. Recorded spikes after the start of a trial are not read.

# %%
base = simulator.simulate(samples=6, max_seconds=6.0)
base

# %% [markdown]
# How like data is it? `psth_r` compares responses to the movie with held-out ones; its ceiling is what the recorded training trials reach. The rate ratio would
# show a loop that falls silent or explodes.

# %%
{k: round(float(v), 3) for k, v in simulator.compare(base).items()}

# %%
recorded = simulator.prepared.rec
figures.rasters(recorded, base)

# %% [markdown]
# ## What if a hub were silent?
#
# Both simulations draw the same random numbers, so what differs is the effect of the intervention and not chance.

# %%
coupling = recorded.truth["coupling"]  # (target, source)
hub = int(np.abs(coupling).sum(0).argmax())
silent = simulator.simulate(samples=6, max_seconds=6.0, interventions=[{"do": "silence", "units": [hub]}])
changes = rate_changes(base, silent)
changes

# %% [markdown]
# ## Was it right?
#
# The model never saw the coupling. If it has learnt it, the units that the hub drives are those that lose most. AUROC is the chance that a driven unit loses more
# than one that is not; 0.5 would be guessing.

# %%
others = np.arange(recorded.num_units) != hub
driven = coupling[others, hub] != 0
found = auroc(-changes.change_U[others], driven)
fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for is_driven, label, color in ((False, "not driven", "0.6"), (True, "driven by the hub", "#D55E00")):
    chosen = driven == is_driven
    ax.plot(coupling[others, hub][chosen], changes.change_U[others][chosen], "o", c=color, label=label)
ax.axhline(0, c="k", lw=0.5)
ax.set(
    xlabel="true coupling from the hub", ylabel="change of rate (Hz)", title=f"hub {hub} silenced: AUROC {found:.2f}"
)
ax.legend()

# %% [markdown]
# The list of interventions, and how to score a whole simulation, is in the guide on [simulation](../simulation.md).

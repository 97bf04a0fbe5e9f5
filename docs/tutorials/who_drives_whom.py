# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Who drives whom: maps with their nulls, beside the truth
#
# A model of many neurons can be asked which neuron's spikes change what is predicted of which. Before you believe the answer on your own data, see how it does where
# the wiring is known. It takes about two minutes.
#
# In Colab: `!pip install neuroformer`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import neuroformer
from neuroformer.analysis.connectivity import agreement
from neuroformer.cli.demo import CONFIG
from neuroformer.report.notebook import matrix

# %% [markdown]
# ## Neurons with known wiring
#
# What `neuroformer demo` trains on: model neurons that watch movies while an animal runs. Two of them are hubs, each of which drives six others after 10 to 40 ms. All
# share the movie, and most fire more when the animal runs, so that many pairs that are not connected fire together.

# %%
run = Path("runs/wiring")
neuroformer.train(CONFIG, run, ["targets=[]"])

# %% [markdown]
# Is the model good enough to be asked? Below its baseline, its maps would be maps of nothing.

# %%
scores = neuroformer.evaluate(run)
{k: round(scores[k], 3) for k in ("bits_per_spike", "bits_per_spike_glm")}

# %% [markdown]
# ## Maps
#
# Knock-out is the causal reading: take a unit's past spikes away and see how the log-odds of every other one move. Attention says where the model looks. The
# pairwise baselines need no model; their null is spikes that were moved within half a second, so that slow changes that units share are in it.

# %%
maps = neuroformer.attend(run, split="train", num_windows=400, num_knock_out=400)
maps

# %% [markdown]
# How many pairs pass which null stands with each map. The model's own null is one of units that are alike, not of units that share nothing, so no false-discovery rate
# is claimed for it ([what a map can and cannot say](../explain/maps.md)).
#
# ## Beside the truth
#
# AUROC: does the map find who drives whom? Squared r: does it find how strongly? Look at the baselines, too: where one of them is better, it is the one to use.

# %%
coupling = neuroformer.open_run(run)[1].rec.truth["coupling"]
for one in maps.maps:
    if one.square:
        found = agreement(one, coupling)
        print(f"{one.name:<40} AUROC {found['auroc']:.3f}   r2 {found['r2']:.3f}")

# %%
order = np.argsort(-np.abs(coupling).sum(0), kind="stable").tolist()  # the hubs first
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
matrix(maps.named("knock-out"), order, ax=left)
image = right.imshow(coupling[np.ix_(order, order)], cmap="cividis", vmin=0)
fig.colorbar(image, ax=right, label="true coupling")
right.set(title="the truth", xlabel="acts", ylabel="is acted on")

# %% [markdown]
# Here every neuron was recorded. In your data most are not, and what an unrecorded neuron does to two recorded ones looks as if one acted on the other.

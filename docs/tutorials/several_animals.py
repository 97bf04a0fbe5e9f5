# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Several animals, areas and cell types
#
# One model can hold many recordings: units are separate, everything else is shared. Is an animal better off in company? And does the model, which was told of no area, know
# which units belong together? It takes about three minutes.
#
# In Colab: `!pip install neuroformer`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import neuroformer
from neuroformer.studies.unit_probes import probe_units, unit_table

# %% [markdown]
# ## Three animals
#
# Put your own recordings here: a list of files, or a glob. These are built in: units of a primary area that follow movies, and of a higher one that follow them less, and
# behavior more.

# %%
Path("animals.yaml").write_text("""
recordings:
  - {path: "synthetic:population", name: mouse1, options: &size {seed: 1, num_units: 40, rate_hz: 4.0, num_movies: 3, num_repeats: 5, trial_s: 8.0, frame_size: [32, 48]}}
  - {path: "synthetic:population", name: mouse2, options: {<<: *size, seed: 2}}
  - {path: "synthetic:population", name: mouse3, options: {<<: *size, seed: 3}}
window: {past: 0.25, frames: 0.1}
inputs: [{name: speed}]
split: {by: trials, claim: repeats}
model: {width: 32}
train: {steps: 180, batch_size: 64, evaluate_every: 60}
""")
together = Path("runs/together")
neuroformer.train("animals.yaml", together)
neuroformer.open_run(together, recording="mouse1")[1].rec

# %% [markdown]
# ## Is an animal better off in company?
#
# The same network for each animal alone, with as many steps as its share. Bits per spike on held-out trials, beside the best of three GLMs; a model below
# its GLM is not ready to be asked anything.

# %%
config = neuroformer.load_config("animals.yaml")
names = [one.name for one in config.recordings]
score = {}
for place, name in enumerate(names):
    alone = Path(f"runs/{name}")
    options = ", ".join(f"{k}: {v}" for k, v in config.recordings[place].options.items())
    overrides = [
        "recordings=[]",
        "recording.path=synthetic:population",
        f"recording.options={{{options}}}",
        "train.steps=60",
    ]
    neuroformer.train("animals.yaml", alone, overrides)
    score["alone", name] = neuroformer.evaluate(alone, baselines=False)["bits_per_spike"]
    shared = neuroformer.evaluate(together, recording=name)
    score["together", name], score["GLM", name] = shared["bits_per_spike"], shared["bits_per_spike_glm"]
    print(f"{name}: " + ", ".join(f"{kind} {score[kind, name]:.3f}" for kind in ("alone", "together", "GLM")))

# %% [markdown]
# ## Does it know the areas?
#
# Nothing told the model which area a unit is in. What it learnt of each unit (its embedding, how it reads frames and behavior, how often it fires) is probed: a linear
# classifier is trained on the units of two animals and asked about those of the third. Beside it stands what firing statistics alone would tell. Any column of
# your units table will do, `cell_type` or `depth`; the command is `neuroformer probe --unit area`.

# %%
table = unit_table(together, "area")
rows = probe_units(table, nulls=20)
for row in rows:
    print(
        f"{row.features:<36} {row.score:.3f} ({row.low:.3f} to {row.high:.3f}), 95 % of shuffles below {row.null:.3f}"
    )

# %% [markdown]
# ## A new animal
#
# `neuroformer adapt` gives a fourth animal rows of its own and leaves the rest as it is; the guide on
# [several recordings](../training.md#several-recordings) goes further.
#
# ## The answer
#
# Left: what company is worth. Right: balanced accuracy of the area of units in an animal that the probe has not seen; bars are 95 % intervals, ticks what shuffled labels
# reach.

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for k, kind in enumerate(("alone", "together", "GLM")):
    left.bar(np.arange(len(names)) + 0.25 * (k - 1), [score[kind, name] for name in names], 0.25, label=kind)
left.set(ylabel="bits per spike", xticks=range(len(names)), xticklabels=names)
left.legend()
place = np.arange(len(rows))
value = np.array([row.score for row in rows])
error = np.abs(np.array([[row.low for row in rows], [row.high for row in rows]]) - value)
right.errorbar(value, place, xerr=error, fmt="o", capsize=2)
right.scatter([row.null for row in rows], place, marker="|", c="0.4", s=80)
right.axvline(rows[0].chance, c="0.7", lw=0.8)
right.set(xlabel="balanced accuracy of the area", yticks=place, yticklabels=[row.features for row in rows])

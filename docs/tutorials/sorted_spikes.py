# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Your sorted spikes: from a folder to a model and a page
#
# A sorter leaves a folder, and the wheel was logged by another computer whose clock runs differently. This notebook goes from the two to a trained model, its
# scores beside their baselines, and one page that shows everything. It takes about two minutes.
#
# In Colab: `!pip install neuroformer`.

# %%
import json
from pathlib import Path

import numpy as np

import neuroformer
from neuroformer.audit import audit
from neuroformer.report.notebook import RunView

# %% [markdown]
# ## A session on disk
#
# Put your own folder here. So that the notebook runs everywhere, we write one as Kilosort does, from a built-in recording: spike samples at 30 kHz, a
# cluster for each spike, a label for each cluster. The wheel's table is in milliseconds of a clock of its own; both computers recorded the same pulses.

# %%
session = Path("session")
sorter = session / "kilosort4"
sorter.mkdir(parents=True, exist_ok=True)
made = neuroformer.open_recording("synthetic:demo", num_units=24, num_trials=15, trial_s=20.0)

np.save(sorter / "spike_times.npy", np.round(made.spike_times * 30_000).astype(np.int64))
np.save(sorter / "spike_clusters.npy", made.spike_units)
(sorter / "params.py").write_text("sample_rate = 30000.\n")
labels = "".join(f"{cluster}\t{'noise' if cluster < 2 else 'good'}\n" for cluster in range(24))
(sorter / "cluster_group.tsv").write_text("cluster_id\tgroup\n" + labels)

rng = np.random.default_rng(0)
pulses = np.cumsum(rng.uniform(2.0, 6.0, 70))
np.savetxt(session / "sync.txt", pulses)
speed = made.behavior["speed"]
clock = lambda t: 1000 * (t + 41.5) * 1.00002  # milliseconds, begun earlier, running a little fast
ttl = (np.searchsorted(pulses, speed.times) - np.searchsorted(pulses, speed.times - 0.1)).clip(0, 1)
wheel = np.stack([clock(speed.times), speed.values[:, 0], ttl], axis=1)
np.savetxt(session / "wheel.csv", wheel, delimiter=",", header="t,speed,ttl", comments="", fmt="%.9g")

# %% [markdown]
# ## Look before anything else
#
# What is in the folder, under which names?

# %%
neuroformer.open_recording(sorter)

# %% [markdown]
# ## One file says it all
#
# Which units, where the wheel is, and how its clock runs to ours. Whatever is left out has the default of the settings.

# %%
(session / "mine.yaml").write_text("""
recording:
  path: kilosort4
  units: {where: "group == 'good' and rate > 0.5"}
  sources:
    - {path: wheel.csv, columns: {speed: speed}, times: t, scale: 0.001, sync: {ours: sync.txt, theirs: ttl}}
window: {frames: 0, past: 0.5, target_past: 1.0}
targets: [{name: speed}]
split: {block: 30}
model: {width: 32}
train: {steps: 200, batch_size: 64, evaluate_every: 50}
""")
config = neuroformer.load_config(session / "mine.yaml")

# %% [markdown]
# ## The audit
#
# What is wrong with the recording, and what would the split leak? Training refuses a split that leaks. The notes say how many pulses the two clocks shared, and
# how far they lie apart.

# %%
from neuroformer.data.recordings import open_only  # noqa: E402

config, recording = open_only(config)
print([note for note in recording.meta["notes"] if "pulses" in note][0])
audit(recording, config)

# %% [markdown]
# ## Train
#
# Everything goes into one folder, a run.

# %%
run = Path("runs/mine")
neuroformer.train(session / "mine.yaml", run)

# %% [markdown]
# ## Is it any good?
#
# `bits_per_spike` says how well held-out spikes are predicted; 0 is each unit's mean rate. The baseline is the best of three Poisson GLMs. A model below it is not
# ready to be used, however nice its pictures are.

# %%
scores = neuroformer.evaluate(run)
{k: round(scores[k], 3) for k in ("bits_per_spike", "bits_per_spike_glm")}

# %%
decoded = neuroformer.decode(run, baselines=["ridge"])
(run / "summary.json").write_text(json.dumps(scores | decoded["speed"].scores))
np.savez(run / "decode_speed.npz", **decoded["speed"].arrays)
decoded["speed"]

# %% [markdown]
# `control` is the best guess without any spikes. What decoding owes to the neurons is what it has above that.
#
# ## The page
#
# One HTML file, to be opened in a browser or sent to a colleague. Its panels are here, too.

# %%
view = RunView(run)
print(view.report())
view.learning()

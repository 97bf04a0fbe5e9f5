# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Decode from a minute of labels
#
# Labels are expensive: a camera that ran for a minute, a posture that somebody drew by hand. Spikes are there for the whole session. Does a model that was trained on all
# the spikes, and no label, make more of a few labels than ridge regression does? It takes about three minutes.
#
# In Colab: `!pip install neuroformer`.

# %%
from pathlib import Path

import neuroformer
from neuroformer.config import TargetConfig
from neuroformer.studies.fewshot import fewshot

# %% [markdown]
# ## Pretrain without labels
#
# `targets: []`: the model predicts spikes and never sees the speed.

# %%
Path("pretrain.yaml").write_text("""
recording: {path: synthetic:demo, options: {num_units: 32, num_trials: 15, trial_s: 24.0}}
window: {frames: 0, past: 1.0}
targets: []
split: {by: trials}
model: {width: 48}
train: {steps: 200, batch_size: 64, evaluate_every: 50}
""")
run = Path("runs/pretrained")
neuroformer.train("pretrain.yaml", run)

# %% [markdown]
# ## A few labels
#
# Seconds of labels are drawn at random from the training part, three times each. Every method gets the same ones. `scratch` is the same network with random
# weights: what pretraining is worth is the distance to it. All are scored on held-out trials. `tune.steps=0` keeps to readouts in closed form, which with so few labels are seldom
# beaten by gradient descent.

# %%
bundle, prepared = neuroformer.open_run(run, ["tune.steps=0"])
curve = fewshot(
    neuroformer.load_model(run),
    prepared,
    TargetConfig("speed"),
    ["10s", "30s", "60s", "all"],
    3,
    ["ridge"],
    report=print,
)

# %% [markdown]
# ## What a minute is worth
#
# R2 on held-out trials; 0 is as good as the mean. Bands are 95 % intervals over held-out time and draws.

# %%
curve

# %%
for row in curve.rows():
    if row["seconds"] == 60.0:
        print(f"{row['method']:<18} R2 {row['score']:.3f} ({row['low']:.3f} to {row['high']:.3f})")

# %% [markdown]
# If pretraining does not help on your recording, the figure says so, and ridge is the honest choice. The command for the same is `neuroformer fewshot`; the guide on
# [decoding](../decoding.md#few-labels) goes further.

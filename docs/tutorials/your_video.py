# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Your video: receptive fields, most exciting inputs, and other networks
#
# You showed movies, and want to know what each unit sees. This notebook trains on spikes and a video, maps receptive fields, climbs to the clips that would excite
# each unit most, and asks whether the model explains the units better than pixels, Gabor filters, or a network of your own. It takes about two minutes.
#
# In Colab: `!pip install neuroformer`.

# %%
from pathlib import Path

import numpy as np
import torch

import neuroformer
from neuroformer.analysis.fields import centers, frame_sensitivity
from neuroformer.analysis.mei import most_exciting
from neuroformer.report.comparison import layers_figure
from neuroformer.report.fields import receptive_fields, stimuli
from neuroformer.report.notebook import Panel

# %% [markdown]
# ## Spikes and a video
#
# Put your own files here: spikes in any format, and the video (`.mp4`, `.avi`, a TIFF or a `.npy` stack) with the times of its frames on the spikes' clock. So that the
# notebook runs everywhere, we write them from a built-in recording of model V1 units, whose receptive fields are known.

# %%
session = Path("video_session")
session.mkdir(exist_ok=True)
made = neuroformer.open_recording(
    "synthetic:demo", num_units=24, num_trials=30, trial_s=9.0, num_hubs=2, targets_per_hub=6
)
shown = made.frames
assert shown is not None
neuroformer.write_recording(made, session / "spikes.npz")
np.save(session / "movie.npy", np.asarray(shown.images[shown.index]))
np.savetxt(session / "frame_times.txt", shown.times, fmt="%.9f")

# %% [markdown]
# `without: [frames]` makes room for the video, and leaves out what else the file has of it. The trials say which movie was shown, so that repeats are known.

# %%
(session / "mine.yaml").write_text("""
recording:
  path: spikes.npz
  without: [frames, speed, pupil, gaze]
  sources: [{path: movie.npy, times: frame_times.txt}]
window: {past: 0.5, frames: 0.15}
split: {by: trials, claim: repeats}
model:
  width: 32
  blocks: [{attend: past, layers: 1}, {attend: frames, layers: 1}, {attend: current, layers: 1}]
  frame_encoder: {kind: conv3d, kernel: [1, 9, 9], stride: [1, 3, 3], channels: 64}
train: {steps: 200, batch_size: 128, lr: 4.0e-3, average: 0.96, jitter: false, evaluate_every: 50}
""")
run = Path("runs/video")
neuroformer.train(session / "mine.yaml", run)

# %% [markdown]
# How well do expected counts follow the movies on held-out trials, and how well could they at best? `stimulus_r` is a median over units, beside regressions on the Gabor energies of the
# same frames.

# %%
scores = neuroformer.evaluate(run)
{k: round(v, 3) for k, v in scores.items() if k.startswith(("bits_per_spike", "stimulus"))}

# %% [markdown]
# ## Receptive fields
#
# How strongly does each pixel move each unit's log-odds? A field is an average over training windows of squared gradients, since most of these units follow energy, and
# have gradients of either sign.

# %%
bundle, prepared = neuroformer.open_run(run)
model = neuroformer.load_model(run)
train = prepared.windows("train")
few = train[np.sort(np.random.default_rng(0).permutation(len(train))[:96])]
field = frame_sensitivity(model, prepared, few)
found = centers(field)
Panel.of(receptive_fields(field, found))

# %% [markdown]
# Here the true centres are known. Units that do not see the movie have none.

# %%
away = np.linalg.norm(found - made.truth["rf_center"], axis=1)[made.truth["is_responsive"]]
print(f"median distance from the true centre: {np.median(away):.1f} of {shown.images.shape[1]} pixels")

# %% [markdown]
# ## What would excite each unit most?
#
# Gradient ascent on the expected count, with a limited contrast. `log_rate - gray` is what the clip gains over a gray screen, as the model has it; `neuroformer stimuli` makes a
# session of such clips with matched controls, to be played to the animal.

# %%
best = most_exciting(model, prepared, train, steps=30, starts=1)
Panel.of(stimuli(best.contrast, prepared.rec.unit_ids))

# %%
print(f"median gain over a gray screen: {np.exp(np.median(best.log_rate - best.gray)):.1f} times the rate")

# %% [markdown]
# ## Beside other networks
#
# Any network can be compared: store what it makes of each image of the recording. Here it is one convolution with random weights, as a stand-in; layers of networks
# from `transformers` are compared by name (`NAME:FOLDER`).

# %%
images = torch.from_numpy(np.asarray(prepared.rec.frames.images[:], np.float32))[:, None] / 255
torch.manual_seed(0)
random = torch.nn.Conv2d(1, 16, 7, stride=3)
with torch.no_grad():
    made_of = torch.relu(random(images - images.mean())).flatten(1).numpy()
np.savez(session / "random.npz", image=np.arange(len(images)), convolution=made_of)

compared = neuroformer.compare(run, ["pixels", "gabor", str(session / "random.npz"), "model"], ["ridge"])
for score in compared.scores:
    if score.units == "all":
        print(f"{score.source:<12} {score.layer:<16} r {score.score:.3f} ({score.low:.3f} to {score.high:.3f})")

# %% [markdown]
# ## Which features explain the units?
#
# Held-out stimuli within held-out trials; bars are 95 % intervals, ticks what shuffled stimuli reach. Gray is above the ceiling: no prediction can be
# expected there.

# %%
Panel.of(layers_figure(compared.as_dict()))

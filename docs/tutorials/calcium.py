# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Calcium: the trace, or the spikes behind it?
#
# A two-photon recording is fluorescence, not spikes. It can be modelled as it is, sample by sample, or as the events that deconvolution finds in it. This
# notebook does both with one folder of suite2p, and asks what each is worth. It takes about two minutes.
#
# In Colab: `!pip install neuroformer`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import neuroformer

# %% [markdown]
# ## A folder of suite2p
#
# Put your own folder here (`suite2p/plane0`). So that the notebook runs everywhere, we make one from a built-in recording: each spike adds a transient that decays in half a second,
# sampled at 30 Hz, with noise. `spks` is what a simple deconvolution makes of it.

# %%
plane = Path("suite2p/plane0")
plane.mkdir(parents=True, exist_ok=True)
made = neuroformer.open_recording("synthetic:demo", num_units=24, num_trials=20, trial_s=12.0, gap_s=0.0)
rate, decay = 30.0, np.exp(-1 / (30.0 * 0.5))
num = int(made.duration * rate)
bins = np.minimum((made.spike_times * rate).astype(int), num - 1)
counts = np.zeros((made.num_units, num))
np.add.at(counts, (made.spike_units, bins), 1)
rng = np.random.default_rng(0)
clean = np.zeros_like(counts)
for t in range(num):
    clean[:, t] = (decay * clean[:, t - 1] if t else 0) + counts[:, t]
traces = 100 + 30 * clean + 10 * rng.normal(size=clean.shape)
steps = np.maximum(traces[:, 1:] - 100 - decay * (traces[:, :-1] - 100), 0)
np.save(plane / "F.npy", traces.astype(np.float32))
np.save(plane / "Fneu.npy", np.zeros_like(traces, np.float32))
np.save(plane / "spks.npy", np.concatenate([np.zeros((len(steps), 1)), steps], 1).astype(np.float32))
np.save(plane / "iscell.npy", np.ones((made.num_units, 2)))
np.save(plane / "ops.npy", {"fs": rate, "neucoeff": 0.7})

neuroformer.open_recording("suite2p")

# %% [markdown]
# Which share of the events was kept, and why, stands in the notes. Small ones are noise: a unit's threshold is found from the shape of its events, or, with
# OASIS (`pip install 'neuroformer[calcium]'`, `recording.options.events=oasis`), from the trace turned upside down.
#
# ## The events, as spikes
#
# On the microscope's own clock: one bin a sample, since finer bins would only measure the grid. `bits_per_spike` is against each unit's mean rate, and the baseline is the
# best of three Poisson GLMs.

# %%
window = "{dt: 0.0333333333, current: 0.0333333333, past: 0.5, frames: 0}"
train = "{steps: 300, batch_size: 64, evaluate_every: 100}"
Path("events.yaml").write_text(f"""
recording: {{path: suite2p}}
window: {window}
split: {{block: 20}}
model: {{width: 32}}
train: {train}
""")
neuroformer.train("events.yaml", "runs/events")
events = neuroformer.evaluate("runs/events")
{k: round(events[k], 3) for k in ("bits_per_spike", "bits_per_spike_glm")}

# %% [markdown]
# ## The trace itself
#
# One line more. `bits_per_sample` is against each unit's own distribution, and the baseline is a linear autoregression, tuned on the validation part. Much of it is the decay of
# the indicator, which any autoregression knows: only what lies above the baseline is about the neurons.

# %%
Path("traces.yaml").write_text(f"""
recording: {{path: suite2p}}
window: {window}
traces: {{likelihood: gaussian}}
split: {{block: 20}}
model: {{width: 32}}
train: {train}
""")
neuroformer.train("traces.yaml", "runs/traces")
samples = neuroformer.evaluate("runs/traces")
{k: round(samples[k], 3) for k in ("bits_per_sample", "bits_per_sample_autoregression")}

# %% [markdown]
# ## Does it make traces like those that were recorded?
#
# A simulation sees only what it has made itself. Held-out traces stand beside simulated ones, and the correlation of neighboring samples says whether transients decay as they should.

# %%
simulator = neuroformer.Simulator("runs/traces")
simulated = simulator.simulate(samples=1)
recorded = simulator.prepared.rec.traces
assert recorded is not None and simulated.traces is not None

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
for ax, title, shown in ((left, "recorded", recorded), (right, "simulated", simulated.traces)):
    values = shown.values[:450]
    z = (values - recorded.values.mean(0)) / recorded.values.std(0)
    ax.plot(np.arange(len(z)) / rate, z[:, :8] + 6 * np.arange(8), lw=0.7)
    ax.set(title=title, xlabel="s")
left.set_ylabel("units, in standard deviations")
for name, shown in (("recorded", recorded), ("simulated", simulated.traces)):
    lag = [np.corrcoef(v[1:], v[:-1])[0, 1] for v in shown.values[:450].T]
    print(f"{name}: neighboring samples correlate by {np.median(lag):.2f}")

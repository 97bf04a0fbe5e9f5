"""neuroformer: one generative model of spikes, video and behavior.

>>> import neuroformer
>>> rec = neuroformer.open_recording("synthetic:demo")     # or a path: .npz, .nwb, a folder
>>> neuroformer.train("configs/demo.yaml", "runs/demo")    # a run: a folder with the trained model
>>> neuroformer.evaluate("runs/demo")["bits_per_spike"]    # held-out scores beside their baselines
>>> made = neuroformer.Simulator("runs/demo").simulate(samples=4)  # held-out trials, as a recording
>>> neuroformer.decode("runs/demo")["speed"].scores        # behavior, beside baselines and controls
>>> neuroformer.attend("runs/demo").maps                   # who acts on whom
>>> neuroformer.compare("runs/demo", ["pixels", "model"]).scores  # which features explain the units
>>> bundle, prepared = neuroformer.open_run("runs/demo")   # the run's facts, and its recording as the model sees it
>>> model = neuroformer.load_model("runs/demo")

Readers of files (``open_recording`` knows them all) and ``write_recording`` are here too; scikit-learn's face is
:mod:`neuroformer.estimators`.
"""

import importlib
import os

from neuroformer.shown import draw_with

# oneDNN keeps 1,024 compiled products, each with memory of its own. Every batch of training has sizes of its own, so that after some
# hundred steps they held more than the network. PyTorch reads these when it is first imported
for _name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_name, "128")

__version__ = "0.2.0"

_LAZY = {
    "Neuroformer": "neuroformer.model.network",
    "Recording": "neuroformer.recording",
    "Simulator": "neuroformer.simulator",
    "attend": "neuroformer.runs",
    "compare": "neuroformer.comparison.compare",
    "decode": "neuroformer.runs",
    "evaluate": "neuroformer.training.evaluation",
    "load_config": "neuroformer.config",
    "load_model": "neuroformer.bundle.bundle",
    "open_recording": "neuroformer.recording",
    "open_run": "neuroformer.bundle.opening",
    "train": "neuroformer.runs",
    "write_recording": "neuroformer.recording",
}
__all__ = [*_LAZY, "__version__"]


# by name: importing the package must not load Matplotlib
draw_with(lambda shown: importlib.import_module("neuroformer.report.pictures").picture(shown))


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'neuroformer' has no attribute '{name}'")

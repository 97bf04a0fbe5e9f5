"""neuroformer: one generative model of spikes, video and behavior.

>>> import neuroformer
>>> rec = neuroformer.open_recording("synthetic:demo")     # or a path: .npz, .nwb, a folder
>>> model = neuroformer.load_model("runs/demo")             # a trained run
>>> made = neuroformer.Simulator("runs/demo").simulate(samples=4)  # held-out trials, as a recording
"""

import importlib

__version__ = "0.1.0"

_LAZY = {
    "Neuroformer": "neuroformer.model.neuroformer",
    "Recording": "neuroformer.recording",
    "Simulator": "neuroformer.simulator",
    "load_model": "neuroformer.bundle.bundle",
    "open_recording": "neuroformer.recording",
    "load_config": "neuroformer.config",
}
__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'neuroformer' has no attribute '{name}'")

"""neuroformer: one generative model of spikes, video and behavior."""

__version__ = "0.1.0"

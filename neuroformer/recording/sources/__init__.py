"""Second sources: behavior, trials and frames of files other than that of the spikes, moved to the spikes' clock."""

from neuroformer.recording.sources.add import add_source

__all__ = ["add_source"]

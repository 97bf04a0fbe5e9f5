"""Second sources: behavior, trials and frames of files other than that of the spikes, moved to the spikes' clock."""

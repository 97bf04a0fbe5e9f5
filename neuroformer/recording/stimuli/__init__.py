"""Stimuli that are described by a table of presentations, made into frames."""

from neuroformer.recording.stimuli.render import render_frames

__all__ = ["render_frames"]

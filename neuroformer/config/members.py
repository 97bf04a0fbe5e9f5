"""One configuration for several recordings: the part of it that holds for each."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from neuroformer.config.run import Config
from neuroformer.config.schema import BlockConfig, TraceConfig

FRAMES, TRACES = "frames", "traces"


def block_plan(config: Config) -> list[str]:
    """What each fusion block attends to, in order. Without ``model.blocks``: one block a stream that exists."""
    blocks = config.model.blocks
    if not blocks:
        streams = ["past"] * (config.window.past > 0) + [FRAMES] * (config.window.frames > 0)
        names = ["current", *streams, *config.input_groups, "current"]
        blocks = tuple(BlockConfig(name, 1) for name in names)
    return [b.attend for b in blocks for _ in range(b.layers)]


def streams(config: Config) -> list[str]:
    """The streams that a window of a run can attend to."""
    there = ["current"] + ["past"] * (config.window.past > 0) + [FRAMES] * (config.window.frames > 0)
    return there + config.input_groups


def kept_blocks(whole: Config, member: Config) -> list[int]:
    """The blocks of the whole run's plan that a member has, in order."""
    return [i for i, attend in enumerate(block_plan(whole)) if attend in streams(member)]


def kept_contrasts(whole: Config, member: Config) -> list[int]:
    """The alignments of the whole run that a member has, in order."""
    there = ["neural", *streams(member)]
    return [i for i, c in enumerate(whole.loss.contrast) if all(side in there for side in c.pair)]


def member_config(config: Config, place: int, lacks: Collection[str] = ()) -> Config:
    """The configuration of one recording of a run: as if it were alone, without what it lacks. Where a run models traces, a
    recording that lacks them is modelled by its spikes.

    Parameters
    ----------
    place : int
        Of the recording in ``recordings``; 0 where there is one.
    lacks : names of behavior variables, ``frames`` and ``traces``
    """
    if not config.recordings and not lacks:
        return config
    one = (config.recordings or (config.recording,))[place]
    config = replace(config, recordings=(), recording=one)  # first: checks go through all recordings there are
    if not lacks:
        return config
    window = replace(config.window, frames=0.0) if FRAMES in lacks else config.window
    inputs = tuple(v for v in config.inputs if v.name not in lacks)
    targets = tuple(t for t in config.targets if t.name not in lacks)
    # none of the checks may see a half-made configuration, so that blocks and alignments go first
    encoder = config.model.frame_encoder
    if encoder.follow in lacks:  # its frames are taken as they were shown
        encoder = replace(encoder, follow="")
    model = replace(config.model, blocks=(), frame_encoder=encoder)
    bare = replace(config, model=model, loss=replace(config.loss, contrast=()))
    traces = TraceConfig() if TRACES in lacks else config.traces
    alone = replace(bare, window=window, inputs=inputs, targets=targets, traces=traces)
    plan = block_plan(config)
    blocks = tuple(BlockConfig(plan[i], 1) for i in kept_blocks(config, alone))
    contrast = tuple(config.loss.contrast[i] for i in kept_contrasts(config, alone))
    return replace(alone, model=replace(model, blocks=blocks), loss=replace(config.loss, contrast=contrast))

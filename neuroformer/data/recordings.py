"""The recordings of a run: opening and naming them, and what each lacks."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import yaml

from neuroformer.config import Config, ConfigError, RecordingConfig, to_dict
from neuroformer.data.automatic import settled
from neuroformer.recording import Recording, open_recording
from neuroformer.recording.names import natural
from neuroformer.recording.open import fit_frames
from neuroformer.recording.remote import is_remote
from neuroformer.recording.sources import add_source
from neuroformer.recording.stimuli import render_frames
from neuroformer.recording.units import choose_units, needs_spikes

_SEVERAL = re.compile(r"(synthetic:\w+)\[(\d+):(\d+)\]")


def expanded(config: Config) -> Config:
    """The configuration with every glob of ``recordings`` replaced by the matching paths, in natural order, and
    ``synthetic:NAME[0:300]`` by three hundred built-in recordings.

    Raises
    ------
    ConfigError
        A glob that no file matches.
    """
    out: list[RecordingConfig] = []
    for i, one in enumerate(config.recordings):
        several = _SEVERAL.fullmatch(one.path)
        if several:
            seeds = range(int(several[2]), int(several[3]))
            out += [replace(one, path=several[1], options=one.options | {"seed": seed}) for seed in seeds]
            continue
        if (
            not glob.has_magic(one.path)
            or one.path.startswith("synthetic:")
            or is_remote(one.path)
            or Path(one.path).exists()
        ):
            out.append(one)
            continue
        paths = sorted(glob.glob(str(Path(one.path).expanduser()), recursive=True), key=natural)
        if not paths:
            raise ConfigError(f"recordings[{i}].path is {one.path!r}; no file or folder matches it")
        out += [replace(one, path=path) for path in paths]
    return replace(config, recordings=tuple(out))


def open_one(one: RecordingConfig, look: bool = False) -> Recording:
    """A recording with the sources and the units that its entry asks for, under the name that it gives.

    With ``look``, what lies at an address is counted and not read, as far as it is needed only to show what there is.

    Raises
    ------
    ConfigError
        The entry names no file: nothing stands in for it.
    """
    if not one.path:
        raise ConfigError(
            "no recording is named; give recording.path=FILE, or recordings: [FILE, FILE] in the YAML file "
            "(recording.path=synthetic:demo is the built-in one)"
        )
    options = {"frames_size": one.render.size, **one.options} if one.render.size else one.options
    # shared pulses are looked for in all of a variable
    look = look and not needs_spikes(one.units.where) and not any(source.sync.ours for source in one.sources)
    rec = open_recording(one.path, only=one.only, without=one.without, look=look, **options)
    for source in one.sources:
        sync = {"ours": source.sync.ours, "theirs": source.sync.theirs} if source.sync.ours else None
        rec = add_source(
            rec,
            source.path,
            times=source.times,
            rate_hz=source.rate_hz,
            columns=source.columns,
            name=source.name,
            offset=source.offset,
            scale=source.scale,
            sync=sync,
        )
    render = one.render
    if render.size:
        rec = render_frames(
            rec, render.size, render.degrees, render.rate_hz, render.tables, render.columns, render.images
        )
    if one.interval:
        rec = rec.between(*one.interval)
    rec = fit_frames(rec, one.options.get("frames_size"), one.options.get("frame_cache_mb"))
    rec = choose_units(rec, one.units.where, one.units.limit)
    return replace(rec, name=one.name) if one.name else rec


def open_only(config: Config) -> tuple[Config, Recording]:
    """The only recording of a configuration, and the configuration with what follows the recording.

    Raises
    ------
    ConfigError
        There are several.
    """
    if config.recordings:
        raise ConfigError(
            f"this works on one recording, and the configuration names {len(config.recordings)}: "
            "give recording.path=... and recordings=[]"
        )
    rec = open_one(config.recording)
    return settled(config, [rec]), rec


def opening_yaml(one: RecordingConfig, rec: Recording) -> str:
    """YAML of a run on a recording that was opened as ``one`` says: its entry and the names of its series.

    Names in ``only`` are what it holds; those that are not needed can be deleted.
    """
    entry = {k: v for k, v in to_dict(one).items() if v != to_dict(RecordingConfig())[k]}
    series = [
        *rec.behavior,
        *rec.intervals,
        *(["frames"] * (rec.frames is not None)),
        *(["traces"] * (rec.traces is not None)),
    ]
    if series and not one.sources:
        entry["only"] = series
    text = yaml.safe_dump({"recording": entry}, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
    return f"# a run on it; names in `only` that it does not need can be deleted\n{text}".rstrip()


def open_recordings(config: Config, look: bool = False) -> tuple[Config, list[Recording]]:
    """Every recording of a run, and the configuration with each path, and with what follows the recordings.

    ``look`` as in :func:`open_one`.

    Raises
    ------
    ConfigError
        Two recordings with the same name, or a glob without a match.
    RecordingError
        One that cannot be read.
    """
    config = expanded(config)
    recs = [open_one(one, look) for one in config.recordings or (config.recording,)]
    refuse_equal_names([rec.name for rec in recs])
    return settled(config, recs), recs


def refuse_equal_names(names: Sequence[str]) -> None:
    """Refuse recordings of one run that cannot be told apart by their names."""
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ConfigError(
                f"recordings[{names.index(name)}] and recordings[{i}] are both called '{name}'; "
                f"give each a name of its own: recordings.{i}.name=..."
            )
        if "/" in name and len(names) > 1:
            raise ConfigError(f"recordings[{i}] is called '{name}'; give it a name without '/'")


class Named(Protocol):
    """What can be asked of a recording without opening it."""

    @property
    def name(self) -> str: ...
    def has(self, name: str) -> bool: ...


def lacking(recs: Sequence[Named], config: Config) -> list[list[str]]:
    """The frames, traces, inputs and targets of the run that each recording lacks. A single recording must have all of them.

    Raises
    ------
    ConfigError
        Something that no recording has.
    """
    if not config.recordings:
        return [[] for _ in recs]
    pairs, alone = zip(recs, config.recordings, strict=True), replace(config, recordings=())
    out = [absent(rec, replace(alone, recording=one)) for rec, one in pairs]
    for name in out[0]:
        if all(name in lacks for lacks in out):
            special = {"frames": "frames (window.frames is above 0)", "traces": "traces (traces.likelihood is set)"}
            what = special.get(name, f"behavior variable '{name}'")
            raise ConfigError(f"none of {', '.join(r.name for r in recs)} has the {what}")
    return out


def absent(rec: Named, config: Config) -> list[str]:
    """The frames, traces, inputs and targets of a configuration that a recording does not have."""
    asked = (
        ["traces"] * (config.traces.likelihood != "none")
        + ["frames"] * (config.window.frames > 0)
        + [v.name for v in (*config.inputs, *config.targets)]
    )
    speeds = {speed.name for speed in config.recording.speeds}  # a recording has them once it is prepared
    return [name for name in asked if name not in speeds and not rec.has(name)]

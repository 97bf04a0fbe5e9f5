"""The section of a configuration that says which recording is read: its path, its sources, its units and its series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neuroformer.config.errors import require
from neuroformer.config.setting import setting


@dataclass(frozen=True)
class SpeedConfig:
    """How fast a recorded variable changes, as a variable of its own: the norm of its derivative, smoothed."""

    name: str = setting("speed", "what it is called", name=True)
    of: str = setting("position", "the recorded variable")
    smooth: float = setting(0.25, "seconds, standard deviation of the Gaussian that smooths", above=0, unit="seconds")


@dataclass(frozen=True)
class UnitsConfig:
    """Which units are kept; the same for training and for everything that reads the trained model."""

    where: str = setting(
        "",
        "a condition on the units' columns, rate, presence and refractory, e.g. \"quality == 'good' and rate > 0.5\"; "
        "empty: all",
    )
    limit: int = setting(0, "at most so many, those with the most spikes; 0: no limit", least=0)


@dataclass(frozen=True)
class SyncConfig:
    """Pulses that both clocks recorded: times, or a signal whose rising edges they are."""

    ours: str = setting("", "on the spikes' clock: a variable or a table of the recording, FILE, or FILE:NAME")
    theirs: str = setting("", "on the source's clock: one of its columns or arrays, FILE, or FILE:NAME")

    def check(self, where: str) -> None:
        require(bool(self.ours) == bool(self.theirs), where, f"ours {self.ours!r}, theirs {self.theirs!r}", "both")


@dataclass(frozen=True)
class SourceConfig:
    """A file with behavior, trials or frames that belong to the spikes of another, and how its clock runs to theirs."""

    path: str = setting("", "a table, arrays, pose estimates, or a video")
    times: str = setting(
        "", "the column or array of its times, FILE, or FILE:NAME; empty: times, time, t or timestamps"
    )
    rate_hz: float = setting(0.0, "samples per second where there are no times; 0: there are", least=0)
    columns: dict[str, Any] = setting(
        {}, "our name: its name, or [its names]; start with stop or duration makes a table of intervals; empty: all"
    )
    name: str = setting("trials", "of a table of intervals; trials are the trials", name=True)
    offset: float = setting(0.0, "seconds; a time of the file is offset + scale * t on the spikes' clock")
    scale: float = setting(1.0, "0.001 where its times are milliseconds", above=0)
    sync: SyncConfig = SyncConfig()

    def check(self, where: str) -> None:
        require(bool(self.path), f"{where}.path", "nothing", "a file")
        expected = "0: an offset is what sync finds"
        require(not (self.sync.ours and self.offset), f"{where}.offset", self.offset, expected)


@dataclass(frozen=True)
class RenderConfig:
    """Frames drawn from tables of presentations: gratings, flashes, dots, images of templates, gray between."""

    size: tuple[int, ...] = setting((), "rows and columns of the frames; empty: nothing is drawn", least=1)
    degrees: tuple[float, ...] = setting((), "height and width of the frames in degrees of visual angle", above=0)
    rate_hz: float = setting(30.0, "frames per second", above=0, unit="hertz")
    tables: tuple[str, ...] = setting((), "tables of presentations; empty: all that say what was shown")
    columns: dict[str, Any] = setting(
        {},
        "our name: a column, or a number where none says it; orientation, spatial_frequency, temporal_frequency, phase, "
        "contrast, x, y, size, sigma, color, start, stop",
    )
    images: dict[str, Any] = setting({}, "name of a stimulus or table: a stack, TIFF or video of its images")

    def check(self, where: str) -> None:
        require(len(self.size) in (0, 2), f"{where}.size", list(self.size), "[rows, columns], or nothing")
        require(len(self.degrees) in (0, 2), f"{where}.degrees", list(self.degrees), "[height, width], or nothing")
        on = bool(self.size) or not (self.degrees or self.tables or self.columns or self.images)
        require(on, f"{where}.size", "nothing", "[rows, columns] of the frames")
        files = all(isinstance(file, str) and file for file in self.images.values())
        require(files, f"{where}.images", self.images, "the name of a file for each name")


@dataclass(frozen=True)
class RecordingConfig:
    """Which recording."""

    path: str = setting(
        "",
        "a file, a folder, an address (https://, dandi://), or synthetic:NAME; in `recordings`, also a glob; paths in a YAML file are relative to it",
    )
    name: str = setting("", "its name in the model; empty: as in the file")
    options: dict[str, Any] = setting({}, "options of the reader or generator")
    only: tuple[str, ...] = setting(
        (),
        'names of behavior variables, tables of intervals, frames and traces that are read, e.g. [speed, "eye_*"]; empty: all',
    )
    without: tuple[str, ...] = setting((), "names that are not read; trials, too, can be left out")
    sources: tuple[SourceConfig, ...] = setting((), "files with behavior, trials or frames beside the recording's own")
    interval: tuple[float, ...] = setting((), "[start, stop] seconds of the recording that are used; empty: all of it")
    render: RenderConfig = RenderConfig()
    units: UnitsConfig = UnitsConfig()
    speeds: tuple[SpeedConfig, ...] = setting((), "variables that are computed from recorded ones")
    share: float = setting(
        1.0, "share of the training and of the validation data that is used, from the start", above=0, most=1
    )

    def check(self, where: str) -> None:
        ordered = len(self.interval) in (0, 2) and list(self.interval) == sorted(set(self.interval))
        require(ordered, f"{where}.interval", list(self.interval), "[start, stop] in seconds, or nothing")
        usable = self.name not in (".", "..") and not any(c in "/\\" or ord(c) < 32 for c in self.name)
        require(usable, f"{where}.name", self.name, "a name without '/': results lie in a folder of it")

"""Frames from files: mp4, avi and other video through PyAV, TIFF stacks, .npy stacks, single pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.recording.frames import LazyFrames, ResizedFrames, gray
from neuroformer.recording.series import FrameSeries
from neuroformer.recording.validation import RecordingError, numbers, optional

VIDEO = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".mpg", ".mpeg", ".wmv", ".webm")
TIFF = (".tif", ".tiff")
_TELL_TIMES = ("mp4", "matroska")  # containers that store when each frame is shown
PICTURE = (".png", ".jpg", ".jpeg", ".bmp")


class VideoFrames(LazyFrames):
    """Frames of a video, decoded when asked for, in 8-bit luminance: those that a player shows, in their order.

    Opening reads the packets' headers: the number of frames, their times, and where decoding can start. Reading a
    frame decodes from the keyframe before it. Where packets do not say when a frame is shown (AVI and program streams
    with frames that depend on later ones), opening decodes the video once, and frames are found by counting.

    Parameters
    ----------
    path : path
    size : (height, width), optional
        Area-averaged to this size while decoding.

    Attributes
    ----------
    times : (images,) seconds since the first frame, on the video's own clock
    """

    def __init__(self, path: str | Path, size: tuple[int, int] | None = None):
        av = optional("av", "video", "reading video files")
        self.path = str(path)
        self._open_files: dict[int, Any] = {}
        try:
            with av.open(self.path) as container:
                if not container.streams.video:
                    raise RecordingError(f"{path} has no video stream")
                stream = container.streams.video[0]
                packets = [_Packet(p) for p in container.demux(stream) if p.size]
                height, width, base, rate = stream.height, stream.width, stream.time_base, stream.average_rate
                telling = any(name in container.format.name for name in _TELL_TIMES)
            if not packets or not height or not width or not base:
                raise RecordingError(f"{path} holds no video frames with a time")
            self._counted = not _tell_times(packets, telling)
            if self._counted:
                self._count_frames(packets, rate)
            else:
                self._number_packets(packets)
        except (OSError, ValueError, ArithmeticError) as e:  # PyAV's errors derive from these
            raise (
                e if isinstance(e, RecordingError) else RecordingError(f"{path} cannot be read as video: {e}")
            ) from None
        ticks = self._ticks - self._ticks[0]
        self.times = ticks * float(base)
        self.shape = (len(ticks), *(size or (int(height), int(width))))
        self.dtype = np.dtype(np.uint8)

    def _number_packets(self, packets: list[_Packet]) -> None:
        """Every packet is a frame with a time; packets come in decoding order, frames in that of their times."""
        self._ticks = np.sort(np.array([p.shown for p in packets if not p.hidden], dtype=np.int64))
        if len(self._ticks) == 0 or (np.diff(self._ticks) <= 0).any():
            raise RecordingError(f"{self.path}: two frames have the same time; convert the file (ffmpeg -i IN OUT.mp4)")
        self._keys = np.sort(np.array([p.shown for p in packets if p.is_key], dtype=np.int64))

    def _count_frames(self, packets: list[_Packet], rate: Any) -> None:
        """Decode the video once: the time of each frame, the numbers of keyframes, and where to start for each."""
        av = optional("av", "video", "reading video files")
        ticks, keys = [], []
        with av.open(self.path) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for number, frame in enumerate(container.decode(stream)):
                ticks.append(frame.pts)
                if frame.key_frame:
                    keys.append(number)
            step = 1 / float(rate * stream.time_base) if rate else 1.0
            finds = "avi" in container.format.name  # program streams have no index: seeking there is a guess
        if not ticks:
            raise RecordingError(f"{self.path} holds no frames that can be decoded")
        if None in ticks or (np.diff(np.array(ticks, dtype=np.int64)) <= 0).any():
            ticks = np.rint(np.arange(len(ticks)) * step)  # frames of one rate
        self._ticks = np.array(ticks, dtype=np.int64)
        # a place to start from is known if each keyframe has its packet; else every frame is counted from the first
        starts = [p.decoded for p in packets if p.is_key]
        known = finds and len(starts) == len(keys) and None not in starts
        self._keys = np.array(keys if known else keys[:1], dtype=np.int64)
        self._starts = starts if known else [None]

    def __getstate__(self):
        return {**self.__dict__, "_open_files": {}}

    def read(self, index: np.ndarray) -> np.ndarray:
        out = np.empty((len(index), *self.shape[1:]), np.uint8)
        wanted = index if self._counted else self._ticks[index]  # what frames are known by
        group = np.searchsorted(self._keys, wanted, side="right") - 1
        for key in np.unique(group):
            rows = np.flatnonzero(group == key)
            left = dict(zip(wanted[rows].tolist(), rows.tolist(), strict=True))
            try:
                frames = self._numbered(max(key, 0)) if self._counted else self._timed(max(key, 0))
                for name, frame in frames:
                    if name in left:
                        out[left.pop(name)] = self._image(frame)
                    if not left:
                        break
            except (OSError, ValueError) as e:
                raise RecordingError(f"{self.path}: a frame cannot be decoded: {e}") from None
            if left:
                raise RecordingError(f"{self.path}: {len(left)} frames cannot be decoded; the file is damaged")
        return out

    def _timed(self, key: int) -> Iterator[tuple[int, Any]]:
        """Frames from a keyframe on, each with its time."""
        container = self._container()
        stream = container.streams.video[0]
        container.seek(int(self._keys[key]), stream=stream, backward=True)
        for frame in container.decode(stream):
            yield frame.pts, frame

    def _numbered(self, key: int) -> Iterator[tuple[int, Any]]:
        """Frames from a keyframe on, each with its number."""
        container = self._container(fresh=self._starts[key] is None or key == 0)
        stream = container.streams.video[0]
        start = self._starts[key]
        if start is not None and key:
            container.seek(int(start), stream=stream, backward=True)
        number: int | None = None
        for frame in container.decode(stream):
            if number is None and frame.key_frame:
                number = int(self._keys[key])
            if number is not None:
                yield number, frame
                number += 1

    def _container(self, fresh: bool = False) -> Any:
        """The open file; a process that was forked opens its own."""
        pid = os.getpid()
        if fresh or pid not in self._open_files:
            av = optional("av", "video", "reading video files")
            self._open_files = {pid: av.open(self.path)}
        return self._open_files[pid]

    def _image(self, frame: Any) -> np.ndarray:
        height, width = self.shape[1:]
        # 'AREA' averages all source pixels of a target pixel; the default would skip some
        small = frame.reformat(width=width, height=height, format="gray", interpolation="AREA")
        return small.to_ndarray()


class _Packet:
    """What a packet's header says: when its frame is shown and decoded, and whether it can be decoded by itself."""

    def __init__(self, packet: Any):
        self.shown, self.decoded, self.is_key = packet.pts, packet.dts, packet.is_keyframe
        self.hidden = packet.is_discard  # cut away by an edit list: decoded, for those after it, but not shown


def _tell_times(packets: list[_Packet], telling: bool) -> bool:
    """Whether each packet is one frame, shown at the packet's time."""
    if any(p.shown is None for p in packets):
        return False
    return telling or all(p.is_key for p in packets)


class TiffFrames(LazyFrames):
    """Pages of a TIFF stack, read when asked for."""

    def __init__(self, path: str | Path):
        tifffile = optional("tifffile", "video", "reading TIFF stacks")
        self.path = str(path)
        try:
            with tifffile.TiffFile(self.path) as f:
                series = f.series[0]
                shape, self.dtype = tuple(series.shape), np.dtype(series.dtype)
                # ImageJ and others store a whole stack as one page: then it must be mapped as one array
                self._paged = len(series.pages) > 1 or len(shape) == 2
        except Exception as e:  # tifffile raises its own errors, struct's and IndexError on damaged files
            raise RecordingError(f"{path} cannot be read as TIFF: {type(e).__name__}: {e}") from None
        shape = (1, *shape) if len(shape) == 2 else shape
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (3, 4)) or 0 in shape:
            raise RecordingError(f"{path} has shape {shape}; expected (images, height, width) or color")
        self.shape = (int(shape[0]), int(shape[1]), int(shape[2]))

    def read(self, index: np.ndarray) -> np.ndarray:
        tifffile = optional("tifffile", "video", "reading TIFF stacks")
        try:
            if self._paged:
                images = tifffile.imread(self.path, key=index.tolist())
                images = images[None] if len(index) == 1 else images
            else:
                images = np.asarray(tifffile.memmap(self.path, mode="r")[index])
        except Exception as e:
            raise RecordingError(f"{self.path}: pages cannot be read: {type(e).__name__}: {e}") from None
        if images.shape[:3] != (len(index), *self.shape[1:]):
            raise RecordingError(f"{self.path}: pages differ in size; expected {self.shape[1:]}")
        return gray(images).astype(self.dtype, copy=False)


class PictureFrames(LazyFrames):
    """Picture files of one size, one image each."""

    def __init__(self, paths: Sequence[str | Path]):
        self.paths = [str(p) for p in paths]
        first = self._load(self.paths[0])
        self.shape, self.dtype = (len(self.paths), *first.shape), first.dtype

    def _load(self, path: str) -> np.ndarray:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("L"))
        except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as e:
            raise RecordingError(f"{path} cannot be read as a picture: {e}") from None

    def read(self, index: np.ndarray) -> np.ndarray:
        images = [self._load(self.paths[i]) for i in index]
        if any(image.shape != self.shape[1:] for image in images):
            raise RecordingError(f"pictures beside {self.paths[0]} differ in size; expected {self.shape[1:]}")
        return np.stack(images)


def open_images(path: str | Path, size: tuple[int, int] | None = None) -> Any:
    """A lazy stack (images, height, width) from one file, resized on the way in.

    Raises
    ------
    RecordingError
        No such file, a kind that no reader knows, or damaged content.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise RecordingError(f"no file at {path} to take frames from")
    suffix = path.suffix.lower()
    if suffix in VIDEO:
        return VideoFrames(path, size)
    if suffix in TIFF:
        images: Any = TiffFrames(path)
    elif suffix in PICTURE:
        images = PictureFrames([path])
    elif suffix == ".npy":
        try:
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as e:
            raise RecordingError(f"{path} is not a readable .npy stack: {e}") from None
        if images.ndim != 3:
            raise RecordingError(f"{path} has shape {images.shape}; expected (images, height, width)")
    else:
        raise RecordingError(
            f"no frames can be read from {path}; expected a video ({', '.join(VIDEO)}), a TIFF stack "
            f"({', '.join(TIFF)}), a picture or a .npy stack"
        )
    return ResizedFrames(images, size) if size is not None else images


def read_video(
    path: str | Path,
    times: np.ndarray | None = None,
    rate_hz: float | None = None,
    start: float = 0.0,
    size: tuple[int, int] | None = None,
) -> FrameSeries:
    """Frames of a file as they were shown once, from first to last.

    Parameters
    ----------
    times : (frames,) seconds on the recording's clock, as a frame trigger gives them; or
    rate_hz : frames per second, the first at ``start``; without either, the video's own clock from ``start``
    size : (height, width) to shrink to on the way in

    Raises
    ------
    RecordingError
        Unreadable, more times than frames, or no clock at all (TIFF and .npy stacks have none).
    """
    images = open_images(path, size)
    count = images.shape[0]
    if times is not None:
        onsets = numbers("the video's times", times, np.float64)
        if len(onsets) > count:
            raise RecordingError(f"{len(onsets)} frame times were given, but {path} has {count} frames")
    elif rate_hz is not None:
        if not 0 < rate_hz < np.inf:
            raise RecordingError(f"video_rate_hz is {rate_hz}; expected frames per second, above 0")
        onsets = start + np.arange(count) / rate_hz
    elif isinstance(images, VideoFrames):
        onsets = start + images.times
    else:
        raise RecordingError(f"{path} has no clock of its own; give the frames' times or their rate in Hz")
    return FrameSeries(images, onsets, np.arange(len(onsets)))

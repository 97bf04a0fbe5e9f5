"""Movies for built-in recordings: walks over the photographs that scikit-learn ships."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.ndimage import gaussian_filter


class MovieParameters(Protocol):
    """What :func:`pan_movies` reads; lengths in pixels of a frame, times in seconds."""

    @property
    def num_movies(self) -> int: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def frame_rate_hz(self) -> float: ...
    @property
    def frame_size(self) -> int | tuple[int, int]: ...
    @property
    def photo_scale(self) -> int: ...
    @property
    def contrast_sigma(self) -> float: ...
    @property
    def contrast_floor(self) -> float: ...
    @property
    def shot_s(self) -> float: ...
    @property
    def pan_speed(self) -> float: ...
    @property
    def turn_rate(self) -> float: ...


def _photographs(p: MovieParameters) -> list[np.ndarray]:
    """The photographs that scikit-learn ships, as local contrast: mean 0, unit variance, clipped at 2.5."""
    from sklearn.datasets import load_sample_images

    out = []
    for photo in load_sample_images().images:
        gray = np.asarray(photo, dtype=np.float64) @ np.array([0.299, 0.587, 0.114])
        h, w = (n // p.photo_scale for n in gray.shape)
        gray = gray[: h * p.photo_scale, : w * p.photo_scale]
        gray = gray.reshape(h, p.photo_scale, w, p.photo_scale).mean((1, 3))
        gray = gray - gaussian_filter(gray, p.contrast_sigma)
        local = np.sqrt(gaussian_filter(gray**2, p.contrast_sigma))
        out.append(np.clip(gray / (local + p.contrast_floor * gray.std()), -2.5, 2.5))
    return out


def pan_movies(rng: np.random.Generator, p: MovieParameters) -> np.ndarray:
    """(movies, frames, height, width) uint8: shots of a few seconds, each a smooth walk over a turned photograph."""
    photos, size = _photographs(p), np.broadcast_to(p.frame_size, 2)
    clips = np.zeros((p.num_movies, p.num_frames, *size), np.uint8)
    for clip in clips:
        at = 0
        while at < p.num_frames:
            n = max(1, int(round(rng.uniform(0.6, 1.4) * p.shot_s * p.frame_rate_hz)))
            photo = np.rot90(photos[rng.integers(len(photos))], int(rng.integers(4)))
            room = np.array(photo.shape) - size - 2.0
            turns = p.turn_rate * rng.standard_normal(n) / np.sqrt(p.frame_rate_hz)
            heading = rng.uniform(0, 2 * np.pi) + turns.cumsum()
            step = np.stack([np.sin(heading), np.cos(heading)]) * p.pan_speed / p.frame_rate_hz
            path = rng.uniform(0, room)[:, None] + step.cumsum(1)
            path = room[:, None] - np.abs(path % (2 * room[:, None]) - room[:, None])  # reflected at the edges
            for k in range(min(n, p.num_frames - at)):
                clip[at + k] = np.rint(128 + 45 * _bilinear(photo, path[:, k], size))
            at += n
    return clips


def _bilinear(image: np.ndarray, corner: np.ndarray, size: np.ndarray) -> np.ndarray:
    (y, x), (fy, fx) = corner.astype(int), corner % 1
    a = image[y : y + size[0] + 1, x : x + size[1] + 1]
    rows = (1 - fy) * a[:-1] + fy * a[1:]
    return np.round((1 - fx) * rows[:, :-1] + fx * rows[:, 1:], 9)

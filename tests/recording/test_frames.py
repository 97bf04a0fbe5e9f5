"""Lazy frames: indexing as of an array, resizing, the cache, and files of several kinds."""

import multiprocessing
import pickle

import numpy as np
import pytest

from neuroformer.recording import FrameSeries, RecordingError, open_recording
from neuroformer.recording.frames import CachedFrames, JoinedFrames, LazyFrames, ResizedFrames
from neuroformer.recording.video import open_images, read_video


class Counting(LazyFrames):
    """An array behind the lazy interface that counts the images read."""

    def __init__(self, images):
        self.images, self.shape, self.dtype, self.count = images, images.shape, images.dtype, 0

    def read(self, index):
        assert (np.diff(index) > 0).all()
        self.count += len(index)
        return self.images[index]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 255, (20, 6, 8), dtype=np.uint8)


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        slice(2, 9, 3),
        [5, 5, 0],
        np.array([[1, 2], [2, 19]]),
        np.arange(20) % 2 == 0,
        [],
        (slice(0, 3), slice(1, 3)),
        (2, 4),
        ([4, 1], slice(None), 0),
    ],
)
def test_indexing_is_that_of_an_array(images, key):
    expected = images[np.array(key, dtype=int) if key == [] else key] if isinstance(key, list) else images[key]
    got = Counting(images)[key]
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == images.dtype


def test_out_of_range(images):
    with pytest.raises(IndexError, match="images 20 to 20 were asked for; there are 20"):
        Counting(images)[20]
    assert np.asarray(Counting(images)).shape == images.shape


def test_the_cache_is_bounded_and_keeps_what_was_used_last(images):
    inner = Counting(images)
    cache = CachedFrames(inner, max_bytes=5 * 48)
    for key in (np.arange(3), [0, 1, 2], [2, 3, 4], [0, 1]):
        np.testing.assert_array_equal(cache[key], images[key])
    assert inner.count == 5
    np.testing.assert_array_equal(cache[:], images)
    assert len(cache._kept) == 5 and sum(v.nbytes for v in cache._kept.values()) <= 5 * 48
    assert len(pickle.loads(pickle.dumps(cache))._kept) == 0
    with pytest.raises(RecordingError, match="holds no image"):
        CachedFrames(images, 10)


def test_resizing_averages_areas():
    images = np.zeros((2, 4, 4), np.float32)
    images[0, :2, :2] = [[1, 2], [3, 6]]
    small = ResizedFrames(images, (2, 2))
    np.testing.assert_allclose(small[0], [[3, 0], [0, 0]])
    assert small.dtype == np.float32 and ResizedFrames(images.astype(np.uint8), (2, 2)).dtype == np.uint8
    with pytest.raises(RecordingError, match="expected .height, width."):
        ResizedFrames(images, (0, 2))


def test_joining(images):
    joined = JoinedFrames([images[:7], Counting(images[7:])])
    np.testing.assert_array_equal(joined[[19, 6, 7, 0]], images[[19, 6, 7, 0]])
    with pytest.raises(RecordingError, match="cannot be joined"):
        JoinedFrames([images, images[:, :2]])


# -- files ------------------------------------------------------------------------------------------


def write_video(path, images, codec, rate=20, **options):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = images.shape[1:]
        stream.pix_fmt = {"ffv1": "gray", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.gop_size, stream.bit_rate = 12, 8_000_000
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def movie():
    """Smooth enough for a lossy codec; each frame is told from the others by its mean."""
    y, x = np.mgrid[:64, :96]
    return np.stack([(100 + 40 * np.sin(x / 15 + y / 20) + 2 * i).astype(np.uint8) for i in range(50)])


@pytest.mark.parametrize("name, codec", [("a.avi", "ffv1"), ("a.mp4", "libx264"), ("b.mp4", "mpeg4")])
def test_video_is_read_by_index(tmp_path, movie, name, codec):
    frames = read_video(write_video(tmp_path / name, movie, codec), start=3.0)
    assert frames.images.shape == (50, 64, 96)
    np.testing.assert_allclose(frames.times, 3.0 + np.arange(50) / 20, atol=1e-9)
    picked = frames.images[[49, 0, 30, 12, 11]].astype(float)
    off = np.abs(picked.mean((1, 2)) - movie[[49, 0, 30, 12, 11]].mean((1, 2)))
    assert off.max() == 0 if codec == "ffv1" else off.max() < 1  # neighbours differ by 2
    np.testing.assert_array_equal(frames.images[30], picked[2])  # the same from anywhere
    again = pickle.loads(pickle.dumps(frames.images))
    np.testing.assert_array_equal(again[[11]], picked[4:].astype(np.uint8))


def players_frames(path):
    """Every frame that a player shows, by decoding from first to last."""
    with pytest.importorskip("av").open(str(path)) as container:
        return np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])


@pytest.mark.parametrize(
    "name, codec, options",
    [
        ("a.avi", "libx264", {"bf": "3", "x264-params": "b-adapt=0"}),
        ("b.avi", "mpeg4", {"bf": "2"}),
        ("c.avi", "mjpeg", {}),
        ("d.mpg", "mpeg2video", {"bf": "2"}),
        ("e.ts", "libx264", {"bf": "2"}),
        ("f.mp4", "libx264", {"bf": "3"}),
        ("g.mkv", "libx264", {"bf": "3"}),
        ("h.mov", "mpeg4", {"bf": "2"}),
    ],
)
def test_each_frame_is_the_one_that_a_player_shows(tmp_path, movie, name, codec, options):
    from neuroformer.recording.video import VideoFrames

    path = write_video(tmp_path / name, movie, codec, **options)
    shown = players_frames(path)
    images = VideoFrames(path)
    assert len(images) == len(shown) == 50
    np.testing.assert_allclose(images.times, np.arange(50) / 20, atol=1e-3)
    for i in np.random.default_rng(0).permutation(50):
        np.testing.assert_array_equal(images[[i]][0], shown[i], err_msg=f"frame {i} of {name}")
    np.testing.assert_array_equal(images[:], shown)


@pytest.mark.parametrize("bf", ["0", "2"])
def test_frames_that_an_edit_list_hides_are_not_there(tmp_path, movie, bf):
    av = pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", movie, "libx264", bf=bf)
    with av.open(str(tmp_path / "a.mp4")) as whole, av.open(str(tmp_path / "cut.mp4"), "w") as cut:
        stream = whole.streams.video[0]
        out, shift = cut.add_stream_from_template(stream), round(0.85 / stream.time_base)
        for packet in whole.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, out
                cut.mux(packet)
    shown, frames = players_frames(tmp_path / "cut.mp4"), read_video(tmp_path / "cut.mp4")
    assert len(shown) < 50 and frames.images.shape == shown.shape
    assert frames.times[0] == 0
    np.testing.assert_array_equal(frames.images[[0, 5]], shown[[0, 5]])


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("dtype", [">u2", ">i4", ">f4", ">f8", "<u2"])
def test_bytes_in_any_order_are_the_same_numbers(tmp_path, images, dtype, lazy):
    stack = images.astype(dtype)
    if lazy:
        np.save(tmp_path / "a.npy", stack)
        stack = np.load(tmp_path / "a.npy", mmap_mode="r")
    series = FrameSeries(stack, np.arange(20), np.arange(20))
    assert np.dtype(series.images.dtype).isnative and np.dtype(series.images.dtype).kind == np.dtype(dtype).kind
    np.testing.assert_array_equal(series.pixels(np.array([[3, 4], [0, 19]])), images[[[3, 4], [0, 19]]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_named(value):
    images = np.ones((4, 2, 3), np.float32)
    images[2, 1, 1] = value
    series = FrameSeries(images, np.arange(4), np.arange(4))
    assert series.pixels(np.array([0, 1, 3])).shape == (3, 2, 3)
    with pytest.raises(RecordingError, match=r"NaN or infinite: 2 of 3 images .*image 2, for one.*nan_to_num"):
        series.pixels(np.array([0, 2, 2]))


def _mean(images):
    return float(images[[5]].mean())


def test_video_in_a_forked_worker(tmp_path, movie):
    images = open_images(write_video(tmp_path / "a.avi", movie, "ffv1"))
    here = _mean(images)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_mean, (images,)) == here


def test_video_is_resized_and_goes_with_any_recording(tmp_path, movie):
    write_video(tmp_path / "a.avi", movie, "ffv1")
    np.savez(tmp_path / "a.npz", spike_times=[0.1, 2.0], spike_units=[0, 1])
    rec = open_recording(
        tmp_path / "a.npz", video=tmp_path / "a.avi", frames_size=(8, 12), frame_cache_mb=1, video_rate_hz=25
    )
    block = movie.reshape(50, 8, 8, 12, 8).mean((2, 4))
    assert np.abs(rec.frames.images[:].astype(float) - block).max() <= 1
    np.testing.assert_allclose(rec.frames.times, np.arange(50) / 25)
    with pytest.raises(RecordingError, match="51 frame times were given, but .* has 50 frames"):
        open_recording(tmp_path / "a.npz", video=tmp_path / "a.avi", video_times=np.arange(51))
    assert open_recording(tmp_path / "a.npz", frames_size=(8, 12), frame_cache_mb=1).frames is None


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"compression": "zlib"}, {"photometric": "rgb"}])
def test_tiff(tmp_path, images, options):
    tifffile = pytest.importorskip("tifffile")

    stack = np.repeat(images[..., None], 3, -1) if "photometric" in options else images
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    frames = open_images(tmp_path / "a.tif")
    assert frames.shape == (20, 6, 8)
    np.testing.assert_array_equal(frames[[7, 0, 19]], images[[7, 0, 19]])
    np.testing.assert_array_equal(frames[3], images[3])
    with pytest.raises(RecordingError, match="no clock of its own"):
        read_video(tmp_path / "a.tif")


def test_npy_stack_and_bad_files(tmp_path, images):
    np.save(tmp_path / "a.npy", images)
    assert isinstance(open_images(tmp_path / "a.npy"), np.memmap)
    np.testing.assert_array_equal(read_video(tmp_path / "a.npy", rate_hz=10).images[[3]], images[[3]])
    for name in ("a.mp4", "a.tif", "a.png"):
        (tmp_path / name).write_bytes(b"no picture" * 20)
        with pytest.raises(RecordingError, match="cannot be read as"):
            open_images(tmp_path / name)
    with pytest.raises(RecordingError, match="no file at"):
        open_images(tmp_path / "gone.mp4")
    (tmp_path / "a.gif").write_bytes(b"x")
    with pytest.raises(RecordingError, match="expected a video"):
        open_images(tmp_path / "a.gif")


def test_twenty_gigabytes_open_without_being_read(tmp_path):
    shape = (2_000_000, 100, 100)  # 20 GB, sparse: the disk holds next to nothing of it
    stack = np.lib.format.open_memmap(tmp_path / "big.npy", mode="w+", dtype=np.uint8, shape=shape)
    stack[1_999_999, 0, 0] = 7
    del stack
    frames = read_video(tmp_path / "big.npy", rate_hz=100)
    assert frames.images.shape == shape and int(frames.images[np.array([1_999_999])].sum()) == 7

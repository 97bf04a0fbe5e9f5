"""No window of one part reads data of another."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import small_config, small_recording

from neuroformer.audit import audit
from neuroformer.config import ConfigError
from neuroformer.data.splits import PARTS, make_split
from neuroformer.data.windows import WindowShape, tile
from neuroformer.recording import Recording


def owner(split):
    """Which part each bin belongs to, by segment; -1 for gaps."""
    ticks = np.rint((split.segments[:, 1] - split.segments[:, 0]) / split.dt).astype(int)
    owners = [np.full(n, -1) for n in ticks]
    for i, part in enumerate(PARTS):
        for segment, start, stop in split.blocks[part]:
            assert (owners[segment][start:stop] == -1).all(), "blocks overlap"
            owners[segment][start:stop] = i
    return owners


@pytest.mark.parametrize("by", ["blocks", "trials"])
@pytest.mark.parametrize("phase", [0, 3])
def test_everything_a_window_reads_lies_in_its_part(by, phase):
    config = small_config(window={"target_past": 0.8}, split={"by": by, "block": 5.0, "gap": 0.2})
    rec = small_recording(num_trials=10)
    split, shape = make_split(rec, config), WindowShape.from_config(config)
    owners = owner(split)
    for i, part in enumerate(PARTS):
        windows = tile(split.blocks[part], shape, phase=phase)
        assert len(windows)
        for segment, tick in zip(windows.segment, windows.tick, strict=True):
            read = owners[segment][max(0, tick - shape.reach) : tick + shape.current]
            assert (read == i).all(), (part, segment, tick)


def test_gap_between_parts_is_at_least_the_reach():
    config = small_config(split={"block": 5.0, "gap": 0.7})
    split = make_split(small_recording(), config)
    owners = owner(split)[0]
    edges = np.flatnonzero(np.diff(owners)) + 1
    runs = np.split(owners, edges)
    gaps = [len(r) for r in runs[1:-1] if r[0] == -1]
    assert gaps and min(gaps) * split.dt >= 0.7 - 1e-9
    with pytest.raises(ConfigError, match="split.gap is 0.05 s, but a window reaches 0.1 s beyond itself .window.past"):
        make_split(small_recording(), small_config(split={"block": 5.0, "gap": 0.05}))


def test_what_only_heads_of_behavior_see_costs_no_window_without_them():
    rec, num_windows = small_recording(), []
    for behind in (0.1, 2.0):
        config = small_config(window={"target_past": behind}, targets=[], split={"block": 5.0, "gap": 0.2})
        blocks = make_split(rec, config).blocks["train"]
        num_windows.append(len(tile(blocks, WindowShape.from_config(config))))
    assert num_windows[0] == num_windows[1] > 0


def test_neighbours_of_one_part_join():
    split = make_split(small_recording(), small_config(split={"block": 4.0}))
    assert len(split.blocks["train"]) == 2 and split.seconds("train") > 22


def test_the_same_split_has_the_same_digest():
    a, b = (make_split(small_recording(), small_config()) for _ in range(2))
    assert a.sha256() == b.sha256()
    assert a.sha256() != make_split(small_recording(), small_config(split={"block": 4.0})).sha256()


@pytest.mark.parametrize(
    ("split", "trials", "message"),
    [
        ({"by": "trials"}, 0, "recording 'small' has none"),
        ({"by": "trials"}, 2, "leaves 0 s for 'valid'"),
        ({"block": 39.0}, 0, "leaves 0 s for .*; change one of these, say split.block=8$"),
        ({"block": 39.0, "gap": 5.0}, 0, "leaves 0 s for .*; change one of these$"),
    ],
)
def test_a_split_that_cannot_be(split, trials, message):
    with pytest.raises(ConfigError, match=message):
        make_split(small_recording(num_trials=trials), small_config(split=split))


def test_a_window_longer_than_a_trial():
    config = small_config(window={"current": 10.0}, split={"by": "trials"})
    with pytest.raises(ConfigError, match=r"window.current is 10 s, but the longest trial of 'small' lasts 4 s"):
        make_split(small_recording(num_trials=10), config)


def tiling(num: int = 200, length: float = 1.0, pause: float = 0.0, **columns) -> Recording:
    """Trials of ``length`` seconds, ``pause`` seconds apart, that are also the domain."""
    start = np.arange(num) * (length + pause)
    rng = np.random.default_rng(0)
    return Recording(
        name="trials",
        spike_times=np.sort(rng.uniform(0, num * (length + pause), 2000)),
        spike_units=rng.integers(0, 3, 2000),
        units={"id": np.arange(3)},
        domain=np.stack([start, start + length], 1),
        trials={"start": start, "stop": start + length, **columns},
    )


def plain(**split):
    return small_config(window={"past": 0.5, "frames": 0}, inputs=[], targets=[], loss={"contrast": []}, split=split)


@pytest.mark.parametrize("pause", [0.0, 0.2, 3.0])
@pytest.mark.parametrize("length", [0.7, 1.0, 2.2])
def test_blocks_are_as_long_as_asked_over_trials_of_any_length(length, pause):
    rec = tiling(200, length, pause)
    split = make_split(rec, plain(by="blocks", block=20.0))
    every = [(*row, part) for part in PARTS for row in split.intervals(part)]
    every.sort()
    runs = [[every[0]]]
    for row in every[1:]:
        if row[2] == runs[-1][-1][2]:
            runs[-1].append(row)
        else:
            runs.append([row])
    for run in runs[:-1]:  # train comes in threes
        blocks = 3 if run[0][2] == "train" else 1
        seconds = sum(stop - start for start, stop, _ in run)
        assert abs(seconds - 20 * blocks) <= blocks * length / 2 + 0.5 + 1e-6
    for one, other in zip(runs[:-1], runs[1:], strict=True):
        assert other[0][0] - one[-1][1] >= 0.5 - 1e-9
    assert len(split.segments) == (1 if pause == 0 else 200)


def test_blocks_of_long_intervals_are_as_before():
    rec = replace(small_recording(frames=False), domain=np.array([[0, 14.5], [20, 40.0]]))
    blocks = make_split(rec, plain(by="blocks", block=5.0)).blocks
    assert blocks["train"].tolist() == [[0, 0, 1450], [1, 1050, 2000]]
    assert blocks["valid"].tolist() == [[1, 0, 500]] and blocks["test"].tolist() == [[1, 550, 1000]]


def test_whole_values_of_a_column_are_held_out():
    movie = np.array([f"movie_{i % 11}" for i in range(200)])
    movie[7] = ""
    config = plain(by="trials", hold_out="movie")
    rec = tiling(movie=movie)
    split = make_split(rec, config)
    shown = {part: set(movie[split.blocks[part][:, 0]]) for part in PARTS}
    # the pattern runs over the values in natural order: 0 1 2 train, 3 valid, 4 test, ..., 10 train
    assert shown["valid"] == {"movie_3", "movie_8"} and shown["test"] == {"movie_4", "movie_9"}
    assert "movie_10" in shown["train"] and len(shown["train"]) == 7 and "" not in set.union(*shown.values())
    names = [f.name for f in audit(rec, config).findings if f.name == "shared_stimulus"]
    assert names == []
    with pytest.raises(ConfigError, match="split.hold_out is 'film', which is no column .* they have: movie"):
        make_split(rec, plain(by="trials", hold_out="film"))
    with pytest.raises(ConfigError, match="use split.by: trials"):
        make_split(rec, plain(by="blocks", hold_out="movie"))
    with pytest.raises(ConfigError, match="0 s for 'valid'.*2 values of 'kind'"):
        make_split(tiling(kind=np.arange(200) % 2), plain(by="trials", hold_out="kind"))

"""No window of one part reads data of another."""

import numpy as np
import pytest
from helpers import small_config, small_recording

from neuroformer.config import ConfigError
from neuroformer.data.splits import PARTS, make_split
from neuroformer.data.windows import WindowShape, tile


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

"""Random recordings with anything that the type allows, for tests of what must hold of every one."""

import numpy as np

from neuroformer.recording import BehaviorVariable, FrameSeries, Recording
from neuroformer.recording.recording import Traces

NAMES = ["speed", "heart_rate", "pupil area", "x", "Gaze", "left/eye", "a.b", "values", "keys", "time"]
COLUMNS = ["side", "start_time", "contrast", "id_2", "go cue", "label", "tags"]


def column(rng: np.random.Generator, count: int) -> np.ndarray:
    kinds = [
        lambda: rng.normal(size=count),
        lambda: rng.integers(-5, 5, count),
        lambda: rng.random(count) < 0.5,
        lambda: np.array(["", "left", "right turn", "x"])[rng.integers(0, 4, count)],
    ]
    values = kinds[rng.integers(len(kinds))]()
    other = {"f": ["<f8", "<f4", ">f8"], "i": ["<i8", "i1", ">i4"], "b": ["?"], "U": ["<U12"]}[values.dtype.kind]
    return values.astype(rng.choice(other))


def clock(rng: np.random.Generator, count: int, low=-5.0, high=20.0) -> np.ndarray:
    return np.unique(np.round(rng.uniform(low, high, count), 9))


def table(rng: np.random.Generator, disjoint: bool) -> dict[str, np.ndarray]:
    edges = clock(rng, 2 * int(rng.integers(2, 5)))
    edges = edges[: len(edges) // 2 * 2]
    if disjoint and rng.random() < 0.3:
        out = {"start": edges[:-1], "stop": edges[1:]}  # each touches the next
    elif disjoint:
        out = {"start": edges[::2], "stop": edges[1::2]}
    else:
        out = {"start": rng.permutation(edges[::2]), "stop": np.full(len(edges) // 2, 25.0)}
    names = rng.choice(COLUMNS, size=rng.integers(0, 3), replace=False)
    return out | {str(n): column(rng, len(out["start"])) for n in names}


def random_recording(seed: int) -> Recording:
    rng = np.random.default_rng(seed)
    maybe = lambda p=0.5: rng.random() < p
    num_units, num_spikes = int(rng.integers(1, 7)), int(rng.integers(0, 80))
    times = np.round(rng.uniform(-5, 20, num_spikes), int(rng.choice([1, 9])))  # one decimal: many ties
    units = rng.integers(0, num_units, num_spikes)
    order = np.lexsort((units, times))
    ids = rng.permutation(100)[:num_units] if maybe() else np.array([f"u{i}" for i in range(num_units)])
    columns = {"id": ids}
    columns |= {"area": np.array(["V1", "", "CA1"])[rng.integers(0, 3, num_units)]} if maybe() else {}
    columns |= {"depth": rng.normal(size=num_units).astype(np.float32)} if maybe() else {}
    behavior = {}
    for name in rng.choice(NAMES, size=rng.integers(0, 4), replace=False):
        at, width = clock(rng, int(rng.integers(1, 30))), int(rng.integers(1, 4))
        values = np.where(rng.random((len(at), width)) < 0.1, np.nan, rng.normal(size=(len(at), width)))
        labels = tuple("xyz"[:width]) if maybe() and width > 1 else ()
        behavior[str(name)] = BehaviorVariable(at, values, str(rng.choice(["", "cm/s", "°"])), labels)
    frames = None
    if maybe():
        bank = rng.integers(0, 255, (int(rng.integers(1, 5)), 3, 4)).astype(rng.choice([np.uint8, np.float32]))
        at = clock(rng, int(rng.integers(1, 9)))
        repeat = rng.integers(0, len(bank), len(at))
        frames = FrameSeries(bank, at[: len(bank)], np.arange(len(bank))[: len(at)]) if maybe() else None
        frames = FrameSeries(bank, at, repeat) if frames is None else frames
    at = clock(rng, 20)
    return Recording(
        name=str(rng.choice(["m1", "mouse/2 day 3", "ß: x"])),
        spike_times=times[order],
        spike_units=units[order],
        units=columns,
        domain=np.stack([t := clock(rng, 6)[:4:2], t + 0.25 * np.diff(t).min(initial=1.0)], 1),
        trials=table(rng, True) if maybe() else {},
        frames=frames,
        behavior=behavior,
        truth={"coupling": rng.normal(size=(2, 2)), "n": np.array(3)} if maybe(0.3) else {},
        meta={"notes": ["a"], "n": 1, "s": {"x": [None, 0.5]}} if maybe() else {},
        traces=Traces(at, rng.normal(size=(len(at), num_units)), "dF/F") if maybe(0.3) else None,
        intervals={n: table(rng, False) for n in rng.choice(["run", "run fast", "rest"], 2, replace=False)}
        if maybe()
        else {},
    )

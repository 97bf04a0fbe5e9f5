"""Features along a recording, how well they align, and how well two runs agree.

Shape suffixes: V windows, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from neuroformer.analysis.nulls import shifted
from neuroformer.config import ConfigError
from neuroformer.data.prepared import Prepared
from neuroformer.data.windows import Windows
from neuroformer.intervals import over_time, ratio_terms
from neuroformer.losses import loss_terms
from neuroformer.metrics import r2
from neuroformer.model.network import Neuroformer

CANDIDATES = 100  # windows among which one is to be found
SURROGATES = 5  # recordings in which every unit is shifted in time
MOST_NULL = 4000  # windows of a part that are embedded for each of them, evenly spread


@torch.no_grad()
def embed(model: Neuroformer, prepared: Prepared, windows: Windows, features: str, batch_size: int = 512) -> np.ndarray:
    """(V, D) features of each window, "state": the fused state before any current spike; "contrast": the neural side of
    the first alignment that has one, of unit length.

    Raises
    ------
    ConfigError
        "contrast" of a run that aligns nothing with the spikes.
    """
    place = None
    if features == "contrast":
        sides = [(i, c.pair.index("neural")) for i, c in enumerate(model.config.loss.contrast) if "neural" in c.pair]
        if not sides:
            raise ConfigError("the run aligns nothing with 'neural' (loss.contrast); use features='state'")
        place = sides[0]
    out = []
    for batch in prepared.batches(windows, batch_size, model.device):
        if place is None:
            _, h_TD, layout = model.states(batch)
            out.append(h_TD.index_select(0, layout.first()))
        else:
            out.append(model.alignment(batch, model.encode(batch))[place[0]][place[1]])
    return torch.cat(out).float().cpu().numpy()


@torch.no_grad()
def alignment_bits(
    model: Neuroformer, prepared: Prepared, windows: Windows, batch_size: int = 256, seed: int = 0
) -> dict[str, float]:
    """Goodness of fit of each alignment in bits above chance: ``log2(batch) - InfoNCE / ln 2``, the mean over batches.

    0 where features tell nothing of which window goes with which, ``log2(batch_size)`` where they tell all. Windows
    are shuffled into whole batches; those that show the same clip are no negatives, which raises chance a little.
    """
    rows = np.random.default_rng(seed).permutation(len(windows))
    count = max(1, len(rows) // batch_size)
    names = [f"contrast_{'_'.join(c.pair)}" for c in model.config.loss.contrast]
    bits: dict[str, list[float]] = {name: [] for name in names}
    for part in np.array_split(rows, count):
        batch = prepared.builder(windows[np.sort(part)]).to(model.device)
        terms = loss_terms(model, batch, model(batch))
        for name in names:
            bits[name].append(float(np.log2(len(part)) - float(terms[name]) / np.log(2)))
    return {f"{name}_bits": float(np.mean(values)) for name, values in bits.items()}


@torch.no_grad()
def retrieval(
    model: Neuroformer, prepared: Prepared, windows: Windows, draws: int = 20, seed: int = 0
) -> dict[str, float]:
    """How often the neural feature of a window is nearest (cosine) to the other side of its own window, among
    :data:`CANDIDATES` windows that show distinct clips: top-1 accuracy, chance is one in as many.

    Windows without a spike are left out. The sets are drawn ``draws`` times; where there are fewer distinct clips than
    candidates, sets are as large as there are, and ``_candidates`` says so. The 95 % interval is over held-out time
    (:func:`neuroformer.intervals.over_time`), with the sets that were drawn.
    """
    out = {}
    for i, contrast in enumerate(model.config.loss.contrast):
        if "neural" not in contrast.pair:
            continue
        a_WE, b_WE, key_W, keep_W = _sides(model, prepared, windows, i)
        if contrast.pair[0] != "neural":
            a_WE, b_WE = b_WE, a_WE
        key_W = np.asarray(key_W) if "frames" in contrast.pair else np.arange(len(windows))
        hits, tries, size = _top1(a_WE, b_WE, key_W, np.flatnonzero(keep_W), draws, seed)
        tried = tries > 0
        name = f"retrieval_{'_'.join(contrast.pair)}"
        order = np.lexsort((windows.tick, windows.segment))
        order = order[tried[order]]
        low, high = over_time(ratio_terms(hits[order], tries[order], scale="share"), f"{name}_top1").ends()[:, 0]
        out |= {
            f"{name}_top1": float(hits.sum() / max(tries.sum(), 1)),
            f"{name}_top1_low": float(low),
            f"{name}_top1_high": float(high),
        }
        out |= {f"{name}_candidates": size, f"{name}_chance": 1 / size}
    return out


def _sides(model: Neuroformer, prepared: Prepared, windows: Windows, place: int):
    """Both features of every window, the key of its clip, and whether it has any spike."""
    a, b, key, keep = [], [], [], []
    for batch in prepared.batches(windows, 512, model.device):
        sides = model.alignment(batch, model.encode(batch))[place]
        a.append(sides[0])
        b.append(sides[1])
        key.append(batch.tick_W if batch.clips is None else batch.clips.key_W)
        keep.append((batch.past.lengths_B + batch.current.lengths_B) > 0)
    return (*(torch.cat(x).float() for x in (a, b)), *(torch.cat(x).cpu().numpy() for x in (key, keep)))


def _top1(a_WE, b_WE, key_W: np.ndarray, rows: np.ndarray, draws: int, seed: int):
    """(W,) hits and tries of every window, and how large the sets of distinct clips were."""
    rng = np.random.default_rng(seed)
    hits, tries = np.zeros(len(key_W)), np.zeros(len(key_W))
    size = min(CANDIDATES, len(np.unique(key_W[rows])))
    for _ in range(draws):
        order = rng.permutation(rows)
        distinct = order[np.unique(key_W[order], return_index=True)[1]]
        distinct = rng.permutation(distinct)
        for some in np.split(distinct[: len(distinct) // size * size], len(distinct) // size):
            nearest = (a_WE[some] @ b_WE[some].T).argmax(1).cpu().numpy()
            hits[some] += nearest == np.arange(size)
            tries[some] += 1
    return hits, tries, size


def consistency(train_a: np.ndarray, train_b: np.ndarray, test_a: np.ndarray, test_b: np.ndarray) -> dict[str, Any]:
    """How well each of two runs' features is a linear function of the other's, on held-out windows.

    The map is fitted by least squares on training windows; R2 is over all features together (variance-weighted), the
    measure that CEBRA's users know as consistency (Schneider, Lee and Mathis, Nature 2023).
    """
    return {
        "a_to_b": _aligned(train_a, train_b, test_a, test_b),
        "b_to_a": _aligned(train_b, train_a, test_b, test_a),
    }


def along_behavior(x_VD: np.ndarray, values_V: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(bins, D) mean features in every bin of a behavior variable, NaN where a bin has none: what recordings of
    different animals share."""
    place = np.searchsorted(edges, values_V, side="right") - 1
    inside = np.isfinite(values_V) & (place >= 0) & (place < len(edges) - 1)
    count = np.bincount(place[inside], minlength=len(edges) - 1).astype(float)
    total = np.stack([np.bincount(place[inside], x[inside], minlength=len(count)) for x in x_VD.T], 1)
    return np.divide(total, count[:, None], out=np.full_like(total, np.nan), where=count[:, None] > 0)


def consistency_across(
    ours: dict[str, tuple[np.ndarray, np.ndarray]],
    theirs: dict[str, tuple[np.ndarray, np.ndarray]],
    num_bins: int = 50,
) -> dict[str, Any]:
    """:func:`consistency` of two recordings with different windows, through a behavior variable that both have.

    Features are averaged in ``num_bins`` bins of the variable, equally filled by the training values of both; the map is
    fitted over the bins of training windows and scored over those of held-out windows, both runs' where both have some.
    With as many features as bins any map fits: reduce them first (``--components``).

    Parameters
    ----------
    ours, theirs : by part ("train", "test"), (V, D) features and (V,) values
    """
    known = [values[np.isfinite(values)] for _, values in (ours["train"], theirs["train"])]
    edges = np.unique(np.quantile(np.concatenate(known), np.linspace(0, 1, num_bins + 1)))
    means = {part: [along_behavior(*run[part], edges) for run in (ours, theirs)] for part in ("train", "test")}
    for part, (a, b) in means.items():
        both = np.isfinite(a).all(1) & np.isfinite(b).all(1)
        means[part] = [a[both], b[both]]
        if both.sum() <= a.shape[1]:
            raise ConfigError(
                f"{both.sum()} bins of the variable hold {part} windows of both recordings, too few to align {a.shape[1]} "
                "features; reduce them (--components)"
            )
    return consistency(*means["train"], *means["test"])


Side = tuple[Neuroformer, Prepared]


def agreement(ours: Side, theirs: Side, features: str, components: int = 0, color: str | None = None) -> dict[str, Any]:
    """Consistency of two runs, and that of the same runs where every unit is shifted in time.

    Window by window where both have the same recording and split (:func:`consistency`), else along the variable ``color``
    (:func:`consistency_across`). In the null each side reads a recording whose units keep their rates and rhythms but are
    each moved around their segment by a time of their own: what two runs still share then, they share because of frames,
    behavior and the course of a trial, not because of what units do together.

    Parameters
    ----------
    features : as in :func:`embed`
    components : principal components that features are reduced to; 0: all

    Returns
    -------
    dict
        ``a_to_b``, ``b_to_a``; ``_null``: the largest of :data:`SURROGATES`; ``_reached_by_null``: whether one of these is as
        large.

    Raises
    ------
    ConfigError
        Runs with different windows, and no variable.
    """
    same = np.array_equal(theirs[1].rec.spike_times, ours[1].rec.spike_times)  # two animals may be split alike
    same = same and theirs[1].split.sha256() == ours[1].split.sha256()
    if not same and color is None:
        raise ConfigError("the runs have different windows; name a variable of both with --color")
    agree = lambda a, b, most=0: _agree(a, b, features, components, None if same else color, most)
    out = agree(ours, theirs)
    moved = lambda side, seed: (side[0], side[1].with_spikes(shifted(side[1].index, seed)))
    null = [agree(moved(ours, 2 * k), moved(theirs, 2 * k + 1), MOST_NULL) for k in range(SURROGATES)]
    for key, value in list(out.items()):
        out[f"{key}_null"] = max(n[key] for n in null)
        out[f"{key}_reached_by_null"] = bool(out[f"{key}_null"] >= value)
    return out


def _agree(ours: Side, theirs: Side, features: str, components: int, color: str | None, most: int) -> dict[str, Any]:
    parts = ("train", ours[1].config.decode.split)
    sides = []
    for model, prepared in (ours, theirs):
        windows = {p: _spread(prepared.windows(p), most) for p in parts}
        x = {p: embed(model, prepared, w, features) for p, w in windows.items()}
        if components:
            pca = PCA(components).fit(x["train"])
            x = {p: pca.transform(v) for p, v in x.items()}
        sides.append((prepared, windows, x))
    if color is None:
        (_, _, a), (_, _, b) = sides
        return consistency(a["train"], b["train"], a[parts[1]], b[parts[1]])
    along = []
    for prepared, windows, x in sides:
        at = {p: w.starts(prepared.index) + prepared.config.window.current for p, w in windows.items()}
        value = prepared.rec.variable(color)
        along.append({("train" if p == "train" else "test"): (x[p], value.interpolate(at[p])[:, 0]) for p in parts})
    return consistency_across(along[0], along[1])


def _spread(windows: Windows, most: int) -> Windows:
    """At most so many, evenly spread; 0: all."""
    if not most or len(windows) <= most:
        return windows
    return windows[np.unique(np.linspace(0, len(windows) - 1, most).astype(int))]


def bits_beside_null(model: Neuroformer, prepared: Prepared, windows: Windows) -> dict[str, Any]:
    """:func:`alignment_bits`, and the largest of :data:`SURROGATES` recordings in which every unit is shifted in time
    (``_null``): what the alignment knows of rates alone."""
    out: dict[str, Any] = dict(alignment_bits(model, prepared, windows))
    few = _spread(windows, MOST_NULL)
    moved = [prepared.with_spikes(shifted(prepared.index, k)) for k in range(SURROGATES if out else 0)]
    null = [alignment_bits(model, p, few) for p in moved]
    return out | {f"{key}_null": max(n[key] for n in null) for key in out}


def _aligned(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    design = lambda a: np.concatenate([a, np.ones((len(a), 1))], 1)
    weights = np.linalg.lstsq(design(x), y, rcond=None)[0]
    # stacked around each feature's own mean, one R2 weighs features by their variance
    center = y_test.mean(0)
    return float(r2((y_test - center).ravel(), (design(x_test) @ weights - center).ravel())[0])

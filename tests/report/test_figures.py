"""Figures hold the numbers that they are given."""

import numpy as np
import pytest
from helpers import small_config, small_recording

from neuroformer.audit import audit
from neuroformer.recording import Recording
from neuroformer.report.behavior import ablation_bars, embedding_scatter, fewshot_curve
from neuroformer.report.figures import audit_overview, learning_curve, psths, rasters
from neuroformer.simulation_scores.psth import PsthComparison


def spikes(ax):
    """(spikes, 2) time and row of each mark of a raster."""
    return np.asarray(ax.collections[0].get_offsets())


def test_a_raster_has_every_spike_of_its_trial_and_no_other():
    rec = small_recording()
    chosen = (rec.spike_times >= 4.0) & (rec.spike_times < 7.0)
    made = Recording(
        name="made",
        spike_times=np.array([100.5, 101.0, 104.0]),
        spike_units=np.array([2, 0, 1]),
        units={"id": np.array(rec.unit_ids)},
        domain=np.array([[100.0, 110.0]]),
        trials={
            "start": np.array([100.0, 105.0]),
            "stop": np.array([103.0, 108.0]),
            "source_start": np.array([4.0, 8.0]),
        },
    )
    recorded, simulated = rasters(rec, made).axes
    row_of_unit = np.argsort(np.argsort(-rec.rates()))
    np.testing.assert_allclose(
        spikes(recorded), np.stack([rec.spike_times[chosen] - 4, row_of_unit[rec.spike_units[chosen]]], 1)
    )
    np.testing.assert_allclose(spikes(simulated), [[0.5, row_of_unit[2]], [1.0, row_of_unit[0]]])


def test_a_psth_is_held_out_beside_simulated():
    rng = np.random.default_rng(0)
    held, made = rng.uniform(size=(8, 3)) + [0, 5, 1], rng.uniform(size=(8, 3))
    fig = psths(PsthComparison(made, held, held, 0.5, 0.6, 4, 4, 4, (8,)), ["a", "b", "c"], 2)
    assert [ax.get_ylabel().split()[1] for ax in fig.axes] == ["b", "c"]
    for ax, u in zip(fig.axes, (1, 2), strict=True):
        shown = [line.get_ydata() for line in ax.lines]
        np.testing.assert_array_equal(shown, [held[:, u], made[:, u]])


def test_a_learning_curve_is_the_log(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,train/dt,train/loss,valid/bits_per_spike\n9,2.5,7,\n19,2.25,6,0.5\n29,2.0,5,0.75\n"
    )
    terms, bits = learning_curve(tmp_path / "metrics.csv").axes
    assert len(terms.lines) == 1  # the sum of the terms is not one
    np.testing.assert_array_equal(terms.lines[0].get_xydata(), [[10, 2.5], [20, 2.25], [30, 2.0]])
    np.testing.assert_array_equal(bits.lines[0].get_xydata(), [[20, 0.5], [30, 0.75]])


def test_a_curve_of_few_labels_has_its_bands():
    rows = [
        {"method": m, "seconds": s, "score": s / 100 + k, "low": s / 100 + k - 0.1, "high": s / 100 + k + 0.1}
        for k, m in enumerate(("pretrained", "scratch"))
        for s in (10.0, 30.0)
    ]
    ax = fewshot_curve(rows, "speed").axes[0]
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines], [[0.1, 0.3], [1.1, 1.3]])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.0) and band[:, 1].max() == pytest.approx(0.4)


def test_bars_of_ablations_are_differences_with_their_ends():
    rows = [{"measure": "bits", "without": "full", "minus": 0.0, "minus_low": 0.0, "minus_high": 0.0}]
    rows += [
        {"measure": "bits", "without": part, "minus": x, "minus_low": x - 0.1, "minus_high": x + 0.2}
        for part, x in (("past", -0.5), ("frames", -0.25))
    ]
    ax = ablation_bars(rows).axes[0]
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[-0.5, 0], [-0.25, 1]])
    ends = np.array([segment[:, 0] for segment in ax.collections[0].get_segments()])
    np.testing.assert_allclose(ends, [[-0.6, -0.3], [-0.35, -0.05]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["no past", "no frames"]


def test_an_embedding_is_coloured_by_what_is_known():
    low = np.arange(8.0).reshape(4, 2)
    unknown, known = embedding_scatter(low, np.array([1.0, np.nan, 3.0, 2.0]), "speed").axes[0].collections
    np.testing.assert_array_equal(unknown.get_offsets(), low[[1]])
    np.testing.assert_array_equal(known.get_array(), [1.0, 3.0, 2.0])


def test_the_overview_of_an_audit_shows_the_split():
    found = audit(small_recording(), small_config())
    _, strip, tokens = audit_overview(found).axes[:3]
    for bars, part in zip(strip.collections, ("train", "valid", "test"), strict=True):
        drawn = sorted((p.vertices[:, 0].min(), p.vertices[:, 0].max()) for p in bars.get_paths())
        np.testing.assert_allclose(drawn, found.series[f"split_{part}"])
    assert sum(bar.get_height() for bar in tokens.patches) == len(found.series["tokens"])

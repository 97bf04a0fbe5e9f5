"""What regressions on the energies of frames know, on recordings whose units follow them."""

import dataclasses

import numpy as np
import pytest
import torch

from neuroformer.audit import audit
from neuroformer.baselines.energy.components import EnergyComponents, energy_components
from neuroformer.baselines.energy.rates import stimulus_rates
from neuroformer.baselines.energy.regression import fit_poisson, fit_ridge
from neuroformer.baselines.energy.responses import Responses
from neuroformer.baselines.glm.clips import ClipEnergies
from neuroformer.baselines.glm.fit import fit_glm, glm_bits_per_spike
from neuroformer.bundle.cohort import Cohort
from neuroformer.config import from_dict, to_dict
from neuroformer.data.prepared import prepare
from neuroformer.model.network import Neuroformer
from neuroformer.recording import FrameSeries, Recording
from neuroformer.recording.series import Traces
from neuroformer.training.scoring.rates import held_out_rates, rate_scores
from neuroformer.training.start import start_from_energies

SLOT = 0.1


def gratings(count, side, rng):
    """(count, side, side) noise with a grating of random orientation at two contrasts, and its orientation."""
    angle, contrast = rng.integers(0, 4, count) * np.pi / 4, rng.choice([20, 60], count)
    y, x = np.mgrid[:side, :side]
    phase = rng.uniform(0, 2 * np.pi, count)[:, None, None]
    along = x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None]
    images = 128 + contrast[:, None, None] * np.cos(2 * np.pi * along / 8 + phase)
    return np.clip(images + rng.normal(0, 8, images.shape), 0, 255).astype(np.uint8), angle


def recording(side=16, count=40, repeats=12, seed=0):
    """Three units: two tuned to orientation, one to nothing. Images come in ten groups."""
    rng = np.random.default_rng(seed)
    if side > 1:
        images, angle = gratings(count, side, rng)
        drive = np.cos(angle[:, None] - [0.0, np.pi / 2]) ** 2
    else:
        images = rng.integers(0, 255, (count, 1, 1), np.uint8)
        drive = images[:, 0] / 255 * [1.0, -1.0] + [0, 1.0]
    rate = np.concatenate([1 + 5 * drive, np.full((count, 1), 2.0)], 1)
    index = rng.permutation(np.tile(np.arange(count), repeats))
    start = np.arange(len(index)) * SLOT
    trial, unit = np.nonzero(number := rng.poisson(rate[index]))
    each = number[trial, unit]
    times = np.repeat(start[trial], each) + rng.uniform(0.001, SLOT - 0.001, each.sum())
    order = np.argsort(times)
    return Recording(
        name="gratings",
        spike_times=times[order],
        spike_units=np.repeat(unit, each)[order].astype(np.int32),
        units={"id": np.array(["a", "b", "c"])},
        domain=np.array([[0.0, len(index) * SLOT]]),
        trials={"start": start, "stop": start + SLOT, "image": index % 10},
        frames=FrameSeries(images, start, index),
    )


def config(**train):
    tree = {
        "window": {"dt": SLOT, "current": SLOT, "past": 0.0, "frames": SLOT},
        "split": {"by": "trials", "hold_out": "image", "claim": "stimuli"},
        "model": {"width": 16, "heads": 2},
        "train": {"steps": 2, "batch_size": 16, "accelerator": "cpu"} | train,
    }
    return from_dict(tree)


@pytest.fixture(scope="module")
def prepared():
    return prepare(recording(), config())


def test_units_that_follow_energies_are_predicted_on_images_never_shown(prepared):
    components = EnergyComponents(prepared)
    train, valid, test = components.train, components.valid, components.responses(prepared, "test")
    assert len(train.x_GK) == 24 and len(test.x_GK) == 8
    assert not set(map(tuple, train.x_GK.tolist())) & set(map(tuple, test.x_GK.tolist()))
    for fit in (fit_poisson(train, valid), fit_ridge(train, valid)):
        r = test.r(fit.expected(test.x_GK))
        assert r[:2].min() > 0.8, r


def test_a_clip_that_a_unit_was_never_observed_in_says_nothing_of_it(prepared):
    components = EnergyComponents(prepared)
    train, valid = components.train, components.valid
    seen_GU, total_GU = train.seen_GU.clone(), train.total_GU.clone()
    seen_GU[5, 1] = total_GU[5, 1] = 0
    part = dataclasses.replace(train, seen_GU=seen_GU, total_GU=total_GU)
    found = fit_poisson(part, valid)
    assert found.weight_KU.isfinite().all() and found.weight_KU.abs().max() > 0
    test = components.responses(prepared, "test")
    assert test.r(found.expected(test.x_GK))[:2].min() > 0.8


def test_means_and_noise_are_those_of_the_repeats(prepared):
    held = EnergyComponents(prepared).responses(prepared, "test")
    assert held.seen_GU[:, 0].tolist() == [12] * 8
    batch = prepared.builder(held.windows)
    counts_WU = np.zeros((batch.num_windows, 3))
    np.add.at(counts_WU, (batch.current.row_T.numpy(), batch.unit_S.numpy()), 1)
    one = held.clip_W == 3
    np.testing.assert_allclose(held.mean_GU[3], counts_WU[one].mean(0))
    np.testing.assert_allclose(held.noise_GU()[3], counts_WU[one].var(0, ddof=1) / one.sum(), rtol=1e-5)
    np.testing.assert_allclose(held.averaged(counts_WU), held.mean_GU)


def test_shrinkage_takes_all_where_frames_say_nothing(prepared):
    components = EnergyComponents(prepared)
    train, valid = components.train, components.valid
    torch.manual_seed(0)
    mixed = [dataclasses.replace(x, total_GU=torch.poisson(torch.full_like(x.total_GU, 24.0))) for x in (train, valid)]
    found = fit_poisson(*mixed)
    clips = torch.cat([train.x_GK, valid.x_GK])
    assert np.log(found.expected(clips)).std(0).max() < 0.1


@pytest.mark.parametrize("fit", [fit_poisson, fit_ridge])
def test_penalties_are_not_chosen_by_means_that_give_away_what_was_held_out(prepared, fit):
    """Stimuli that no feature tells apart drive all units more or less: the mean of the others says which was held out."""
    components = EnergyComponents(prepared)
    train, valid = (dataclasses.replace(x) for x in (components.train, components.valid))
    rng = np.random.default_rng(0)
    for part in (train, valid):
        each = torch.from_numpy(rng.uniform(1, 60, len(part.group_G)).astype(np.float32))[part.group_G]
        part.total_GU = torch.poisson(each[:, None].expand_as(part.total_GU), torch.Generator().manual_seed(0))
    assert abs(fit(train, valid).followed) < 0.25  # with them: 0.9 after a curve
    drives = lambda part: 24 * torch.exp(0.5 * part.x_GK[:, :1] / train.x_GK[:, 0].std()).expand_as(part.total_GU)
    for part in (train, valid):
        part.total_GU = torch.poisson(drives(part), torch.Generator().manual_seed(1))
    found = fit(train, valid)
    assert np.isfinite(found.penalty) and found.followed > 0.5


def test_a_curve_bends_where_other_clips_say_so(prepared):
    components = EnergyComponents(prepared)
    z = lambda part: part.x_GK[:, :1] / components.train.x_GK[:, 0].std()
    curves = {}
    for name, rate in {"line": lambda x: 24 * (1 + 0.3 * x), "step": lambda x: 24 * (1 + torch.tanh(4 * x))}.items():
        train, valid = (
            dataclasses.replace(x, total_GU=(x.seen_GU * rate(z(x)).clamp_min(0) / 12).expand_as(x.total_GU).round())
            for x in (components.train, components.valid)
        )
        curves[name] = fit_ridge(train, valid, calibrate=True).curve
    values = torch.linspace(-20, 60, 9)[:, None].expand(-1, 3)
    inside = (values - curves["line"].center_U).abs() < 3 * curves["line"].spread_U
    torch.testing.assert_close(
        curves["line"](values)[inside], values[inside]
    )  # what is straight stays as it was fitted
    coefficient_4U = curves["step"].coefficient_4U
    assert coefficient_4U[2:].abs().max() > 0.1 * coefficient_4U[1].abs().max()


def test_the_folds_of_one_stimulus_stay_together(prepared):
    components = EnergyComponents(prepared)
    train, valid = components.train, components.valid
    both = Responses.join(train, valid)
    assert len(np.unique(train.group_G)) == 6 and len(np.unique(both.group_G)) == 8
    assert not set(both.group_G[: len(train.x_GK)]) & set(both.group_G[len(train.x_GK) :])


def test_units_share_where_and_what_they_see_in_the_components():
    """Of twenty units that look at one corner, few clips tell where: all of them say it together."""
    rng = np.random.default_rng(0)
    contrast = rng.uniform(0, 60, (60, 4, 4))
    images = 128 + np.kron(contrast, np.ones((1, 8, 8))) * rng.normal(0, 1, (60, 32, 32))
    rec = recording(side=32, count=60, repeats=6)
    rate = 0.5 + contrast[:, 0, :1] / 20 + np.zeros((1, 20))
    counts = rng.poisson(rate[rec.frames.index])
    trial, unit = np.nonzero(counts)
    each = counts[trial, unit]
    times = np.repeat(trial * SLOT, each) + rng.uniform(0.001, SLOT - 0.001, each.sum())
    order = np.argsort(times)
    many = dataclasses.replace(
        rec,
        spike_times=times[order],
        spike_units=np.repeat(unit, each)[order].astype(np.int32),
        units={"id": np.array([f"u{i}" for i in range(20)])},
        frames=FrameSeries(np.clip(images, 0, 255).astype(np.uint8), rec.frames.times, rec.frames.index),
    )
    p = prepare(many, config())
    components = EnergyComponents(p)
    _, h, w = components.pyramid.grid
    place = components.prior_F.view(h, w, -1).sum(2)
    assert place[: h // 3, : w // 3].mean() > 2 * place[h // 2 :, w // 2 :].mean()


@pytest.mark.parametrize("side", [16, 1])
def test_a_network_starts_from_them(side):
    prepared = prepare(recording(side), config())
    torch.manual_seed(0)
    cohort = Cohort([Neuroformer(prepared.config, 3, prepared.normalization)])
    said = []
    start_from_energies([prepared], cohort, said.append)
    assert len(said) == 1 and "24 distinct clips" in said[0]
    held = held_out_rates(cohort[0], prepared)
    scores = held.scores()
    assert scores["model"][:2].min() > 0.8 and set(scores) == {
        "model", "energy_ridge", "energy_poisson", "ceiling", "feve"
    }  # fmt: skip
    # what is not fitted yet adds nothing; no unit is expected to fire more than it was ever seen to
    np.testing.assert_allclose(scores["model"][:2], scores["energy_poisson"][:2], atol=2e-3)
    flat = rate_scores(cohort[0], prepared)
    assert flat["stimulus_r"] == np.median(scores["model"]) and "stimulus_r_ceiling" in flat
    assert (scores["ceiling"][:2] > 0.85).all() and (scores["feve"][:2] > 0.5).all()


def test_what_frames_tell_along_a_recording_is_what_the_regression_says_of_its_clips(prepared):
    blocks = prepared.split.blocks["test"]
    rates = stimulus_rates(prepared, blocks)
    assert [len(x) for x in rates] == (blocks[:, 2] - blocks[:, 1]).tolist()
    components = EnergyComponents(prepared)
    held = components.responses(prepared, "test")
    expected = fit_poisson(components.train, components.valid).expected(held.x_GK)
    np.testing.assert_allclose(np.exp(np.concatenate(rates)), expected[held.clip_W], rtol=1e-3)


@pytest.mark.parametrize("likelihood", ["gaussian", "gamma"])
def test_traces_start_from_them_too(likelihood):
    """Samples that follow the same drive, in units and around a level of their own."""
    spikes = recording()
    index = spikes.frames.index
    counts = np.zeros((len(index), 3))
    np.add.at(counts, ((spikes.spike_times / SLOT).astype(int), spikes.spike_units), 1)
    level = 40.0 if likelihood == "gaussian" else 0.0
    traces = Traces((np.arange(len(index)) + 0.5) * SLOT, (level + 7 * counts).astype(np.float32))
    rec = dataclasses.replace(spikes, traces=traces)
    config_ = from_dict(to_dict(config()) | {"traces": {"likelihood": likelihood}})
    prepared = prepare(rec, config_)
    torch.manual_seed(0)
    cohort = Cohort([Neuroformer(prepared.config, 3, prepared.normalization)])
    start_from_energies([prepared], cohort)
    held = held_out_rates(cohort[0], prepared)
    scores = held.scores()
    assert scores["model"][:2].min() > 0.8 and "energy_poisson" not in scores
    if likelihood == "gaussian":  # in the traces' own units
        error = held.expected["model"] - held.mean_GU
        assert np.abs(error[:, :2].mean(0)).max() < 5 and error[:, :2].std(0).max() < held.mean_GU[:, :2].std(0).min()


@pytest.mark.parametrize("kind", ["energy", "conv3d"])
def test_the_audit_says_how_few_images_train(kind):
    rec = recording()
    encoder = {"kind": kind} | ({"kernel": [1, 6, 6]} if kind == "conv3d" else {})
    tree = to_dict(config())
    tree["model"]["frame_encoder"] = encoder
    found = audit(prepare(rec, from_dict(tree))).named("distinct_images")
    assert found is not None and found.values["distinct"] == 24 and found.severity == "warning"
    assert ("use kind: energy" in found.advice) == (kind == "conv3d")
    tree["split"]["claim"] = "time"
    found = audit(prepare(rec, from_dict(tree))).named("distinct_images")
    assert found is not None and found.severity == "note"


def test_components_are_made_once_for_a_recording(prepared):
    """Training starts from them, and its scores stand beside the same regression."""
    found = energy_components(prepared)
    assert energy_components(prepared) is found and energy_components(dataclasses.replace(prepared)) is found
    again = fit_poisson(found.train, found.valid)
    torch.testing.assert_close(found.poisson.weight_KU, again.weight_KU)


def test_other_training_parts_have_components_of_their_own(prepared):
    """What one part was fitted to must not be what another one holds out."""
    found, blocks = energy_components(prepared), prepared.split.blocks
    tested = dataclasses.replace(prepared.split, blocks=blocks | {"test": blocks["test"][:1]})
    assert energy_components(dataclasses.replace(prepared, split=tested)) is found
    fewer = dataclasses.replace(prepared.split, blocks=blocks | {"train": blocks["train"][::2]})
    again = energy_components(dataclasses.replace(prepared, split=fewer))
    assert again is not found and len(again.train.clip_W) < len(found.train.clip_W)


def test_a_glm_sees_energies_where_pixels_say_nothing(prepared):
    """Units follow how much of a pattern there is, whatever its sign: no pixel tells."""
    glm = fit_glm(prepared, variant="past")
    assert glm.choice["clips"] == "energies"
    assert glm_bits_per_spike(glm, prepared) > 0.05
    windows = prepared.windows("test")
    seen, components = ClipEnergies(prepared), energy_components(prepared)
    expected = components.of(prepared, windows)
    for part in (windows, windows[3:5], windows[:0]):
        torch.testing.assert_close(seen(part), components.of(prepared, part) if len(part) else expected[:0])

"""What-if: an intervention changes what it says and nothing else; pairs share their random numbers."""

import dataclasses

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, small_recording

from neuroformer.config import ConfigError, GenerateConfig, InterventionConfig, from_dict, to_dict
from neuroformer.data.windows import Windows
from neuroformer.generation.interventions import UnitChanges, UnitInterventions, changed_recording
from neuroformer.generation.scan import sample_window
from neuroformer.generation.sequences import sequences_of
from neuroformer.generation.simulate import simulate
from neuroformer.model.stepper import Stepper
from neuroformer.simulation_scores.whatif import auroc, rate_changes


@pytest.fixture(scope="module")
def trained():
    return small_model()


def run(trained, *interventions, **generate):
    net, p = trained
    g = dataclasses.replace(p.config.generate, samples=2, max_seconds=1.0, interventions=interventions, **generate)
    result = simulate(net, p.asking(g), progress=False)
    assert result is not None
    return result.recording


def change(do, **values):
    return InterventionConfig(do=do, **values)


def relative(rec, sequence=0):
    start, stop = rec.trial_intervals[sequence]
    inside = (rec.spike_times >= start) & (rec.spike_times < stop)
    return rec.spike_times[inside] - start, rec.spike_units[inside]


def test_silenced_units_are_silent_only_while_they_are_silenced(trained):
    base, silent = run(trained), run(trained, change("silence", units=(1, 4), start=0.25, stop=0.75))
    for q in range(silent.num_trials):
        times, units = relative(silent, q)
        during = (times >= 0.25) & (times < 0.75)
        assert not np.isin(units[during], (1, 4)).any()
        before, units_before = relative(base, q)
        early = before < 0.25
        assert np.array_equal(times[times < 0.25], before[early])
        assert np.array_equal(units[times < 0.25], units_before[early])
    assert np.isin(silent.spike_units, (1, 4)).any()


def test_an_intervention_that_does_nothing_changes_no_spike(trained):
    base = run(trained)
    for one in (change("drive", units=(2,), value=0.0), change("silence", units=(0,), start=5.0)):
        assert run(trained, one).sha256() == base.sha256()


def test_the_batch_changes_no_spike_of_an_intervention(trained):
    what = (change("silence", units=(1, 4), start=0.2), change("drive", units=(2,), value=30.0))
    together = run(trained, *what)
    assert run(trained, *what, batch_size=1).sha256() == together.sha256() and together.num_trials > 1


def test_clamped_and_driven_units_fire_as_asked(trained):
    clamped = run(trained, change("clamp", units=(3,), value=40.0))
    rate = (clamped.spike_units == 3).sum() / clamped.duration
    assert rate == pytest.approx(40, rel=0.25)
    again = run(trained, change("clamp", units=(3,), value=40.0), change("silence", units=(0,)))
    mine = lambda r: r.spike_times[r.spike_units == 3]
    # where the forced spikes lie follows from the seed alone, whatever else is done
    assert np.allclose(np.unique(np.floor(mine(clamped) * 100 + 1e-6)), np.unique(np.floor(mine(again) * 100 + 1e-6)))
    base, driven = run(trained), run(trained, change("drive", units=(3,), value=40.0))
    assert (driven.spike_units == 3).sum() > (base.spike_units == 3).sum() + 0.7 * 40 * base.duration


def test_a_unit_clamped_to_its_recorded_spikes_fires_them(trained):
    net, p = trained
    held = run(trained, change("clamp", units=(2, 5), value=-1.0))
    for q in range(held.num_trials):
        start = held.trials["source_start"][q]
        inside = (p.rec.spike_times >= start) & (p.rec.spike_times < start + 1.0)
        for unit in (2, 5):
            true = p.rec.spike_times[inside & (p.rec.spike_units == unit)] - start
            times, units = relative(held, q)
            bins = lambda t: np.sort(np.floor(t / 0.01 + 1e-6).astype(int))
            assert np.array_equal(bins(times[units == unit]), bins(true))


def test_silencing_does_not_hand_a_units_spikes_to_the_others():
    """Without history and residuals the process is Poisson: the other units must not fire more."""
    net, p = small_model(
        config=small_config(
            window={"dt": 0.01, "current": 0.05, "past": 0.0, "frames": 0.0}, inputs=[], loss={"contrast": []}
        )
    )
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.startswith("observation") and name != "observation.rates.bias.weight":
                weight.zero_()
        net.observation.rates.bias.weight.fill_(np.log(0.04))
        net.observation.rates.log_peak.fill_(5.0)
    num, bins, units = 4000, net.num_bins, net.num_units
    from neuroformer.data.tokens import no_spikes
    from neuroformer.data.windows import Windows

    windows = Windows(np.zeros(num, np.int64), np.zeros(num, np.int64))
    forced = np.full((num, 1), bins * units)
    silent = np.zeros((bins, units), bool)
    silent[:, 2] = True
    counts = {}
    for name, changes in (("base", None), ("silent", UnitChanges(silent, forced))):
        with torch.no_grad():
            stepper = Stepper(net, p.builder(windows, past=no_spikes(num)))
            spikes, _ = sample_window(net, stepper, np.arange(num), np.zeros(num, int), GenerateConfig(), 0, changes)
        counts[name] = np.bincount(spikes.unit, minlength=units) / (num * bins)
    assert counts["base"] == pytest.approx(np.full(units, 0.04), abs=0.004)
    others = [u for u in range(units) if u != 2]
    assert counts["silent"][2] == 0
    assert counts["silent"][others] == pytest.approx(np.full(units - 1, 0.04), abs=0.004)


def test_forced_spikes_come_in_their_cells_and_order():
    one = UnitInterventions([change("drive", units=(1, 3), value=60.0)], 5, 0.01, seed=2)
    ident = np.arange(400)
    net_free = {"index": None, "windows": None}
    a = one.window(3, 5, ident, **net_free).forced_QF
    b = one.window(3, 5, ident[100:101], **net_free).forced_QF[0]
    assert b[b < 25].tolist() == a[100][a[100] < 25].tolist()
    assert (np.diff(a, axis=1) >= 0).all() and set((a[a < 25] % 5).tolist()) == {1, 3}
    assert (a < 25).sum() / 400 == pytest.approx(60 * 0.01 * 5 * 2, rel=0.1)


def test_frames_are_replaced_shifted_frozen_and_blanked():
    rec = small_recording()
    spans = np.array([[10.0, 14.0], [10.0, 14.0], [20.0, 24.0]])
    shown = lambda r, t: r.frames.images[r.frames.index[np.searchsorted(r.frames.times, t, side="right") - 1]]
    made = lambda *ones: changed_recording(rec, spans, ones, 117.3)
    at = 11.52
    replaced = made(change("replace_frames", value=2.0, start=1.0, stop=2.0))
    assert np.array_equal(shown(replaced, at), shown(rec, 2.52))
    assert np.array_equal(shown(replaced, 12.01), shown(rec, 12.01))
    assert np.array_equal(shown(replaced, 21.52), shown(rec, 2.52))
    shifted = made(change("shift_frames", value=0.5, start=1.0))
    assert np.array_equal(shown(shifted, at), shown(rec, at - 0.5))
    frozen = made(change("freeze_frames", start=1.0, stop=3.0))
    assert np.array_equal(shown(frozen, 12.7), shown(rec, 11.0))
    blank = made(change("blank_frames", start=1.0, stop=2.0))
    assert (np.asarray(shown(blank, at)) == 117).all() and np.array_equal(shown(blank, 12.01), shown(rec, 12.01))
    for r in (replaced, shifted, frozen, blank):
        assert np.array_equal(shown(r, 9.9), shown(rec, 9.9)) and np.array_equal(shown(r, 30.0), shown(rec, 30.0))


def test_behavior_is_set_while_asked():
    rec = small_recording(num_trials=4)
    made = changed_recording(
        rec, np.array([[10.0, 14.0]]), [change("set_behavior", behavior="pupil", value=7.0, start=1.02, stop=2.0)], 0
    )
    t = np.array([11.0, 11.03, 11.5, 11.99, 12.0, 13.0])
    value, true = made.variable("pupil").hold(t)[:, 0], rec.variable("pupil").hold(t)[:, 0]
    assert value[1:4].tolist() == [7.0, 7.0, 7.0] and np.array_equal(value[[0, 4, 5]], true[[0, 4, 5]])
    time = changed_recording(
        rec, np.array([[10.0, 14.0]]), [change("set_behavior", behavior="trial_time", value=0.5)], 0
    )
    assert time.variable("trial_time").hold(np.array([12.0]))[0, 0] == 0.5


def test_a_changed_stimulus_reaches_the_model(trained):
    base = run(trained)
    for one in (change("blank_frames"), change("set_behavior", behavior="pupil", value=2.0)):
        assert run(trained, one).sha256() != base.sha256()


def test_a_given_past_is_what_the_model_sees(trained):
    net, p = trained
    given = run(trained, past_from=12.0)
    assert given.sha256() != run(trained).sha256()
    g = dataclasses.replace(GenerateConfig(), past_from=12.0)
    s = sequences_of(p.asking(g))
    true = np.flatnonzero((p.rec.spike_times >= 12.0 - 0.1) & (p.rec.spike_times < 12.0))
    for q in range(len(s)):
        mine = s.history.sequence == q
        assert sorted(s.history.unit[mine]) == sorted(p.rec.spike_units[true])
        assert (s.history.tick[mine] < s.start[q]).all() and (s.history.tick[mine] >= s.start[q] - 10).all()
    # also where a trial begins, before which nothing is known
    rec = small_recording(num_trials=10)
    net, p = small_model(rec, small_config(split={"by": "trials"}))
    s = sequences_of(p.asking(g))
    assert (s.start == 0).all() and (s.known_from == -10).all() and len(s.history.tick)


def test_a_stretch_of_the_recording_is_simulated(trained):
    stretch = run(trained, interval=(17.302, 18.8))
    assert stretch.trials["source_start"][0] == pytest.approx(17.30)
    assert stretch.duration == pytest.approx(2 * 1.0)
    with pytest.raises(ConfigError, match="no trial or interval"):
        run(trained, interval=(1000.0, 1001.0))


def test_paired_changes(trained):
    base, silent = run(trained), run(trained, change("silence", units=(1,)))
    paired = rate_changes(base, silent)
    assert paired.after_U[1] == 0 and paired.change_U[1] == pytest.approx(-paired.before_U[1])
    assert (paired.low_U <= paired.change_U).all() and (paired.change_U <= paired.high_U).all()
    # the same three spikes more in every sequence: however much sequences differ, that change is certain
    extra = base.trial_intervals[:, :1] + np.array([0.1, 0.2, 0.3])
    times = np.concatenate([base.spike_times, extra.ravel()])
    units = np.concatenate([base.spike_units, np.full(extra.size, 2, base.spike_units.dtype)])
    order = np.argsort(times, kind="stable")
    more = rate_changes(base, dataclasses.replace(base, spike_times=times[order], spike_units=units[order]))
    assert more.low_U[2] == pytest.approx(3.0) and more.high_U[2] == pytest.approx(3.0)
    assert not np.array_equal(*(np.bincount(relative(base, q)[1], minlength=6) for q in range(2)))
    other = dataclasses.replace(base, trials={**base.trials, "seed": base.trials["seed"] + 1})
    with pytest.raises(ValueError, match="do not pair"):
        rate_changes(other, silent)


def test_auroc():
    assert auroc(np.array([3.0, 1.0, 2.0]), np.array([True, False, False])) == 1.0
    assert auroc(np.array([1.0, 1.0, 2.0, 0.0]), np.array([True, False, False, True])) == pytest.approx(0.125)
    assert np.isnan(auroc(np.ones(3), np.ones(3, bool)))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"do": "silence"}, r"interventions\[0\].units is \[\]; expected units for silence"),
        ({"do": "blank_frames", "units": [1]}, r"interventions\[0\].units is \[1\]"),
        ({"do": "set_behavior"}, r"interventions\[0\].behavior is ''"),
        ({"do": "silense", "units": [1]}, "do is 'silense'; expected one of 'silence'"),
        ({"do": "drive", "units": [1], "value": -1}, "spikes per second, 0 or more"),
        ({"units": [1], "start": 2, "stop": 1}, "a time after start"),
    ],
)
def test_mistakes_are_named(tree, message):
    with pytest.raises(ConfigError, match=message):
        from_dict({"generate": {"interventions": [tree]}})


def test_what_the_recording_lacks_is_named(trained):
    with pytest.raises(ConfigError, match="there is no unit 6; expected 0 to 5"):
        run(trained, change("silence", units=(6,)))
    rec = small_recording(frames=False)
    with pytest.raises(ConfigError, match="'blank_frames' needs frames"):
        changed_recording(rec, np.array([[0.0, 1.0]]), [change("blank_frames")], 0)
    with pytest.raises(ValueError, match="no behavior variable 'pupl'"):
        changed_recording(rec, np.array([[0.0, 1.0]]), [change("set_behavior", behavior="pupl")], 0)


def test_interventions_survive_the_configuration_file():
    config = from_dict({"generate": {"interventions": [{"do": "drive", "units": [3, 7], "value": 5}]}})
    assert config.generate.interventions[0] == change("drive", units=(3, 7), value=5.0)
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize("expected", [0.5, 90.0, 700.0])
def test_a_driven_unit_fires_as_often_as_it_is_driven(expected):
    one = change("drive", units=(1,), value=expected / 0.01)
    net, p = small_model()
    changes = UnitInterventions([one], 3, 0.01, seed=0)
    cells = changes.window(0, 4, np.arange(50), p.index, Windows(np.zeros(50, int), np.zeros(50, int))).forced_QF
    counts = (cells < 12).sum() / (50 * 4)
    assert counts == pytest.approx(expected, abs=6 * np.sqrt(expected / 200))

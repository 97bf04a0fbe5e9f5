"""Checks of settings: impossible values and combinations are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroformer.config.schema import Config, InterventionConfig, RecordingConfig


class ConfigError(ValueError):
    """A configuration that cannot be run: says which key, what was got and what was expected."""


def check(c: Config) -> None:
    """Refuse impossible combinations.

    Raises
    ------
    ConfigError
        The first one found.
    """
    _check_window(c)
    _check_streams(c)
    _check_model(c)
    if c.traces.likelihood != "none":
        _require(not c.targets, "targets", [t.name for t in c.targets], "none where traces are modelled")
        _require(not c.loss.contrast, "loss.contrast", "given", "nothing where traces are modelled")
        _require(c.train.past_noise == 0, "train.past_noise", c.train.past_noise, "0 where traces are modelled")
        _require(c.window.past > 0, "window.past", 0, "above 0: traces are predicted from their past")
    for i, part in enumerate(c.split.pattern):
        known = ("train", "valid", "test", "none")
        _require(part in known, f"split.pattern[{i}]", part, "train, valid, test or none")
    for part in ("train", "valid", "test"):
        _require(part in c.split.pattern, "split.pattern", list(c.split.pattern), f"at least one '{part}'")
    _check_amounts(c)
    _check_recording("recording", c.recording)
    for i, one in enumerate(c.recordings):
        _check_recording(f"recordings[{i}]", one)
    if c.recordings:
        expected = "nothing where recordings are given"
        _require(c.recording == type(c.recording)(), "recording", c.recording.path, expected)
    _require(min(c.decode.lags, default=0) > 0, "decode.lags", list(c.decode.lags), "seconds above 0")


def _check_recording(key: str, one: RecordingConfig) -> None:
    for i, speed in enumerate(one.speeds):
        _require(speed.smooth > 0, f"{key}.speeds[{i}].smooth", speed.smooth, "seconds above 0")
    _require(0 < one.share <= 1, f"{key}.share", one.share, "a share in (0, 1]")
    _require("/" not in one.name, f"{key}.name", one.name, "a name without '/': results lie in a folder of it")


def _check_window(c: Config) -> None:
    w = c.window
    for name in ("dt", "current"):
        _require(getattr(w, name) > 0, f"window.{name}", getattr(w, name), "seconds above 0")
    for name in ("past", "frames", "lookahead", "target_past"):
        _require(getattr(w, name) >= 0, f"window.{name}", getattr(w, name), "seconds, 0 or more")
    for name in ("current", "past", "lookahead") + ("target_past",) * bool(c.targets):
        value = getattr(w, name)
        expected = f"a whole multiple of window.dt = {w.dt}, such as {max(1, round(value / w.dt)) * w.dt:.10g}"
        _require(abs(value / w.dt - round(value / w.dt)) < 1e-6, f"window.{name}", value, expected)


def _check_streams(c: Config) -> None:
    """Inputs, targets, and what is aligned with what."""
    inputs = [v.name for v in c.inputs]
    for i, target in enumerate(c.targets):
        key = f"targets[{i}].name"
        _require(bool(target.name), key, "nothing", "the name of a behavior variable")
        _require(target.name not in inputs, key, target.name, "a variable that is not also an input")
        _check_target(c, i)
    for i, v in enumerate(c.inputs):
        _require(bool(v.name), f"inputs[{i}].name", "nothing", "the name of a behavior variable")
        _require(v.samples >= 1, f"inputs[{i}].samples", v.samples, "1 or more")
    sides = ["neural"] + ["frames"] * (c.window.frames > 0) + c.input_groups
    for i, contrast in enumerate(c.loss.contrast):
        for side in contrast.pair:
            expected = f"one of {', '.join(sides)} (what this run has)"
            _require(side in sides, f"loss.contrast[{i}].pair", side, expected)


def _check_target(c: Config, i: int) -> None:
    target, num_bins = c.targets[i], round(c.window.current / c.window.dt)
    expected = f"a divisor of the window's {num_bins} bins"
    whole = target.samples >= 1 and num_bins % target.samples == 0
    _require(whole, f"targets[{i}].samples", target.samples, expected)
    _require(target.period >= 0, f"targets[{i}].period", target.period, "0 (2 pi) or more")
    _require(0 <= target.closed <= 1, f"targets[{i}].closed", target.closed, "a share in [0, 1]")
    if target.kind != "regression":
        expected = f"squared (a {target.kind} has a noise model of its own)"
        _require(target.noise == "squared", f"targets[{i}].noise", target.noise, expected)


def _check_model(c: Config) -> None:
    m, w = c.model, c.window
    _require(m.width % m.heads == 0, "model.width", m.width, f"a multiple of model.heads = {m.heads}")
    even = m.time_features >= 0 and m.time_features % 2 == 0
    _require(even, "model.time_features", m.time_features, "an even number, 0 or more")
    for name in ("target_networks", "target_kernel"):
        value = getattr(m, name)
        _require(value >= 0, f"model.{name}", value, "0 or more")
        expected = "0 without model.target_filters, which count the spikes around a moment"
        _require(not value or m.target_filters > 0, f"model.{name}", value, expected)
    for name in ("dropout", "history_dropout", "unit_dropout"):
        value = getattr(m, name)
        _require(0 <= value < 1, f"model.{name}", value, "a share in [0, 1)")
    if m.surprise not in (-1, 0) and w.frames > 0 and m.frame_readout:
        expected = f"0 to window.past = {w.past:g} s, or -1 (as long as is useful)"
        _require(0 < m.surprise <= w.past, "model.surprise", m.surprise, expected)
        step = 1 if m.frame_encoder.kind == "backbone" else m.frame_encoder.stride[0]
        _require(step == 1, "model.frame_encoder.stride", m.frame_encoder.stride, "1 in time for model.surprise")
    _require(m.coupling_rank >= 0, "model.coupling_rank", m.coupling_rank, "0 (every pair) or more patterns")
    _require(m.most_drive > 0, "model.most_drive", m.most_drive, "a change of log rate above 0")
    sparse = c.train.sparsity == 0 or (c.train.sparsity > 0 and m.coupling > 0 and m.coupling_rank == 0)
    _require(sparse, "train.sparsity", c.train.sparsity, "0, or above 0 with model.coupling and model.coupling_rank 0")
    known = ["current"] + ["past"] * (w.past > 0) + ["frames"] * (w.frames > 0) + c.input_groups
    for i, block in enumerate(m.blocks):
        expected = f"one of {', '.join(known)} (what this run has)"
        _require(block.attend in known, f"model.blocks[{i}].attend", block.attend, expected)
    e = m.frame_encoder
    named = (e.kind == "backbone") == bool(e.backbone)
    _require(named, "model.frame_encoder.backbone", e.backbone, "a folder or a hub id, with kind: backbone")
    _require(len(e.resize) in (0, 2), "model.frame_encoder.resize", e.resize, "[rows, columns], or nothing")
    for name in ("kernel", "stride"):
        value = getattr(m.frame_encoder, name)
        _require(len(value) == 3, f"model.frame_encoder.{name}", value, "three numbers")


def _check_amounts(c: Config) -> None:
    """Counts, temperatures and shares."""
    g, t = c.generate, c.train
    counts = {"train.steps": t.steps, "train.batch_size": t.batch_size, "generate.samples": g.samples}
    counts |= {f"tune.{name}": getattr(c.tune, name) for name in ("blocks", "rank", "batch_size", "evaluate_every")}
    _require(0 < c.tune.valid < 1, "tune.valid", c.tune.valid, "a share in (0, 1)")
    counts |= {"train.accumulate": t.accumulate, "train.devices": t.devices, "train.nodes": t.nodes}
    counts |= {"generate.max_tokens": g.max_tokens}
    for key, value in counts.items():
        _require(value >= 1, key, value, "1 or more")
    _require(0 <= t.past_noise < 1, "train.past_noise", t.past_noise, "a share in [0, 1)")
    for name in ("evaluate_every", "patience"):
        _require(getattr(t, name) >= 0, f"train.{name}", getattr(t, name), "0 or more")
    _require(t.checkpoint_every >= 0, "train.checkpoint_every", t.checkpoint_every, "seconds, 0 or more")
    for key in ("temperature_dt", "temperature_id"):
        _require(getattr(g, key) >= 0, f"generate.{key}", getattr(g, key), "0 (greedy) or more")
    for key in ("top_p_dt", "top_p_id"):
        _require(0 < getattr(g, key) <= 1, f"generate.{key}", getattr(g, key), "a share in (0, 1]")
    for key in ("batch_size", "top_k_dt", "top_k_id"):
        _require(getattr(g, key) >= 0, f"generate.{key}", getattr(g, key), "0 or more")
    ordered = len(g.interval) in (0, 2) and list(g.interval) == sorted(g.interval)
    _require(ordered, "generate.interval", list(g.interval), "[start, stop] in seconds, or nothing")
    for i, one in enumerate(g.interventions):
        _check_intervention(f"generate.interventions[{i}]", one)


def _check_intervention(key: str, one: InterventionConfig) -> None:
    on_units = one.do in ("silence", "clamp", "drive")
    _require(bool(one.units) == on_units, f"{key}.units", list(one.units), "units for silence, clamp or drive only")
    needs_name = one.do == "set_behavior"
    _require(bool(one.behavior) == needs_name, f"{key}.behavior", one.behavior, "a name for set_behavior only")
    if on_units:
        allowed = one.value >= 0 or (one.do == "clamp" and one.value == -1)
        _require(allowed, f"{key}.value", one.value, "spikes a second, 0 or more (clamp: or -1, as recorded)")
    _require(one.start >= 0, f"{key}.start", one.start, "seconds since the loop closed, 0 or more")
    _require(one.stop == 0 or one.stop > one.start, f"{key}.stop", one.stop, "0 (to the end) or a time after start")


def _require(ok: bool, key: str, got: Any, expected: str) -> None:
    if not ok:
        raise ConfigError(f"{key} is {got!r}; expected {expected}")

"""The configuration is strict, complete, and every field of it is read."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from neuroformer.config import Config, ConfigError, from_dict, load_config, to_dict

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def fields(cls, prefix=""):
    """Every field of a dataclass and of those within it, lists included."""
    import typing

    for name, hint in typing.get_type_hints(cls).items():
        yield prefix + name
        inner = [hint, *typing.get_args(hint)]
        for part in inner:
            if dataclasses.is_dataclass(part):
                yield from fields(part, f"{prefix}{name}.")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_yaml_parses_and_comes_back(path):
    config = load_config(path)
    assert config.name == (path.stem if path.stem != "reference" else "")
    assert from_dict(to_dict(config)) == config
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


def test_reference_names_every_field_with_its_default():
    text = (ROOT / "configs" / "reference.yaml").read_text()
    assert load_config(ROOT / "configs" / "reference.yaml") == Config()
    missing = [f for f in fields(Config) if not re.search(rf"^[\s#-]*{f.split('.')[-1]}:", text, re.M)]
    assert missing == []


def test_every_field_is_read_somewhere():
    """A field that no module but the schema mentions would be an option that nothing reads."""
    source = "\n".join(p.read_text() for p in (ROOT / "neuroformer").rglob("*.py") if p.parent.name != "config")
    dead = [f for f in fields(Config) if not re.search(rf"\.{f.split('.')[-1]}\b", source)]
    assert dead == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["windw.past=1"], "unknown key 'windw'; did you mean 'window'?"),
        (["window.pats=1"], "unknown key 'window.pats'; did you mean 'past'?"),
        (["train.lr=fast"], "train.lr is 'fast' (str); expected float"),
        (["train.steps=1.5"], "train.steps is 1.5 (float); expected int"),
        (["train.steps=true"], "train.steps is True (bool); expected int"),
        (["train.wandb=1"], "train.wandb is 1 (int); expected bool"),
        (["split.by=block"], "split.by is 'block'; expected one of 'blocks', 'trials'"),
        (
            ["window.past=0.123"],
            "window.past is 0.123; expected a whole multiple of window.dt = 0.01, such as 0.12",
        ),
        (["window.dt=0"], "window.dt is 0.0; expected seconds above 0"),
        (["model.heads=5"], "model.width is 64; expected a multiple of model.heads = 5"),
        (
            ["model.blocks=[{attend: pupil}]"],
            "model.blocks[0].attend is 'pupil'; expected one of current, past, frames",
        ),
        (["loss.contrast=[{pair: [neural, speed]}]"], "loss.contrast[0].pair is 'speed'"),
        (
            ["targets=[{name: speed}]", "inputs=[{name: speed}]"],
            "targets[0].name is 'speed'; expected a variable that is",
        ),
        (["inputs=[{}]"], "inputs[0].name is 'nothing'"),
        (["inputs.0.name=x"], "inputs is {'0': {'name': 'x'}}; expected a list"),
        (["generate.top_p_id=0"], "generate.top_p_id is 0.0; expected a share in (0, 1]"),
        (
            ["window.frames=0", "loss.contrast=[{pair: [neural, frames]}]"],
            "loss.contrast[0].pair is 'frames'; expected one of neural (what this run has)",
        ),
        (["model=small"], "model is 'small'; expected a section with keys and values"),
        (["oops"], "override 'oops' is not understood; expected key.sub=value"),
    ],
)
def test_a_mistake_names_the_key_what_was_got_and_what_was_expected(overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(None, overrides)


def test_numbers_as_people_write_them():
    config = load_config(None, ["train.lr=2e-3", "train.steps=1e3", "window.past=1", "model.dropout=.2"])
    assert (config.train.lr, config.train.steps, config.window.past, config.model.dropout) == (
        2e-3,
        1000,
        1.0,
        0.2,
    )


def test_a_file_that_is_not_there_or_not_yaml(tmp_path):
    with pytest.raises(ConfigError, match="no configuration file at"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="holds list; expected keys and values"):
        load_config(tmp_path / "list.yaml")


def test_surprise_is_left_open_until_frames_are_seen_one_by_one():
    seen = {"window": {"past": 0.25, "frames": 0.2}}
    assert from_dict(seen).surprise == 0.25
    assert from_dict({"window": {"past": 2.0, "frames": 0.2}}).surprise == 0.5
    assert from_dict(seen | {"model": {"surprise": 0.1}}).surprise == 0.1
    nothing = [{"surprise": 0.0}, {"frame_readout": 0}, {"frame_encoder": {"stride": [2, 4, 4]}}]
    for model in nothing:
        assert from_dict(seen | {"model": model}).surprise == 0.0
    assert from_dict({"window": {"past": 0.25, "frames": 0.0}}).surprise == 0.0
    assert from_dict(seen | {"traces": {"likelihood": "gaussian"}}).surprise == 0.0
    with pytest.raises(
        ConfigError, match=r"model.surprise is -0.5; expected seconds, 0 or more, or -1 \(seconds of past"
    ):
        from_dict(seen | {"model": {"surprise": -0.5}})
    with pytest.raises(ConfigError, match=r"model.surprise is 0.5; expected 0 to window.past = 0.25 s, or -1"):
        from_dict(seen | {"model": {"surprise": 0.5}})

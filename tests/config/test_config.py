"""The configuration is strict, complete, and every field of it is read."""

import dataclasses
import re
import typing
from pathlib import Path

import pytest
import yaml
from field_reads import unread

from neuroformer.config import (
    BlockConfig,
    Config,
    ConfigError,
    ContrastConfig,
    DecodeConfig,
    InputConfig,
    InterventionConfig,
    SpeedConfig,
    SplitConfig,
    TargetConfig,
    TrainConfig,
    from_dict,
    load_config,
    to_dict,
)
from neuroformer.config.reference import reference
from neuroformer.config.values import check_section

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def fields(cls, prefix=""):
    """Every field of a dataclass and of those within it, lists included."""
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


def test_reference_is_what_the_schema_says():
    text = (ROOT / "configs" / "reference.yaml").read_text()
    assert text == reference(), "the schema has changed: make reference"
    assert load_config(ROOT / "configs" / "reference.yaml") == Config()
    missing = [f for f in fields(Config) if not re.search(rf"^[\s#-]*{f.split('.')[-1]}:", text, re.M)]
    assert missing == []
    assert max(map(len, text.splitlines())) <= 120


def test_entries_in_the_reference_can_be_uncommented():
    text = re.sub(
        r"^( *)# (?=[- ])", r"\1", reference(), flags=re.M
    )  # commented entries: "# - name: ...", "#   of: ..."
    text = re.sub(r": \[\](?=.*One entry:| *\n *(# `|# [A-Z]|- ))", ":", text)
    tree = yaml.safe_load(re.sub(r"^( *blocks): \[\]$", r"\1:", text, flags=re.M))
    of = {
        "inputs": (tree["inputs"], InputConfig(name="x")),
        "targets": (tree["targets"], TargetConfig(name="x")),
        "blocks": (tree["model"]["blocks"], BlockConfig()),
        "contrast": (tree["loss"]["contrast"], ContrastConfig()),
        "speeds": (tree["recording"]["speeds"], SpeedConfig()),
        "interventions": (tree["generate"]["interventions"], InterventionConfig()),
    }
    for key, (entries, default) in of.items():
        assert entries == [to_dict(default) | ({"name": ""} if key in ("inputs", "targets") else {})], key


def sections(cls=Config):
    """Every section of the schema: {field: the section that it holds, or nothing}."""
    out = {cls.__name__: {}}
    for name, hint in typing.get_type_hints(cls).items():
        inner = next((h for h in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(h)), None)
        out[cls.__name__][name] = inner.__name__ if inner else ""
        out |= sections(inner) if inner else {}
    return out


def test_every_field_is_read_somewhere():
    """A field that no module reads would be an option without effect.

    Every section gets one field more, whose name another section has: these and only these are unread.
    """
    schema = sections()
    more = {s: "closed" if "weight_decay" in there else "weight_decay" for s, there in schema.items()}
    known = {s: there | {more[s]: ""} for s, there in schema.items()}
    assert unread(known, ROOT / "neuroformer") == [f"{s}.{name}" for s, name in more.items()]


def test_every_setting_says_what_it_means_and_every_number_is_bounded():
    for section in dict.fromkeys(map(type, every_section(Config()))):
        for field in dataclasses.fields(section):
            if field.metadata:
                assert field.metadata["help"], field.name
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match=r"decode.moving.above is (nan|inf); expected a finite number"):
            from_dict({"decode": {"moving": {"above": bad}}})


def every_section(section):
    yield section
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(one):
                yield from every_section(one)


def test_every_default_holds_and_every_bound_is_checked():
    """Each number of each section, put just beyond its bounds, is refused by its own key."""
    num_refused = 0
    for section in every_section(Config()):
        for field in dataclasses.fields(section):
            value, limits = getattr(section, field.name), field.metadata.get("limits")
            if type(value) not in (int, float) or limits is None or isinstance(section, Config):
                continue
            for bound in {limits.above, limits.below} - {None}:
                assert not limits.hold(bound)
            beyond = -7 if limits.least is not None or limits.above is not None else None
            if beyond is not None:
                with pytest.raises(
                    ConfigError, match=rf"^x.{field.name} is -7; expected .*\({re.escape(field.metadata['help'])}"
                ):
                    check_section(dataclasses.replace(section, **{field.name: beyond}), "x")
                num_refused += 1
    assert num_refused == 40  # every number that has a lower bound


def test_python_is_checked_as_yaml_is():
    for make, message in (
        (lambda: Config(train=TrainConfig(lr="fast")), "train.lr is 'fast' (str); expected float"),
        (lambda: Config(split=SplitConfig(by="block")), "split.by is 'block'; expected one of 'blocks', 'trials'"),
        (lambda: Config(decode=DecodeConfig(lags=(0.5, -1.0))), "decode.lags[1] is -1.0; expected seconds above 0"),
        (lambda: Config(inputs=({"name": "x"},)), "inputs[0] is {'name': 'x'}; expected a section"),
        (lambda: Config(train=TrainConfig(precision=32)), "train.precision is 32; expected"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message)):
            make()


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
        (["generate.top_p=0"], "generate.top_p is 0.0; expected a share in (0, 1]"),
        (
            ["window.frames=0", "loss.contrast=[{pair: [neural, frames]}]"],
            "loss.contrast[0].pair is 'frames'; expected one of neural (what this run has)",
        ),
        (["model.heads=0"], "model.heads is 0; expected 1 or more (of attention)"),
        (["train.lr=0"], "train.lr is 0.0; expected a number above 0 (largest learning rate)"),
        (["split.gap=-2"], "split.gap is -2.0; expected seconds, 0 or more, or -1 (seconds between blocks"),
        (["seed=-1"], "seed is -1; expected a number in [0, 4294967295]"),
        (["window.past=.inf"], "window.past is inf; expected seconds, 0 or more"),
        (["inputs=[{name: eye.x}]"], "inputs[0].name is 'eye.x'; expected letters, digits"),
        (["targets=[{name: a/b}]"], "targets[0].name is 'a/b'; expected letters, digits"),
        (["inputs=[{name: x, group: a.b}]"], "inputs[0].group is 'a.b'; expected letters, digits"),
        (["inputs=[{name: x, group: frames}]"], "inputs[0].group is 'frames'; expected another name than"),
        (
            ["inputs=[{name: x}, {name: x}]"],
            "inputs[1].name is 'x'; expected a variable that is not already in the list",
        ),
        (["recording.name=.."], "recording.name is '..'; expected a name without '/'"),
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


def test_settings_of_earlier_versions_are_left_out_with_a_warning():
    with pytest.warns(UserWarning, match="'decode.bootstraps' does nothing any more"):
        assert from_dict({"decode": {"bootstraps": 10}}) == from_dict({})
    with pytest.raises(ConfigError, match="unknown key 'decode.bootstrap'"):
        from_dict({"decode": {"bootstrap": 10}})

"""A bundle loads years later, on any machine, without running code; a file that was changed is refused by name."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import neuroformer
from neuroformer.bundle.bundle import load_model, read_bundle
from neuroformer.bundle.checks import BundleError, tree_digest
from neuroformer.data.batch import Around, Batch, Clips
from neuroformer.ops import Ragged

FIXTURES = Path(__file__).parents[1] / "fixtures"
STORED = [FIXTURES / "bundle_format_2"]


def stored_batch(tensors):
    """The batch that ``fixtures/make_bundle.py`` stored."""
    part = lambda prefix: {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    ragged = lambda name: Ragged.from_lengths(tensors[f"{name}.offsets"].diff())
    renamed = {"tick_T": "tick_S", "unit_T": "unit_S"}  # since it was stored
    plain = {renamed.get(k, k): v for k, v in tensors.items() if "." not in k}
    around = Around(ragged("around.layout"), tensors["around.tick_S"], tensors["around.unit_S"])
    return Batch(
        **plain,
        current=ragged("current"),
        past=ragged("past"),
        around=around,
        clips=Clips(**part("clips.")),
        inputs=part("inputs."),
        targets=part("targets."),
    )


@pytest.mark.parametrize("folder", STORED, ids=lambda f: f.name)
def test_stored_bundles_still_give_their_outputs(folder):
    tensors = load_file(folder / "outputs.safetensors")
    with torch.no_grad():
        output = neuroformer.load_model(folder)(stored_batch(tensors))
    found = {k: getattr(output.observed, k) for k in ("dt_nll_T", "id_nll_S", "log_rate_WBU")} | output.targets
    expected = {k.removeprefix("out."): v for k, v in tensors.items() if k.startswith("out.")}
    assert found.keys() == expected.keys() and len(expected) == 5
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-5), name


def test_an_older_format_is_refused_with_the_version_that_reads_it():
    with pytest.raises(BundleError, match=r"has format 1, which neuroformer 0\.1 reads"):
        read_bundle(FIXTURES / "bundle_format_1")


def test_a_bundle_says_what_it_is():
    bundle = read_bundle(STORED[-1])
    assert bundle.units == ["u0", "u1", "u2", "u3"] and bundle.recording == "small"
    assert {"neuroformer", "python", "torch", "numpy", "lightning", "safetensors"} <= bundle.versions.keys()
    assert len(bundle.split["sha256"]) == 64 and bundle.split["claim"] == "time" and bundle.split["test"]
    shown = repr(bundle)
    for part in (
        "small: 4 units",
        "split by blocks, claims time, sha256",
        "likelihood",
        "torch 2",
        "valid_best",
    ):
        assert part in shown, part


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(STORED[-1], tmp_path / "bundle"))


@pytest.mark.parametrize(
    "change", [lambda x: x[:-1], lambda x: x[:100], lambda x: b"", lambda x: x[:-9] + b"12345678" + x[-1:]]
)
@pytest.mark.parametrize("name", ["bundle.json", "weights/likelihood.safetensors"])
def test_a_changed_file_is_refused_by_name(copy, name, change):
    (copy / name).write_bytes(change((copy / name).read_bytes()))
    with pytest.raises(BundleError, match=name.split("/")[-1]):
        load_model(read_bundle(copy))


def test_a_changed_value_and_a_newer_format_are_refused(copy):
    tree = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(tree | {"metrics": {"bits_per_spike": 9.0}}))
    with pytest.raises(BundleError, match=r"bundle\.json is not as it was saved"):
        read_bundle(copy)
    (copy / "bundle.json").write_text(json.dumps(tree | {"format": 99}))
    with pytest.raises(BundleError, match="format 99, this version reads up to"):
        read_bundle(copy)
    (copy / "bundle.json").unlink()
    with pytest.raises(BundleError, match="no bundle at"):
        read_bundle(copy)


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit(3)",)


def test_no_file_of_ours_runs_code(copy):
    """A pickle in the place of the weights, of which the JSON even has the digest, is refused unread."""
    import hashlib

    path = copy / "weights" / "likelihood.safetensors"
    path.write_bytes(pickle.dumps(Harmful()))
    tree = json.loads((copy / "bundle.json").read_text())
    del tree["sha256"]
    tree["weights_sha256"]["likelihood"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (copy / "bundle.json").write_text(json.dumps(tree | {"sha256": tree_digest(tree)}))
    with pytest.raises(BundleError, match=r"likelihood\.safetensors does not fit"):
        load_model(read_bundle(copy))


def test_a_setting_that_this_version_does_not_have_names_the_bundle(copy):
    tree = json.loads((copy / "bundle.json").read_text())
    del tree["sha256"]
    tree["config"]["train"]["gone"] = 1
    (copy / "bundle.json").write_text(json.dumps(tree | {"sha256": tree_digest(tree)}))
    with pytest.raises(BundleError, match=r"bundle\.json was written by another version.*train\.gone"):
        read_bundle(copy)


ODD = {
    "units that are a number": ("recordings.0.units", 5),
    "no unit": ("recordings.0.units", []),
    "units that are numbers": ("recordings.0.units", [1, 2]),
    "no recording": ("recordings", []),
    "recordings that are one": ("recordings", {"name": "a"}),
    "a rate of no unit": ("recordings.0.normalization.unit_rate", [0.1]),
    "a rate below zero": ("recordings.0.normalization.unit_rate.0", -1.0),
    "a rate that is no number": ("recordings.0.normalization.unit_rate.0", float("nan")),
    "an enormous rate": ("recordings.0.normalization.unit_rate.0", 10**400),
    "a split without a digest": ("recordings.0.split.sha256", None),
    "parts that are no intervals": ("recordings.0.split.train", [[1.0]]),
    "metrics that are a list": ("metrics", [1]),
    "weights elsewhere": ("weights_sha256", {"../likelihood": "0"}),
    "an absolute path": ("weights_sha256", {"/etc/passwd": "0"}),
    "a name with a terminal's sequence": ("weights_sha256", {"a/\x1b[31m": "0"}),
}


def changed(folder, key, value):
    """The bundle with one value replaced, and the digest that fits."""
    tree = json.loads((folder / "bundle.json").read_text())
    del tree["sha256"]
    *parents, last = [int(k) if k.isdigit() else k for k in key.split(".")]
    place = tree
    for k in parents:
        place = place[k]
    place[last] = value
    (folder / "bundle.json").write_text(json.dumps(tree | {"sha256": tree_digest(tree)}))
    return tree


@pytest.mark.parametrize("what", ODD)
def test_values_that_no_run_writes_are_refused_by_name(copy, what):
    key, value = ODD[what]
    changed(copy, key, value)
    named = key.removesuffix(".0").split(".")[-1]
    with pytest.raises(BundleError, match=rf"bundle\.json is no bundle of a run: .*{named}") as found:
        read_bundle(copy)
    assert "\x1b" not in str(found.value)


@pytest.mark.parametrize("name", ["..", ".", "../out", "/tmp/out", "a\\b", ""])
def test_names_of_several_recordings_stay_within_the_run(copy, name):
    entry = json.loads((copy / "bundle.json").read_text())["recordings"][0]
    changed(copy, "recordings", [entry | {"name": "other"}, entry | {"name": name}])
    with pytest.raises(BundleError, match=r"recordings\[1\]\.name is .*expected a name without '/'"):
        read_bundle(copy)


def test_a_network_that_the_weights_cannot_be_of_takes_no_memory(copy):
    changed(copy, "config.model.width", 4_000_000)
    with pytest.raises(BundleError, match=r"likelihood\.safetensors does not fit .*model\.width is 4,000,000"):
        load_model(read_bundle(copy))


def test_json_that_is_nested_without_end_is_refused(copy):
    (copy / "bundle.json").write_text('{"format": 2, "config": ' + '{"a": ' * 100_000)
    with pytest.raises(BundleError, match=r"bundle\.json is damaged: it is nested too deeply"):
        read_bundle(copy)

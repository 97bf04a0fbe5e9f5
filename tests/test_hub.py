"""A model goes to a hub and comes back with equal weights; what was changed on the way is refused by name."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import Hub

import neuroformer
from neuroformer.bundle.bundle import read_bundle
from neuroformer.bundle.checks import BundleError, tree_digest
from neuroformer.bundle.export import check, without_places
from neuroformer.cli import main
from neuroformer.config import Config, ConfigError, to_dict
from neuroformer.hub import card, pull, push

BUNDLE = Path(__file__).parent / "fixtures" / "bundle_format_2"
NAME = "lab/mouse"


@pytest.fixture(scope="module")
def no_account(tmp_path_factory):
    """Nothing that belongs to whoever runs the tests is read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield


@pytest.fixture
def hub(no_account):
    pytest.importorskip("huggingface_hub")
    server = Hub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def pushed(hub):
    push(BUNDLE, NAME, licence="cc-by-4.0", endpoint=hub.url, token="a-word")
    return hub


def test_it_comes_back_with_equal_weights(pushed, tmp_path):
    bundle = pull(NAME, tmp_path / "run", endpoint=pushed.url, token="a-word")
    ours, theirs = neuroformer.load_model(BUNDLE).state_dict(), neuroformer.load_model(bundle).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert bundle.path == tmp_path / "run" and bundle.units == read_bundle(BUNDLE).units
    assert {f.name for f in tmp_path.iterdir()} == {"run"} and NAME in pushed.private


def test_nothing_but_tensors_text_and_json_is_fetched(pushed, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "went off",))

    pushed.repositories[NAME] |= {
        "weights/likelihood.pt": pickle.dumps(Bomb()),
        "conftest.py": b"raise SystemExit",
    }
    bundle = pull(NAME, tmp_path / "run", endpoint=pushed.url)
    neuroformer.load_model(bundle)
    assert set(pushed.asked) == {"bundle.json", "README.md", *(f"weights/{k}.safetensors" for k in bundle.digests)}
    assert [f.name for f in tmp_path.iterdir()] == ["run"]
    assert sorted(f.name for f in (tmp_path / "run").iterdir()) == ["README.md", "bundle.json", "weights"]


def test_a_file_that_would_lead_out_of_the_folder_is_refused(pushed, tmp_path):
    pushed.repositories[NAME]["weights/../../escaped.safetensors"] = b"x"
    with pytest.raises(ValueError):  # the library's words for it differ between versions
        pull(NAME, tmp_path / "run", endpoint=pushed.url)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", ["weights/likelihood.safetensors", "bundle.json"])
def test_a_file_that_was_changed_on_the_way_is_refused_by_name(pushed, tmp_path, file):
    content = bytearray(pushed.repositories[NAME][file])
    place = content.index(b"small") if file.endswith("json") else len(content) - 5
    content[place] ^= 1
    pushed.repositories[NAME][file] = bytes(content)
    with pytest.raises(BundleError, match=rf"^{NAME}: {file} is not .*SHA-256"):
        pull(NAME, tmp_path / "run", endpoint=pushed.url)
    assert not (tmp_path / "run").exists() and not list(tmp_path.iterdir())


def test_a_file_that_is_missing_is_named(pushed, tmp_path):
    del pushed.repositories[NAME]["weights/likelihood.safetensors"]
    with pytest.raises(BundleError, match="likelihood.safetensors is missing"):
        pull(NAME, tmp_path / "run", endpoint=pushed.url)


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(BUNDLE, folder)
    tree = json.loads((folder / "bundle.json").read_text())
    tree["weights_sha256"]["../../elsewhere"] = tree["weights_sha256"]["likelihood"]
    del tree["sha256"]
    (folder / "bundle.json").write_text(json.dumps(tree | {"sha256": tree_digest(tree)}))
    with pytest.raises(BundleError, match="elsewhere"):
        check(folder)


def test_what_a_hub_refuses_is_one_message(hub, tmp_path, capsys, monkeypatch):
    with pytest.raises(ConfigError, match="the hub gave no 'lab/absent'"):
        pull("lab/absent", tmp_path / "run", endpoint=hub.url)
    with pytest.raises(ConfigError, match="the hub refused 'a/b/c'"):
        push(BUNDLE, "a/b/c", licence="mit", endpoint=hub.url)
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="already there"):
        pull(NAME, tmp_path / "there", endpoint=hub.url)
    with pytest.raises(ConfigError, match="say under which licence"):
        push(BUNDLE, NAME, licence=" ", endpoint=hub.url)
    assert main(["pull", NAME, "--run", str(tmp_path / "there")]) == 2
    assert "already there" in capsys.readouterr().err


def test_no_place_of_this_machine_goes_along():
    tree = to_dict(Config())
    tree["recording"] = {
        "path": "/home/ada/lab/mouse.nwb",
        "options": {"video": "C:\\data\\camera.mp4"},
        "sources": [
            {
                "path": "/home/ada/w.csv",
                "times": "/home/ada/t.csv:t",
                "sync": {"ours": "/home/ada/p.txt", "theirs": "ttl"},
            }
        ],
    }
    tree["recordings"] = [{"path": "/home/ada/other.nwb"}]
    tree["model"]["frame_encoder"]["backbone"] = "/home/ada/dino"
    clean = without_places(tree)
    assert "ada" not in json.dumps(clean) and "C:" not in json.dumps(clean)
    assert clean["recording"]["path"] == "mouse.nwb" and clean["recording"]["sources"][0]["times"] == "t.csv:t"
    tree["model"]["frame_encoder"]["backbone"] = "facebook/dinov2-small"
    assert without_places(tree)["model"]["frame_encoder"]["backbone"] == "facebook/dinov2-small"


def test_the_card_says_how_good_it_is_and_beside_what():
    scores = {"bits_per_spike": 0.9, "bits_per_spike_glm": 0.6, "decode_speed_r2": 0.5, "decode_speed_r2_low": 0.4}
    text = card(read_bundle(BUNDLE), NAME, "cc-by-4.0", scores | {"decode_speed_r2_high": 0.6})
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "cc-by-4.0"
    assert "| GLM | 0.600 |" in body and "4 units" in body and "generalise over time" in body and "## Limits" in body
    assert "None were computed" in card(read_bundle(BUNDLE), NAME, "mit", {})


def test_the_pushed_card_is_the_repositorys(pushed):
    assert pushed.repositories[NAME]["README.md"].startswith(b"---\nlicense: cc-by-4.0")
    assert "bundle.json" in pushed.repositories[NAME]

"""What is said of the package in several places is the same in all."""

import re
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import neuroformer
from neuroformer.cli import parser

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_one_version():
    (stated,) = re.findall(r'^version = "(.*)"$', PROJECT, re.M)
    assert stated == neuroformer.__version__ == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert f"## {stated}" in (ROOT / "CHANGELOG.md").read_text().split("\n", 3)[2]


def test_the_conda_recipe_requires_what_the_package_does():
    """Under conda-forge's names; triton comes with its pytorch."""
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    block = PROJECT.split("\ndependencies = [")[1].split("\n]")[0]
    wanted = re.findall(r'^  "([\w-]+)([^";]*)', block, re.M)
    names = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    python = re.search(r'requires-python = "(.*)"', PROJECT)
    expected = {names.get(n, n): bound for n, bound in wanted if n != "triton"} | {"python": python and python[1]}
    assert dict(line.split() for line in recipe["requirements"]["run"]) == expected
    assert recipe["context"]["version"] == neuroformer.__version__


def test_the_workflow_tests_every_python_that_is_claimed():
    claimed = re.findall(r"Python :: (3\.\d+)", PROJECT)
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["python"]["strategy"]["matrix"]
    assert matrix["python"] == claimed and f'requires-python = ">={claimed[0]}"' in PROJECT
    assert f"3.{sys.version_info.minor}" in claimed


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_call_what_is_there(path):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = next(a.choices for a in parser()._actions if a.dest == "command")
    steps = [s for job in yaml.safe_load(path.read_text())["jobs"].values() for s in job["steps"]]
    lines = "\n".join(s.get("run", "") for s in steps)
    assert set(re.findall(r"make ([\w-]+)", lines)) <= targets
    assert set(re.findall(r"bin/neuroformer (\w+)", lines)) <= set(commands or ())
    assert all(("run" in s) != ("uses" in s) for s in steps)


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.name)
def test_issue_forms_are_forms(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"] and all(b["attributes"]["label"] for b in form["body"])


def test_the_image_copies_what_the_package_needs():
    copied = (ROOT / "Dockerfile").read_text()
    kept = (ROOT / ".dockerignore").read_text()
    for name in ("pyproject.toml", "lock.txt", "README.md", "LICENSE", "neuroformer", "kernels"):
        assert re.search(rf"^COPY .*\b{re.escape(name)}", copied, re.M) and f"!{name}\n" in kept


def test_the_lock_pins_what_the_image_installs():
    lock = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "lock.txt").read_text(), re.M))
    required = [Requirement(line) for line in requires("neuroformer") or ()]
    extras = ("nwb", "zarr", "pynapple", "calcium", "video", "parquet", "remote", "formats")
    installed = [
        r
        for r in required
        if r.marker is None or any(r.marker.evaluate({"extra": e, "platform_system": "Linux"}) for e in ("", *extras))
    ]
    for one in installed:
        assert one.name == "neuroformer" or lock[one.name.replace("_", "-")] in one.specifier, one
    for name, version in re.findall(r"^([\w.-]+)==([^;\s]+)", (ROOT / "constraints.txt").read_text(), re.M):
        assert lock[name] == version


@pytest.mark.parametrize("file", ["docs/llms.txt", "AGENTS.md"])
def test_what_is_named_for_machines_is_there(file):
    """These are no pages of the site, so that no link checker reads them."""
    text = (ROOT / file).read_text()
    for name in re.findall(r"docs/[\w-]+\.md|`([\w./]+(?:/|\.py))`", text):
        assert not name or (ROOT / name).exists() or (ROOT / "neuroformer" / name).exists()
    for name in re.findall(r"docs/[\w-]+\.md", text):
        assert (ROOT / name).is_file()

"""Every error, warning and finding has a code that is explained."""

import ast
import re
from pathlib import Path

import pytest

from neuroformer.cli import main
from neuroformer.messages import ENTRIES, ERRORS, FINDINGS, WARNINGS, code_for, code_of, page
from neuroformer.recording import RecordingError, open_recording

ROOT = Path(__file__).parents[1]
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
    for path in sorted((ROOT / "neuroformer").rglob("*.py"))
}


def calls(name):
    """(module, call) of every call of a name."""
    for module, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == name:
                yield module, node


def said(node):
    """The text of a string, with x where something is put in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(v.value if isinstance(v, ast.Constant) else "x" for v in node.values)
    return node.value if isinstance(node, ast.Constant) else ""


def test_every_module_that_raises_has_a_code():
    raising = {m for m, tree in SOURCES.items() for n in ast.walk(tree) if isinstance(n, ast.Raise)}
    assert not [m for m in raising - {"neuroformer", "neuroformer.__main__"} if not code_for(m)]
    assert code_for("neuroformer.recording.sources.clocks") == "source" and code_for("neuroformer.recordings") == ""
    for entry in ERRORS:  # none of a module that is gone
        assert all(any(f"{m}.".startswith(f"{name}.") for m in SOURCES) or "kernels" in name for name in entry.modules)


def test_every_warning_and_finding_has_a_code():
    warned = [said(node.args[0]) for _, node in calls("warn")]
    assert len(warned) >= 4 and all(code_for("", text) for text in warned), warned
    assert all(any(re.search(w.pattern, text) for text in warned) for w in WARNINGS)
    names = {said(node.args[0]) for _, node in calls("Finding") if node.args} - {""}
    assert names == {f.code for f in FINDINGS}


def test_codes_are_distinct_and_the_page_has_all():
    assert len(ENTRIES) == len(ERRORS) + len(WARNINGS) + len(FINDINGS)
    assert (ROOT / "docs" / "messages.md").read_text() == page(), "make reference"
    for entry in ENTRIES.values():
        assert f"### `{entry.code}`\n" in page() and entry.cause.endswith(".") and entry.cure.endswith(".")


def test_an_error_says_where_it_is_explained(tmp_path, capsys):
    with pytest.raises(RecordingError) as e:
        open_recording(tmp_path / "nothing.nwb")
    assert code_of(e.value) == "open" and code_of(ValueError("of others")) == ""
    assert main(["inspect", str(tmp_path / "nothing.nwb")]) == 2
    assert capsys.readouterr().err.endswith("more on this: neuroformer explain open\n")
    assert main(["explain", "open"]) == 0
    assert "neuroformer inspect PATH" in capsys.readouterr().out
    assert main(["explain"]) == 0
    assert set(ENTRIES) <= set(capsys.readouterr().out.split())
    assert main(["explain", "opne"]) == 2
    assert "did you mean 'open'?" in capsys.readouterr().err

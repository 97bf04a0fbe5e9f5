"""The notebooks of the site: they are notebooks, and run top to bottom."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_a_notebook(path):
    jupytext = pytest.importorskip("jupytext")
    cells = jupytext.read(path)["cells"]
    first, last = cells[0], [c for c in cells if c["cell_type"] == "code"][-1]
    assert first["cell_type"] == "markdown" and first["source"].startswith("# ") and "minutes" in first["source"]
    assert "pip install neuroformer" in first["source"] and last["source"].strip()
    assert path.stem in re.findall(r"^(\w+)$", (FOLDER / "index.md").read_text(), re.M)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs_top_to_bottom(path, tmp_path):
    environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(FOLDER.parents[1])}
    done = subprocess.run([sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

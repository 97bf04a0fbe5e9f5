"""The lines of the house that import-linter cannot see, and what the package ships."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return names


def test_only_ops_and_bench_import_kernels():
    for path in (ROOT / "neuroformer").rglob("*.py"):
        if path.relative_to(ROOT).parts[1] in ("ops", "bench"):
            continue
        assert not any(n.startswith("neuroformer.kernels") for n in imports(path)), path


@pytest.mark.parametrize(
    "modules, absent",
    [
        ("neuroformer, neuroformer.model.neuroformer", ("triton", "lightning", "matplotlib", "sklearn")),
        ("neuroformer.cli", ("torch", "scipy")),  # asking for help takes no seconds
    ],
)
def test_importing_neuroformer_is_light(modules, absent):
    code = f"import sys, {modules}; print([m for m in {absent} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_package_is_listed():
    text = (ROOT / "pyproject.toml").read_text()
    listed = set(re.findall(r'"(neuroformer(?:\.\w+)*)"', text.split("packages = [")[1].split("\n]")[0]))
    there = {"neuroformer", "neuroformer.kernels"}
    there |= {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "neuroformer").glob("*/**/__init__.py")}
    assert listed == there


def test_entry_points_are_thin():
    for name in ("train.py", "generate.py"):
        assert len((ROOT / name).read_text().splitlines()) <= 15


def every_command():
    from neuroformer.cli import parser

    choices = next(a.choices for a in parser()._actions if a.dest == "command")
    return [[], *([name] for name in choices or ())]


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_help_is_complete(command):
    out = subprocess.run([sys.executable, "-m", "neuroformer", *command, "--help"], capture_output=True, text=True)
    assert out.returncode == 0 and "usage: neuroformer" in out.stdout
    if command:
        options = re.findall(r"^  (--?[\w-]+|\w+)(.*)$", out.stdout, re.M)
        assert options and "--debug" in out.stdout


def test_an_unknown_command_exits_with_2():
    out = subprocess.run([sys.executable, "-m", "neuroformer", "trian"], capture_output=True, text=True)
    assert out.returncode == 2 and "did you mean 'train'?" in out.stderr and "Traceback" not in out.stderr


def test_functions_are_small():
    """60 lines with their docstring, 150 for a Triton kernel."""
    too_long = []
    for path in [*(ROOT / "neuroformer").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                is_kernel = any("triton.jit" in ast.unparse(d) for d in node.decorator_list)
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > (150 if is_kernel else 60):
                    too_long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} ({size})")
    assert not too_long

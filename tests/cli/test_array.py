"""Job arrays, on a stand-in for SLURM that runs the jobs here: interrupted ones end with the same table when submitted again."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import small_config, small_recording

from neuroformer.config import to_dict
from neuroformer.recording.formats.npz import write_npz

ROOT = Path(__file__).parents[2]

SBATCH = r"""#!/usr/bin/env python3
import os, subprocess, sys
args = sys.argv[1:]
wrapped = args[args.index("--wrap") + 1]
here = os.environ["SLURM_STAND_IN"]
array = next((a.split("=")[1] for a in args if a.startswith("--array=")), None)
if array is None:  # the last job, which asks that all others ended well
    if os.path.exists(os.path.join(here, "failed")):
        os.remove(os.path.join(here, "failed"))
    else:
        done = subprocess.run(["bash", "-c", wrapped], stdout=subprocess.PIPE, text=True)
        open(os.path.join(here, "last.txt"), "w").write(done.stdout)
        sys.exit(done.returncode)
    sys.exit(0)
first, last = map(int, array.split("-"))
killed = [int(k) for k in os.environ.get("KILLED", "").split(",") if k]
for k in range(first, last + 1):
    env = os.environ | {"SLURM_ARRAY_TASK_ID": str(k), "SLURM_ARRAY_JOB_ID": "7"}
    job = subprocess.Popen(["bash", "-c", wrapped], env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        code = job.wait(float(os.environ["PATIENCE_S"]) if k in killed else None)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, 9)
        code = job.wait()
    if code:
        open(os.path.join(here, "failed"), "w").close()
print(7)
"""


def submit(folder, *command, killed="", patience="0.2"):
    """The output of the last job, if it ran."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    (tools / "sbatch").write_text(SBATCH)
    (tools / "sbatch").chmod(0o755)
    (folder / "last.txt").unlink(missing_ok=True)
    env = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "SLURM_STAND_IN": str(folder)}
    env |= {"KILLED": killed, "PATIENCE_S": patience, "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", str(ROOT / "scripts" / "array.sh"), *command], env=env, check=True, capture_output=True)
    return (folder / "last.txt").read_text() if (folder / "last.txt").exists() else None


def test_the_script_can_be_run():
    assert (ROOT / "scripts" / "array.sh").stat().st_mode & stat.S_IXUSR


def test_killed_jobs_run_when_it_is_submitted_again(tmp_path):
    work = tmp_path / "it's a job.sh"  # a name that has to be quoted
    work.write_text(
        'cd "$(dirname "$0")"; if [ -n "${1:-}" ]; then [ -e "part$1" ] || { sleep 0.4; date +%N > "part$1"; }; else cat part*; fi'
    )
    whole = ["6", "bash", str(work), "{}"]
    assert submit(tmp_path, *whole, killed="1,4") is None
    before = {f.name: f.read_text() for f in tmp_path.glob("part*")}
    assert sorted(before) == ["part0", "part2", "part3", "part5"]
    table = submit(tmp_path, *whole)
    assert table is not None and len(table.split()) == 6
    assert all((tmp_path / name).read_text() == text for name, text in before.items())
    assert submit(tmp_path, *whole) == table


@pytest.mark.slow
def test_folds_of_an_interrupted_array_give_the_same_table(tmp_path):
    write_npz(small_recording(seconds=120.0), tmp_path / "a.npz")
    tree = to_dict(small_config(targets=[{"name": "speed"}], train={"steps": 6}))
    tree["recording"]["path"] = str(tmp_path / "a.npz")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(tree))
    tables = []
    for name, killed in (("whole", ""), ("cut", "1")):
        folder = tmp_path / name
        folder.mkdir()
        command = ["3", sys.executable, "-m", "neuroformer", "folds", "--config", str(tmp_path / "c.yaml"), "--run"]
        command += [str(folder / "run"), "--folds", "3", "--baselines", "none", "--quiet", "--only={}"]
        if killed:
            assert submit(folder, *command, killed=killed, patience="4") is None
        tables.append(submit(folder, *command))
    scores = [[line.split()[:2] for line in t.splitlines() if line.startswith(("model", "control"))] for t in tables]
    assert scores[0] and scores[0] == scores[1]

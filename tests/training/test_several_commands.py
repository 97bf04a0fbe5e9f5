"""A run of several recordings from the command line: each command says which recording, and what it lacks."""

import dataclasses
import json
import shlex

import pytest
import yaml
from helpers import small_config, small_recording

import neuroformer.training.evaluation
from neuroformer.bundle.checks import BundleError
from neuroformer.cli import main
from neuroformer.config import to_dict
from neuroformer.recording.formats.npz import write_npz
from neuroformer.report.notebook import RunView


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One recording with frames and speed, one with neither."""
    folder = tmp_path_factory.mktemp("Zwei Tiere übt")
    full, bare = small_recording(0), small_recording(1, num_units=4, frames=False)
    write_npz(dataclasses.replace(full, name="full"), folder / "full.npz")
    only = {"pupil": bare.behavior["pupil"]}
    write_npz(dataclasses.replace(bare, name="bare", behavior=only), folder / "bare.npz")
    tree = to_dict(small_config(targets=[{"name": "speed"}], train={"steps": 2}))
    tree["recordings"] = [{"path": str(folder / f"{name}.npz")} for name in ("full", "bare")]
    (folder / "c.yaml").write_text(yaml.safe_dump(tree))
    argv = ["train", "--config", str(folder / "c.yaml"), "--run", str(folder / "run"), "--quiet"]
    assert main(argv) == 0
    return folder / "run"


def test_baselines_of_several_are_fitted_when_asked_and_not_again(run, capsys, monkeypatch):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["recordings"] == 2 and "bits_per_spike_glm" not in summary
    ends = [summary[f"bits_per_spike_{end}"] for end in ("worst", "lower_quartile", "median", "upper_quartile")]
    assert ends == sorted(ends) and ends[2] == pytest.approx(summary["bits_per_spike"], abs=2e-6)
    assert main(["evaluate", "--run", str(run), "--recording", "bare", "--quiet"]) == 0
    fitted = json.loads((run / "bare" / "summary.json").read_text())
    assert summary["worst_recording"] in ("full", "bare") and "bits_per_spike_glm" in fitted
    monkeypatch.setattr("neuroformer.training.evaluation.PROCESS_BYTES", 1e15)  # in this process
    asked = []
    true = neuroformer.training.evaluation.evaluate
    monkeypatch.setattr("neuroformer.training.evaluation.evaluate", lambda *a, **k: asked.append(k) or true(*a, **k))
    assert main(["evaluate", "--run", str(run), "--baselines", "--quiet"]) == 0
    assert [k["recording"] for k in asked] == ["full"]
    both = json.loads((run / "summary.json").read_text())
    each = [json.loads((run / name / "summary.json").read_text())["bits_per_spike_glm"] for name in ("full", "bare")]
    assert both["bits_per_spike_glm"] == pytest.approx(sum(each) / 2, abs=1e-5)
    assert "2 recordings, each in a folder of its own; fewest bits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["decode"], r"holds several recordings \(full, bare\); say which with --recording"),
        (["decode", "--recording", "bare"], r"recording 'bare' has none of the run's targets \(speed\)"),
        (["fields", "--recording", "bare"], r"trained without frames \(recording 'bare' has none\)"),
        (["generate", "--recording", "bar"], r"no recording 'bar'; did you mean 'bare'\?"),
    ],
)
def test_what_a_recording_cannot_do_is_said_of_it(run, argv, said, capsys):
    assert main([argv[0], "--run", str(run), *argv[1:]]) == 2
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(capsys.readouterr().err)


def test_the_folder_of_a_recordings_results_leads_to_the_run(run, capsys):
    assert main(["decode", "--run", str(run / "full")]) == 2
    assert f"the run is {run}, its recordings are named by --recording" in capsys.readouterr().err
    seed = run.parent / "seeds" / "seed_0"
    seed.mkdir(parents=True)
    (seed / "bundle.json").write_text("{}")
    assert main(["decode", "--run", str(seed.parent)]) == 2
    assert f"give one of its 1 seeds, say {seed}" in capsys.readouterr().err


def test_the_page_names_commands_that_work(run):
    assert main(["report", "--run", str(run), "--recording", "bare"]) == 0
    page = (run / "bare" / "report.html").read_text()
    command = f"neuroformer generate --run {shlex.quote(str(run))} --recording bare"
    assert json.dumps(command, ensure_ascii=False) in page or json.dumps(command) in page


def test_a_notebook_shows_one_of_the_recordings(run):
    with pytest.raises(BundleError, match="say which"):
        RunView(run)
    view = RunView(run, "bare")
    assert view.folder == run / "bare" and view.rec is not None and view.rec.num_units == 4
    assert len(view.learning()) > 0 and "bits_per_spike" in view.scores
    assert RunView(run, "bare", path="gone.npz").rec is None


def test_each_recording_is_fine_tuned_into_a_run_of_its_own(run, capsys):
    for name in ("full", "bare"):
        argv = ["finetune", "--run", str(run), "--recording", name, "--target", "pupil2"]
        assert main(argv) == 2  # named before anything is computed
        assert "no behavior variable 'pupil2'" in capsys.readouterr().err
    argv = [
        "finetune",
        "--run",
        str(run),
        "--recording",
        "full",
        "--target",
        "gaze",
        "tune.steps=0",
    ]
    assert main([*argv, "--quiet"]) == 0
    assert (run.parent / "run_full_gaze" / "bundle.json").exists()

"""``neuroformer sweep``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from neuroformer.cli.options import KEYS, config_arguments, override_argument
from neuroformer.cli.shared import exit_code, refuse_unwritable, warn_only_ours
from neuroformer.cli.tables import table
from neuroformer.config import ConfigError, load_config

SHOWN = 10


def add(command) -> None:
    help = "Search over keys of a configuration with Optuna, by validation bits/spike; test data stay unseen."
    more = (
        " The space is YAML: `train.lr: {low: 1e-4, high: 1e-2, log: true}`, `model.width: [32, 64]`. Run "
        "the same command again to continue; started several times at once, the processes share the work."
    )
    p = command("sweep", run, help, KEYS + more)
    config_arguments(p, "sweep", "<name>_sweep")
    p.add_argument(
        "--space",
        type=Path,
        required=True,
        metavar="FILE",
        help="YAML file of keys and their ranges or choices",
    )
    p.add_argument("--trials", type=int, default=20, metavar="N", help="configurations to try in all (default: 20)")
    override_argument(p, "settings that replace the file's")


def run(args) -> int:
    from neuroformer.studies.sweep import read_space, sweep
    from neuroformer.training.stopping import Stopped

    if args.trials < 1:
        raise ConfigError(f"--trials is {args.trials}; expected 1 or more")
    base = load_config(args.config, args.override)
    folder = args.run or Path("runs") / f"{base.name}_sweep"
    refuse_unwritable(folder, "--run")
    warn_only_ours()
    try:
        for trial in sweep(base, read_space(args.space, base), folder, args.trials, progress=not args.quiet):
            score = f"cannot be run: {trial.reason}" if trial.score is None else f"{trial.score:.4f}"
            print(f"{trial.folder.name}  {score}  {_text(trial.values)}", flush=True)
    except Stopped as e:
        print(f"stopped by {e}; run the same command again to continue")
        return exit_code(e)
    _conclude(base, folder)
    return 0


def _conclude(base, folder: Path) -> None:
    """The table, ``sweep.json``, and the best configuration as a file of its own."""
    import yaml

    from neuroformer.config import to_dict
    from neuroformer.files import write_atomic
    from neuroformer.studies.sweep import OBJECTIVE, changed, finished

    trials = finished(folder)
    if trials[0].score is None:
        raise ConfigError(f"none of {len(trials)} trials could be run; the first: {trials[0].reason}")
    tree = [dataclasses.asdict(t) | {"folder": t.folder.name} for t in trials]
    write_atomic(folder / "sweep.json", json.dumps({"objective": OBJECTIVE, "trials": tree}, indent=1).encode())
    best = to_dict(changed(base, trials[0].values)) | {"name": f"{base.name}_best"}
    write_atomic(folder / "best.yaml", yaml.safe_dump(best, sort_keys=False).encode())
    keys = list(trials[0].values)
    rows = [(t.folder.name, t.score, *(t.values[k] for k in keys)) for t in trials[:SHOWN] if t.score is not None]
    print(table(rows, ("trial", OBJECTIVE, *keys)))
    print(
        f"{len(trials)} trials in {folder / 'sweep.json'}; the best was chosen on validation data. Its score on test data:"
    )
    print(f"  neuroformer train --config {folder / 'best.yaml'} --seeds 5")


def _text(values: dict) -> str:
    return " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={json.dumps(v)}" for k, v in values.items())

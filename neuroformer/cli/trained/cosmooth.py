"""``neuroformer cosmooth``."""

from __future__ import annotations

from neuroformer.cli.options import KEYS, override_argument, results_argument, run_argument
from neuroformer.cli.shared import open_asked, summarise, warn_only_ours


def add(command) -> None:
    help = "Score what a run says of the units that recording.units left out (co-smoothing), and of what comes next."
    p = command("cosmooth", run, help, KEYS)
    run_argument(p)
    results_argument(p)
    override_argument(p, "e.g. window.dt=0.005")


def run(args) -> None:
    from neuroformer.bundle.bundle import load_model
    from neuroformer.files import save_npz
    from neuroformer.studies.cosmoothing import cosmooth

    bundle, prepared = open_asked(args)
    warn_only_ours()
    found = cosmooth(load_model(bundle), prepared)
    save_npz(
        args.folder / "cosmooth.npz", {"units": found.unit_ids, "counts": found.counts_RU, "rates": found.rates_RU}
    )
    summarise(args.folder, found.scores)

"""``neuroformer stimuli``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuroformer.cli.options import KEYS, override_argument, results_argument, run_argument
from neuroformer.cli.shared import open_asked, refuse_unwritable, summarise
from neuroformer.cli.tables import interval, table
from neuroformer.config import ConfigError


def add(command) -> None:
    help = "Stimuli to show next: most exciting clips with matched controls as a session to play, and what came of it."
    p = command("stimuli", run, help, KEYS)
    run_argument(p)
    results_argument(p)
    p.add_argument("--out", type=Path, metavar="FOLDER", help="where the stimuli are, or go (default: <run>/stimuli)")
    p.add_argument("--units", metavar="IDS", help="units to make clips for, with commas between (default: all)")
    p.add_argument(
        "--verify",
        type=Path,
        metavar="RUN",
        help="a second run on the same units, trained from another seed, that is asked too",
    )
    p.add_argument("--repeats", type=int, default=10, metavar="N", help="presentations of each clip (default: 10)")
    p.add_argument("--steps", type=int, default=60, metavar="N", help="steps of each gradient ascent (default: 60)")
    p.add_argument(
        "--measured",
        metavar="FILE",
        help="a recording of the session: compare it with what was expected; nothing is made",
    )
    override_argument(p, "e.g. recording.path=moved.npz")


def run(args) -> None:
    from neuroformer.analysis import next_stimuli as made
    from neuroformer.analysis.mei import true_log_rates
    from neuroformer.analysis.stimulus_file import session_of, write_suite
    from neuroformer.bundle.bundle import load_model
    from neuroformer.bundle.opening import open_run

    out = args.out
    if out is not None:
        refuse_unwritable(out, "--out")
    bundle, p = open_asked(args)
    out = args.folder / "stimuli" if out is None else out
    if args.measured:
        return _close(args, out)
    model, ids = load_model(bundle), p.rec.unit_ids
    suite = made.make_suite(model, p, _units(args.units, ids), steps=args.steps, seed=p.config.seed)
    rates = {"this run": made.expected_rates(model, p, suite.clips_SFHX)}
    if args.verify is not None:
        other, theirs = open_run(args.verify, [], args.recording)
        if theirs.rec.unit_ids != ids:
            raise ConfigError(
                f"{args.verify} was trained on other units than {args.folder}; it cannot verify its stimuli"
            )
        rates["second run"] = made.expected_rates(load_model(other), theirs, suite.clips_SFHX)
    if "rf_temporal" in p.rec.truth and suite.clips_SFHX.shape[1] == p.rec.truth["rf_temporal"].shape[1]:
        rates["the true units"] = true_log_rates(suite.clips_SFHX, p.rec)
    assert p.rec.frames is not None  # a run without frames was refused above
    gray, pixels = float(model.frames.encoder.mean), np.dtype(p.rec.frames.images.dtype)
    session = session_of(suite, ids, gray, pixels, args.repeats, p.config.seed)
    files = write_suite(out, suite, session, ids, rates["this run"])
    _print_projection(suite, p, float(model.frames.encoder.mean))
    _print(suite, {name: made.verify(suite, rate) for name, rate in rates.items()}, args)
    print(f"{session.num_trials} presentations, {session.duration:.0f} s; written: {', '.join(map(str, files))}")


def _units(asked: str | None, ids: list[str]) -> list[int]:
    if not asked:
        return []
    names = asked.split(",")
    unknown = [n for n in names if n not in ids]
    if unknown:
        raise ConfigError(f"no unit '{unknown[0]}'; there are {', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}")
    return [ids.index(n) for n in names]


def _print_projection(suite, p, gray: float) -> None:
    """Of a recording whose filters are known: how much of each most exciting clip lies in its unit's own filters."""
    from neuroformer.analysis.mei import projection

    truth = p.rec.truth
    if "rf_even" not in truth:
        return
    rows = np.flatnonzero((suite.kind_S == "mei") & truth["is_responsive"][suite.unit_S])
    units = suite.unit_S[rows]
    share = projection(suite.clips_SFHX[rows] - gray, truth["rf_even"][units], truth["rf_odd"][units])
    print(
        f"share of the norm of most exciting clips in the true filters: {np.median(share):.3f} (median of {len(rows)} units)"
    )


def _print(suite, verified, args) -> None:
    from neuroformer.analysis.next_stimuli import KINDS

    lines, summary = [], {}
    for name, v in verified.items():
        seen = v.responsive
        gains = [float(np.nanmedian(v.gain[kind][seen])) if seen.any() else float("nan") for kind in KINDS]
        lines.append((name, int(seen.sum()), v.share_above(), *gains))
        key = {"this run": "stimuli", "second run": "stimuli_verified"}.get(name, "stimuli_true")
        summary |= {f"{key}_above_natural": v.share_above(), f"{key}_units": int(seen.sum())}
        summary |= {f"{key}_gain_{kind}": gain for kind, gain in zip(KINDS, gains, strict=True)}
    header = ("expected by", "responsive units", "above 95 % of natural", *(f"gain, {kind}" for kind in KINDS))
    print(table(lines, header))
    print("gain: log rate beyond the mean of natural clips of the same contrast, median over responsive units")
    summarise(args.folder, summary)


def _close(args, out: Path) -> None:
    from neuroformer.analysis.stimulus_file import close_loop
    from neuroformer.recording import open_recording

    path = out / "expected.npz"
    if not path.exists():
        raise ConfigError(f"{path} is not there; make the stimuli first, or say with --out where they are")
    with np.load(path, allow_pickle=False) as file:
        expected = {k: file[k] for k in file.files}
    loop = close_loop(
        open_recording(args.measured), expected["stimulus"], expected["unit_ids"].tolist(), expected["log_rate"]
    )
    lines = [
        (kind, loop.wins[kind], loop.difference[kind], interval(loop.low[kind], loop.high[kind])) for kind in loop.wins
    ]
    print(table(lines, ("most exciting clip against", "share of units", "Hz more", "95 % interval over units")))
    summary = {"stimuli_measured_r": float(np.nanmedian(loop.r)), "stimuli_measured_units": len(loop.unit_ids)}
    summary |= {f"stimuli_measured_wins_{kind}": share for kind, share in loop.wins.items()}
    summarise(args.folder, summary | {"stimuli_measured_delay_s": loop.delay_s})

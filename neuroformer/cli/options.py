"""Arguments that several commands share, and their parsing."""

from __future__ import annotations

import argparse
import typing
from pathlib import Path

from neuroformer.config import ConfigError, TargetConfig

KEYS = "Any key of configs/reference.yaml can be given as key.sub=value (in lists by position: inputs.0.name=speed)."


def run_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--run", required=True, type=Path, dest="folder", help="folder of a trained run, e.g. runs/demo"
    )
    p.add_argument("--recording", default="", metavar="NAME", help="which recording, if the run has several")


def override_argument(p: argparse.ArgumentParser, help: str) -> None:
    p.add_argument("override", nargs="*", metavar="key.sub=value", help=help)


def overwrite_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument("--overwrite", action="store_true", help="replace a run that is already there")


def training_arguments(p: argparse.ArgumentParser) -> None:
    """For commands that train into a new folder."""
    overwrite_argument(p)
    p.add_argument(
        "--resume", action="store_true",
        help="continue exactly where the run in the folder stopped; starts it if the folder is empty",
    )  # fmt: skip
    p.add_argument(
        "--no-baselines", action="store_true", help="do not fit the GLMs that the likelihood is compared with"
    )


def target_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--target", required=True, action="append", dest="targets", metavar="NAME[:KIND[:SAMPLES]]",
        help="a behavior variable, its kind (regression, classification, circular) and the number of values in a window; may be "
        "repeated",
    )  # fmt: skip


def parse_targets(asked: list[str]) -> list[TargetConfig]:
    """Targets from the values of ``--target``.

    Raises
    ------
    ConfigError
        An unknown kind, a count that is not a number, or a variable named twice.
    """
    out = []
    kinds = typing.get_args(typing.get_type_hints(TargetConfig)["kind"])
    for item in asked:
        name, _, rest = item.partition(":")
        kind, _, samples = rest.partition(":")
        if (kind or "regression") not in kinds or not (samples or "1").isdigit():
            raise ConfigError(
                f"--target is {item!r}; expected NAME[:KIND[:SAMPLES]] with a kind of {', '.join(kinds)}"
            )
        out.append(TargetConfig(name, kind or "regression", samples=int(samples or 1)))  # pyright: ignore[reportArgumentType]
    if len({t.name for t in out}) < len(out):
        raise ConfigError(f"--target names a variable twice: {', '.join(asked)}")
    return out


def baselines_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--baselines", default="fast",
        help="fast (ridge, lasso, kalman), all (and glm, mlp, gru), none, or names joined by commas",
    )  # fmt: skip


def baseline_names(asked: str) -> tuple[str, ...]:
    """Names of baselines from the command line's argument."""
    from neuroformer.decoding.baselines import ALL, FAST

    if asked in ("fast", "all", "none"):
        return {"fast": FAST, "all": ALL, "none": ()}[asked]
    names = tuple(asked.split(","))
    for name in names:
        if name not in ALL:
            raise ConfigError(
                f"--baselines names '{name}'; expected fast, all, none, or some of {', '.join(ALL)}"
            )
    return names

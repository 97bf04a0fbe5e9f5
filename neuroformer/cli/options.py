"""Arguments that several commands share, and their parsing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroformer.config import ConfigError, TargetConfig

KEYS = "Any key of configs/reference.yaml can be given as key.sub=value (in lists by position: inputs.0.name=speed)."


def config_arguments(p: argparse.ArgumentParser, what: str, default: str, *, required: bool = True) -> None:
    """For commands that train: the YAML file, and the folder of ``what``, by default ``runs/default``."""
    needed = "" if required else "; not needed with --run FOLDER --resume"
    p.add_argument(
        "--config", required=required, type=Path, metavar="FILE", help=f"YAML file, e.g. configs/demo.yaml{needed}"
    )
    p.add_argument("--run", type=Path, metavar="FOLDER", help=f"folder of the {what} (default: runs/{default})")


def run_argument(p: argparse.ArgumentParser) -> None:
    """For commands that read a trained run."""
    p.add_argument(
        "--run",
        required=True,
        type=Path,
        dest="folder",
        metavar="FOLDER",
        help="folder of a trained run, e.g. runs/demo",
    )
    p.add_argument("--recording", default="", metavar="NAME", help="which recording, if the run has several")


def results_argument(p: argparse.ArgumentParser) -> None:
    """For commands that put results into the run they read."""
    p.add_argument(
        "--results", type=Path, metavar="FOLDER", help="where results go, if not into the run (which may be read-only)"
    )


def override_argument(p: argparse.ArgumentParser, help: str) -> None:
    p.add_argument("override", nargs="*", metavar="key.sub=value", help=help)


def overwrite_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument("--overwrite", action="store_true", help="replace a run that is already there")


def training_arguments(p: argparse.ArgumentParser) -> None:
    """For commands that train into a new folder."""
    overwrite_argument(p)
    p.add_argument(
        "--resume",
        action="store_true",
        help="continue exactly where the run in the folder stopped; starts it if the folder is empty",
    )
    glm_argument(p)


def glm_argument(p: argparse.ArgumentParser) -> None:
    """For commands that score spikes on held-out data."""
    p.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        help="fit the GLMs that the likelihood is compared with (default: of one recording; of several only when asked)",
    )


TARGET = "NAME[:KIND[:SAMPLES[:PERIOD]]]"
# of a regression, squared errors, or a noise model that learns its scale (student: robust)
KINDS: dict[str, dict[str, Any]] = {
    "regression": {},
    "gaussian": {"noise": "gaussian"},
    "student": {"noise": "student"},
    "classification": {"kind": "classification"},
    "circular": {"kind": "circular"},
}


def target_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--target",
        required=True,
        action="append",
        dest="targets",
        metavar=TARGET,
        help=f"a behavior variable; its kind ({', '.join(KINDS)}), the number of values in a window, and the period of a "
        "circular one (default: 2 pi); may be repeated. A name alone: as the run declares it, else a regression",
    )


def parse_targets(asked: list[str], declared: Sequence[TargetConfig] = ()) -> list[TargetConfig]:
    """Targets from the values of ``--target``; a name alone is what ``declared`` says, else a regression.

    Raises
    ------
    ConfigError
        An unknown kind, a count or period that is not a number, or a variable named twice.
    """
    known = {t.name: t for t in declared}
    out = [known.get(item) or _target(item) for item in asked]
    if len({t.name for t in out}) < len(out):
        raise ConfigError(f"--target names a variable twice: {', '.join(asked)}")
    return out


def _target(item: str) -> TargetConfig:
    words = item.split(":")
    name, kind, samples, period = [*words, "", "", ""][:4]
    try:
        if len(words) > 4 or (period and kind != "circular"):
            raise ValueError
        return TargetConfig(name, samples=int(samples or 1), period=float(period or 0), **KINDS[kind or "regression"])
    except (KeyError, ValueError):
        raise ConfigError(
            f"--target is {item!r}; expected {TARGET} with a kind of {', '.join(KINDS)}, and a period for circular only"
        ) from None


def baselines_argument(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--baselines",
        default="fast",
        metavar="NAME[,NAME]",
        help="fast (all but glm and gru; the default), all, none, or names joined by commas: ridge, lasso, kalman, "
        "wiener_cascade, kernel_ridge, bayes and bayes_mode (one or two columns), mlp, glm, gru",
    )


def baseline_names(asked: str) -> tuple[str, ...]:
    """Names of baselines from the command line's argument."""
    from neuroformer.baselines.decoders import ALL, FAST

    if asked in ("fast", "all", "none"):
        return {"fast": FAST, "all": ALL, "none": ()}[asked]
    names = tuple(asked.split(","))
    for name in names:
        if name not in ALL:
            raise ConfigError(f"--baselines names '{name}'; expected fast, all, none, or some of {', '.join(ALL)}")
    return names

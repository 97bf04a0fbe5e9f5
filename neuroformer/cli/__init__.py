"""The command line: the only place that prints, parses or exits. One module for each command.

``--config`` is a YAML file to train from, ``--run`` the folder of a run; only commands that take either a file or a
folder (``audit``, ``inspect``, ``import``) have a positional argument. What a run keeps is set by ``key.sub=value``,
what concerns one call alone by an option.

Exit codes: 0 done; 1 an audit found a leak, or a benchmark's two sides disagree; 2 a mistake in the request (one
message, no traceback); 3 a benchmark needs a GPU; 75 SIGTERM or SIGUSR1 stopped training, which was saved; 130
Ctrl-C (training was saved); 141 the reader of the output closed the pipe.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import sys
import warnings

from neuroformer import __version__
from neuroformer.cli import bench, demo, explain
from neuroformer.cli.recordings import audit, doctor, import_original, inspect
from neuroformer.cli.shared import INTERRUPTED, exit_code, keep_freed_memory
from neuroformer.cli.studies import ablate, compare, domains, fewshot, finetune, folds, probe
from neuroformer.cli.trained import (
    attend,
    cosmooth,
    decode,
    embed,
    evaluate,
    fields,
    forecast,
    generate,
    hub,
    report,
    stimuli,
)
from neuroformer.cli.training import adapt, sweep, train
from neuroformer.messages import code_for, code_of
from neuroformer.recording.names import printable
from neuroformer.training.stopping import Stopped

COMMANDS = (
    demo,
    audit,
    train,
    adapt,
    sweep,
    evaluate,
    generate,
    decode,
    forecast,
    cosmooth,
    folds,
    domains,
    finetune,
    fewshot,
    attend,
    fields,
    stimuli,
    probe,
    compare,
    ablate,
    embed,
    report,
    hub,
    inspect,
    doctor,
    explain,
    bench,
    import_original,
)


class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        wrong = re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message)
        near = difflib.get_close_matches(wrong[1], re.findall(r"\w+", wrong[2]), n=1) if wrong else []
        message += f"; did you mean '{near[0]}'?" if near else ""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}\nSee: {self.prog} --help\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = _parse(argv)
    if not sys.stderr.isatty():  # a log file: progress bars would fill it
        os.environ.setdefault("TQDM_MININTERVAL", "10")
    keep_freed_memory()
    warnings.showwarning = _warn
    try:
        return args.do(args) or 0
    except Stopped as e:  # within folds, ablations and the like, which train more than one run
        print(f"stopped by {e}; the same command goes on", file=sys.stderr)
        return exit_code(e)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (MemoryError, RuntimeError) as e:
        if args.debug or not _is_memory(e):
            raise
        print(f"neuroformer: {_out_of_memory(e)}{_why('memory')}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as e:
        if args.debug:
            raise
        print(printable(f"neuroformer: {_message(e)}", keep="\n\t") + _why(code_of(e)), file=sys.stderr)
        return 2
    finally:
        _say_without_interval()


_NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc")


def _is_memory(error: Exception) -> bool:
    """Whether NumPy, PyTorch on a CPU or PyTorch on a GPU found no room."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _out_of_memory(error: Exception) -> str:
    lines = str(error).splitlines()
    return (
        f"out of memory{f' ({lines[0].strip()})' if lines else ''}. What a command needs grows with units, bins and samples: choose units "
        "(recording.units), give fewer or shorter samples (generate.samples, generate.max_seconds), fewer windows (--windows) or a "
        "smaller batch (train.batch_size), or free some memory"
    )


def _why(code: str) -> str:
    return f"\n  more on this: neuroformer explain {code}" if code else ""


_SHOWN = warnings.showwarning
_WITHOUT_INTERVAL: list[str] = []  # names of the scores of which that was warned, of this command


def _warn(message, category, filename, lineno, file=None, line=None) -> None:
    """Our own warnings with their code, and without the line of code that they come from; that scores have no interval is said
    once, and which others at the end."""
    code = code_for("", str(message))
    if category.__name__ == "FewBlocksWarning":
        _WITHOUT_INTERVAL.append(str(message).split(":")[0].removeprefix("no 95 % interval of "))
        if len(_WITHOUT_INTERVAL) > 1:
            return
    if code:
        print(f"neuroformer: warning: {message}{_why(code)}", file=file or sys.stderr)
    else:
        _SHOWN(message, category, filename, lineno, file, line)


def _say_without_interval() -> None:
    others = list(dict.fromkeys(_WITHOUT_INTERVAL[1:]))
    if others:
        few = ", ".join(others[:6]) + (f" and {len(others) - 6} more" if len(others) > 6 else "")
        print(f"neuroformer: warning: for the same reason there is none of {few}", file=sys.stderr)
    _WITHOUT_INTERVAL.clear()


ADVICE = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "a file was expected",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EROFS: "choose another place",
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f), or choose another place",
}


def _message(error: Exception) -> str:
    """Our own messages as they are; those of the operating system with what to do."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    advice = ADVICE.get(error.errno or 0)
    where = "" if error.filename is None else f"{error.filename}: "
    return where + error.strerror.lower() + ("" if advice is None else f"; {advice}")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Accepts overrides anywhere; argparse alone would refuse them after an option."""
    top = parser()
    args, rest = top.parse_known_args(argv)
    if any(r.startswith("-") or "=" not in r or not hasattr(args, "override") for r in rest):
        hint = "; settings are given as key.sub=value" if hasattr(args, "override") else ""
        top.error(f"{args.command}: unrecognized arguments: {' '.join(rest)}{hint}")
    if rest:
        args.override = [*args.override, *rest]
    return args


def parser() -> argparse.ArgumentParser:
    common = Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument("--quiet", action="store_true", help="no progress bars")
    top = Parser(prog="neuroformer", description="One generative model of spikes, video and behavior.")
    top.add_argument("--version", action="version", version=f"neuroformer {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, help: str, epilog: str = "") -> argparse.ArgumentParser:
        p = commands.add_parser(name, parents=[common], help=help, description=help, epilog=epilog)
        p.set_defaults(do=run)
        return p

    for module in COMMANDS:
        module.add(command)
    return top

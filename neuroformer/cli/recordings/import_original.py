"""``neuroformer import``."""

from __future__ import annotations

from pathlib import Path

import yaml

from neuroformer.cli.shared import refuse_unwritable
from neuroformer.config import ConfigError
from neuroformer.files import write_atomic


def add(command) -> None:
    help = "Move over from the original Neuroformer: its YAML becomes a configuration, its folder a recording."
    p = command("import", run, help)
    p.add_argument("source", type=Path, help="its mconf.yaml, or its folder of .npy files")
    p.add_argument("--data", type=Path, metavar="FOLDER", help="its .npy folder, named in the configuration")
    p.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="what to write: .yaml of a YAML (default: imported.yaml); .npz, .nwb, .h5 or .recording of a folder",
    )
    p.add_argument("--overwrite", action="store_true", help="replace a file that is already there")


def run(args) -> None:
    from neuroformer.recording.formats.original import refuse_pickle

    if args.source.suffix.lower() in (".pkl", ".pickle", ".p"):
        refuse_pickle(args.source)
    if args.source.is_dir():
        _folder(args)
    else:
        _config(args)


def _free(path: Path, overwrite: bool) -> Path:
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is already there; give --out another name, or --overwrite")
    refuse_unwritable(path.parent, "--out")
    return path


def _folder(args) -> None:
    from neuroformer.recording import open_recording
    from neuroformer.recording.open import write_recording

    rec = open_recording(args.source)
    print(rec)
    if args.out is None:
        print(f"it opens as it is: recording.path={args.source}; --out FILE writes a copy in another format")
        return
    print(f"written to {write_recording(rec, _free(args.out, args.overwrite))}")


def _seen_from(file: Path, data: Path) -> str:
    """A path as it stands in a file: relative to it if it lies beside or below."""
    folder, data = file.absolute().parent, data.absolute()
    return str(data.relative_to(folder) if data.is_relative_to(folder) else data)


def _config(args) -> None:
    from neuroformer.config.original import read_original_config, translate

    done = translate(read_original_config(args.source))
    out = _free(args.out or Path("imported.yaml"), args.overwrite)
    tree = dict(done.tree)
    if args.data is not None:
        from neuroformer.recording import open_recording

        rec = open_recording(args.data)  # fails now if the folder cannot be read
        tree = {"recording": {"path": _seen_from(out, args.data)}, **tree}
        print(rec)
    head = (
        f"# From {args.source.name} of the original Neuroformer. Its random 50 ms windows are no split here:\n"
        "# see split: in configs/reference.yaml, and run neuroformer audit on this file.\n"
    )
    write_atomic(out, (head + yaml.safe_dump(tree, sort_keys=False)).encode())
    width = max(len(k) for k in [t[0] for t in done.translated] + [d[0] for d in done.dropped])
    print("translated")
    for old, key, value in done.translated:
        print(f"  {old:<{width}}  {key} = {value}")
    print("no counterpart")
    for old, why in done.dropped:
        print(f"  {old:<{width}}  {why}")
    print(f"written to {out}" + ("" if args.data else "; set recording.path in it to your recording"))

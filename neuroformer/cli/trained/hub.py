"""``neuroformer push`` and ``neuroformer pull``."""

from __future__ import annotations

from pathlib import Path


def add(command) -> None:
    help = "Put a trained model onto a model hub, with a card written from it; the recording stays here."
    p = command(
        "push", push, help, "Log in first, as huggingface_hub says: hf auth login. HF_ENDPOINT names another hub."
    )
    p.add_argument("folder", type=Path, metavar="RUN", help="folder of a trained run, e.g. runs/demo")
    p.add_argument("name", metavar="OWNER/NAME", help="of the repository, which is made if it is not there")
    p.add_argument("--licence", required=True, metavar="ID", help="of the weights, as the hub names it, e.g. cc-by-4.0")
    p.add_argument("--public", action="store_true", help="a repository that is made is for everybody to see")

    help = "Fetch a trained model from a model hub; every file is compared with its digest, and nothing of it is run."
    p = command("pull", pull, help, "HF_ENDPOINT names another hub.")
    p.add_argument("name", metavar="OWNER/NAME", help="of the repository")
    p.add_argument("--run", type=Path, metavar="FOLDER", help="where the run goes (default: runs/NAME)")
    p.add_argument("--revision", metavar="ID", help="a branch, a tag or a commit")


def push(args) -> None:
    from neuroformer import hub

    print(f"pushed to {hub.push(args.folder, args.name, licence=args.licence, private=not args.public)}")


def pull(args) -> None:
    from neuroformer import hub

    bundle = hub.pull(args.name, args.run, revision=args.revision)
    print(bundle)
    print(f"\nin {bundle.path}; commands that need its recording ask for recording.path=FILE")

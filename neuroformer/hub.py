"""Trained models on a model hub: a bundle is the repository, with a card that is written from it.

What comes from there is tensors and JSON. Loading it runs no code, and every file is compared with its digest first.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from neuroformer.bundle.bundle import Bundle, RecordingEntry, read_bundle
from neuroformer.bundle.checks import BundleError
from neuroformer.bundle.export import SCORES, check, export
from neuroformer.config import ConfigError
from neuroformer.data.splits import PARTS
from neuroformer.files import read_values, replacing
from neuroformer.recording.validation import optional
from neuroformer.report.panels.summary import summary

FILES = ["bundle.json", SCORES, "README.md", "weights/*.safetensors", "recordings/*.json"]  # nothing else is asked for


def push(
    run: str | Path,
    name: str,
    *,
    licence: str,
    private: bool = True,
    endpoint: str | None = None,
    token: str | None = None,
) -> str:
    """Put a run's bundle into a repository of a hub, which is made if it is not there; returns its address.

    The recording stays here. Of paths in the configuration only names of files go along.

    Parameters
    ----------
    run : folder of a trained run
    name : of the repository, ``owner/name``
    licence : of the weights, as the hub names it, e.g. "cc-by-4.0"
    private : of a repository that is made
    endpoint, token : of the hub (default: as huggingface_hub is set up)

    Raises
    ------
    BundleError
        No run there, or one whose files are not as they were saved.
    ConfigError
        No licence, or the hub refused.
    """
    if not licence.strip():
        raise ConfigError("say under which licence others may use the weights, as the hub names it, e.g. cc-by-4.0")
    hub, bundle = _hub(), read_bundle(run)
    api = hub.HfApi(endpoint=endpoint, token=token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        export(bundle, folder)
        (folder / "README.md").write_text(card(bundle, name, licence.strip(), read_values(bundle.path / SCORES)))
        try:
            made = api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message="A bundle of neuroformer")
        except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, hub.errors.LocalTokenNotFoundError) as e:
            raise ConfigError(f"the hub refused '{name}': {_first_line(e)}") from None
    return str(made)


def pull(
    name: str,
    folder: str | Path | None = None,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Bundle:
    """Fetch a bundle from a hub into a folder that is not there yet; afterwards it is a run.

    Parameters
    ----------
    name : of the repository, ``owner/name``
    folder : default ``runs/<name>``
    revision : a branch, tag or commit
    endpoint, token : of the hub (default: as huggingface_hub is set up)

    Raises
    ------
    BundleError
        A file that is missing or not as it was saved, by name; nothing is left in the folder then.
    ConfigError
        The folder is there, or the hub has no such repository.
    """
    hub, place = _hub(), Path("runs", name.rpartition("/")[2]) if folder is None else Path(folder)
    if place.exists():
        raise ConfigError(f"{place} is already there; give another folder")
    with replacing(place) as part:
        try:
            hub.snapshot_download(
                name, revision=revision, local_dir=part, allow_patterns=FILES, endpoint=endpoint, token=token
            )
        except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, hub.errors.LocalEntryNotFoundError) as e:
            raise ConfigError(f"the hub gave no '{name}': {_first_line(e)}") from None
        shutil.rmtree(part / ".cache", ignore_errors=True)  # where the library keeps its own notes
        try:
            check(part)
        except BundleError as e:
            raise BundleError(f"{name}: {str(e).replace(f'{part}/', '')}") from None
    return read_bundle(place)


def _hub() -> ModuleType:
    return optional("huggingface_hub", "hub", "a model hub")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def card(bundle: Bundle, name: str, licence: str, scores: dict[str, Any]) -> str:
    """The model card, Markdown: what it was trained on, how it was split, scores with baselines and intervals, limits."""
    c = bundle.config
    head = f"---\nlicense: {licence}\nlibrary_name: neuroformer\ntags: [neuroscience, spikes, neuroformer]\n---\n"
    told = f"\n# {name}\n\nA generative model of neural recordings, trained with neuroformer {bundle.versions['neuroformer']}.\n"
    load = f"\n## Use\n\n```bash\npip install 'neuroformer[hub]'\nneuroformer pull {name}\nneuroformer inspect runs/{name.rpartition('/')[2]}\n```\n"
    data = "\n## Data\n\n" + "".join(_of_recording(r) for r in bundle.recordings)
    sees = f"""
## What it sees

Windows of {c.window.current:g} s in bins of {c.window.dt:g} s; {c.window.past:g} s of past spikes, {c.window.frames:g} s of frames; inputs: \
{", ".join(v.name for v in c.inputs) or "none"}; targets: {", ".join(t.name for t in c.targets) or "none"}.
"""
    return head + told + load + data + sees + _score_table(scores, [t.name for t in c.targets]) + LIMITS


LIMITS = """
## Limits

- It works on the units that it was trained on. Another recording joins by `neuroformer adapt`.
- Scores are of held-out parts of the same recordings; they say nothing about other days or animals.
- Its maps are statements about the model. They are no wiring diagram.
- The recording is not part of this repository: commands that need it ask for `recording.path`.
"""


def _of_recording(entry: RecordingEntry) -> str:
    seconds = ", ".join(
        f"{part} {sum(b - a for a, b in entry.split[part]):,.0f} s" for part in PARTS if part in entry.split
    )
    found = entry.split.get("audit", {}).get("findings", [])
    leaks = sorted({f["name"] for f in found if f["severity"] == "leak"})
    leak = f" **Its split leaks ({', '.join(leaks)}), which was allowed: its scores are too good.**" if leaks else ""
    return f"- {entry.name}: {len(entry.units)} units; {seconds}; scores claim to generalise over {entry.split['claim']}.{leak}\n"


def _score_table(scores: dict[str, Any], targets: list[str]) -> str:
    rows = summary(scores, targets)["rows"]
    if not rows:
        return "\n## Scores\n\nNone were computed.\n"
    lines = []
    for row in rows:
        for p in row["points"]:
            interval = f" ({p['low']:.3f} to {p['high']:.3f})" if "low" in p else ""
            lines.append(f"| {row['name']} | {p['name']} | {p['value']:.3f}{interval} |")
    return (
        "\n## Scores on held-out data (95 % interval)\n\n| score | of | value |\n|---|---|---|\n"
        + "\n".join(lines)
        + "\n"
    )

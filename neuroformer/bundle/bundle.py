"""A trained model as one folder that describes itself: safetensors and JSON, never pickle.

``bundle.json``: format version, configuration; units, normalisation and split of every recording (with the split's
digest and the findings of the audit); metrics; versions; the digest of each weights file and of the JSON itself.
``weights/NAME.safetensors``: the best weights of each objective.

Of several recordings, ``recordings/PLACE.json`` holds what is known of each, and ``weights/NAME/PLACE.safetensors`` what is its
own; the files above hold what they share. So one of them is opened without reading the others.
"""

from __future__ import annotations

import difflib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from neuroformer.bundle.checks import MOST_BYTES, BundleError, check_recording, check_tree, checked_file, tree_digest
from neuroformer.bundle.cohort import of_recording
from neuroformer.config import Config, ConfigError, from_dict, member_config
from neuroformer.data.scales import Normalization
from neuroformer.model.network import Neuroformer
from neuroformer.recording import Recording
from neuroformer.recording.names import natural
from neuroformer.shown import Shown

FORMAT, FORMAT_OF_ONE = 3, 2  # of several recordings in one run, and of a single one
READ_BY = {1: "0.1"}  # formats that this version does not read, and the version that does
CHECKPOINT = "checkpoint.safetensors"  # of a run that has not ended
LIKELIHOOD = "likelihood"
STIMULUS = "stimulus_r"  # how expected counts follow what units answered to clips, where there are frames
MOST_SHOWN = 16  # recordings of a bundle that are described one by one


@dataclass
class RecordingEntry:
    """What a model knows about one of its recordings.

    Attributes
    ----------
    name : of the recording
    units : ids, in the order of the model's rows
    normalization : from :func:`neuroformer.data.normalization.fit_normalization`
    split : ``sha256``, ``claim``, the intervals (seconds) of each part
    lacks : frames and behavior variables that the run reads and this recording does not have
    """

    name: str
    units: list[str]
    normalization: Normalization
    split: dict[str, Any]
    lacks: list[str] = field(default_factory=list)


class _Entries(Sequence[RecordingEntry]):
    """The entries of several recordings, each read from its own file when it is asked for.

    Attributes
    ----------
    listed : by recording, ``name``, the digest ``sha256`` of its file, and of its ``weights``, by objective
    """

    def __init__(self, folder: Path, listed: list[dict[str, Any]]):
        self.folder, self.listed = folder, listed

    def __len__(self) -> int:
        return len(self.listed)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        listed = self.listed[place]
        file = entry_file(self.folder, place % len(self))
        tree = json.loads(checked_file(file, listed["sha256"]).read_text())
        check_recording(tree, str(file))
        return _entry_of(tree)


def entry_file(folder: Path, place: int) -> Path:
    """What is known of one of several recordings."""
    return folder / "recordings" / f"{place}.json"


def own_file(folder: Path, objective: str, place: int) -> Path:
    """The weights that are one of several recordings' own."""
    return folder / "weights" / objective / f"{place}.safetensors"


@dataclass
class Bundle(Shown):
    """The content of a bundle's JSON, and its folder.

    If there are several recordings, :meth:`of` gives the bundle of one: ``place`` is its index, and ``config`` is as
    if it had been trained alone.
    """

    path: Path
    config: Config
    recordings: Sequence[RecordingEntry]
    metrics: dict[str, Any]
    versions: dict[str, str]
    digests: dict[str, str]
    place: int | None = None
    whole: Bundle | None = None

    def of(self, recording: str = "") -> Bundle:
        """The bundle of one recording, by name; without a name, of the only recording.

        Raises
        ------
        BundleError
            There is none of this name, or several and no name was given.
        """
        names = self.names
        if recording and recording not in names:
            near = difflib.get_close_matches(recording, names, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise BundleError(f"{self.path} holds no recording '{recording}'; {hint}it has: {', '.join(names)}")
        if self.place is not None:
            return self
        place = names.index(recording) if recording else 0
        entry = self.recordings[place] if recording else self.entry
        config = member_config(self.config, place, entry.lacks)
        return replace(self, recordings=[entry], config=config, place=place, whole=self)

    @property
    def names(self) -> list[str]:
        """Of the recordings."""
        known = self.recordings
        return [m["name"] for m in known.listed] if isinstance(known, _Entries) else [m.name for m in known]

    @property
    def results(self) -> Path:
        """Where the results of its recording go: the run's folder or, if the run has several, one inside it."""
        several = self.whole is not None and len(self.whole.recordings) > 1
        return self.path / self.recording.replace(":", "_") if several else self.path

    @property
    def entry(self) -> RecordingEntry:
        """The one recording.

        Raises
        ------
        BundleError
            There are several.
        """
        if len(self.recordings) > 1:
            names = ", ".join(self.names)
            raise BundleError(f"{self.path} holds several recordings ({names}); say which with --recording")
        return self.recordings[0]

    @property
    def recording(self) -> str:
        return self.entry.name

    @property
    def units(self) -> list[str]:
        return self.entry.units

    @property
    def normalization(self) -> Normalization:
        return self.entry.normalization

    @property
    def split(self) -> dict[str, Any]:
        return self.entry.split

    def __repr__(self) -> str:
        c = self.config
        values = "\n".join(f"    {k}: {v:.4g}" for k, v in self.metrics.items() if isinstance(v, (int, float)))
        versions = ", ".join(f"{k} {v}" for k, v in self.versions.items())
        return (
            f"Bundle {self.path}\n"
            + (f"  {len(self.names):,} recordings: {', '.join(self.names)}\n" if len(self.names) > MOST_SHOWN else "")
            + "".join(
                f"  recording {m.name}: {len(m.units)} units{self._lacks(m)}; split by {c.split.by}, claims {m.split['claim']}, "
                f"sha256 {m.split['sha256'][:12]}\n  audit     {self._audit(m)}\n"
                for m in (self.recordings if len(self.names) <= MOST_SHOWN else ())
            )
            + self._backbone()
            + f"  window    {c.window.current:g} s in bins of {c.window.dt:g} s, past {c.window.past:g} s, "
            f"frames {c.window.frames:g} s\n"
            f"  inputs    {', '.join(v.name for v in c.inputs) or 'none'}; "
            f"targets {', '.join(t.name for t in c.targets) or 'none'}\n"
            f"  model     width {c.model.width}, {c.model.heads} heads; weights {', '.join(self.digests)}\n"
            f"  versions  {versions}\n  metrics\n{values}"
        )

    def _backbone(self) -> str:
        """The pretrained network that encodes frames; a frozen one is not part of the bundle."""
        frames = self.recordings[0].normalization.frames
        found = None if frames is None else frames.backbone
        if found is None:
            return ""
        where = "fine-tuned" if self.config.model.frame_encoder.finetune else "frozen, not in this folder"
        return f"  backbone  {found.id} ({found.model_type}, sha256 {found.sha256[:12]}), {where}\n"

    @staticmethod
    def _lacks(entry: RecordingEntry) -> str:
        return f", without {', '.join(entry.lacks)}" if entry.lacks else ""

    @staticmethod
    def _audit(entry: RecordingEntry) -> str:
        """What the audit found before training, in one line."""
        found = entry.split.get("audit", {}).get("findings")
        if found is None:
            return "none was made"
        names = {s: sorted({f["name"] for f in found if f["severity"] == s}) for s in ("leak", "warning")}
        leaks = f"THE SPLIT LEAKS ({', '.join(names['leak'])}), and this was allowed" if names["leak"] else "no leak"
        return leaks + (f"; warnings: {', '.join(names['warning'])}" if names["warning"] else "")


def read_bundle(path: str | Path) -> Bundle:
    """Read a bundle's JSON.

    Raises
    ------
    BundleError
        No bundle there, not JSON, changed since it was written, of a newer format, or with values that no run writes.
    """
    path = Path(path)
    file = path / "bundle.json"
    if not file.is_file():
        if (path / CHECKPOINT).is_file():
            raise BundleError(
                f"the run in {path} has not ended; continue it with: neuroformer train --run {path} --resume"
            )
        raise BundleError(f"no bundle at {path} (looked for {file}); {_nearest_bundle(path)}")
    if file.stat().st_size > MOST_BYTES:
        raise BundleError(f"{file} has {file.stat().st_size >> 20:,} MB; no bundle has more than {MOST_BYTES >> 20} MB")
    try:
        tree = json.loads(file.read_text())
        if tree["format"] in READ_BY:
            older = READ_BY[tree["format"]]
            raise BundleError(
                f"{file} has format {tree['format']}, which neuroformer {older} reads and this version does not: install "
                f"neuroformer=={older}, or train it again"
            )
        if tree["format"] > FORMAT:
            raise BundleError(
                f"{file} has format {tree['format']}, this version reads up to {FORMAT}; update neuroformer"
            )
        if tree.pop("sha256") != tree_digest(tree):
            raise BundleError(f"{file} is not as it was saved (its SHA-256 differs): truncated or changed")
        check_tree(tree)
        listed, several = tree["recordings"], len(tree["recordings"]) > 1
        if several and tree["format"] < FORMAT:
            raise BundleError(f"{file} holds several recordings as an earlier version kept them; train it again")
        return Bundle(
            path,
            _config_of(tree["config"], file),
            _Entries(path, listed) if several else [_entry_of(m) for m in listed],
            tree["metrics"],
            tree["versions"],
            tree["weights_sha256"],
        )
    except BundleError:
        raise
    except RecursionError:
        raise BundleError(f"{file} is damaged: it is nested too deeply for a bundle") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as e:
        raise BundleError(f"{file} is damaged: {type(e).__name__} {e}") from None
    except ValueError as e:
        raise BundleError(f"{file} is no bundle of a run: {e}") from None


def _entry_of(tree: dict[str, Any]) -> RecordingEntry:
    values: dict[str, Any] = tree | {"normalization": Normalization.from_dict(tree["normalization"])}
    return RecordingEntry(**values)


def _nearest_bundle(path: Path) -> str:
    """What to give in place of a folder without a bundle."""
    above = path.absolute().parent / "bundle.json"
    if path.is_dir() and above.is_file():
        return f"the run is {path.parent}, its recordings are named by --recording"
    seeds = sorted((file.parent for file in path.glob("seed_*/bundle.json")), key=natural)
    if seeds:
        return f"give one of its {len(seeds)} seeds, say {seeds[0]}"
    return "train one with: neuroformer train --config ..."


def _config_of(tree: dict[str, Any], file: Path) -> Config:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # settings that do nothing any more are no news to whoever uses a run
            return from_dict(tree)
    except ConfigError as e:
        raise BundleError(f"{file} was written by another version of neuroformer, train it again: {e}") from None


def checked_weights(bundle: Bundle, objective: str) -> Path:
    """The file with the best weights of one objective, after checking its digest.

    Raises
    ------
    BundleError
        No such objective, or a file that is missing, truncated or not the one that was saved.
    """
    if objective not in bundle.digests:
        raise BundleError(f"{bundle.path} has no weights for '{objective}'; it has: {', '.join(bundle.digests)}")
    return checked_file(bundle.path / "weights" / f"{objective}.safetensors", bundle.digests[objective])


def checked_own_weights(bundle: Bundle, objective: str, place: int) -> Path:
    """The file with the best weights of one objective that are one of several recordings' own, after checking its digest."""
    known = bundle.recordings
    assert isinstance(known, _Entries)
    return checked_file(own_file(bundle.path, objective, place), known.listed[place]["weights"][objective])


def load_model(bundle: Bundle | Path | str, objective: str = LIKELIHOOD, recording: str = "") -> Neuroformer:
    """A working model on the CPU, in evaluation mode, with the best weights of one objective.

    Parameters
    ----------
    bundle : Bundle or the folder of a run
    objective : str
        ``likelihood`` or the name of a target: the weights that predicted spikes, or this target, best on validation.
    recording : str
        Of a bundle of several recordings, for which.

    Raises
    ------
    BundleError
        No such objective or recording, or weights that are missing, damaged or of another model.
    """
    bundle = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    one = bundle.of(recording)
    whole = one.whole or one
    file = checked_weights(whole, objective)
    own = checked_own_weights(whole, objective, one.place or 0) if len(whole.recordings) > 1 else None
    _refuse_absurd(file, one, file.stat().st_size + (own.stat().st_size if own else 0))
    model = Neuroformer(one.config, len(one.units), one.normalization)
    try:
        tensors = load_file(file)
        if own is not None:
            tensors = of_recording(tensors, load_file(own), model, whole.config)
        model.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, KeyError) as e:
        raise BundleError(f"{own or file} does not fit the model that the bundle describes: {e}") from None
    return model.eval()


def _refuse_absurd(file: Path, bundle: Bundle, size: int) -> None:
    """Refuse a configuration whose matrices alone would not fit into the file of weights, before they take memory."""
    width = bundle.config.model.width
    if 4 * width * max(width, len(bundle.units)) > size:
        raise BundleError(
            f"{file} does not fit the model that the bundle describes: model.width is {width:,} for {len(bundle.units):,} "
            f"units, and the file holds {size / 1024:,.0f} KB"
        )


def check_units(bundle: Bundle, rec: Recording) -> None:
    """Refuse a recording whose units are not the bundle's.

    Raises
    ------
    BundleError
    """
    if rec.unit_ids == bundle.units:
        return
    theirs, ours = set(rec.unit_ids), set(bundle.units)
    missing = sorted(ours - theirs)[:5]
    detail = f"missing {', '.join(missing)}" if missing else "they come in another order or there are more"
    raise BundleError(
        f"recording '{rec.name}' has {rec.num_units} units, the bundle was trained on {len(bundle.units)} of "
        f"'{bundle.recording}' ({detail}); a model works on the units that it was trained on"
    )

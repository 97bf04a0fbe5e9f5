"""A run in a notebook: the report's figures as matplotlib axes, and the run itself as a table of its scores."""

from __future__ import annotations

import io
import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuroformer.analysis.fields import centers
from neuroformer.analysis.maps import Map, load_maps
from neuroformer.audit import audit
from neuroformer.bundle.bundle import read_bundle
from neuroformer.files import read_values
from neuroformer.recording import Recording, open_recording
from neuroformer.report import behavior, figures
from neuroformer.report.fields import receptive_fields, stimuli
from neuroformer.report.html import write_report
from neuroformer.report.panels.seeing import cluster_order
from neuroformer.report.panels.summary import summary
from neuroformer.report.run import open_parts
from neuroformer.report.simulation import simulation_panel
from neuroformer.simulation_scores.psth import compare_psth
from neuroformer.simulation_scores.recorded import recorded_trials, simulated_trials


class Panel(tuple):
    """The matplotlib axes of one figure, which is shown if they are the last line of a cell."""

    @classmethod
    def of(cls, what: Figure | Axes | np.ndarray) -> Panel:
        axes = what.axes if isinstance(what, Figure) else np.atleast_1d(np.asarray(what, object)).ravel()
        return cls(axes)

    @property
    def figure(self) -> Figure:
        return self[0].figure

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.figure.savefig(out, format="png", dpi=110)
        return out.getvalue()


class RunView:
    """What ``neuroformer report`` shows of a run, one figure at a time.

    Parameters
    ----------
    folder : of a trained run
    recording : which one, if the run has several
    path : where the recording lies now, if it has moved

    Raises
    ------
    BundleError
        No run there, or several recordings and none was named.
    FileNotFoundError
        From a figure whose file the run does not have; the message names the command that makes it.
    """

    def __init__(self, folder: str | Path, recording: str = "", path: str | Path | None = None):
        import dataclasses

        self.bundle = read_bundle(folder).of(recording)
        self.folder = self.bundle.results
        self.config = self.bundle.config
        if path is not None:
            moved = dataclasses.replace(self.config.recording, path=str(path))
            self.config = dataclasses.replace(self.config, recording=moved)
        self.rec, self.split = open_parts(self.bundle, self.config)

    @property
    def scores(self) -> dict[str, Any]:
        """Everything in summary.json."""
        return read_values(self.folder / "summary.json")

    @property
    def maps(self) -> dict[str, Map]:
        """Maps by name, those of ``neuroformer attend`` and of ``neuroformer fields``."""
        found = load_maps(self._file("maps.npz", "attend"))
        fields = self.folder / "fields.npz"
        return found | (load_maps(fields) if fields.exists() else {})

    def audit(self) -> Panel:
        """Rates over time, the split as a strip under them, and tokens per window."""
        return Panel.of(figures.audit_overview(audit(self._recording(), self.config, self.split)))

    def learning(self) -> Panel:
        return Panel.of(figures.learning_curve(self._file("log/metrics.csv", "train")))

    def rasters(self, sequence: int = 0) -> Panel:
        """Recorded and simulated spikes of one simulated sequence."""
        return Panel.of(figures.rasters(self._recording(), self._simulated(), sequence))

    def psths(self, num_units: int = 6) -> Panel:
        rec = self._recording()
        assert self.split is not None
        found = compare_psth(rec, self.split, self._simulated(), self.config.generate.split)
        if found is None:
            raise FileNotFoundError("no stimulus was repeated, so there are no PSTHs")
        return Panel.of(figures.psths(found, rec.unit_ids, num_units))

    def statistics(self) -> Panel:
        """The simulation beside data: rates, pair correlations, spectrum, drift, and every score with its floors."""
        scores = json.loads(self._file("simulation_scores.json", "generate --score").read_text())
        g, rec = self.config.generate, self._recording()
        assert self.split is not None
        parts = recorded_trials(rec, self.split, g.split, g.max_seconds)
        return Panel.of(
            simulation_panel(_nan_for_null(scores), simulated_trials(self._simulated(), parts.held_out), parts.held_out)
        )

    def decoding(self, target: str | None = None) -> Panel:
        name = target or (self.config.targets[0].name if self.config.targets else "")
        with np.load(self._file(f"decode_{name}.npz", "decode")) as file:
            others = {k: file[k] for k in ("model", "ridge") if k in file.files}
            scale = self.bundle.normalization.targets[name]
            columns = scale.columns or [scale.titled(name)]
            trace = figures.decode_trace(file["times"], file["true"], others, name, columns, period=scale.period)
            return Panel.of(trace)

    def fewshot(self, target: str | None = None) -> Panel:
        name = target or (self.config.targets[0].name if self.config.targets else "")
        tree = json.loads(self._file(f"fewshot_{name}.json", "fewshot").read_text())
        return Panel.of(behavior.fewshot_curve(tree["rows"], name))

    def connectivity(self, name: str = "knock-out", *, sort: str = "cluster", null: bool = False) -> Panel:
        """One map of units by units; ``sort``: cluster, unit, rate or a column of the units table; ``null``: z scores."""
        from neuroformer.report.collect import unit_orders

        found = self.maps[name]
        orders = {"cluster": cluster_order(found.pairs())} | ({} if self.rec is None else unit_orders(self.rec))
        if sort not in orders:
            raise ValueError(f"there is no order '{sort}'; known: {', '.join(orders)}")
        return Panel.of(matrix(found, orders[sort], null=null))

    def frames(self, window: int = 0) -> Panel:
        """The last frame that a window saw, with its tokens' attention laid over it."""
        with np.load(self._file("frame_attention.npz", "attend")) as file:
            return Panel.of(overlay(file["images"][window], file["attention"][window], file["extent"]))

    def fields(self) -> Panel:
        found = load_maps(self._file("fields.npz", "fields"))["frame sensitivity"]
        return Panel.of(receptive_fields(found, centers(found)))

    def stimuli(self) -> Panel:
        """Most exciting inputs."""
        with np.load(self._file("mei.npz", "fields")) as file:
            return Panel.of(stimuli(file["contrast"], [str(u) for u in file["unit_ids"]]))

    def report(self) -> Path:
        """Write the whole page; returns its path."""
        return write_report(self.folder, self.bundle, self.config, self.folder / "report.html")[0]

    def _file(self, name: str, command: str) -> Path:
        path = (self.bundle.path if name.startswith("log/") else self.folder) / name
        if not path.exists():
            raise FileNotFoundError(f"{path} is absent; neuroformer {command} makes it")
        return path

    def _recording(self) -> Recording:
        if self.rec is None:
            raise FileNotFoundError("the recording of this run is not at hand; say where it is: RunView(run, path=...)")
        return self.rec

    def _simulated(self) -> Recording:
        return open_recording(self._file("simulated.npz", "generate"))

    def __repr__(self) -> str:
        return f"RunView of {self.folder}: {self.bundle!r}"

    def _repr_html_(self) -> str:
        rows = summary(self.scores, [t.name for t in self.config.targets])["rows"]
        cell = lambda p: (
            f"{p['name']} {p['value']:.3g}" + (f" ({p['low']:.3g} to {p['high']:.3g})" if "low" in p else "")
        )
        body = "".join(
            f"<tr><td>{escape(r['name'])}</td><td>{escape('; '.join(cell(p) for p in r['points']))}</td></tr>"
            for r in rows
        )
        return f"<p><b>{escape(str(self.folder))}</b>: {escape(self.bundle.recording)}</p><table>{body}</table>"


def _nan_for_null(tree: Any) -> Any:
    """Turn the nulls of JSON back into NaN, which is not drawn."""
    if isinstance(tree, dict):
        return {k: _nan_for_null(v) for k, v in tree.items()}
    if isinstance(tree, list):
        return [_nan_for_null(v) for v in tree]
    return float("nan") if tree is None else tree


def matrix(found: Map, order: list[int] | None = None, *, null: bool = False, ax: Axes | None = None) -> Axes:
    """A map of units by units as an image, columns act on rows; ``null``: distance from the null in its spreads."""
    if ax is None:
        ax = Figure(figsize=(6, 5), layout="constrained").subplots()
    values = np.array(found.z() if null else found.pairs(), np.float64)
    np.fill_diagonal(values, np.nan)
    order = list(range(len(values))) if order is None else order
    values = values[np.ix_(order, order)]
    most = float(np.nanquantile(np.abs(values), 0.998)) or 1.0
    signed = bool(np.nanmin(values) < 0)
    image = ax.imshow(values, cmap="RdBu_r" if signed else "cividis", vmin=-most if signed else 0, vmax=most)
    ax.figure.colorbar(image, ax=ax, label="z against the null" if null else found.unit)
    ax.set(xlabel="acts", ylabel="is acted on", title=found.name)
    return ax


def overlay(image_HX: np.ndarray, attention: np.ndarray, extent: np.ndarray, ax: Axes | None = None) -> Axes:
    """A frame with what attends to each of its places laid over it; ``extent``: top, left, bottom, right in pixels."""
    if ax is None:
        ax = Figure(figsize=(5, 4.5), layout="constrained").subplots()
    height, width = image_HX.shape
    ax.imshow(image_HX, cmap="gray", extent=(0, width, height, 0))
    top, left, bottom, right = extent
    heat = ax.imshow(attention, cmap="magma", alpha=0.5, extent=(left, right, bottom, top), interpolation="bilinear")
    ax.figure.colorbar(heat, ax=ax, label="share of the tokens' attention")
    ax.set(xlim=(0, width), ylim=(height, 0))
    return ax

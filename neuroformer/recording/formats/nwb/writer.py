"""Recordings to NWB files: standard types where NWB has them, one scratch entry for the rest.

Spikes and units go to ``units``, areas to ``electrodes`` as well, trials to ``trials``, the domain and other
intervals to ``intervals``, behavior to ``processing/behavior/BehavioralTimeSeries``, traces to
``processing/ophys``, frames to ``stimulus`` (each shown once: an ImageSeries; shown again: an Images bank
with an IndexSeries). The scratch entry ``neuroformer`` (JSON) has meta, column names and the spellings that
NWB does not allow, so that reading the file back loses nothing.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuroformer.files import replacing_hdf5
from neuroformer.recording.clean import distinct, safe_name
from neuroformer.recording.formats.nwb.parts import OWN
from neuroformer.recording.recording import FrameSeries, Recording, RecordingError
from neuroformer.recording.validation import optional

_UNIT_COLUMNS = {
    "id",
    "spike_times",
    "obs_intervals",
    "electrodes",
    "electrode_group",
    "waveform_mean",
    "waveform_sd",
    "waveforms",
    "resolution",
    "spike_times_index",
    "obs_intervals_index",
    "electrodes_index",
}
_INTERVAL_COLUMNS = {"id", "start_time", "stop_time", "tags", "timeseries", "tags_index", "timeseries_index"}
_RESERVED_TABLES = {"trials", "epochs", "invalid_times", "domain"}


def write_nwb(rec: Recording, path: str | Path) -> Path:
    """Write a recording to an NWB file; :func:`read_nwb` gives the same recording back.

    Spikes at the same instant come back ordered by unit. Second 0 of the recording is ``meta["session_start"]`` (ISO
    8601; UTC if it has no time zone), or 1970-01-01.

    Raises
    ------
    RecordingError
        pynwb is not installed, a part that NWB cannot hold, or a ``session_start`` that is not a date.
    """
    pynwb = optional("pynwb", "nwb", "writing NWB files")
    session_start = _session_start(rec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nwbfile = _Writer(rec, session_start).build()
        with replacing_hdf5(path) as f, pynwb.NWBHDF5IO(file=f, mode="w") as io:
            io.write(nwbfile)
    return Path(path)


def _session_start(rec: Recording) -> dt.datetime:
    text = rec.meta.get("session_start") or "1970-01-01"
    try:
        start = dt.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise RecordingError(
            f"meta['session_start'] is {text!r}; expected a date and time like 2026-05-04T10:30:00"
        ) from None
    return start if start.tzinfo is not None else start.replace(tzinfo=dt.timezone.utc)


class _Writer:
    """One recording on its way to an NWBFile; ``own`` collects the scratch entry."""

    def __init__(self, rec: Recording, session_start: dt.datetime):
        self.rec = rec
        self.own: dict[str, Any] = {"version": 1, "name": rec.name, "meta": dict(rec.meta)}
        self.own |= {"columns": {}, "intervals": {}, "behavior": {}, "truth": {}}
        subject = rec.meta.get("subject", {})
        subject = subject if isinstance(subject, dict) else {}
        from pynwb import NWBFile
        from pynwb.file import Subject

        self.file: Any = NWBFile(
            session_description=str(rec.meta.get("session_description") or f"recording {rec.name}"),
            identifier=str(uuid.uuid4()),
            session_start_time=session_start,
            session_id=safe_name(rec.name),
            subject=Subject(
                subject_id=safe_name(str(subject.get("subject_id") or rec.name)),
                species=str(subject.get("species") or rec.meta.get("species") or "unknown"),
                sex=str(subject.get("sex") or "U"),
                age=str(subject.get("age") or "P0D/"),  # ISO 8601: of unknown age
            ),
        )

    def build(self) -> Any:
        self.units()
        if self.rec.trials:
            self.file.trials = self.table("trials", self.rec.trials)
        domain = {"start": self.rec.domain[:, 0], "stop": self.rec.domain[:, 1]}
        self.file.add_time_intervals(self.table("domain", domain))
        for name, columns in self.rec.intervals.items():
            safe = distinct(safe_name(name), set(self.own["intervals"]) | _RESERVED_TABLES)
            self.own["intervals"][safe] = name
            self.file.add_time_intervals(self.table(safe, columns))
        self.behavior()
        if self.rec.traces is not None:
            self.traces()
        if self.rec.frames is not None:
            self.frames(self.rec.frames)
        self.scratch()
        return self.file

    def units(self) -> None:
        from hdmf.common import VectorData, VectorIndex
        from pynwb.misc import Units

        rec = self.rec
        order = np.argsort(rec.spike_units, kind="stable")
        ends = np.cumsum(np.bincount(rec.spike_units, minlength=rec.num_units))
        data = VectorData(name="spike_times", description="spike times in seconds", data=rec.spike_times[order])
        columns: list[Any] = [data, VectorIndex(name="spike_times_index", target=data, data=ends)]
        names: dict[str, str] = {}
        ids = rec.units["id"]
        whole = ids.dtype.kind in "iu" and ids.dtype != np.uint64
        for column, values in rec.units.items():
            if column == "id" and whole:
                continue
            safe = distinct("unit_name" if column == "id" else safe_name(column), _UNIT_COLUMNS | set(names))
            names[safe] = column
            columns.append(VectorData(name=safe, description=f"{column} of the unit", data=_column(values)))
        self.own["unit_columns"] = names
        columns += self.electrodes()
        if rec.observed is not None:
            seen = VectorData(
                name="obs_intervals", description="when the unit was observed", data=rec.observed.intervals
            )
            ends = np.searchsorted(rec.observed.units, np.arange(rec.num_units), side="right")
            columns += [seen, VectorIndex(name="obs_intervals_index", target=seen, data=ends)]
        row_ids = ids.astype(np.int64) if whole else np.arange(rec.num_units)
        self.file.units = Units(name="units", description="units of the recording", columns=columns, id=row_ids)

    def electrodes(self) -> list[Any]:
        """One electrode for each area, since tools look areas up there; a recording does not hold single electrodes."""
        from hdmf.common import DynamicTableRegion, VectorIndex

        area = self.rec.units.get("area")
        if area is None or area.dtype.kind != "U" or area.ndim != 1:
            return []
        device = self.file.create_device(name="device", description="not recorded")
        names, rows = np.unique(area, return_inverse=True)
        taken: set[str] = set()
        for name in names:
            text = str(name) or "unknown"
            safe = distinct(safe_name(text), taken)
            taken.add(safe)
            group = self.file.create_electrode_group(
                name=safe, description=f"stands for all electrodes in {text}", location=text, device=device
            )
            self.file.add_electrode(location=text, group=group)
        region = DynamicTableRegion(
            name="electrodes", description="area", table=self.file.electrodes, data=rows.reshape(-1)
        )
        ends = np.arange(1, self.rec.num_units + 1)
        return [region, VectorIndex(name="electrodes_index", target=region, data=ends)]

    def table(self, name: str, columns: Mapping[str, np.ndarray]) -> Any:
        from hdmf.common import VectorData
        from pynwb.epoch import TimeIntervals

        out, names = [], {}
        for column, values in columns.items():
            if column in ("start", "stop"):
                safe, values = f"{column}_time", np.asarray(values, dtype=np.float64)
            else:
                safe = distinct(safe_name(column), _INTERVAL_COLUMNS | set(names))
                names[safe] = column
            out.append(VectorData(name=safe, description=f"{column} of the interval", data=_column(values)))
        self.own["columns"][name] = names
        return TimeIntervals(name=name, description=f"{name} of the recording, in seconds", columns=out)

    def behavior(self) -> None:
        from pynwb import TimeSeries
        from pynwb.behavior import BehavioralTimeSeries

        if not self.rec.behavior:
            return
        series = []
        for name, var in self.rec.behavior.items():
            safe = distinct(safe_name(name), set(self.own["behavior"]))
            self.own["behavior"][safe] = {"name": name, "columns": list(var.columns), "unit": var.unit}
            values = var.values[:, 0] if var.num_columns == 1 else var.values
            about = f"{name}; columns: {', '.join(var.columns)}" if var.columns else name
            series.append(
                TimeSeries(name=safe, description=about, data=values, timestamps=var.times, unit=var.unit or "n.a.")
            )
        module = self.file.create_processing_module(name="behavior", description="behavior variables")
        module.add(BehavioralTimeSeries(name="BehavioralTimeSeries", time_series=series))

    def traces(self) -> None:
        from pynwb.ophys import Fluorescence, ImageSegmentation, RoiResponseSeries

        rec, traces = self.rec, self.rec.traces
        assert traces is not None
        self.own["traces_unit"] = traces.unit
        device = self.file.create_device(name="microscope", description="not recorded")
        from pynwb.ophys import OpticalChannel

        plane = self.file.create_imaging_plane(
            name="ImagingPlane",
            description="not recorded",
            device=device,
            indicator="unknown",
            location="unknown",
            excitation_lambda=float("nan"),
            optical_channel=OpticalChannel(name="channel", description="not recorded", emission_lambda=float("nan")),
        )
        segmentation: Any = ImageSegmentation(name="ImageSegmentation")
        regions = segmentation.create_plane_segmentation(
            name="PlaneSegmentation",
            description="one region a unit; masks are not recorded",
            imaging_plane=plane,
        )
        for _ in range(rec.num_units):
            regions.add_roi(pixel_mask=[(0, 0, 1.0)])
        region = regions.create_roi_table_region(
            description="all units, in their order", region=list(range(rec.num_units))
        )
        series = RoiResponseSeries(
            name="traces",
            description="one column per unit",
            data=traces.values,
            timestamps=traces.times,
            rois=region,
            unit=traces.unit or "n.a.",
        )
        module = self.file.create_processing_module(name="ophys", description="calcium imaging")
        module.add(segmentation)
        module.add(Fluorescence(name="Fluorescence", roi_response_series=[series]))

    def frames(self, frames: FrameSeries) -> None:
        from pynwb.base import ImageReferences
        from pynwb.image import GrayscaleImage, Images, ImageSeries, IndexSeries

        count = frames.images.shape[0]
        if len(frames.index) == 0:
            raise RecordingError("frames that were never shown cannot be written to NWB; leave them out")
        if np.array_equal(frames.index, np.arange(count)):
            self.file.add_stimulus(
                ImageSeries(
                    name="frames",
                    description="frames as shown: (image, height, width)",
                    unit="n.a.",
                    data=_pieces(frames.images),
                    timestamps=frames.times,
                    format="raw",
                )
            )
            return
        images = [GrayscaleImage(name=f"{i:06d}", data=np.asarray(frames.images[i])) for i in range(count)]
        bank = Images(
            name="images",
            description="every image that was shown, once",
            images=images,
            order_of_images=ImageReferences(name="order_of_images", data=images),
        )
        self.file.add_stimulus_template(bank)
        self.file.add_stimulus(
            IndexSeries(
                name="frames",
                description="which image came on when",
                data=frames.index.astype(np.uint32),
                timestamps=frames.times,
                indexed_images=bank,
                unit="N/A",
            )
        )

    def scratch(self) -> None:
        from pynwb.core import ScratchData

        for name, values in self.rec.truth.items():
            safe = distinct(safe_name(f"truth_{name}"), set(self.own["truth"]))
            self.own["truth"][safe] = name
            about = f"{name}: what the generator of this synthetic recording knows"
            self.file.add_scratch(ScratchData(name=safe, data=_column(np.asarray(values))[()], description=about))
        about = "JSON: meta, column names and original spellings, for neuroformer to read back"
        self.file.add_scratch(ScratchData(name=OWN, data=json.dumps(self.own), description=about))


def _column(values: np.ndarray) -> Any:
    """Strings as HDF5 writes them (a list); objects have no place in a file."""
    if values.dtype.kind == "O":
        raise RecordingError("a column holds Python objects; store plain numbers or strings")
    return values.tolist() if values.dtype.kind in "US" else values


def _pieces(images: Any) -> Any:
    """Lazy frames go to the file a few at a time."""
    if isinstance(images, np.ndarray):
        return images
    from hdmf.data_utils import DataChunkIterator

    rows = max(1, (1 << 24) // max(1, int(np.prod(images.shape[1:]))))
    starts = range(0, images.shape[0], rows)
    each = (image for start in starts for image in images[start : start + rows])
    return DataChunkIterator(data=each, maxshape=tuple(images.shape), dtype=np.dtype(images.dtype), buffer_size=rows)

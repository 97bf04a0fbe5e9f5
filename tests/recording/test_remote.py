"""NWB files at an address, from a server on this machine: with ranges, slow, cut, expired, and through an archive."""

import json
import pickle
import shutil
import threading
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import numpy as np
import pytest
from samples import assert_same, full_recording

from neuroformer.cli import main
from neuroformer.config import load_config
from neuroformer.recording import RecordingError, open_recording, write_recording
from neuroformer.recording.remote import RemoteFile, ranges
from neuroformer.recording.remote.address import DANDI_API
from neuroformer.recording.remote.cache import BlockCache

pytest.importorskip("requests")


class Server(BaseHTTPRequestHandler):
    """Serves one body by ranges at /file.nwb; ``manners`` say what goes wrong, and are used up one a request."""

    body, etag, manners, sent, asked = b"", '"1"', [], 0, Counter()
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        cls = type(self)
        cls.asked[self.path.split("?")[0]] += 1
        if self.path.startswith("/api/") and not self.path.endswith("/download/"):
            return self.answer(200, json.dumps(self.archive()).encode(), {"Content-Type": "application/json"})
        if self.path == "/moves.nwb" or self.path.endswith("/download/"):
            return self.answer(302, b"", {"Location": f"/file.nwb?token={cls.asked[self.path]}"})
        manner = cls.manners.pop(0) if cls.manners else ""
        if self.path not in ("/file.nwb", f"/file.nwb?token={cls.asked['/moves.nwb']}") and "token" not in self.path:
            return self.answer(404, b"")
        if manner == "expired":
            return self.answer(403, b"expired")
        if manner == "no ranges":
            return self.answer(200, self.body)
        if manner == "slow":
            time.sleep(0.6)
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        part = self.body[int(first) : int(last) + 1]
        head = {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(self.body)}", "ETag": self.etag}
        return self.answer(206, part, head, cut=manner == "cut")

    def archive(self):
        if "assets" in self.path:
            return {"results": [{"path": "sub-1/file.nwb", "asset_id": "abc"}, {"path": "sub-1/file.nwb2"}]}
        return {"most_recent_published_version": {"version": "0.1"}, "draft_version": {"version": "draft"}}

    def answer(self, status, body, headers=None, cut=False):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        sent = body[: len(body) // 2] if cut else body
        type(self).sent += len(sent)
        self.wfile.write(sent)
        if cut:
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, *args):
        pass


@contextmanager
def serving(body, *manners, kind=Server):
    fresh = {"body": body, "manners": list(manners), "sent": 0, "asked": Counter()}
    handler = type("Handler", (kind,), fresh)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ranges, "_PAUSE_S", 0.01)


BODY = np.random.default_rng(0).integers(0, 255, 3_000_017, dtype=np.uint8).tobytes()


def some_reads(file, seed=0, count=25):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        at, size = int(rng.integers(0, len(BODY) + 100)), int(rng.choice([1, 5000, 300_000]))
        file.seek(at)
        assert file.read(size) == BODY[at : at + size], (at, size)


@pytest.mark.parametrize("manners", [(), ("cut",) * 3, ("", "cut", "slow", "cut"), ("", "expired", "", "expired")])
def test_what_is_read_is_what_is_there(manners):
    with serving(BODY, *manners) as (url, _):
        where = "/moves.nwb" if "expired" in manners else "/file.nwb"
        file = RemoteFile(url + where)
        assert file.size == len(BODY)
        some_reads(file)


def test_blocks_are_fetched_once_and_kept():
    with serving(BODY) as (url, server):
        for _ in range(2):  # the second from disk
            file = RemoteFile(f"{url}/file.nwb")
            some_reads(file, count=60)
            assert file.read(0) == b"" and file.tell() <= len(BODY) + 300_000
        assert server.sent <= len(BODY) + ranges.BLOCK * 2
        before = server.sent
        server.etag = '"2"'  # another file at the same address
        with pytest.raises(RecordingError, match="changed while it was read"):
            file._fetch(0, 10)
        RemoteFile(f"{url}/file.nwb").read(10)
        assert server.sent >= before + ranges.BLOCK


def test_the_cache_keeps_to_its_size(tmp_path):
    home = tmp_path / "blocks"
    for key in ("a", "b"):
        cache = BlockCache(key, 1_000_000, home)
        for i in range(30):
            cache.put(i, bytes(50_000))
            assert sum(f.stat().st_size for f in home.glob("*/*")) <= 1_000_000
    assert cache.get(29, 50_000) == bytes(50_000) and BlockCache("a", 1_000_000, home).get(0, 50_000) is None
    assert cache.get(29, 49_999) is None


@pytest.mark.parametrize(
    "path, manners, told",
    [
        ("/nothing.nwb", [], "cannot be read: 404"),
        ("/file.nwb", ["expired"] * 9, "cannot be read: 403"),
        ("/moves.nwb", ["expired"] * 9, "cannot be read: 403"),
        ("/file.nwb", ["no ranges"], "serves no ranges .it answers 200.; download the file"),
        ("/file.nwb", ["cut"] * 40, "broke off|ConnectionError|ChunkedEncodingError"),
        ("/file.csv", [], "nothing else is read from an address"),
    ],
)
def test_what_cannot_be_read_says_why(path, manners, told):
    with serving(BODY, *manners) as (url, _), pytest.raises(RecordingError, match=told):
        open_recording(url + path)
    if path == "/file.nwb" and not manners:
        with pytest.raises(RecordingError, match="ConnectionError"):
            open_recording(url + path)


def test_no_answer_in_time(monkeypatch):
    monkeypatch.setattr(ranges, "TIMEOUT_S", 0.1)
    with serving(BODY, *["slow"] * 9) as (url, _), pytest.raises(RecordingError, match="no answer for 0.1 s"):
        RemoteFile(f"{url}/file.nwb")


def nwb(tmp_path):
    pytest.importorskip("pynwb")
    return write_recording(full_recording(), tmp_path / "file.nwb")


def test_a_recording_at_an_address_is_that_of_the_file(tmp_path, monkeypatch, capsys):
    path = nwb(tmp_path)
    whole = open_recording(path)
    with serving(path.read_bytes(), "", "cut", "", "slow") as (url, server):
        rec = open_recording(f"{url}/file.nwb")
        assert_same(rec, whole)  # frames are read later, and lazily
        monkeypatch.setenv("DANDI_API", f"{url}/api")
        assert_same(open_recording("dandi://000017/sub-1/file.nwb"), whole)
        assert server.asked["/api/dandisets/000017/versions/0.1/assets/"]
        with pytest.raises(RecordingError, match="no file 'sub-2/file.nwb'; near it: sub-1/file.nwb"):
            open_recording("dandi://000017@draft/sub-2/file.nwb")
        with pytest.raises(RecordingError, match="expected dandi://"):
            open_recording("dandi://sub-2/file.nwb")
        (tmp_path / "mine.yaml").write_text(f"recording: {{path: '{url}/file.nwb'}}\n")
        assert load_config(tmp_path / "mine.yaml").recording.path == f"{url}/file.nwb"
        assert main(["inspect", str(tmp_path / "mine.yaml")]) == 0
        assert "Recording 'mouse/1: day a'" in capsys.readouterr().out


def test_a_connection_that_ends_within_the_file_is_an_error_that_says_so(tmp_path):
    path = nwb(tmp_path)
    with serving(path.read_bytes()) as (url, server):
        server.body = path.read_bytes() + bytes(1_000_000)
        file = RemoteFile(f"{url}/file.nwb")
        server.manners = ["cut"] * 40
        with pytest.raises(RecordingError, match="cannot be read"):
            file.seek(900_000)
            file.read(10)
    with pytest.raises(RecordingError, match="ConnectionError"):
        open_recording(f"{url}/file.nwb")


def test_of_a_large_file_little_is_fetched(tmp_path):
    """Raw channels are most of an archive's file, and nothing of them is needed."""
    pynwb = pytest.importorskip("pynwb")
    path = nwb(tmp_path)
    with pynwb.NWBHDF5IO(str(path), "a") as io:
        file = io.read()
        count = len(file.electrodes)
        raw = np.random.default_rng(0).integers(-99, 99, (4_000_000 // count, count), dtype=np.int16)
        region = file.create_electrode_table_region(list(range(count)), "all")
        data = pynwb.H5DataIO(raw, chunks=(10_000, 1))
        file.add_acquisition(pynwb.ecephys.ElectricalSeries(name="raw", data=data, electrodes=region, rate=30000.0))
        io.write(file)
    body = path.read_bytes()
    assert len(body) > 8_000_000
    with serving(body) as (url, server):
        open_recording(f"{url}/file.nwb")
        assert server.sent < 2_000_000


def session(path, num_units, spikes, raw_bytes=0, samples=400_000):
    """A file as archives have them: spikes by unit, running at 1 kHz, trials, raw channels; observed: not said."""
    pynwb = pytest.importorskip("pynwb")
    import datetime

    rng, span = np.random.default_rng(0), samples / 1000
    file = pynwb.NWBFile("a session", "one", datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc))
    file.add_unit_column("quality", "curated")
    counts = rng.multinomial(spikes, rng.dirichlet(np.ones(num_units)))
    for i, count in enumerate(counts):
        file.add_unit(spike_times=np.sort(rng.uniform(0, span, count)), quality="good" if i % 2 else "mua")
    for i in range(20):
        file.add_trial(float(i * span / 20), float((i + 0.9) * span / 20))
    times = np.arange(samples) / 1000
    file.add_acquisition(pynwb.TimeSeries(name="running", data=rng.normal(size=samples), timestamps=times, unit="cm/s"))
    if raw_bytes:
        piece = rng.integers(-99, 99, 1 << 20, dtype=np.int16)
        data = pynwb.H5DataIO(
            pynwb.DataChunkIterator((piece for _ in range(raw_bytes // piece.nbytes)), buffer_size=1),
            chunks=(1, len(piece)),
        )
        file.add_acquisition(pynwb.TimeSeries(name="raw", data=data, rate=30000.0, unit="V"))
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(file)
    return counts


def test_inspect_counts_the_spikes_of_a_remote_file(tmp_path, monkeypatch, capsys):
    """Units, rates, trials and how long it is, without the spikes; what needs these fetches them."""
    path = tmp_path / "file.nwb"
    counts = session(path, 20, 600_000)
    whole = open_recording(path)
    with serving(path.read_bytes()) as (url, server):
        rec = open_recording(f"{url}/file.nwb", look=True)
        large = 8 * (600_000 + 2 * 400_000)  # bytes of spikes, and of running with its times
        assert server.sent < path.stat().st_size - large + 3_000_000
        assert (rec.unit_spikes() == counts).all() and rec.num_spikes == 600_000 and len(rec.spike_times) == 0
        assert rec.duration == pytest.approx(whole.duration, rel=1e-3)
        np.testing.assert_allclose(rec.rates(), whole.rates(), rtol=1e-3)
        assert rec.num_trials == 20 and list(rec.behavior) == ["running"]
        assert main(["inspect", f"{url}/file.nwb", "recording.units.where=quality == 'good' and rate > 1"]) == 0
        assert server.sent < path.stat().st_size - large + 3_000_000
        shown = capsys.readouterr().out
        assert "spikes were counted and not fetched" in shown and "the first 20,000 of 400,000 samples" in shown
        kept = int(((whole.units["quality"] == "good") & (whole.rates() > 1)).sum())
        assert f"{kept} of 20 units are kept" in shown and f"from {kept} units" in shown
        assert main(["inspect", f"{url}/file.nwb", "recording.units.where=presence > 0.5"]) == 0
        assert "counted" not in capsys.readouterr().out and server.sent > large


@pytest.mark.slow
def test_inspect_of_two_gigabytes_fetches_less_than_twenty_megabytes(tmp_path, capsys):
    import mmap

    path = tmp_path / "file.nwb"
    session(path, 300, 3_300_000, raw_bytes=2_000_000_000, samples=3_600_000)
    assert path.stat().st_size > 2_000_000_000
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body,
        serving(body) as (url, server),
    ):
        assert main(["inspect", f"{url}/file.nwb"]) == 0
        assert "3,300,000 from 300 units" in capsys.readouterr().out
        print(f"{server.sent:,} bytes of {len(body):,}")
        assert server.sent < 20_000_000


class Files(Server):
    """Serves the files of a folder whole; ``manners`` as of a server of one file, ``body`` is the folder."""

    def do_GET(self):
        cls = type(self)
        path = self.path.split("?")[0]
        cls.asked[path] += 1
        if path.startswith("/api/"):
            return self.answer(200, json.dumps(self.archive()).encode())
        manner = cls.manners.pop(0) if cls.manners else ""
        if manner == "slow":
            time.sleep(0.6)
        if manner in ("403", "503"):
            return self.answer(int(manner), b"")
        file = self.body / unquote(path).lstrip("/")
        return self.answer(200, file.read_bytes(), cut=manner == "cut") if file.is_file() else self.answer(404, b"")

    def archive(self):
        if "/assets/abc/" in self.path:
            port = self.server.server_address[1]
            return {"contentUrl": [f"{DANDI_API}/x/", f"http://127.0.0.1:{port}/zarr/1/"]}
        return {"results": [{"path": "sub-1/a.nwb.zarr", "asset_id": "abc", "zarr": "1"}], "draft_version": {}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    pynwb, hdmf_zarr = pytest.importorskip("pynwb"), pytest.importorskip("hdmf_zarr")
    folder = tmp_path_factory.mktemp("zarr")
    path = write_recording(full_recording(), folder / "file.nwb")
    with (
        warnings.catch_warnings(),
        pynwb.NWBHDF5IO(str(path), "r") as source,
        hdmf_zarr.NWBZarrIO(str(folder / "a.nwb.zarr"), mode="w") as io,
    ):
        warnings.simplefilter("ignore")
        io.export(src_io=source, write_args={"link_data": False})
    return folder / "a.nwb.zarr"


@pytest.mark.parametrize("manners", [(), ("", "cut", "slow", "", "503", "cut")])
def test_a_zarr_store_at_an_address_is_that_of_the_folder(store, manners, monkeypatch, capsys):
    whole = open_recording(store)
    with serving(store.parent, *manners, kind=Files) as (url, server):
        for address in (f"{url}/a.nwb.zarr", f"{url}/a.nwb.zarr/?token=1"):
            assert_same(open_recording(address), whole)
        before = sum(server.asked.values())
        rec = open_recording(f"{url}/a.nwb.zarr")
        images, copy = rec.frames.images, pickle.loads(pickle.dumps(rec))
        np.testing.assert_array_equal(images[:3], copy.frames.images[:3])
        assert sum(server.asked.values()) - before <= 3 + 3  # the list of the store; chunks are on disk
        assert main(["inspect", f"{url}/a.nwb.zarr"]) == 0
        assert "counted and not fetched" in capsys.readouterr().out
        (store.parent / "zarr").mkdir(exist_ok=True)
        if not (store.parent / "zarr" / "1").exists():
            (store.parent / "zarr" / "1").symlink_to(store)
        monkeypatch.setenv("DANDI_API", f"{url}/api")
        assert_same(open_recording("dandi://000719/sub-1/a.nwb.zarr"), whole)


def test_a_zarr_store_that_cannot_be_read_says_why(store, tmp_path):
    other = shutil.copytree(store, tmp_path / "b.nwb.zarr")
    secret = (other / ".zmetadata").read_text().replace('"source": "."', '"source": "../a.nwb.zarr"')
    cases = [
        ([], secret, "another store"),
        ([], "[1]", "no Zarr store"),
        ([], None, "has no .zmetadata.* zarr.consolidate_metadata"),
        (["403"], "", "cannot be read: 403"),
        (["503"] * 4, "", "cannot be read: 503"),
        (["", *["cut"] * 400], (store / ".zmetadata").read_text(), "ChunkedEncodingError|ConnectionError|broke off"),
    ]
    with serving(tmp_path, kind=Files) as (url, server):
        for manners, listed, told in cases:
            server.manners[:] = manners
            (other / ".zmetadata").write_text(listed) if listed is not None else (other / ".zmetadata").unlink()
            with pytest.raises(RecordingError, match=told):
                open_recording(f"{url}/b.nwb.zarr")
        (other / "zarr.json").write_text("{}")
        (other / ".zmetadata").unlink()
        server.manners.clear()
        with pytest.raises(RecordingError, match="Zarr 3"):
            open_recording(f"{url}/b.nwb.zarr")


def test_a_connection_that_ends_later_is_no_note(tmp_path):
    """What could not be fetched is not left out, as what is damaged is."""
    path = nwb(tmp_path)
    with serving(path.read_bytes()) as (url, server):
        opened, answer = [], server.answer

        def ends(self, status, body, headers=None, cut=False):
            opened.append(status)
            return answer(self, status, body, headers, cut=len(opened) > 2)

        server.answer = ends
        with pytest.raises(RecordingError, match="cannot be read"):
            open_recording(f"{url}/file.nwb")

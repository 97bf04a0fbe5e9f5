"""Addresses of files: ``https://...``, and ``dandi://DANDISET/PATH`` of the DANDI archive.

A dandiset's version may be named, ``dandi://000017@0.240329.1926/sub-1/sub-1_ses-1.nwb``; without one it is the last that was
published, else the draft.
"""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from neuroformer.recording.validation import RecordingError, optional

DANDI = "dandi://"
DANDI_API = "https://api.dandiarchive.org/api"
TIMEOUT_S = 30.0


def is_remote(source: object) -> bool:
    """Whether a recording's path is an address."""
    return isinstance(source, str) and source.startswith(("http://", "https://", DANDI))


def suffix(address: str) -> str:
    """The suffix of the file at an address, in lower case."""
    return _name(address).suffix.lower()


def stem(address: str) -> str:
    """The name of the file at an address, without its suffix."""
    return _name(address).stem or "recording"


def _name(address: str) -> PurePosixPath:
    return PurePosixPath(unquote(urlsplit(address).path))


def download_address(address: str) -> str:
    """The address from which the bytes come; that of an asset of a dandiset is asked for.

    Raises
    ------
    RecordingError
        No such dandiset or file, or the archive does not answer.
    """
    if not address.startswith(DANDI):
        return address
    api, asset = _asset(address)
    return f"{api}/assets/{quote(str(asset.get('asset_id')))}/download/"


def store_address(address: str) -> str:
    """The address below which the keys of a Zarr store lie; that of an asset of a dandiset is asked for.

    Raises
    ------
    RecordingError
        No such dandiset or store, or the archive does not answer.
    """
    if not address.startswith(DANDI):
        return address
    api, asset = _asset(address)
    facts = _json(f"{api}/assets/{quote(str(asset.get('asset_id')))}/", address)
    found = [url for url in facts.get("contentUrl") or [] if "/zarr/" in str(url)]
    if not found:
        raise RecordingError(f"{address} is no Zarr store: the archive names none as its content")
    return str(found[0])


def _asset(address: str) -> tuple[str, dict[str, Any]]:
    """The archive's interface, and what it says of a file of a dandiset."""
    dandiset, _, path = address.removeprefix(DANDI).partition("/")
    dandiset, _, version = dandiset.partition("@")
    if not dandiset.isdecimal() or not path:
        raise RecordingError(f"{address} is no file of a dandiset; expected dandi://000017/sub-1/sub-1_ses-1.nwb")
    api = os.environ.get("DANDI_API", DANDI_API)
    if not version:
        facts = _json(f"{api}/dandisets/{dandiset}/", address)
        known = facts.get("most_recent_published_version") or facts.get("draft_version") or {}
        version = str(known.get("version", "draft"))
    asked = f"{api}/dandisets/{dandiset}/versions/{quote(version)}/assets/?path={quote(path)}"
    found = _json(asked, address).get("results") or []
    exact = [asset for asset in found if isinstance(asset, dict) and asset.get("path") == path]
    if not exact:
        near = ", ".join(str(a.get("path")) for a in found[:5] if isinstance(a, dict))
        raise RecordingError(
            f"dandiset {dandiset} ({version}) has no file '{path}'; {f'near it: {near}' if near else 'see its list of files'}"
        )
    return api, exact[0]


def _json(url: str, address: str) -> dict[str, Any]:
    requests = optional("requests", "remote", "reading files at an address")
    try:
        answer = requests.get(url, headers={"Accept": "application/json"}, timeout=TIMEOUT_S)
        answer.raise_for_status()
        found = answer.json()
    except (OSError, ValueError, requests.RequestException) as e:
        raise RecordingError(f"{address}: the archive does not say where it is ({url}): {e}") from None
    if not isinstance(found, dict):
        raise RecordingError(f"{address}: the archive answers with a {type(found).__name__} ({url})")
    return found

"""A stand-in for a model hub on 127.0.0.1: the calls of huggingface_hub that pushing and pulling make."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """``repositories``: by name, bytes by path; ``private``: those that were made so; ``asked``: paths of files that were fetched."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *args):
        pass

    def do_POST(self):
        body, path = self.rfile.read(int(self.headers["Content-Length"])), unquote(urlsplit(self.path).path)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            if name in self.server.repositories:
                return self._json({"error": "exists", "url": f"{self.server.url}/{name}"}, 409)
            self.server.repositories[name] = {}
            if asked.get("private") or asked.get("visibility") == "private":  # earlier and later versions
                self.server.private.add(name)
            return self._json({"url": f"{self.server.url}/{name}"})
        if path == "/api/validate-yaml":  # the front matter of the card
            return self._json({"errors": [], "warnings": []})
        name, what = re.match(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/", path).groups()
        if what == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                self.server.repositories[name][entry["value"]["path"]] = content
        url = f"https://huggingface.co/{name}/commit/{COMMIT}"  # versions before 1.0 take it apart, at this place only
        self._json({"commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        api = re.match(r"/api/models/([^/]+/[^/]+)(/revision/[^/]+|/tree/[^/]+)?$", path)
        file = re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        name = (api or file).group(1) if api or file else ""
        there = self.server.repositories.get(name)
        if there is None:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if api and (api.group(2) or "").startswith("/tree"):
            files = [{"type": "file", "path": p, "size": len(b), "oid": _etag(b)} for p, b in there.items()]
            return self._json(files)
        if api:
            return self._json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": p} for p in there], "tags": []})
        content = there.get(file.group(2))
        if content is None:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        if self.command == "GET":
            self.server.asked.append(file.group(2))
        self._send(content, 200, {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def _json(self, tree, status=200, headers=None):
        self._send(json.dumps(tree).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, content: bytes, status: int, headers: dict[str, str]):
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()

"""A headless Chromium through its DevTools protocol: enough to open a page, press its keys and read it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest


class Browser:
    """One page in one headless Chromium; a context manager."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 900):
        self.folder, self.size = folder, (width, height)
        self.messages: list[dict] = []

    def __enter__(self) -> Browser:
        websocket = pytest.importorskip("websocket", reason="needs websocket-client")
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if program is None:
            pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
        width, height = self.size
        self.process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-extensions",
                "--disable-background-networking",
                "--remote-debugging-port=0",
                "--remote-allow-origins=*",
                f"--user-data-dir={self.folder / 'profile'}",
                f"--window-size={width},{height}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.socket = websocket.create_connection(self._address(), timeout=60)
        self.next_id = 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def _address(self) -> str:
        port_file = self.folder / "profile" / "DevToolsActivePort"
        for _ in range(300):
            if port_file.exists() and "\n" in port_file.read_text():
                port = port_file.read_text().split("\n")[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                    pages = [t for t in json.load(answer) if t["type"] == "page"]
                if pages:
                    return pages[0]["webSocketDebuggerUrl"]
            time.sleep(0.1)
        raise RuntimeError("Chromium did not open its DevTools port within 30 s")

    def __exit__(self, *_) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=30)

    def call(self, method: str, **params) -> dict:
        """One command; what the page says meanwhile goes to ``messages``."""
        self.next_id += 1
        self.socket.send(json.dumps({"id": self.next_id, "method": method, "params": params}))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.next_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.messages.append(answer)

    def open(self, path: Path) -> None:
        self.call("Page.navigate", url=path.resolve().as_uri())
        for _ in range(200):
            if self.js("document.documentElement?.dataset.ready") == "true":
                time.sleep(0.3)  # observers draw after the panels are there
                return
            time.sleep(0.1)
        raise RuntimeError(f"{path} did not load within 20 s")

    def js(self, code: str):
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{code}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def choose(self, css: str, value: str) -> None:
        """Set a select, slider or checkbox as a user would, and let the page draw."""
        event = "click" if value in ("on", "off") else "set"
        if event == "click":
            self.js(f"document.querySelector('{css}').click()")
        else:
            self.js(
                f"(() => {{ const c = document.querySelector('{css}'); c.value = {json.dumps(value)};"
                "c.dispatchEvent(new Event('input', {bubbles: true})); c.dispatchEvent(new Event('change', {bubbles: true})); })()"
            )

    def key(self, name: str) -> None:
        text = {"text": "\r"} if name == "Enter" else {}  # what makes a button answer
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=_KEYS[name], **text
            )

    def pixels(self, css: str) -> str:
        """A canvas' content, to see whether it changed."""
        return self.js(f"document.querySelector('{css}').toDataURL()")

    def errors(self) -> list[str]:
        """Everything the console complained of, and exceptions."""
        found = []
        for m in self.messages:
            p = m.get("params", {})
            if m.get("method") == "Runtime.exceptionThrown":
                found.append(str(p["exceptionDetails"].get("exception", p["exceptionDetails"])))
            elif m.get("method") == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning"):
                found.append(str(p["args"]))
            elif m.get("method") == "Log.entryAdded" and p["entry"]["level"] in ("error", "warning"):
                found.append(p["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Addresses that were asked for, inlined data left out."""
        sent = [m["params"]["request"]["url"] for m in self.messages if m.get("method") == "Network.requestWillBeSent"]
        return [u for u in sent if not u.startswith("data:")]

    def picture(self, path: Path, *, width: int, print_media: bool = False) -> None:
        """A picture of the whole page."""
        self.call("Emulation.setEmulatedMedia", media="print" if print_media else "screen")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        time.sleep(0.6)
        height = min(16000, int(self.js("document.documentElement.scrollHeight")))
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        time.sleep(0.6)
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


_KEYS = {"Tab": 9, "ArrowRight": 39, "ArrowDown": 40, "ArrowLeft": 37, "ArrowUp": 38, "Enter": 13}

"""A headless Chromium for tests and benchmarks: open a page, run JavaScript, take a screenshot.

Debian's `chromium` is driven by its DevTools protocol over a WebSocket; WebGL is drawn in software.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import imageio.v3 as iio
import numpy as np
import pytest

__all__ = ["Browser"]

MESA = Path("/usr/share/glvnd/egl_vendor.d/50_mesa.json")
NAMES = ("chromium", "chromium-browser", "google-chrome")


class Browser:
    """One window. Use as a context; the process ends with it."""

    def __init__(
        self, folder: Path, width: int = 800, height: int = 600, *, webgl: str | None = None
    ) -> None:
        program = next((path for name in NAMES if (path := shutil.which(name))), None)
        if program is None:
            pytest.skip("no Chromium here (Debian: apt-get install chromium)")
        self.folder, self.size = folder, (width, height)
        self.command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--no-first-run",
            "--disable-dev-shm-usage", "--ignore-gpu-blocklist", *self._webgl(webgl),
            "--hide-scrollbars", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
            f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}",
            "about:blank",
        ]  # fmt: skip
        self.events: list[dict[str, Any]] = []
        self.numbers = itertools.count(1)

    @staticmethod
    def _webgl(which: str | None) -> tuple[str, ...]:
        """Mesa's software WebGL where it is there; it takes many instances several times faster."""
        if which == "mesa" or (which is None and MESA.is_file()):
            return "--use-gl=angle", "--use-angle=gl-egl"
        return "--use-angle=swiftshader", "--enable-unsafe-swiftshader"

    def __enter__(self) -> Browser:
        from websockets.sync.client import connect

        log = (self.folder / "chromium.log").open("wb")
        self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        port_file = self.folder / "profile" / "DevToolsActivePort"
        self._wait(lambda: port_file.is_file() and port_file.read_text().count("\n") >= 1, 60)
        port = port_file.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            page = next(t for t in json.load(answer) if t["type"] == "page")
        self.socket = connect(page["webSocketDebuggerUrl"], max_size=None, open_timeout=30)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        width, height = self.size
        self.resize(width, height)
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        """Send a touch event (`touchStart`, `touchMove`, `touchEnd`) of some fingers, px."""
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        self.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come in between are kept."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv(timeout=120))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def run(self, code: str) -> Any:
        """Return the value of a JavaScript expression, waiting for a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, code: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        self._wait(lambda: bool(self.run(code)), seconds, code)

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """Return what the window shows, [H, W, 3] uint8, and keep it as a PNG."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return np.asarray(iio.imread(io.BytesIO(data)))[..., :3]

    def errors(self) -> list[str]:
        """Return what the page has complained of in the console, and exceptions."""
        self.run("0")  # takes in what has arrived meanwhile
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"])[:500])
            if event.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
                found.append(json.dumps(params["args"])[:500])
            if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(json.dumps(params["entry"])[:500])
        return found

    def _wait(self, condition: Any, seconds: float, what: str = "the browser") -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds} s for {what}"
            assert self.process.poll() is None, "Chromium has ended; see chromium.log"
            time.sleep(0.05)

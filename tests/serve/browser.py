"""A real Chromium without a window, driven over its DevTools protocol: keys, files and drops come as from a person."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fakes import PATIENCE_S, wait_until
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--no-first-run", "--no-proxy-server", "--remote-debugging-port=0", "--mute-audio", "--hide-scrollbars",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}
TEXTS = {"Enter": "\r", " ": " "}


@contextlib.contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """A browser that ends with the block; its profile lies in `folder`."""
    assert CHROMIUM, "Chromium is missing"
    told = folder / "profile" / "DevToolsActivePort"
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={told.parent}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: told.exists() and len(told.read_text().split()) == 2)
        port, path = told.read_text().split()
        with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, max_size=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


class Browser:
    """One tab; `events` are what it has told, [{method, params}], console and network among it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.events: list[dict[str, Any]] = []
        self._num_calls = 0
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Say something in the protocol; the answer."""
        self._num_calls += 1
        words = {"id": self._num_calls, "method": method, "params": params}
        self._socket.send(json.dumps(words | ({"sessionId": self._session} if self._session else {})))
        while True:
            message: dict[str, Any] = json.loads(self._socket.recv(PATIENCE_S))
            if message.get("id") == self._num_calls:
                assert "error" not in message, f"{method}: {message['error']}"
                found: dict[str, Any] = message["result"]
                return found
            if "method" in message:
                self.events.append(message)

    def told(self, method: str) -> list[dict[str, Any]]:
        """What events of this name said."""
        return [event["params"] for event in self.events if event["method"] == method]

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page, or what it promises."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Look again and again until an expression holds."""
        until = time.monotonic() + PATIENCE_S
        while not self.ask(f"Boolean({expression})"):
            assert time.monotonic() < until, (
                f"not within {PATIENCE_S:g} s: {expression}\n{self.ask('document.body.innerText')}"
            )
            time.sleep(0.05)

    def open(self, url: str) -> None:
        """Go to a page, and wait until it has loaded."""
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def show(self, width: int, scheme: str) -> None:
        """Be as wide as this, and of this colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self, file: Path) -> None:
        """A PNG of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def choose(self, selector: str, *files: Path) -> None:
        """Give files to an input."""
        answer = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.call("DOM.setFileInputFiles", objectId=answer["result"]["objectId"], files=[str(file) for file in files])

    def drop(self, selector: str, *files: Path) -> None:
        """Drop files in the middle of an element."""
        middle = f"(box => [box.x + box.width / 2, box.y + 12])(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        x, y = self.ask(middle)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key: str) -> None:
        """Press and release a key."""
        code = KEYS[key]
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        text = {"text": TEXTS[key]} if key in TEXTS else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

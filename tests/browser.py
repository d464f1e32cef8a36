"""A headless Chromium, driven by its own protocol over two pipes: nothing to install beside the browser."""

from __future__ import annotations

import base64
import functools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "chrome-headless-shell")

PATIENCE = 60.0
"""Seconds to wait for the browser at most."""


@functools.cache
def browser_path() -> str | None:
    """The first Chromium on the path; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class BrowserError(Exception):
    """The browser said no, or nothing."""


class Page:
    """One page of a running browser."""

    def __init__(self, write: int, read: int) -> None:
        self.write, self.read = write, read
        self.buffer = b""
        self.number = 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> Any:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") != self.number:
                self.events.append(answer)
            elif "error" in answer:
                raise BrowserError(f"{method}: {answer['error']}")
            else:
                return answer["result"]

    def receive(self) -> Any:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read], [], [], PATIENCE)
            part = os.read(self.read, 1 << 16) if ready else b""
            if not part:
                raise BrowserError("the browser says nothing")
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path | str, *, width: int = 1200, height: int = 900, dark: bool = False) -> float:
        """Load a file or an address in a window of this size; how many seconds until it was laid out."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        start = time.perf_counter()
        self.send("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(own.get("method") == "Page.loadEventFired" for own in self.events):
            self.events.append(self.receive())
        # Layout is done when a size is asked for.
        self.run("document.body.offsetHeight")
        return time.perf_counter() - start

    def run(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        found = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in found:
            raise BrowserError(str(found["exceptionDetails"].get("exception", found["exceptionDetails"])))
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression of JavaScript is true."""
        end, failure = 1000 * PATIENCE, json.dumps(f"never true: {condition}")
        self.run(
            "new Promise((resolve, reject) => {"
            f"const look = () => ({condition}) ? resolve() : performance.now() > {end} ? reject({failure})"
            " : requestAnimationFrame(look); look(); })"
        )

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            own = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **own)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.send("Input.insertText", text=text)

    def complaints(self) -> list[str]:
        """Errors of scripts, and messages of the browser."""
        found = [own for own in self.events if own.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")]
        return [json.dumps(own["params"]) for own in found]

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        found = [own for own in self.events if own.get("method") == "Network.requestWillBeSent"]
        return [own["params"]["request"]["url"] for own in found]

    def screenshot(self, path: Path) -> None:
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def opened_browser() -> Iterator[Page]:
    """A page of a browser that is started and ended here."""
    path = browser_path()
    if path is None:
        raise BrowserError("there is no browser")
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()

    def take_pipes() -> None:
        # The browser reads commands from 3 and answers to 4.
        os.dup2(to_browser, 10)
        os.dup2(from_browser, 11)
        os.dup2(10, 3)
        os.dup2(11, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-first-run"]
        options += ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--mute-audio"]
        # No page is to need a server elsewhere.
        options += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        # Its sandbox needs rights that neither root nor most containers have; the pages are our own.
        options += ["--no-sandbox", "--disable-dev-shm-usage"]
        process = subprocess.Popen(
            [path, *options],
            close_fds=False,
            preexec_fn=take_pipes,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Page(write, read)
        finally:
            os.close(write)
            os.close(read)
            process.terminate()
            process.wait(PATIENCE)

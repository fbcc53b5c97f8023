"""Headless Chromium over its debugging pipe: what a page asks of the network, what it complains of, how it looks.

`python -m tests.bench.browser PAGE.html PICTURE.png [HEIGHT]` takes a picture of a page for the documentation, its
first HEIGHT pixels in few colours.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 60.0
WIDTH = 1120


@dataclass
class Seen:
    """One visit. Addresses of `file:` and `data:` do not leave the machine."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Console messages that are errors or warnings, exceptions, and refusals of the content security policy."""
    broken_pictures: int = 0
    text: str = ""

    @property
    def left(self) -> list[str]:
        """Requests that would have left the machine."""
        return [url for url in self.requests if not url.startswith(("file:", "data:"))]


def find_browser() -> str | None:
    """A Chromium of this machine, None if there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class _Pipe:
    """Chromium's debugging protocol over two pipes: messages of JSON that end with a zero byte."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of a command. Events that come meanwhile are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found["error"]
                result: dict[str, Any] = found["result"]
                return result
            self.events.append(found)

    def wait(self, method: str) -> None:
        """Until an event has come."""
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("the browser does not answer")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


def visit(page: Path, picture: Path | None = None) -> Seen:
    """Open the file `page` and note what happens; `picture` gets the whole page as a PNG."""
    with _chromium() as pipe:
        target = pipe.call("Target.createTarget", url="about:blank")["targetId"]
        session = pipe.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Network", "Log", "Runtime", "Page"):
            pipe.call(f"{domain}.enable", session)
        size = {"width": WIDTH, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        pipe.call("Emulation.setDeviceMetricsOverride", session, **size)
        pipe.call("Page.navigate", session, url=page.resolve().as_uri())
        pipe.wait("Page.loadEventFired")
        seen = Seen()
        broken = "[...document.images].filter(one => !one.complete || !one.naturalWidth).length"
        seen.broken_pictures = _value(pipe, session, broken)
        seen.text = _value(pipe, session, "document.body.innerText")
        if picture is not None:
            found = pipe.call("Page.captureScreenshot", session, format="png", captureBeyondViewport=True)
            picture.write_bytes(base64.b64decode(found["data"]))
        for event in pipe.events:
            _note(seen, event.get("method", ""), event.get("params", {}))
        return seen


def _value(pipe: _Pipe, session: str, expression: str) -> Any:
    return pipe.call("Runtime.evaluate", session, expression=expression, returnByValue=True)["result"]["value"]


def _note(seen: Seen, method: str, params: dict[str, Any]) -> None:
    if method == "Network.requestWillBeSent":
        seen.requests.append(params["request"]["url"])
    elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
        seen.complaints.append(params["entry"]["text"])
    elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
        seen.complaints.append(str(params["args"]))
    elif method == "Runtime.exceptionThrown":
        seen.complaints.append(str(params["exceptionDetails"]["text"]))


@contextlib.contextmanager
def _chromium() -> Iterator[_Pipe]:
    browser = find_browser()
    assert browser is not None
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    with tempfile.TemporaryDirectory(prefix="loradeck-browser-", ignore_cleanup_errors=True) as profile:
        # The browser reads commands from descriptor 3 and writes to 4.
        plumbing = (
            "import fcntl, os, sys; ours = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]; "
            "os.dup2(ours[0], 3); os.dup2(ours[1], 4); os.execv(sys.argv[3], sys.argv[3:])"
        )
        command = [
            sys.executable, "-c", plumbing, str(theirs_in), str(theirs_out), browser,
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-extensions", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(
            command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        pipe = _Pipe(ours_in, ours_out)
        try:
            yield pipe
            with contextlib.suppress(OSError, TimeoutError):
                pipe.call("Browser.close")
            process.wait(20)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(ours_in)
            os.close(ours_out)


def main() -> None:
    """Take the picture, and fail if the page complains or asks the network for anything."""
    from PIL import Image

    page, picture, *height = sys.argv[1:]
    seen = visit(Path(page), Path(picture))
    assert not seen.complaints, seen.complaints
    assert not seen.left, seen.left
    with Image.open(picture) as whole:
        cut = whole.crop((0, 0, whole.width, min(whole.height, int(height[0]) if height else whole.height)))
        cut.convert("RGB").quantize(128).save(picture, optimize=True)


if __name__ == "__main__":
    main()

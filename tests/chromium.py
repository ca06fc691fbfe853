"""A real headless Chromium without a network, which is told what to do through a pipe.

It speaks the Chrome DevTools protocol: JSON messages that end with a zero byte, in by file
descriptor 3 of the browser and out by 4 (`--remote-debugging-pipe`).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--proxy-server=127.0.0.1:9", "--remote-debugging-pipe",
)  # fmt: skip
_CLOSING_S = 20.0
# The page is not wider than the window, and neither is anything in it that does not scroll itself.
_OVERFLOWING = """
(() => {
  const wide = [];
  if (document.scrollingElement.scrollWidth > innerWidth) wide.push("the page");
  for (const each of document.querySelectorAll("body *")) {
    if (each.closest(".scroll, svg")) continue;
    const place = each.getBoundingClientRect();
    const isWide = place.right > innerWidth + 0.5 || place.left < -0.5;
    if (isWide) wide.push(each.outerHTML.slice(0, 200));
  }
  return wide.slice(0, 5);
})()
"""


def find_chromium() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@dataclass
class Page:
    """A page in the browser.

    Attributes:
        browser: that shows it.
        session: of the protocol.
        complaints: what the console and the network have said so far.
    """

    browser: Chromium
    session: str
    complaints: list[str] = field(default_factory=list)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression."""
        result = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def overflowing(self) -> list[str]:
        """Return what is wider than the window: elements as HTML, at most five."""
        found: list[str] = self.evaluate(_OVERFLOWING)
        return found

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        data = self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def show(self, path: Path, width: int) -> None:
        """Load a file, and wait until it is there."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._call("Page.navigate", url=path.absolute().as_uri())
        self.browser.wait_for(self, "Page.loadEventFired")

    def _call(self, method: str, **parameters: Any) -> Any:
        return self.browser.call(method, self, **parameters)


class Chromium:
    """A browser, which ends with the block.

    Args:
        binary: of the browser.
    """

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self._sent = 0
        self._pages: dict[str, Page] = {}
        self._events: list[tuple[str | None, str]] = []

    def __enter__(self) -> Self:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # the shell gives the browser what it inherits as descriptors 3 and 4
        command = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        arguments = [self._binary, *_OPTIONS, f"--user-data-dir={self._profile}"]
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", command, "bash", *arguments],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._send({"id": 0, "method": "Browser.close"})
            self._process.wait(_CLOSING_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._out.close()
            self._in.close()
            shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, path: Path, width: int) -> Page:
        """Return a file as a page in a window of so many pixels."""
        target = self.call("Target.createTarget", None, url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", None, targetId=target, flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        page.show(path, width)
        return page

    def call(self, method: str, page: Page | None, **parameters: Any) -> Any:
        """Return what a method of the protocol returns."""
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": parameters}
        self._send(message if page is None else message | {"sessionId": page.session})
        while (answer := self._receive()).get("id") != self._sent:
            pass
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def wait_for(self, page: Page, event: str) -> None:
        """Wait until a page has sent an event."""
        while (page.session, event) not in self._events:
            self._receive()

    def _send(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()

    def _receive(self) -> dict[str, Any]:
        """Return the next message; what a page complains of is kept."""
        data = bytearray()
        while (byte := self._in.read(1)) != b"\0":
            assert byte, "the browser is gone"
            data += byte
        message: dict[str, Any] = json.loads(data)
        session, event = message.get("sessionId"), message.get("method", "")
        self._events.append((session, event))
        is_complaint = event in {
            "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown",
            "Network.loadingFailed",
        }  # fmt: skip
        if is_complaint and session in self._pages:
            self._pages[session].complaints.append(json.dumps(message["params"]))
        return message

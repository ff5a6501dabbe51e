"""A headless Chromium for tests: over its debugging pipe, so that no library and no port is needed."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-pipe",
]


class Browser:
    """One page of a browser.

    Args:
        commands: file descriptor that it reads from.
        answers: file descriptor that it writes to.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb")
        self._id = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's answer; what happens meanwhile goes to `events`."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            read = self._read()
            if read.get("id") == self._id:
                assert "error" not in read, read
                return dict(read["result"])

    def open(self, path: Path, width: int, scheme: str) -> None:
        """Shows a file in a window of some width, light or dark."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.go(path.as_uri())

    def go(self, url: str) -> None:
        """Shows what lies at an address."""
        self.events.clear()
        self("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._read()

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is on the page."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as a PNG."""
        return base64.b64decode(self("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def complaints(self) -> list[str]:
        """Errors of the console and exceptions since the page was opened."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        """Addresses that the page asked for."""
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def close(self) -> None:
        self._commands.close()
        self._answers.close()

    def _read(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser is gone"
            message += byte
        read = dict(json.loads(message))
        if "method" in read:
            self.events.append(read)
        return read


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, or a skipped test where there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        why = "needs Chromium (Debian: apt-get install chromium)"
        if os.environ.get("REQUIRE_TOOLS") == "1":
            pytest.fail(why)
        pytest.skip(why)
    theirs_in, commands = os.pipe()
    answers, theirs_out = os.pipe()

    def as_three_and_four() -> None:
        # Through high numbers first: 3 and 4 may be among the four at hand.
        os.dup2(theirs_in, 100)
        os.dup2(theirs_out, 101)
        os.dup2(100, 3)
        os.dup2(101, 4)

    process = subprocess.Popen(
        [found, *_FLAGS, f"--user-data-dir={folder / 'profile'}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=as_three_and_four,  # noqa: PLW1509  # no threads here; the browser insists on 3 and 4
    )
    os.close(theirs_in)
    os.close(theirs_out)
    page = Browser(commands, answers)
    try:
        yield page
        page("Browser.close")
        process.wait(timeout=30)  # it still writes to its profile
    finally:
        page.close()
        process.kill()
        process.wait()

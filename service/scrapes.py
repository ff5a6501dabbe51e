"""Scrapes of the metrics: as many as come, for a bounded share of the event loop."""

import asyncio
import time
from collections.abc import Callable

OPENMETRICS, PLAIN = "application/openmetrics-text", "text/plain"
_SHARE = 0.1  # of the time, at most; chosen. A scrape of one model takes 5 ms (2026-11-25)

Exposition = tuple[bytes, str]


class Scrapes:
    """Answers scrapes; those that wait at once share one.

    None is older than the question: whoever asks while the share is used up waits for the next one. Without that, a few
    hundred clients that scrape, for which no key is needed where metrics are open, would keep health from answering.

    Args:
        expose: makes an answer in one of the two forms that there are.
    """

    def __init__(self, expose: Callable[[str], Exposition]) -> None:
        self._expose = expose
        self._next: asyncio.Task[dict[str, Exposition]] | None = None
        self._wanted: set[str] = set()
        self._free_at = 0.0

    async def take(self, accept: str) -> Exposition:
        """A scrape and its content type.

        Args:
            accept: the header, of which nothing is heeded but whether it names OpenMetrics: of versions and the like
                there could be a thousand, each to be made.
        """
        form = OPENMETRICS if OPENMETRICS in accept else PLAIN
        if self._next is None:
            self._next = asyncio.ensure_future(self._made())
        self._wanted.add(form)
        # Shielded: others wait for the same, and who asked may leave.
        return (await asyncio.shield(self._next))[form]

    async def _made(self) -> dict[str, Exposition]:
        await asyncio.sleep(max(0.0, self._free_at - time.monotonic()))
        wanted, self._wanted, self._next = self._wanted, set(), None  # who comes from now on gets a later one
        started = time.monotonic()
        found = {form: self._expose(form) for form in wanted}
        self._free_at = started + (time.monotonic() - started) / _SHARE
        return found

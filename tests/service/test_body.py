import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from service.body import Bodies
from service.problems import ProblemError


class Sender:
    """A client that sends a body when the test says so."""

    def __init__(self, bodies: Bodies) -> None:
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self.read = asyncio.ensure_future(bodies.read({}, self._messages.get))

    async def send(self, part: bytes, *, more: bool = True) -> None:
        self._messages.put_nowait({"type": "http.request", "body": part, "more_body": more})
        await self._settled()

    async def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})
        await self._settled()

    async def _settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    @property
    def kind(self) -> str | None:
        """Of the problem that it was refused with."""
        error: Any = self.read.exception() if self.read.done() else None
        return error.kind if isinstance(error, ProblemError) else None


def test_a_body_in_pieces_is_put_together() -> None:
    async def check() -> None:
        sender = Sender(Bodies(100, 100))
        for part in (b"one ", b"two ", b""):
            await sender.send(part)
        await sender.send(b"three", more=False)
        assert await sender.read == b"one two three"

    asyncio.run(check())


def test_the_body_that_has_been_coming_for_longest_gives_way() -> None:
    async def check() -> None:
        bodies = Bodies(max_bytes=100, max_bytes_together=100)
        slow, other, quick = Sender(bodies), Sender(bodies), Sender(bodies)
        await slow.send(b"a" * 40)
        await other.send(b"b" * 40)
        await quick.send(b"c" * 40)
        assert (slow.kind, other.kind, quick.kind) == ("too-many-bytes", None, None)
        await other.send(b"", more=False)
        await quick.send(b"", more=False)
        assert (await other.read, await quick.read) == (b"b" * 40, b"c" * 40)

    asyncio.run(check())


@pytest.mark.parametrize("end", ["whole", "left", "too long", "cancelled"])
def test_a_body_that_has_ended_takes_no_room(end: str) -> None:
    async def check() -> None:
        bodies = Bodies(max_bytes=60, max_bytes_together=100)
        first = Sender(bodies)
        await first.send(b"a" * 50)
        if end == "left":
            await first.leave()
            with pytest.raises(ClientDisconnect):
                await first.read
        elif end == "cancelled":
            first.read.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first.read
        elif end == "too long":
            await first.send(b"a" * 50)
            assert first.kind == "body-too-large"
        else:
            await first.send(b"", more=False)
            await first.read
        second, third = Sender(bodies), Sender(bodies)
        await second.send(b"b" * 50)
        await third.send(b"c" * 50)
        assert (second.kind, third.kind) == (None, None)

    asyncio.run(check())


def test_a_body_that_comes_in_one_piece_needs_no_room() -> None:
    async def check() -> None:
        bodies = Bodies(max_bytes=100, max_bytes_together=100)
        slow, quick = Sender(bodies), Sender(bodies)
        await slow.send(b"a" * 100)
        await quick.send(b"b" * 100, more=False)
        assert (await quick.read, slow.kind) == (b"b" * 100, None)

    asyncio.run(check())

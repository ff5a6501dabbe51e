"""JSON lines in, JSON lines out, for as long as a client sends them, in memory that does not grow.

What has come is scored at once; what comes meanwhile is scored together after it. So a slow stream is answered line by
line, a fast one many lines at a time, and nobody waits for a clock. A client that does not read its answers is not read
on either.
"""

import asyncio
import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Send

from nelbo.errors import RecordError
from nelbo.records import Batch, RecordDecoder
from nelbo.results import results
from nelbo.scoring import Scorer
from service import logs
from service.answer import Tally, Wish, wish_of
from service.batching import Batching
from service.deadline import Deadline
from service.encoding import answer_headers, lines_of
from service.forms import NDJSON
from service.live import Live
from service.problems import Answer, ProblemError
from service.progress import Progress
from service.request import ScoreRequest

# Of a batch, so that many streams take turns and none takes much memory; chosen.
_LINES = 1024
_BYTES = 1 << 20
_COPIES = 2  # of a batch: as it came, and as lines
MAX_LINE_BYTES = 1 << 20  # a longer line is an error of its record; chosen

Line = bytes | None  # None: it was too long


class Lines:
    r"""Lines out of bytes that come in any pieces; blank ones are left out.

    Args:
        max_bytes: of a line; more are forgotten, so that a line without an end takes no memory.

    >>> lines = Lines(max_bytes=3)
    >>> lines.add(b"12"), lines.add(b"3\n\n1234\n5"), lines.end()
    ([], [b'123', None], [b'5'])
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._n_bytes = 0

    @property
    def n_held(self) -> int:
        """Bytes of a line that has not ended yet."""
        return sum(map(len, self._parts))

    def add(self, chunk: bytes) -> list[Line]:
        """The lines that end in some bytes."""
        first, *others = chunk.split(b"\n")
        self._begin(first)
        if not others:
            return []
        *whole, last = others
        lines = [*self.end(), *(line if len(line) <= self._max_bytes else None for line in whole)]
        self._begin(last)
        return [line for line in lines if line is None or line.strip()]

    def end(self) -> list[Line]:
        """The last line, if nothing ended it."""
        line = b"".join(self._parts) if self._n_bytes <= self._max_bytes else None
        self._parts, self._n_bytes = [], 0
        return [line] if line is None or line.strip() else []

    def _begin(self, part: bytes) -> None:
        self._n_bytes += len(part)
        if self._n_bytes <= self._max_bytes:
            self._parts.append(part)
        else:
            self._parts = []


class Incoming:
    """The lines of a request's body, batch by batch.

    Args:
        receive: of the request, its body not touched yet.
        n_lines: the most in a batch.
        n_bytes: a batch that has as many is closed.
        waits: until a batch is full or the body ends; else a batch is what has come.
        progress: is told of each line.
    """

    def __init__(self, receive: Receive, n_lines: int, n_bytes: int, *, waits: bool, progress: Progress) -> None:
        self._progress = progress
        self._receive = receive
        self._n_lines, self._n_bytes, self._waits = n_lines, n_bytes, waits
        self._lines = Lines(MAX_LINE_BYTES)
        self._ready: list[Line] = []
        self._n_ready = 0
        self._has_ended = False
        self._message = asyncio.ensure_future(receive())

    def close(self) -> None:
        """Ends the waiting for what comes next."""
        self._message.cancel()

    @property
    def n_held(self) -> int:
        """Bytes of lines in memory."""
        return self._lines.n_held + self._n_ready

    async def batch(self) -> list[Line]:
        """The next lines; none at the end of the body.

        Raises:
            ClientDisconnect: the client went away before the body ended.
        """
        while not self._has_ended and not self._is_full():
            if self._ready and not self._waits and not await self._has_more():
                break
            await self._take()
        n = self._n_in_batch()
        lines, self._ready = self._ready[:n], self._ready[n:]
        self._n_ready -= _size(lines)
        return lines

    async def _has_more(self) -> bool:
        """Whether the next bytes are there already: then receiving them takes one turn of the event loop."""
        await asyncio.sleep(0)
        return self._message.done()

    async def _take(self) -> None:
        message = await self._message
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        lines = self._lines.add(message.get("body", b""))
        if message.get("more_body", False):
            self._message = asyncio.ensure_future(self._receive())
        else:
            lines += self._lines.end()
            self._has_ended = True
        if lines:
            self._progress.step()
        self._ready += lines
        self._n_ready += _size(lines)

    def _is_full(self) -> bool:
        return len(self._ready) >= self._n_lines or self._n_ready >= self._n_bytes

    def _n_in_batch(self) -> int:
        sizes = list(accumulate(len(line or b"") for line in self._ready[: self._n_lines]))
        return min(bisect_left(sizes, self._n_bytes) + 1, len(sizes))


def _size(lines: Sequence[Line]) -> int:
    return sum(len(line) for line in lines if line is not None)


class Streams:
    """Answers requests whose body is JSON lines.

    Args:
        live: the loaded models; the version that serves when a stream begins serves to its end. Where a third version
            is to be loaded meanwhile, that is now: its client sends the rest anew.
        batching: whose queue their batches join, and which counts them.
        max_records: of a window, for a false discovery rate.
        max_body_bytes: of a window; one that has as many is closed.
        max_bytes_together: that all streams may take; one more is refused.
        clock: seconds from any start, for the stages.
    """

    def __init__(
        self,
        live: Live,
        batching: Batching,
        *,
        max_records: int,
        max_body_bytes: int,
        max_bytes_together: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._live, self._batching, self._clock = live, batching, clock
        self._max_records, self._max_body_bytes = max_records, max_body_bytes
        self._max_together, self._n_bytes = max_bytes_together, 0
        self._open: dict[asyncio.Task[Any], Scorer] = {}  # what each stream that has begun is scored with
        self._ended: set[asyncio.Task[Any]] = set()

    async def answer(self, request: ScoreRequest, receive: Receive, send: Send, progress: Progress) -> None:
        """Answers one request: a line for each of its lines, as it is scored.

        Args:
            request: its body is not looked at.
            receive: as ASGI has it, the body not touched yet.
            send: as ASGI has it.
            progress: is told of each line that comes and each answer that goes.

        Raises:
            ClientDisconnect: the client went away.
        """
        tally = Tally()
        try:
            wish = wish_of(self._live, request, tally, max_window=self._max_records)
            window = wish.query.window
            limits = (_LINES, _BYTES) if window is None else (window, self._max_body_bytes)
            self._expect_room(_COPIES * limits[1])
        except ProblemError as error:
            tally.rejected = error.kind
            self._batching.count(tally)
            await _refuse(error.answer, send)
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # there is one, or nothing here could wait
        self._open[task] = wish.scorer
        self._n_bytes += _COPIES * limits[1]
        try:
            await self._answer(
                wish, Incoming(receive, *limits, waits=window is not None, progress=progress), send, progress
            )
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            # Without its last chunk: the client is not to take this for the end of its answer.
            logs.event("stream ended", level=logging.WARNING, model=request.name, version=wish.scorer.bundle.version)
        finally:
            del self._open[task]
            self._n_bytes -= _COPIES * limits[1]
            self._ended.discard(task)

    def let_go(self, name: str) -> None:
        """Ends the streams of a model that began with another version than the one that serves; from any thread."""
        state = self._live.state(name)
        for task, scorer in list(self._open.items()):
            if scorer.bundle.name == name and (state is None or scorer is not state.scorer):
                task.get_loop().call_soon_threadsafe(self._end, task)

    def _end(self, task: "asyncio.Task[Any]") -> None:
        if task in self._open:
            self._ended.add(task)
            task.cancel()

    async def _answer(self, wish: Wish, incoming: Incoming, send: Send, progress: Progress) -> None:
        try:
            await self._begin(wish, send)
            await self._go_on(wish, incoming, send, progress)
        finally:
            incoming.close()

    def _expect_room(self, n_bytes: int) -> None:
        self._batching.expect_room()
        if self._open and self._n_bytes + n_bytes > self._max_together:
            detail = f"{len(self._open)} streams are open, as many as fit the memory; try again later"
            raise ProblemError("too-many-streams", detail, headers={"retry-after": "1"})

    async def _begin(self, wish: Wish, send: Send) -> None:
        await asyncio.sleep(0)  # bytes are asked for first: that tells a client that waits for it to send them
        decision = None if wish.fdr is not None else wish.decision
        headers = answer_headers(NDJSON, wish.scorer, decision, self._live.watches.verdict(wish.scorer).state)
        await send({"type": "http.response.start", "status": 200, "headers": _encoded(headers)})

    async def _go_on(self, wish: Wish, incoming: Incoming, send: Send, progress: Progress) -> None:
        first = 0
        while lines := await incoming.batch():
            work = partial(_scored, wish, lines, first, self._clock)
            body, tally = await self._batching.of_stream(work, len(lines))
            self._batching.count(tally)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            progress.step()
            first += len(lines)
        await send({"type": "http.response.body", "body": b""})


def _scored(
    wish: Wish, lines: Sequence[Line], first: int, clock: Callable[[], float], deadline: Deadline
) -> tuple[bytes, Tally]:
    """The results of some lines, and what there is to count about them."""
    scorer = wish.scorer
    marks = [clock()] * 2  # what holds was decided once
    batch = _decoded(scorer.decoder, lines, first)
    marks.append(clock())
    scored = scorer.score(batch, wish.decision) if wish.fdr is None else scorer.discover(batch, wish.fdr)
    marks.append(clock())
    found = results(scorer, scored, wish.query.explain, deadline.check)
    marks.append(clock())
    body = lines_of(found)
    marks.append(clock())
    tally = Tally(model=scorer.bundle.name)
    tally.count(scorer, scored, marks, (batch.n_records,), 0)
    return body, tally


def _decoded(decoder: RecordDecoder, lines: Sequence[Line], first: int) -> Batch:
    """The records of some lines, those that were too long as errors among the others."""
    short = [line for line in lines if line is not None]
    if len(short) == len(lines):
        return decoder.lines(b"\n".join(short), first)
    places = first + np.flatnonzero([line is not None for line in lines])
    batch = decoder.lines(b"\n".join(short))
    errors = [RecordError(int(places[e.index]), e.field, e.expected, e.found) for e in batch.errors]
    expected = f"a line of at most {MAX_LINE_BYTES} bytes"
    errors += [RecordError(first + i, None, expected, "a longer one") for i, line in enumerate(lines) if line is None]
    return replace(batch, index=places[batch.index], errors=tuple(errors))


async def _refuse(answer: Answer, send: Send) -> None:
    """Sends a whole answer; the connection closes, since the body stays unread."""
    headers = answer.headers | {"connection": "close", "content-length": str(len(answer.body))}
    await send({"type": "http.response.start", "status": answer.status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": answer.body})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]

"""Connections: how many there may be, how long a client may take to send and to read, and how they end.

uvicorn has no such limits. A timer for each request would cost as much as a short one's answer is worth, so nothing is
done when a request comes: once a second a sweep looks at what each connection is at, and since when.
"""

import asyncio
import fcntl
import logging
import select
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.capacity import SPARE_CONNECTIONS
from service.edge import GUARDS, request_id_of, respond
from service.problems import Answer, Kind, problem
from service.progress import NAME, Progress
from service.v2.refusal import in_form_of

MAX_HEAD_BYTES = 64 * 1024  # a longer head that comes in pieces is refused; of one that comes at once the headers count
MAX_HEADERS = 128  # chosen: a client behind several proxies sends some 40
IDLE_S = 75  # between two requests: longer than balancers keep theirs, so that it is they who close. Chosen
# Requests of a connection behind the one that is being answered; chosen, browsers once sent 8. uvicorn would take in
# all that has come: of 100 connections' requests without a key, 12 GB (2026-11-25).
_MOST_WAITING = 16
_MAX_UNREAD_BYTES = 1 << 20  # of a body whose request has been answered without it; chosen
_OF_A_BODY = (b"content-length", b"transfer-encoding")
_SPARE_S = 2.0  # the deadline of connections beyond the limit; chosen
# At a stop, for the request that a client may be sending just now on an open connection: it would be lost. Chosen
_LAST_REQUEST_S = 1.0
# About the process itself: answered on connections beyond the limit, too.
_ALWAYS = ("/healthz/", "/v2/health/", "/metrics")

# A line for each stranger whose bytes are no HTTP would be a flood: the metrics count them.
_LOGGER = logging.getLogger("uvicorn.error.connections")
_LOGGER.setLevel(logging.ERROR)
# Nor does it say anything that an answer was not ended: if that was not its client's doing, the app has said why.
_LOGGER.addFilter(lambda record: not record.getMessage().startswith("ASGI callable returned without"))

At = Literal["idle", "sending a head", "sending a body", "waiting", "reading", "leaving"]


class Connections:
    """All connections of a process.

    Args:
        app: that answers.
        reject: counts a request that is refused here.
        max_connections: at once. Of some more each gets an answer about health, or that there are too many; further
            ones are closed.
        deadline_s: for a head and a body to come; between two lines of a stream; for an answer to be read.
        max_unread_bytes: that answers which are not read may take together; of more, those that have waited for
            longest are cut.
    """

    def __init__(
        self,
        app: ASGIApp,
        reject: Callable[[str], None],
        *,
        max_connections: int,
        deadline_s: float,
        max_unread_bytes: int,
    ) -> None:
        self._app, self.reject, self._limit = app, reject, max_connections
        self._deadline_s, self._max_unread = deadline_s, max_unread_bytes
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    def protocol(self, **of_uvicorn: Any) -> "Connection":
        """A new connection, as uvicorn asks for one."""
        return Connection(self, **of_uvicorn)

    def add(self, connection: "Connection") -> None:
        """Takes in a connection; beyond the limit an idle one makes room, or it gets little."""
        self._open.add(connection)
        n = len(self._open)
        if n <= self._limit or self._close_an_idle_one():
            return
        if n <= self._limit + SPARE_CONNECTIONS:
            connection.app = self._answer_beyond
            connection.deadline_s = min(_SPARE_S, self._deadline_s)
            return
        self.reject("too-many-connections")
        connection.transport.abort()

    def discard(self, connection: "Connection") -> None:
        """Forgets a connection that has ended."""
        self._open.discard(connection)

    def sweep(self, now: float) -> None:
        """Cuts those who take too long.

        Args:
            now: seconds from any start.
        """
        for connection in list(self._open):
            connection.look(now, self._deadline_s)
        unread = {connection: size for connection in self._open if (size := connection.n_unread)}
        too_much = sum(unread.values()) - self._max_unread
        for connection in sorted(unread, key=lambda one: one.since):
            if too_much <= 0:
                return
            too_much -= unread[connection]
            connection.cut()

    def end_after_answers(self) -> None:
        """What is going to be answered is the last of its connection, and the answers will say so.

        Not an answer that has begun without saying so: whoever gets it may have sent the next request already.
        """
        for connection in self._open:
            if connection.cycle is not None and not connection.cycle.response_started:
                connection.cycle.keep_alive = False

    def _close_an_idle_one(self) -> bool:
        for connection in self._open:
            if connection.at() == "idle" and not connection.has_more():
                connection.transport.close()
                return True
        return False

    async def _answer_beyond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request on a connection beyond the limit, the last one on it."""

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        if scope["path"].startswith(_ALWAYS):
            await self._app(scope, receive, send_and_close)
            return
        self.reject("too-many-connections")
        detail = f"{self._limit} connections are open, as many as may; try again later"
        answer = problem("too-many-connections", detail, headers={"retry-after": "1"})
        await respond(in_form_of(scope["path"], answer), request_id_of(dict(scope["headers"])), send_and_close)


class Connection(HttpToolsProtocol):
    """One connection: uvicorn's, with limits.

    Args:
        connections: that it is one of.
        of_uvicorn: what uvicorn's own takes.

    Attributes:
        deadline_s: its own; None for that of all.
        since: of what it is at, when a sweep first saw that.
    """

    def __init__(self, connections: Connections, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self._connections, self.logger = connections, _LOGGER
        self._progress = Progress()
        self.app_state = {**self.app_state, NAME: self._progress}  # uvicorn hands it on with each request
        self.deadline_s: float | None = None
        self._seen: tuple[object, ...] = ()
        self.since = 0.0
        self._n_pauses = self._n_unused = 0
        self._is_cut = self._is_refused = False
        self._fault: tuple[Kind, str] = ("not-http", "expected an HTTP/1.1 request, got other bytes")

    # --- what uvicorn and its transport call --------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends."""
        super().connection_lost(exc)
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came; those that are of no body add up, so that a head without an end takes no memory."""
        if self._is_refused:
            return
        cycle = self.cycle
        n_before = 0 if cycle is None else len(cycle.body)
        HttpToolsProtocol.data_received(self, data)
        if self.cycle is cycle and (cycle is None or len(cycle.body) <= n_before):
            self._add_unused(len(data))
        else:
            self._n_unused = 0

    def on_headers_complete(self) -> None:
        """A head is whole."""
        fault = self._fault_of_head()
        if fault is not None:
            self._fault = fault
            raise ValueError(fault[1])  # ends the parsing, which leads to `send_400_response`
        HttpToolsProtocol.on_headers_complete(self)

    def _fault_of_head(self) -> tuple[Kind, str] | None:
        if len(self.headers) > MAX_HEADERS:
            return "head-too-large", f"expected at most {MAX_HEADERS} headers, got {len(self.headers)}"
        if len(self.pipeline) >= _MOST_WAITING:
            return "head-too-large", f"expected at most {_MOST_WAITING} requests ahead of their answers, got more"
        if self.parser.should_upgrade() and any(name in _OF_A_BODY for name, _ in self.headers):
            # The parser leaves out the body of such a request, and would take it for the next one.
            return "not-http", "expected a body without the header Upgrade, got both; HTTP/1.1 alone is spoken here"
        return None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuses what cannot be parsed."""
        self.refuse(*self._fault)

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        self._n_pauses += 1
        super().pause_writing()

    def shutdown(self) -> None:
        """At a stop, when no connection is accepted any more: answers what is there, and what is being sent."""
        if self.at() in ("idle", "sending a head"):
            self.loop.call_later(_LAST_REQUEST_S, self._close_without_request)
        if self.cycle is not None:
            self.cycle.keep_alive = False

    # --- what a sweep looks at ----------------------------------------------------------------------

    def at(self) -> At:
        """What it is at."""
        if self.transport.is_closing():
            return "leaving"
        if self.flow.write_paused:
            return "reading"
        if self.cycle is None or self.cycle.response_complete:
            return "idle" if self.timeout_keep_alive_task is not None else "sending a head"
        return "sending a body" if self.cycle.more_body else "waiting"

    @property
    def n_unread(self) -> int:
        """Bytes of answers that the client has not read, beyond what the kernel holds."""
        return self.transport.get_write_buffer_size()

    def has_more(self) -> bool:
        """Whether bytes have come that are not looked at yet: to close now would throw them away unanswered."""
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def look(self, now: float, deadline_s: float) -> None:
        """Cuts the connection if it is at the same for too long."""
        at = self.at()
        seen = (at, self.cycle, self._n_pauses, self._progress.n_steps)
        if seen != self._seen:
            self._seen, self.since = seen, now
        elif now - self.since >= (self.deadline_s or deadline_s):
            self._end(at)

    def _end(self, at: At) -> None:
        if at == "sending a head" and not self._n_unused:
            self.transport.close()  # it never asked for anything
        elif at in ("sending a head", "sending a body"):
            self.refuse("client-too-slow", f"the client was {at} for longer than the request deadline")
        elif at in ("reading", "leaving") or (at == "idle" and self._kernel_holds_some()):
            self.cut()

    def cut(self) -> None:
        """Ends the connection of a client that does not read its answer, and frees that, in the kernel too."""
        if self._is_cut:
            return
        self._is_cut = True
        self._connections.reject("client-too-slow")
        with suppress(OSError):  # its descriptor may be closed by now
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        self.transport.abort()

    def _kernel_holds_some(self) -> bool:
        n_bytes = bytearray(4)
        with suppress(OSError):
            fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, n_bytes)
        return any(n_bytes)

    @property
    def _socket(self) -> socket.socket:
        found: socket.socket = self.transport.get_extra_info("socket")
        return found

    # --- refusals -----------------------------------------------------------------------------------

    def _add_unused(self, n_bytes: int) -> None:
        self._n_unused += n_bytes
        cycle = self.cycle
        if cycle is not None and cycle.response_complete and cycle.more_body:
            if self._n_unused > _MAX_UNREAD_BYTES:
                self.transport.close()
        elif self._n_unused > MAX_HEAD_BYTES:
            self.refuse("head-too-large", f"expected a head of at most {MAX_HEAD_BYTES} bytes, got more")

    def refuse(self, kind: Kind, detail: str) -> None:
        """Ends the connection; with an answer where no other one has begun or is due."""
        if self.transport.is_closing():
            return
        self._connections.reject(kind)
        if self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete:
            # It is not about this request, which is whole: its client would take the refusal for its answer.
            self.cycle.keep_alive, self._is_refused = False, True
            return
        is_answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if is_answering or self.pipeline:
            self.transport.abort()
            return
        path = self.scope.get("path", "") if self.scope else ""
        self.transport.write(_bytes_of(in_form_of(path, problem(kind, detail))))
        self.transport.close()

    def _close_without_request(self) -> None:
        if self.at() in ("idle", "sending a head") and not self.has_more():
            self.transport.close()


def _bytes_of(answer: Answer) -> bytes:
    headers = answer.headers | {"content-length": str(len(answer.body)), "connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} ", *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"{name.decode()}: {value.decode()}" for name, value in GUARDS]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body

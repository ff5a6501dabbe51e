"""How the process stops: it says so, goes on for a while, and answers all that it has accepted.

uvicorn closes its socket as soon as it is told to stop: what has been sent to it meanwhile is reset.
"""

import asyncio
import ctypes
import select
import signal
import socket
import struct
import sys
import time
from types import FrameType

import uvicorn

from service import logs
from service.connections import Connections
from service.live import Live

STOP_S = 20  # for what was accepted to be answered, after the drain; then it is cut
_TICKS_A_SWEEP = 10  # a tick of uvicorn's comes each 0.1 s
_POLL_S, _LONGEST_POLL_S = 0.01, 2.0
_HANDSHAKE_S = 0.1  # for connections that are half open; chosen, a round trip
# A program for the kernel's packet filter: drop what opens a connection (TCP's flag SYN, in byte 13), pass all else.
# Its four instructions: load that byte; compare; drop; pass.
_DROP_NEW = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
_SO_ATTACH_FILTER = 26


# libuv accepts one connection a turn for each handle of a socket; where a turn answers a thousand requests, a health
# check's own connection would wait for seconds behind others. A handle is a descriptor. Chosen
_HANDLES = 16


def handles(listener: socket.socket) -> list[socket.socket]:
    """One listening socket, many times: so that as many connections are accepted in a turn of the event loop."""
    return [listener, *(listener.dup() for _ in range(_HANDLES - 1))]


class Server(uvicorn.Server):
    """uvicorn's server, with two phases of a stop.

    SIGTERM begins the first: the service is not ready, and its answers close their connections, but it accepts and
    answers. The second begins when the first is over, and at once with SIGINT or a second signal: nothing new is
    accepted, and what has been is answered. A third signal ends the process.

    Args:
        config: whose `http` is `connections.protocol`.
        connections: of the process.
        live: is told that the process stops.
        drain_s: how long the first phase lasts.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections, live: Live, drain_s: float) -> None:
        super().__init__(config)
        self._connections, self._live, self._drain_s = connections, live, drain_s
        self._drained_at: float | None = None
        self._has_told = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Takes a signal."""
        if self.should_exit:
            self.force_exit = True
        elif sig == signal.SIGTERM and self._drain_s and not self._live.is_stopping:
            self._drained_at = time.monotonic() + self._drain_s
        else:
            self.should_exit = True
        if not self._live.is_stopping:
            self._live.is_stopping = True
            self._let_clients_leave()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to go on to the second phase."""
        if counter % _TICKS_A_SWEEP == 0:
            self._connections.sweep(time.monotonic())
        if self._live.is_stopping and not self._has_told:
            self._has_told = True  # not by the signal's handler, which may have come while a line was written
            logs.event("stopping", drain_s=0 if self.should_exit else self._drain_s)
        if self._drained_at is not None and time.monotonic() >= self._drained_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The second phase."""
        for listener in (sockets or [])[:1]:  # the others are the same one
            _drop_new(listener)
            await _until_none_waits(listener)
        await super().shutdown(sockets)

    def _let_clients_leave(self) -> None:
        """Makes each answer the last of its connection."""
        self.config.encoded_headers.append((b"connection", b"close"))
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        self._connections.end_after_answers()


def _drop_new(listener: socket.socket) -> None:
    """Keeps the kernel from accepting connections, which would be reset when the socket closes; not those half open.

    Whoever connects now tries again a second later, and is refused then.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_NEW))
    filter_ = struct.pack("HP", len(_DROP_NEW), ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
    except OSError as error:  # a sandbox may forbid it; then a few connections may be reset
        logs.event("connections are accepted to the last", error=error)


async def _until_none_waits(listener: socket.socket) -> None:
    """Returns when the event loop has accepted all that the kernel has."""
    poll, until = select.poll(), time.monotonic() + _LONGEST_POLL_S
    poll.register(listener, select.POLLIN)
    await asyncio.sleep(_HANDSHAKE_S)
    while poll.poll(0) and time.monotonic() < until:
        await asyncio.sleep(_POLL_S)

"""Requests at given times, whatever becomes of the earlier ones: what a closed loop, which waits, cannot show.

`python -m benchmarks.serving.open_loop` is a program of its own, so that nothing else runs between two requests.
"""

import argparse
import gc
import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import numpy as np

from benchmarks.serving.process import LOAD_CORE

PATIENCE_S = 1.0  # a later answer is not a good one
_GRACE_S = 5.0  # for the last answers
_SPIN_S = 0.002  # a timer of the kernel may come so late: below it we look at the clock ourselves
_CHUNK = 1 << 16


class Sent(msgspec.Struct, frozen=True):
    """What became of the requests of one run.

    Attributes:
        n_due: that were to be sent.
        n_sent: that were; one that finds no free connection is not, if it may not wait.
        statuses: how many answers had which.
        n_good: answers of status 200 within the patience.
        n_broken: connections that ended before their answer.
        seconds: from the first to the last moment that was due.
        p50_ms: latency of answers of status 200, from the moment that was due.
        p99_ms: of it.
        max_ms: of it.
    """

    n_due: int
    n_sent: int
    statuses: dict[int, int]
    n_good: int
    n_broken: int
    seconds: float
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None

    @property
    def goodput(self) -> float:
        """Good answers in a second."""
        return self.n_good / self.seconds


class _Connection:
    """One request at a time."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=_GRACE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.unsent = memoryview(b"")
        self.received = bytearray()
        self.needed = 0  # bytes of the whole answer, once its head is there
        self.due = 0.0

    def start(self, request: bytes, due: float) -> bool:
        """Sends what the socket takes now; True where that is all."""
        self.unsent, self.due, self.needed = memoryview(request), due, 0
        self.received.clear()
        return self.go_on()

    def go_on(self) -> bool:
        """As `start`, for what is left."""
        while self.unsent:
            try:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
            except BlockingIOError:
                return False
        return True

    def status(self) -> int | None:
        """Of the answer, once it is there to its end.

        Raises:
            ConnectionError: the server has closed.
        """
        try:
            chunk = self.socket.recv(_CHUNK)
        except BlockingIOError:
            return None
        if not chunk:
            raise ConnectionError("closed before the answer")
        self.received += chunk
        if not self.needed:
            self.needed = answer_length(self.received)
        return int(self.received[9:12]) if self.needed and len(self.received) >= self.needed else None


def answer_length(received: bytes | bytearray) -> int:
    """Bytes of a whole answer, head included; 0 while its head is not complete.

    >>> answer_length(b"HTTP/1.1 200 OK" + bytes([13, 10]) + b"Content-Length: 2" + bytes([13, 10, 13, 10]) + b"o")
    40
    """
    head, separator, _ = received.partition(b"\r\n\r\n")
    if not separator:
        return 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(head) + len(separator) + int(value)
    raise ValueError("expected an answer with a content-length, got one without")


class _Run:
    """A pool of connections and what they were answered."""

    def __init__(self, url: str, request: bytes, n_connections: int, patience_s: float) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._request, self._patience_s = request, patience_s
        self._poll = select.epoll()
        self._busy: dict[int, _Connection] = {}
        self._free = [self._opened() for _ in range(n_connections)]
        self.statuses: Counter[int] = Counter()
        self.latencies_s: list[float] = []
        self.n_good = self.n_broken = self.n_sent = 0

    def go(self, moments: Sequence[float], *, may_wait: bool) -> None:
        """Sends one request at each moment, and waits for the answers."""
        start, i, n = time.perf_counter(), 0, len(moments)
        last = moments[-1] + _GRACE_S
        while (now := time.perf_counter() - start) < last and (i < n or self._busy):
            while i < n and moments[i] <= now:
                if self._free:
                    self._send(start + moments[i])
                elif may_wait:
                    break
                i += 1
            ahead = (moments[i] - now) if i < n else 1.0
            self._receive(0.0 if ahead < _SPIN_S else min(ahead - _SPIN_S, 0.05))
        self.n_broken += len(self._busy)  # what has no answer by now

    def _opened(self) -> _Connection:
        connection = _Connection(self._address)
        self._poll.register(connection.socket, select.EPOLLIN)
        return connection

    def _send(self, due: float) -> None:
        connection = self._free.pop()
        self._busy[connection.socket.fileno()] = connection
        self.n_sent += 1
        try:
            if not connection.start(self._request, due):
                self._poll.modify(connection.socket, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self._replace(connection)

    def _receive(self, timeout_s: float) -> None:
        for number, event in self._poll.poll(timeout_s):
            connection = self._busy.get(number)
            if connection is None:
                self._replace_idle(number)
                continue
            try:
                if event & select.EPOLLOUT and connection.go_on():
                    self._poll.modify(connection.socket, select.EPOLLIN)
                if event & ~select.EPOLLOUT:
                    self._take(number, connection)
            except OSError:
                self._replace(connection)

    def _take(self, number: int, connection: _Connection) -> None:
        status = connection.status()
        if status is None:
            return
        latency_s = time.perf_counter() - connection.due
        self.statuses[status] += 1
        if status == 200:
            self.latencies_s.append(latency_s)
            self.n_good += latency_s <= self._patience_s
        if connection.unsent or b"connection: close" in connection.received[:1000].lower():
            self._replace(connection, broken=False)  # refused before it was read, or the last answer of this connection
            return
        del self._busy[number]
        self._free.append(connection)

    def _replace(self, connection: _Connection, *, broken: bool = True) -> None:
        self.n_broken += broken
        self._busy.pop(connection.socket.fileno(), None)
        self._poll.unregister(connection.socket)
        connection.socket.close()
        self._free.append(self._opened())

    def _replace_idle(self, number: int) -> None:
        """A server may close a connection between two requests."""
        for connection in [free for free in self._free if free.socket.fileno() == number]:
            self._free.remove(connection)
            self._replace(connection, broken=False)


def moments(rate: float, seconds: float, rng: np.random.Generator | None = None) -> list[float]:
    """When requests are due, s: evenly, or with a generator at random, as of many clients that do not know each other.

    >>> moments(2.0, 2.0)
    [0.0, 0.5, 1.0, 1.5]
    """
    n = max(1, round(rate * seconds))
    gaps = np.full(n, 1 / rate) if rng is None else rng.exponential(1 / rate, n)
    found: list[float] = (np.cumsum(gaps) - gaps[0]).tolist()
    return found


def request_of(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The bytes of a POST."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {target} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def sent(
    url: str,
    body: Path,
    headers: Mapping[str, str],
    rate: float,
    seconds: float,
    *,
    n_connections: int,
    may_wait: bool,
    seed: int | None = None,
) -> Sent:
    """Posts one body at a rate, from the core that servers are not on.

    Args:
        url: to post to.
        body: file of its bytes.
        headers: of each request.
        rate: requests a second.
        seconds: how long.
        n_connections: at most so many requests are under way.
        may_wait: a request that finds no free connection waits for one; otherwise it is dropped.
        seed: of random moments; None for even ones.
    """
    command = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.serving.open_loop", url, str(body)]
    options = {"rate": rate, "seconds": seconds, "connections": n_connections, "seed": -1 if seed is None else seed}
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    flags += ["--may-wait"] if may_wait else []
    lines = [word for name, value in headers.items() for word in ("--header", f"{name}: {value}")]
    run = subprocess.run([*command, *flags, *lines], stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(run.stdout, type=Sent)


def main() -> None:
    """Prints a `Sent` as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving.open_loop")
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seed", type=int, default=-1)
    parser.add_argument("--may-wait", action="store_true")
    parser.add_argument("--patience", type=float, default=PATIENCE_S)
    parser.add_argument("--header", action="append", default=[])
    chosen = parser.parse_args()
    headers = dict(line.split(": ", 1) for line in chosen.header)
    run = _Run(
        chosen.url, request_of(chosen.url, headers, chosen.body.read_bytes()), chosen.connections, chosen.patience
    )
    due = moments(chosen.rate, chosen.seconds, None if chosen.seed < 0 else np.random.default_rng(chosen.seed))
    gc.disable()
    run.go(due, may_wait=chosen.may_wait)
    p50_ms, p99_ms, max_ms = (
        (1e3 * np.quantile(run.latencies_s, [0.5, 0.99, 1])).round(3).tolist() if run.latencies_s else [None] * 3
    )
    found = Sent(
        len(due), run.n_sent, dict(run.statuses), run.n_good, run.n_broken, chosen.seconds, p50_ms, p99_ms, max_ms
    )
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()

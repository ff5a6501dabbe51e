"""Three hundred clients that send, read or say nothing in time: what others notice of them, and when they are cut.

`python -m benchmarks.slow_clients`; a minute.
"""

import argparse
import asyncio
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.report import RESULTS, markdown_table, write_report
from benchmarks.serving import open_loop
from benchmarks.serving.process import LOAD_CORE, SERVER_CORE
from benchmarks.serving_process import serving, wait_until_ready
from nelbo.bundle import read_bundle
from nelbo.store import Store

_N_CLIENTS, _DEADLINE_S = 300, 8.0
_RAMP_S, _SECONDS, _RATE, _N_CONNECTIONS = 2.0, 4.0, 200.0, 16
_DRIP_S = 1.0  # between two bytes
_LATE_S = 3.0  # a sweep a second sees a client first, and another one that its time is over; and one for this machine
_MOST = 2.0  # times the p99 without them
_LARGE = 100  # records of the answer that is not read: more bytes than such a client's kernel takes
_JSON = {"Content-Type": "application/json"}


class Slow(msgspec.Struct, frozen=True):
    """A kind of slow client.

    Attributes:
        name: of the kind.
        first: what it sends at once.
        drip: what it sends a byte of each second, again and again; nothing for one that waits.
    """

    name: str
    first: bytes
    drip: bytes = b""


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        without: good requests while nobody is slow.
        beside: while three hundred are.
        cut_s: after how long each of these lost its connection, by kind; None where it did not in time.
    """

    without: open_loop.Sent
    beside: open_loop.Sent
    cut_s: dict[str, list[float | None]]

    @property
    def ratio(self) -> float:
        """Of the p99."""
        return (self.beside.p99_ms or float("inf")) / (self.without.p99_ms or float("nan"))

    @property
    def n_failed(self) -> int:
        """Good requests that had no answer of 200 within a second."""
        return sum(sent.n_due - sent.n_good for sent in (self.without, self.beside))

    @property
    def n_kept(self) -> int:
        """Slow clients that were not cut in time."""
        return sum(seconds is None for of_kind in self.cut_s.values() for seconds in of_kind)


def kinds(path: str, record: object) -> list[Slow]:
    """Five kinds of slow clients for the model whose path is given, and a record of which."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n".encode()
    large = msgspec.json.encode({"records": [record] * _LARGE})
    stream = head.replace(b"application/json", b"application/x-ndjson") + b"transfer-encoding: chunked\r\n\r\n"
    return [
        Slow("says nothing", b""),
        Slow("drips its head", head, b"a: b\r\n"),
        Slow("drips its body", head + b"content-length: 100000\r\n\r\n", b" "),
        Slow("reads nothing", head + b"content-length: %d\r\n\r\n%b" % (len(large), large)),
        Slow("opens a stream and is silent", stream),
    ]


async def held(port: int, kind: Slow, delay_s: float) -> float | None:
    """After how many seconds a slow client is cut; None where it is not in time."""
    await asyncio.sleep(delay_s)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, ("127.0.0.1", port))
        started, i = time.perf_counter(), 0
        await loop.sock_sendall(connection, kind.first)
        while (seconds := time.perf_counter() - started) < _DEADLINE_S + _LATE_S:
            await asyncio.sleep(_DRIP_S)
            try:
                if kind.drip:
                    await loop.sock_sendall(connection, kind.drip[i % len(kind.drip) :][:1])
                if _is_over(connection, reads="reads" not in kind.name):
                    return round(time.perf_counter() - started, 1)
            except OSError:
                return round(seconds, 1)
            i += 1
    return None


def _is_over(connection: socket.socket, *, reads: bool) -> bool:
    """Whether the service has closed; whoever reads nothing is told by a reset alone."""
    if not reads:
        return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    return True


async def beside_slow_ones(
    url: str, port: int, slow: Sequence[Slow], body: Path
) -> tuple[open_loop.Sent, list[float | None]]:
    """Good requests while all slow clients hold their connections; and when each of these is cut."""
    delays = [_RAMP_S * i / _N_CLIENTS for i in range(_N_CLIENTS)]
    clients = [asyncio.create_task(held(port, slow[i % len(slow)], delay)) for i, delay in enumerate(delays)]
    await asyncio.sleep(_RAMP_S + 1)
    sent = await asyncio.to_thread(good, url, body)
    return sent, await asyncio.gather(*clients)


def good(url: str, body: Path) -> open_loop.Sent:
    """Requests of one record at moments by chance."""
    return open_loop.sent(url, body, _JSON, _RATE, _SECONDS, n_connections=_N_CONNECTIONS, may_wait=True, seed=0)


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints a line a round; 1 where others notice too much, or a slow client is not cut."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow_clients")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="machines")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    record = read_bundle(Store(options.models).live(options.model)).golden[0].record
    path = f"/v1/models/{options.model}/score?explain=none"
    slow = kinds(path, record)
    os.sched_setaffinity(0, {SERVER_CORE})  # the service inherits it
    rounds = []
    with tempfile.TemporaryDirectory() as folder, serving(options.models, REQUEST_DEADLINE_S=_DEADLINE_S) as service:
        os.sched_setaffinity(0, {LOAD_CORE})
        body = Path(folder, "body")
        body.write_bytes(msgspec.json.encode({"records": [record]}))
        wait_until_ready(service.url)
        good(service.url + path, body)  # warm
        for _ in range(options.rounds):
            without = good(service.url + path, body)
            port = int(service.url.rpartition(":")[2])
            beside, cut_s = asyncio.run(beside_slow_ones(service.url + path, port, slow, body))
            by_kind = {kind.name: cut_s[i :: len(slow)] for i, kind in enumerate(slow)}
            rounds.append(Round(without, beside, by_kind))
            print(_line(rounds[-1]), flush=True)
    return _reported(rounds, options, results)


def _line(one: Round) -> str:
    return (
        f"p99 {one.without.p99_ms} ms, beside slow clients {one.beside.p99_ms} ms: ratio {one.ratio:.2f}; "
        f"{one.n_failed} good requests failed; {one.n_kept} slow clients not cut after {_DEADLINE_S:g} s"
    )


def _reported(rounds: Sequence[Round], options: argparse.Namespace, results: Path) -> int:
    ratio = statistics.median(one.ratio for one in rounds)
    n_failed, n_kept = (sum(of) for of in zip(*((one.n_failed, one.n_kept) for one in rounds), strict=True))
    passes = ratio <= _MOST and n_failed == n_kept == 0
    sentence = (
        f"Beside {_N_CLIENTS} slow clients the p99 of {_RATE:g} requests a second is {ratio:.2f} times that without "
        f"(at most {_MOST:g} is asked for; median of {len(rounds)} rounds); {n_failed} of them failed; {n_kept} slow "
        f"clients were not cut within {_LATE_S:g} s of their deadline of {_DEADLINE_S:g} s: "
        f"{'passes' if passes else 'FAILS'}."
    )
    print(sentence)
    latencies = [(f"{one.without.p50_ms}", one.without.p99_ms, one.beside.p50_ms, one.beside.p99_ms) for one in rounds]
    cuts = [
        (kind, min(of_all, default=None), max(of_all, default=None))
        for kind in rounds[0].cut_s
        for of_all in [[s for one in rounds for s in one.cut_s[kind] if s is not None]]
    ]
    body = f"{sentence}\n\n{markdown_table(['p50, ms', 'p99', 'p50 beside them', 'p99'], latencies)}\n\n"
    body += markdown_table(["a client that", "is cut after, s, at least", "at most"], cuts)
    figures = {"ratio": round(ratio, 3), "failed": n_failed, "kept": n_kept, "passes": passes}
    command = f"python -m benchmarks.slow_clients --rounds {options.rounds}"
    found = figures | {"rounds": [msgspec.to_builtins(one) for one in rounds]}
    write_report("slow_clients", "Slow clients", command, found, body, results)
    return 0 if passes else 1


if __name__ == "__main__":
    raise SystemExit(main())

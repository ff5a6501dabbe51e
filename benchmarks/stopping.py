"""Stops under load: requests that fail behind a balancer, and accepted ones that a process alone leaves unanswered.

`python -m benchmarks.stopping [--stops 20]` needs haproxy; two minutes.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.bundle import read_bundle
from nelbo.store import Store

_CLIENTS = 12  # of each of the two kinds; chosen: some hundred requests a second, which leave room for a balancer
_PAUSE_S = 0.005  # between a client's requests
_SETTLE_S = 0.6  # between two stops
_PATIENCE_S = 30.0
_CONFIG = """
global
  maxconn 2000
defaults
  mode http
  # No second attempt, which would hide what the first one met.
  retries 0
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend in
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  balance roundrobin
  option httpchk GET /healthz/ready
  default-server check inter 100ms fall 1 rise 1
  server a 127.0.0.1:{a}
  server b 127.0.0.1:{b}
"""


@dataclass
class Seen:
    """What clients saw.

    Attributes:
        answers: how many had which status.
        refused: connections that were not accepted.
        lost: requests that were sent on an accepted connection and had no answer, by what happened instead.
    """

    answers: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def n_failed(self) -> int:
        """Answers other than 200, and requests that were lost."""
        return sum(n for status, n in self.answers.items() if status != 200) + self.lost.total()


class Client:
    """Asks again and again, on one connection or on a new one each time."""

    def __init__(self, port: int, request: bytes, seen: Seen, *, keeps: bool) -> None:
        self._port, self._request, self._seen, self._keeps = port, request, seen, keeps
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self, is_over: Callable[[], bool]) -> None:
        """Returns when it is over."""
        while not is_over():
            await self._ask()
            await asyncio.sleep(_PAUSE_S)
        self._close()

    async def _ask(self) -> None:
        if self._streams is None or self._streams[0].at_eof():  # closed by the other side between two requests
            self._close()
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            except ConnectionRefusedError:
                self._seen.refused += 1
                return
            except OSError as error:  # accepted by the kernel, and reset
                self._seen.lost[f"{type(error).__name__} while connecting"] += 1
                return
        reader, writer = self._streams
        try:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
        except (OSError, asyncio.IncompleteReadError) as error:
            self._seen.lost[type(error).__name__] += 1
            self._close()
            return
        self._seen.answers[int(head[9:12])] += 1
        if not self._keeps or b"connection: close" in head.lower():
            self._close()

    def _close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


@dataclass(frozen=True)
class Replica:
    """A service process that can be stopped and started anew.

    Attributes:
        models: the store's folder.
        port: that it listens on.
        drain_s: its setting.
    """

    models: Path
    port: int
    drain_s: float

    async def started(self) -> subprocess.Popen[bytes]:
        """A process that is ready."""
        chosen = {"MODELS": self.models.resolve(), "PORT": self.port, "DRAIN_S": self.drain_s, "LOG_LEVEL": "error"}
        environment = os.environ | {f"NELBO_{name}": str(value) for name, value in chosen.items()}
        process = subprocess.Popen([sys.executable, "-P", "-m", "service"], env=environment)
        await _until_ready(self.port)
        return process


async def _until_ready(port: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        await asyncio.sleep(0.05)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            continue
        writer.write(b"GET /healthz/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        if answer.startswith(b"HTTP/1.1 200"):
            return
    raise TimeoutError(f"port {port} is not ready after {_PATIENCE_S:g} s")


async def _stopped(process: subprocess.Popen[bytes]) -> None:
    """Stops a process by SIGTERM.

    Raises:
        ChildProcessError: it did not end with 0.
    """
    process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(process.wait, _PATIENCE_S)
    if code:
        raise ChildProcessError(f"expected the service to end with 0, got {code}")


@asynccontextmanager
async def _clients(port: int, request: bytes, seen: Seen) -> AsyncIterator[None]:
    """Asks while the block runs."""
    over = asyncio.Event()
    clients = [Client(port, request, seen, keeps=bool(i % 2)) for i in range(2 * _CLIENTS)]
    tasks = [asyncio.create_task(client.run(over.is_set)) for client in clients]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def behind_a_balancer(haproxy: str, models: Path, request: bytes, n_stops: int) -> Seen:
    """Stops two replicas in turn."""
    port, *ports = _free_ports(3)
    replicas = [Replica(models, one, drain_s=1.0) for one in ports]
    seen = Seen()
    processes = [await replica.started() for replica in replicas]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "haproxy.cfg")
        config.write_text(_CONFIG.format(port=port, a=ports[0], b=ports[1]), encoding="utf-8")
        balancer = subprocess.Popen([haproxy, "-q", "-db", "-f", str(config)])
        try:
            await _until_ready(port)
            await asyncio.sleep(_SETTLE_S)
            async with _clients(port, request, seen):
                for i in range(n_stops):
                    await asyncio.sleep(_SETTLE_S)
                    await _stopped(processes[i % 2])
                    processes[i % 2] = await replicas[i % 2].started()
                await asyncio.sleep(_SETTLE_S)
        finally:
            balancer.kill()
            balancer.wait()
            for process in processes:
                process.kill()
                process.wait()
    return seen


async def alone(models: Path, request: bytes, n_stops: int, drain_s: float) -> Seen:
    """Stops one process again and again; connections that it does not accept any more are no failure."""
    seen = Seen()
    for _ in range(n_stops):
        replica = Replica(models, _free_ports(1)[0], drain_s)
        process = await replica.started()
        try:
            async with _clients(replica.port, request, seen):
                await asyncio.sleep(_SETTLE_S)
                await _stopped(process)
        finally:
            process.kill()
    return seen


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def request_of(models: Path, name: str) -> bytes:
    """The bytes of a request that scores a record of a model."""
    body = json.dumps({"records": [read_bundle(Store(models).live(name)).golden[0].record]}).encode()
    head = f"POST /v1/models/{name}/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return head.encode() + b"content-length: %d\r\n\r\n%b" % (len(body), body)


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints a line for each way to stop; 1 where a request failed, 2 without haproxy."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stopping")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--model", default="machines")
    parser.add_argument("--stops", type=int, default=20)
    options = parser.parse_args(arguments)
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        print("expected the program haproxy, found none; Debian has it as a package", file=sys.stderr)
        return 2
    request = request_of(options.models, options.model)
    runs: dict[str, Callable[[], Seen]] = {
        "two replicas behind a balancer, drain of 1 s": lambda: asyncio.run(
            behind_a_balancer(haproxy, options.models, request, options.stops)
        ),
        "one process, drain of 0.5 s": lambda: asyncio.run(alone(options.models, request, options.stops, 0.5)),
        "one process, no drain": lambda: asyncio.run(alone(options.models, request, options.stops, 0.0)),
    }
    found = {}
    for name, run in runs.items():
        seen = found[name] = run()
        verdict = "met" if seen.n_failed == 0 else "SHORT"
        print(f"{verdict}: {name}, {options.stops} stops: {seen.n_failed} failed of {_n(seen):,}; {seen}", flush=True)
    return _reported(found, options, results)


def _n(seen: Seen) -> int:
    return seen.answers.total() + seen.lost.total()


def _reported(found: dict[str, Seen], options: argparse.Namespace, results: Path) -> int:
    passes = all(seen.n_failed == 0 for seen in found.values())
    rows = [(name, options.stops, f"{_n(seen):,}", seen.n_failed, f"{seen.refused:,}") for name, seen in found.items()]
    body = (
        f"SIGTERM while {2 * _CLIENTS} clients ask, half of them on a new connection each time. A request fails that "
        "gets another status than 200, or none although its connection was accepted. Connections that a process alone "
        "does not accept any more are refused, which is no failure. 0 failed requests are asked for: "
        f"{'passes' if passes else 'FAILS'}.\n\n"
    )
    body += markdown_table(["", "stops", "requests", "failed", "connections refused"], rows)
    figures = {
        name: {"answers": dict(seen.answers), "lost": dict(seen.lost), "refused": seen.refused, "failed": seen.n_failed}
        for name, seen in found.items()
    }
    command = f"python -m benchmarks.stopping --stops {options.stops}"
    write_report("stopping", "Stops under load", command, {"passes": passes, "runs": figures}, body, results)
    return 0 if passes else 1


if __name__ == "__main__":
    raise SystemExit(main())

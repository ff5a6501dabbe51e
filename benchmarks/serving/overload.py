"""Five times what the service can answer: how much it still answers in time, and whether its health does."""

import http.client
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from benchmarks.report import markdown_table
from benchmarks.serving import open_loop
from benchmarks.serving.bars import Bar, ratio
from benchmarks.serving.process import Server
from benchmarks.serving.setup import Setup
from benchmarks.serving.targets import BARE, OURS, SCORE, Target

TITLE = "Goodput under overload"
_ROUNDS, _SECONDS, _TIMES = 3, 4, 5
_PATHS = ("/healthz/live", "/healthz/ready")
_EVERY_S, _PATIENCE_S = 0.05, 5.0
_IDLE_S, _LONGEST_IDLE_S = 0.3, 30.0
# Records a request: its target, the concurrency that finds the capacity, and connections enough that requests under way
# are more than a second's worth of work, or as many as one process can well hold.
_KINDS = {1: (Target(OURS, "objects", SCORE), 32, 1000), 1000: (Target(OURS, "objects", BARE), 4, 400)}


class Health(msgspec.Struct):
    """What health checks said during a run.

    Attributes:
        latencies_ms: of those that were answered with 200.
        n_refused: how many had another status, or none.
    """

    latencies_ms: list[float]
    n_refused: int = 0

    @property
    def n_late(self) -> int:
        """How many of these took more than a second, which is when Kubernetes gives up by default."""
        return sum(ms > 1000 for ms in self.latencies_ms)


class Run(msgspec.Struct, frozen=True):
    """One round.

    Attributes:
        at_capacity: requests at the capacity.
        beyond: requests at five times as many.
        health: during the latter.
    """

    at_capacity: open_loop.Sent
    beyond: open_loop.Sent
    health: Health

    @property
    def ratio(self) -> float | None:
        """Goodput beyond capacity over goodput at it."""
        return ratio(self.beyond.goodput, self.at_capacity.goodput)


class Found(msgspec.Struct, frozen=True):
    """The figures, by records a request.

    Attributes:
        capacity: requests a second in a closed loop.
        runs: a round each.
    """

    capacity: dict[int, float]
    runs: dict[int, list[Run]]


def measure(setup: Setup) -> Found:
    """Both sizes of body, one after the other."""
    found = Found({}, {})
    for n, (target, n_clients, n_connections) in _KINDS.items():
        sent = setup.bodies(n)
        body = sent[target.form].kept_in(setup.place.folder / "bodies", f"{target.form}.body")
        with setup.serving([target], sent) as (servers, _, _):
            longer = replace(setup, rounds=_ROUNDS, seconds=_SECONDS)
            (cost,), _ = longer.compared(servers, [target], sent, n_clients)
            capacity = cost.rate
            server = servers[target.program]
            found.capacity[n] = capacity
            found.runs[n] = [_run(server, target, body, capacity, n_connections) for _ in range(_ROUNDS)]
    return found


def bars(found: Found) -> list[Bar]:
    """What is asked under overload."""
    asked = []
    for n, runs in found.runs.items():
        ratios = [run.ratio or 0.0 for run in runs]
        what = f"goodput at {_TIMES} times capacity over goodput at capacity, {n:,} a request"
        note = f"rounds {min(ratios):.2f}–{max(ratios):.2f}"
        asked.append(Bar(what, round(statistics.median(ratios), 3), 0.8, at_most=False, note=note))
        slowest = max((ms for run in runs for ms in run.health.latencies_ms), default=0.0)
        n_not = sum(run.health.n_refused + run.health.n_late for run in runs)
        what = f"health checks without an answer of 200 within 1 s meanwhile, {n:,} a request"
        asked.append(Bar(what, float(n_not), 0, at_most=True, note=f"slowest answer {slowest:.0f} ms"))
    return asked


def section(found: Found) -> str:
    """Its tables."""
    headings = [
        "records a request",
        "asked, requests/s",
        "sent",
        "answers",
        "good",
        "p50, ms",
        "p99, ms",
        "health p50",
        "slowest",
    ]
    rows = [row for n, runs in found.runs.items() for run in runs for row in _rows(n, found.capacity[n], run)]
    return (
        f"Requests come evenly, first at the rate that a closed loop reaches, then at {_TIMES} times that, {_SECONDS} "
        f"s each; a good answer is 200 within {open_loop.PATIENCE_S:g} s. A request that finds no free connection (of "
        f"{_KINDS[1][2]:,} for one record, {_KINDS[1000][2]:,} for a thousand) is not sent: where fewer were sent than "
        f"asked, all were in use. {' and '.join(f'`{path}`' for path in _PATHS)} are asked every "
        f"{1e3 * _EVERY_S:g} ms meanwhile, from the core of the load.\n\n{markdown_table(headings, rows)}"
    )


def _rows(n: int, capacity: float, run: Run) -> Iterator[tuple[object, ...]]:
    for times, sent in ((1, run.at_capacity), (_TIMES, run.beyond)):
        answers = ", ".join(f"{count:,} × {status}" for status, count in sorted(sent.statuses.items()))
        latencies = run.health.latencies_ms if times == _TIMES else []
        yield (
            f"{n:,}",
            f"{times * capacity:,.0f}",
            f"{sent.n_sent / sent.seconds:,.0f}",
            answers + (f", {sent.n_broken:,} broken" if sent.n_broken else ""),
            f"{sent.goodput:,.0f}",
            f"{sent.p50_ms or 0:.0f}",
            f"{sent.p99_ms or 0:.0f}",
            f"{statistics.median(latencies):.1f}" if latencies else "",
            f"{max(latencies):.1f}" if latencies else "",
        )


def _run(server: Server, target: Target, body: Path, capacity: float, n_connections: int) -> Run:
    def sent(rate: float) -> open_loop.Sent:
        headers = {"Content-Type": "application/json"}
        url = server.url + target.path
        return open_loop.sent(url, body, headers, rate, _SECONDS, n_connections=n_connections, may_wait=False)

    wait_until_idle(server)  # an earlier round may have left work behind that nobody waits for any more
    at_capacity = sent(capacity)
    wait_until_idle(server)
    with asked_for_health(server) as health:
        beyond = sent(_TIMES * capacity)
    return Run(at_capacity, beyond, health)


def wait_until_idle(server: Server) -> None:
    """Returns when a server has next to nothing left to do, or after half a minute."""
    deadline = time.monotonic() + _LONGEST_IDLE_S
    while time.monotonic() < deadline:
        before = server.cpu_s()
        time.sleep(_IDLE_S)
        if server.cpu_s() - before < _IDLE_S / 10:
            return


@contextmanager
def asked_for_health(server: Server) -> Iterator[Health]:
    """Asks how a server is, again and again, until the block ends."""
    health, over = Health([]), threading.Event()

    def ask() -> None:
        while not over.wait(_EVERY_S):
            for path in _PATHS:
                before = time.perf_counter()
                status = _status(server, path)
                if status == 200:
                    health.latencies_ms.append(round(1e3 * (time.perf_counter() - before), 2))
                else:
                    health.n_refused += 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield health
    finally:
        over.set()
        thread.join()


def _status(server: Server, path: str) -> int:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=_PATIENCE_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()

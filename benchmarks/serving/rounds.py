"""Short loads of every target in turn, round after round: what else the machine does then hits all of them alike."""

import http.client
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from benchmarks.serving.bodies import Body
from benchmarks.serving.process import Program, Server, started
from benchmarks.serving.targets import Target
from benchmarks.serving.wrk import Load, loaded

_PATIENCE_S, _POLL_S = 90.0, 0.05
_SETTLE_S = 0.05  # for answers that wrk no longer waited for; chosen
_IDLE_S, _LONGEST_SETTLE_S = (
    0.011,
    5.0,
)  # of CPU a pause: a tick of the kernel's clock; and some servers never rest. Chosen
_SHOWN = 100  # characters of an answer that says no


class Cost(msgspec.Struct, frozen=True):
    """Medians over the rounds of one target.

    Attributes:
        name: of the target.
        cpu_us: CPU time of the server's process tree for a request, µs.
        cpu_low_us: the lowest of a round.
        cpu_high_us: the highest.
        rate: requests answered in a second.
        p50_ms: latency as the client sees it.
        p99_ms: of it.
        pss_mb: of the process tree.
        n_failed: requests of all rounds that got no answer or one of status 400 and above.
    """

    name: str
    cpu_us: float
    cpu_low_us: float
    cpu_high_us: float
    rate: float
    p50_ms: float
    p99_ms: float
    pss_mb: float
    n_failed: int


@contextmanager
def running(
    programs: Mapping[str, Program], first: Mapping[str, tuple[str, Body]], logs: Path
) -> Iterator[tuple[dict[str, Server], dict[str, str]]]:
    """Starts all programs.

    Args:
        programs: by name.
        first: for each the path and the body of a request that it will answer.
        logs: folder of their output.

    Returns:
        Those that answer, by name, and why the others do not.
    """
    servers: dict[str, Server] = {}
    problems: dict[str, str] = {}
    with ExitStack() as stack:
        for name, program in programs.items():
            log = logs / f"{name}.log"
            server = stack.enter_context(started(program, log))
            try:
                wait_until_answered(server, *first[name])
                servers[name] = server
            except (TimeoutError, ChildProcessError) as error:
                problems[name] = f"{error}; {log} says more"
            print(f"{name}: {problems.get(name, 'answers')}", file=sys.stderr, flush=True)
        yield servers, problems


def wait_until_answered(server: Server, path: str, body: Body, poll_s: float = _POLL_S) -> None:
    """Posts until the answer is 200.

    Raises:
        TimeoutError: it is not, for a minute and a half; the text repeats the last answer.
        ChildProcessError: the server has ended.
    """
    deadline, last = time.monotonic() + _PATIENCE_S, ""
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise ChildProcessError(f"ended with {server.process.returncode}")
        last = refusal(server, path, body)
        if not last:
            return
        time.sleep(poll_s)
    raise TimeoutError(f"no answer within {_PATIENCE_S:g} s: {last}")


def refusal(server: Server, path: str, body: Body) -> str:
    """Status and first words of an answer that is not 200; nothing if it is."""
    try:
        status, answer = post(server, path, body)
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    return "" if status == 200 else f"{status} {answer[:_SHOWN].decode(errors='replace')}"


def post(server: Server, path: str, body: Body) -> tuple[int, bytes]:
    """Status and bytes of one answer."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        connection.request("POST", path, body.data, {"Content-Type": body.content_type, **body.headers})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def compared(
    servers: Mapping[str, Server],
    targets: Sequence[Target],
    bodies: Mapping[str, Body],
    folder: Path,
    n_connections: int,
    rounds: int,
    seconds: int,
) -> list[Cost]:
    """What a request costs each target that answers one before a round ends.

    Args:
        servers: that run.
        targets: in the order of the result.
        bodies: by form.
        folder: for the bodies' files.
        n_connections: at once.
        rounds: that count; one more warms up.
        seconds: of each target in each round.
    """
    files = {form: body.kept_in(folder, f"{form}.body") for form, body in bodies.items()}
    found: dict[Target, list[tuple[float, float, Load]]] = {target: [] for target in targets}
    for number in range(rounds + 1):
        for target in targets:
            server, body = servers[target.program], bodies[target.form]
            headers = {"Content-Type": body.content_type, **body.headers}
            before = _idle_cpu_s(server)
            load = loaded(server.url + target.path, files[target.form], headers, n_connections, seconds)
            cpu_s = server.cpu_s() - before
            if number:
                found[target].append((cpu_s, server.pss_mb(), load))
    return [cost(target.name, loads) for target, loads in found.items() if any(load.n_requests for *_, load in loads)]


def _idle_cpu_s(server: Server) -> float:
    """Its CPU seconds once it does nothing any more: what the load before has left waiting is not the next one's."""
    before, now = -1.0, server.cpu_s()
    until = time.monotonic() + _LONGEST_SETTLE_S
    while now - before > _IDLE_S and time.monotonic() < until:
        time.sleep(_SETTLE_S)
        before, now = now, server.cpu_s()
    return now


def cost(name: str, loads: Sequence[tuple[float, float, Load]]) -> Cost:
    """Medians over rounds of CPU seconds, MB and what wrk saw; a round without an answer does not count.

    Args:
        name: of the target.
        loads: of each round, of which one at least has an answer.
    """
    answered = [(cpu_s, pss_mb, load) for cpu_s, pss_mb, load in loads if load.n_requests]
    each_us = [1e6 * cpu_s / load.n_requests for cpu_s, _, load in answered]
    return Cost(
        name=name,
        cpu_us=round(statistics.median(each_us), 1),
        cpu_low_us=round(min(each_us), 1),
        cpu_high_us=round(max(each_us), 1),
        rate=round(statistics.median(load.n_requests / load.seconds for _, _, load in answered), 1),
        p50_ms=statistics.median(load.p50_ms for _, _, load in answered),
        p99_ms=statistics.median(load.p99_ms for _, _, load in answered),
        pss_mb=round(statistics.median(pss_mb for _, pss_mb, _ in answered), 1),
        n_failed=sum(load.n_refused + load.n_broken for _, _, load in loads),
    )

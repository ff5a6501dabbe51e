"""Limits of connections, each time with a real process."""

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.bundles import normal_records, odd_record
from tests.service.conftest import Scrape, Start
from tests.service.process import HEAD, ask, raw

PATH = "/v1/models/pumps/score"
LINE = json.dumps(odd_record()).encode() + b"\n"
STREAM = (
    b"POST /v1/models/pumps/score?explain=none HTTP/1.1\r\nhost: x\r\n"
    b"content-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
)
HEALTH = b"GET /healthz/live HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = HEALTH[:-2] + b"connection: close\r\n\r\n"


@pytest.fixture
def held() -> Iterator[ExitStack]:
    """Closes the connections of a test in the end."""
    with ExitStack() as stack:
        yield stack


def connected(held: ExitStack, port: int, sent: bytes = b"", receive_buffer: int | None = None) -> socket.socket:
    connection = held.enter_context(socket.socket())
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(15)
    connection.connect(("127.0.0.1", port))
    connection.sendall(sent)
    return connection


def the_rest(connection: socket.socket) -> bytes:
    """What comes until the service closes or resets the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            received += part
    return received


def healthy(connection: socket.socket) -> bool:
    """Asks, and leaves the connection open."""
    connection.sendall(HEALTH)
    answer = b""
    while not answer.endswith(b"alive\n"):
        part = connection.recv(65536)
        if not part:
            return False
        answer += part
    return True


def chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def rejected(port: int, reason: str) -> float:
    found = Scrape(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    return found.value("nelbo_requests_rejected_total", reason=reason)


# --- who sends slowly --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [b"GET /healthz", HEALTH[:-2] + b"a: ", HEAD + b"content-length: 9\r\n\r\n{", HEAD + b"content-length: 9\r\n\r\n"],
    ids=["half a line", "half a head", "half a body", "no body"],
)
def test_a_request_that_does_not_become_whole_is_cut_with_408(sent: bytes, start: Start, held: ExitStack) -> None:
    _, port = start(REQUEST_DEADLINE_S=0.5)
    found = the_rest(connected(held, port, sent))
    assert found.startswith(b"HTTP/1.1 408 ")
    assert b'"type":"urn:nelbo:problem:client-too-slow"' in found
    assert rejected(port, "client-too-slow") == 1


def test_a_head_that_drips_is_cut_at_the_deadline_all_the_same(start: Start, held: ExitStack) -> None:
    _, port = start(REQUEST_DEADLINE_S=1)
    connection = connected(held, port, HEALTH[:-2])
    connection.settimeout(0.1)
    for _ in range(100):
        connection.sendall(b"a: b\r\n")
        try:
            assert connection.recv(12) == b"HTTP/1.1 408"
            return
        except TimeoutError:
            pass
    raise AssertionError("the head dripped for 10 s")


def test_a_connection_without_a_request_is_closed_at_the_deadline(start: Start, held: ExitStack) -> None:
    _, port = start(REQUEST_DEADLINE_S=0.5)
    assert the_rest(connected(held, port)) == b""


def test_a_connection_between_two_requests_is_kept_beyond_the_deadline(start: Start, held: ExitStack) -> None:
    _, port = start(REQUEST_DEADLINE_S=0.5)
    connection = connected(held, port)
    assert healthy(connection)
    time.sleep(2.5)
    assert healthy(connection)


def test_a_stream_that_falls_silent_is_cut_and_one_that_goes_on_is_not(start: Start, held: ExitStack) -> None:
    _, port = start(REQUEST_DEADLINE_S=1.5)
    ask(port, PATH, {"records": [odd_record()]})
    silent, speaking = (connected(held, port, STREAM + chunk(LINE)) for _ in range(2))
    for _ in range(9):
        time.sleep(0.5)
        speaking.sendall(chunk(LINE))
    found = the_rest(silent)
    assert (found.count(b'"flagged":true'), found.endswith(b"0\r\n\r\n")) == (1, False)
    speaking.sendall(chunk(b""))
    found = b""
    while not found.endswith(b"0\r\n\r\n"):
        found += speaking.recv(65536)
    assert found.count(b'"flagged":true') == 10


# --- who reads slowly --------------------------------------------------------------------------------


def test_an_answer_that_is_not_read_is_given_up_at_the_deadline(start: Start, held: ExitStack) -> None:
    _, port = start(REQUEST_DEADLINE_S=1)
    body = json.dumps({"records": normal_records(9_000)}).encode()
    ask(port, PATH, {"records": [odd_record()]})
    sent = HEAD.replace(b"score ", b"score?explain=none ") + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    connected(held, port, sent, receive_buffer=4096)
    for _ in range(100):
        if rejected(port, "client-too-slow"):
            return
        time.sleep(0.1)
    raise AssertionError("the connection was kept for 10 s")


# --- how many ----------------------------------------------------------------------------------------


def test_beyond_the_limit_health_is_answered_and_all_else_is_told_why_not(start: Start, held: ExitStack) -> None:
    _, port = start(MAX_CONNECTIONS=2)
    for _ in range(2):
        connected(held, port, b"GET /")
    time.sleep(0.2)
    assert httpx.get(f"http://127.0.0.1:{port}/healthz/live").text == "alive\n"
    found = httpx.post(f"http://127.0.0.1:{port}{PATH}", json={"records": []})
    assert (found.status_code, found.headers["connection"], found.headers["retry-after"]) == (503, "close", "1")
    assert found.json()["detail"] == "2 connections are open, as many as may; try again later"
    assert rejected(port, "too-many-connections") == 1


def test_a_flood_of_connections_is_cut_and_health_is_answered_two_seconds_later(start: Start, held: ExitStack) -> None:
    _, port = start(MAX_CONNECTIONS=1)
    ask(port, "/v1/models/pumps")
    for _ in range(200):
        connected(held, port)
    time.sleep(4)
    assert httpx.get(f"http://127.0.0.1:{port}/healthz/live").text == "alive\n"
    assert rejected(port, "too-many-connections") >= 100
    assert Scrape(httpx.get(f"http://127.0.0.1:{port}/metrics").text).value("nelbo_connections") <= 3


def test_an_idle_connection_makes_room_for_a_new_one(start: Start, held: ExitStack) -> None:
    _, port = start(MAX_CONNECTIONS=1)
    ask(port, "/v1/models/pumps")
    idle = connected(held, port)
    assert healthy(idle)
    assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 200
    assert idle.recv(1) == b""


def test_connections_are_counted(start: Start, held: ExitStack) -> None:
    _, port = start()
    for _ in range(3):
        connected(held, port)
    time.sleep(0.2)
    assert Scrape(httpx.get(f"http://127.0.0.1:{port}/metrics").text).value("nelbo_connections") == 4


def test_a_process_without_descriptors_recovers_when_there_are_some_again(start: Start, held: ExitStack) -> None:
    process, port = start(REQUEST_DEADLINE_S=60)
    ask(port, PATH, {"records": [odd_record()]})
    n_open = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (n_open + 5, hard))
    hoarded = [connected(held, port) for _ in range(30)]
    time.sleep(0.5)
    before = cpu_s(process.pid)
    time.sleep(1)
    assert cpu_s(process.pid) - before < 0.5
    for connection in hoarded:
        connection.close()
    time.sleep(0.2)
    assert ask(port, PATH, {"records": [odd_record()]})["results"][0]["flagged"] is True
    process.terminate()
    _, log = process.communicate(timeout=30)
    assert len(log.splitlines()) < 10


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / 100


# --- many requests at once ---------------------------------------------------------------------------


def test_requests_that_are_sent_at_once_are_answered_in_turn_and_of_thousands_the_first(
    start: Start, held: ExitStack
) -> None:
    _, port = start()
    ask(port, "/v1/models/pumps")
    assert the_rest(connected(held, port, 15 * HEALTH + LAST)).count(b"alive\n") == 16
    connection = connected(held, port)
    with suppress(ConnectionError):
        connection.sendall(5_000 * HEALTH)
    assert the_rest(connection).count(b"alive\n") <= 17
    assert rejected(port, "head-too-large") == 1


def test_requests_without_end_take_no_memory_and_keep_nobody_waiting(start: Start, held: ExitStack) -> None:
    process, port = start()
    ask(port, "/v1/models/pumps")
    before = memory_mib(process.pid)
    for _ in range(50):
        connection = connected(held, port)
        connection.setblocking(False)
        with suppress(ConnectionError, BlockingIOError):
            for _ in range(100):
                connection.sendall(3_000 * b"GET /x HTTP/1.1\r\n\r\n")
    started = time.monotonic()
    assert httpx.get(f"http://127.0.0.1:{port}/healthz/live", timeout=60).text == "alive\n"
    assert time.monotonic() - started < 5
    assert memory_mib(process.pid) - before < 100


def memory_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


# --- what is no request ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        HEALTH[:-2] + b"a: b\r\n" * 200 + b"\r\n",
        HEALTH[:-2] + b"a: " + b"b" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        STREAM + chunk(b"")[:-2] + b"a: " + b"b" * 1_000_000,
    ],
    ids=["many headers", "a long header", "a long path", "a long trailer"],
)
def test_a_head_that_is_too_large_gets_431_or_the_end(head: bytes, start: Start, held: ExitStack) -> None:
    _, port = start()
    ask(port, "/v1/models/pumps")
    connection = connected(held, port)
    with suppress(ConnectionError):
        connection.sendall(head)
    found = the_rest(connection)
    assert found[:13] in (b"HTTP/1.1 431 ", b"")
    assert rejected(port, "head-too-large") == 1


@pytest.mark.parametrize(
    "body",
    [b"content-length: 2\r\n\r\n{}", b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
    ids=["whole", "in chunks"],
)
def test_a_body_beside_an_upgrade_is_refused_and_not_taken_for_a_request(body: bytes, start: Start) -> None:
    _, port = start()
    upgrade = b"connection: upgrade\r\nupgrade: h2c\r\n"  # as Java's HttpClient sends it
    found = raw(port, HEAD + upgrade + body, LAST)
    assert (found[:13], found.count(b"alive\n")) == (b"HTTP/1.1 400 ", 0)
    assert b"without the header Upgrade" in found
    assert raw(port, LAST[:-2].replace(b"close", b"close, upgrade") + b"upgrade: h2c\r\n\r\n").count(b"alive\n") == 1


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("behind", [b"\x16\x03\x01\r\n\r\n", HEALTH[:-2] + b"a: b\r\n" * 200 + b"\r\n"])
def test_what_is_refused_takes_no_answer_from_a_request_before_it(behind: bytes, n: int, start: Start) -> None:
    _, port = start()
    ask(port, "/v1/models/pumps")
    body = json.dumps({"records": [odd_record()]}).encode()  # which is explained in another thread
    found = raw(port, (HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)) * n + behind)
    assert [found.count(part) for part in (b"HTTP/1.1 200 OK", b'"reason":', b"HTTP/1.1 4")] == [n, n, 0]


def test_bytes_that_are_no_http_are_told_so_and_not_logged(start: Start) -> None:
    process, port = start()
    assert b'"type":"urn:nelbo:problem:not-http"' in raw(port, b"\x16\x03\x01 hello\r\n\r\n")
    assert rejected(port, "not-http") == 1
    process.terminate()
    _, log = process.communicate(timeout=30)
    assert "HTTP" not in log

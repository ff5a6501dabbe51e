"""How the process stops, each time with a real one."""

import inspect
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http import flow_control, httptools_impl

from tests.bundles import odd_record
from tests.service.conftest import Start
from tests.service.process import HEAD, ask

BODY = json.dumps({"records": [odd_record()]}).encode()
SCORE = HEAD + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
PATH = "/v1/models/pumps/score"


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def answer_on(connection: socket.socket) -> bytes:
    """An answer, on a connection that stays open or one that does not."""
    received = b""
    while b"\r\n\r\n" not in received or b'"results"' not in received or not received.endswith(b"}"):
        chunk = connection.recv(65536)
        if not chunk:
            return received
        received += chunk
    return received


def outcome(port: int) -> bytes:
    """What becomes of a request on a connection of its own."""
    try:
        connection = connected(port)
    except ConnectionRefusedError:
        return b"refused"
    with connection:
        time.sleep(0.01)
        connection.sendall(SCORE)
        return answer_on(connection)[:15]


@contextmanager
def held(process: subprocess.Popen[str]) -> Iterator[None]:
    """Nothing of what the block does reaches the process before it ends, when all of it does."""
    process.send_signal(signal.SIGSTOP)
    yield
    process.send_signal(signal.SIGCONT)


def test_a_service_that_is_told_to_stop_is_not_ready_and_answers_for_a_while(start: Start) -> None:
    process, port = start(DRAIN_S=1.5)
    ask(port, PATH, {"records": [odd_record()]})
    process.send_signal(signal.SIGTERM)
    time.sleep(0.4)
    ready = httpx.get(f"http://127.0.0.1:{port}/healthz/ready")
    assert (ready.status_code, ready.json()["type"]) == (503, "urn:nelbo:problem:stopping")
    assert httpx.get(f"http://127.0.0.1:{port}/v2/health/ready").status_code == 503
    found = httpx.post(f"http://127.0.0.1:{port}{PATH}", content=BODY, headers={"content-type": "application/json"})
    assert (found.status_code, found.headers["connection"]) == (200, "close")
    assert process.wait(timeout=30) == 0


def test_a_second_signal_ends_the_drain(start: Start) -> None:
    process, port = start(DRAIN_S=600)
    ask(port, PATH, {"records": [odd_record()]})
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def test_a_signal_after_the_drain_ends_the_process_and_waits_for_no_answer(start: Start) -> None:
    process, port = start(DRAIN_S=0.2)
    ask(port, PATH, {"records": [odd_record()]})
    with connected(port) as connection:
        connection.sendall(HEAD.replace(b"json", b"x-ndjson") + b"transfer-encoding: chunked\r\n\r\n")
        process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        assert process.poll() is None  # the stream may go on for 20 s
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=8) == 0


def test_an_interrupt_from_the_keyboard_does_not_wait_for_the_drain(start: Start) -> None:
    process, port = start(DRAIN_S=600)
    ask(port, PATH, {"records": [odd_record()]})
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0


def test_what_waits_in_the_backlog_when_a_stop_comes_is_answered(start: Start) -> None:
    process, port = start()
    ask(port, PATH, {"records": [odd_record()]})
    with ExitStack() as stack:
        with held(process):
            connections = [stack.enter_context(connected(port)) for _ in range(50)]
            process.send_signal(signal.SIGTERM)
            for connection in connections:
                connection.sendall(SCORE)
        assert [answer_on(connection)[:15] for connection in connections] == [b"HTTP/1.1 200 OK"] * 50
    assert process.wait(timeout=30) == 0


def test_a_request_that_comes_with_the_stop_on_an_open_connection_is_answered_and_the_last_one(start: Start) -> None:
    process, port = start()
    ask(port, PATH, {"records": [odd_record()]})
    with connected(port) as connection:
        connection.sendall(SCORE)
        assert b"connection: close" not in answer_on(connection)
        with held(process):
            process.send_signal(signal.SIGTERM)
            connection.sendall(SCORE)
        found = answer_on(connection)
        assert found.startswith(b"HTTP/1.1 200 OK")
        assert connection.recv(1) == b""


def test_an_answer_that_began_before_the_stop_is_followed_by_another_that_says_it_is_the_last(start: Start) -> None:
    process, port = start(DRAIN_S=3)
    ask(port, PATH, {"records": [odd_record()]})
    line = json.dumps(odd_record()).encode() + b"\n"
    head = f"POST {PATH}?explain=none HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\n".encode()
    with connected(port) as connection, connection.makefile("rb") as answer:
        connection.sendall(head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(line), line))
        begun = [answer.readline() for _ in range(2)]
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(b"0\r\n\r\n")
        while answer.readline() != b"0\r\n":
            pass
        answer.readline()
        connection.sendall(SCORE)
        found = answer.read()
    assert begun[0] == b"HTTP/1.1 200 OK\r\n"
    assert (found[:15], b"connection: close\r\n" in found) == (b"HTTP/1.1 200 OK", True)


def test_a_connection_that_was_opened_before_the_stop_may_ask_once(start: Start) -> None:
    process, port = start()
    ask(port, PATH, {"records": [odd_record()]})
    with connected(port) as connection:
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.4)
        connection.sendall(SCORE)
        assert answer_on(connection).startswith(b"HTTP/1.1 200 OK")
    assert process.wait(timeout=30) == 0


def test_after_the_stop_connections_are_refused_and_not_reset(start: Start) -> None:
    process, port = start()
    ask(port, PATH, {"records": [odd_record()]})
    process.send_signal(signal.SIGTERM)
    ends = [outcome(port) for _ in range(100)]
    assert set(ends) == {b"HTTP/1.1 200 OK", b"refused"}


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (uvicorn.Server, ("handle_exit", "on_tick", "shutdown", "should_exit", "force_exit", "server_state")),
        (
            httptools_impl.HttpToolsProtocol,
            (
                *("connection_made", "connection_lost", "data_received", "on_headers_complete", "send_400_response"),
                *("pause_writing", "shutdown", "app_state", "cycle", "flow", "headers", "logger", "pipeline"),
                *("parser", "scope", "timeout_keep_alive_task", "transport"),
            ),
        ),
        (httptools_impl.RequestResponseCycle, ("body", "keep_alive", "more_body", "response_complete")),
        (flow_control.FlowControl, ("write_paused",)),
        (uvicorn.Config, ("encoded_headers", "timeout_graceful_shutdown", "timeout_keep_alive")),
    ],
)
def test_uvicorn_has_what_the_server_and_its_connections_build_on(owner: type, names: tuple[str, ...]) -> None:
    source = inspect.getsource(owner)
    assert [name for name in names if f"def {name}" not in source and f"self.{name}" not in source] == []

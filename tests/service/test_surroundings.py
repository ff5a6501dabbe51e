"""What the service promises when what is around it fails."""

import fcntl
import os
import shutil
import signal
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.bundles import write_tiny_bundle
from tests.service.conftest import Scrape
from tests.service.surroundings import (
    PATIENCE_S,
    Running,
    free_port,
    hanging,
    lines,
    little_memory,
    needs_root,
    running,
)

MIB = 2**20


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with the model `pumps`, to be spoilt."""
    write_tiny_bundle(tmp_path / "models")
    return tmp_path / "models"


# --- the store ---------------------------------------------------------------------------------------


def test_a_store_that_is_deleted_touches_nothing_that_serves(store: Path) -> None:
    with running(store) as service:
        shutil.rmtree(store)
        assert service.ask("/v1/models/pumps/reload", content=b"").status_code >= 400
        service.expect_well()


@needs_root
def test_a_store_that_hangs_touches_nothing_that_serves_and_no_stop(store: Path) -> None:
    with running(store) as service, hanging(store):
        threading.Thread(target=lambda: _try(service, "/v1/models/pumps/versions"), daemon=True).start()
        time.sleep(0.2)  # it waits by now
        service.expect_well()
        assert service.stop() == 0


@needs_root
def test_a_store_that_is_cut_off_touches_nothing_that_serves(store: Path) -> None:
    with running(store) as service, hanging(store) as connection:
        os.close(connection)
        assert service.ask("/v1/models/pumps/versions").status_code == 503
        service.expect_well()


@needs_root
def test_a_store_that_hangs_at_the_start_leaves_the_process_alive_and_not_ready(store: Path) -> None:
    with hanging(store), running(store, is_awaited=False) as service:
        deadline = time.monotonic() + PATIENCE_S
        while _try(service, "/healthz/live") != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert service.ask("/healthz/ready").status_code == 503
        assert service.stop() == 0


def _try(service: Running, path: str) -> int | None:
    try:
        return service.ask(path).status_code
    except httpx.TransportError:
        return None


def test_aliases_that_are_a_pipe_are_refused_and_not_waited_for(store: Path) -> None:
    with running(store) as service:
        os.mkfifo(store / "pumps" / "aliases.json")
        assert service.ask("/v1/models/pumps/versions").status_code == 503
        service.expect_well()


@needs_root
def test_a_service_needs_no_disk_that_it_may_write(store: Path) -> None:
    """A mount namespace of its own, in which everything but the kernel's own file systems is read only."""
    script = (
        'grep -E " (ext4|overlay|xfs|btrfs|tmpfs|devtmpfs) " /proc/self/mounts | cut -d" " -f2 | '
        'while read -r at; do mount -o remount,bind,ro "$at" 2>/dev/null; done; '
        '! touch "$NELBO_MODELS/x" 2>/dev/null && ! touch /tmp/x 2>/dev/null && exec "$@"'
    )
    with running(store, before=["unshare", "-m", "sh", "-c", script, "sh"]) as service:
        service.expect_well()
        assert service.stop() == 0


# --- the log, and signals ----------------------------------------------------------------------------


def test_a_log_that_nobody_reads_stops_nobody(store: Path) -> None:
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)
    os.write(writing, b"x" * size)
    with running(store, stderr=writing) as service:
        service.expect_well()
        assert os.read(reading, size) == b"x" * size
        assert service.stop() == 0
    os.close(writing)
    with os.fdopen(reading, "rb") as rest:
        assert [line["event"] for line in lines(rest.read())] == [
            "listening",
            "model loaded",
            "stopping",
            "stopped",
        ]


@pytest.mark.parametrize("how", ["full", "gone", "closed"])
def test_a_log_that_cannot_be_written_stops_nobody(how: str, store: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with ExitStack() as stack:
        stderr = stack.enter_context(open("/dev/full", "wb")) if how == "full" else writing
        before = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"] if how == "closed" else []
        service = stack.enter_context(running(store, before=before, stderr=stderr))
        service.expect_well()
        if how == "closed":  # else a connection would have their numbers, and get what a library prints
            opened = [os.readlink(f"/proc/{service.process.pid}/fd/{number}") for number in range(3)]
            assert opened == ["/dev/null"] * 3
        assert service.stop() == 0


def test_a_terminal_that_is_closed_is_a_stop(store: Path) -> None:
    with running(store) as service:
        assert service.stop(signal.SIGHUP) == 0


def test_a_terminal_that_is_closed_is_none_under_nohup(store: Path) -> None:
    with running(store, before=["nohup"]) as service:
        service.process.send_signal(signal.SIGHUP)
        service.expect_well()


def test_a_client_that_leaves_in_the_middle_of_its_answer_ends_nothing(store: Path) -> None:
    with running(store) as service:
        body = b'{"records":[%s]}' % b",".join([b"{}"] * 2_000)
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", service.port)) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, no goodbye
                head = b"POST /v1/models/pumps/score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                connection.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
                connection.recv(1)
        service.expect_well()


def test_a_service_that_is_killed_starts_again_at_the_same_port_and_answers_the_same(store: Path) -> None:
    port = free_port()
    with running(store, port=port) as service:
        before = service.score().content
        assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    with running(store, port=port) as service:
        assert service.score().content == before


# --- memory, threads, clocks, scrapes ----------------------------------------------------------------


def test_a_request_that_finds_no_memory_is_refused_and_the_next_one_answered(store: Path) -> None:
    with running(store, max_records=200_000, max_body_bytes=64 * MIB) as service:
        with little_memory(service.process.pid, 16 * MIB):
            refused = service.score(60_000, "?explain=none")
            assert (refused.status_code, refused.json()["type"]) == (503, "urn:nelbo:problem:out-of-resources")
            assert refused.headers["retry-after"] == "1"
            service.expect_well()
        assert service.score(60_000, "?explain=none").status_code == 200


def test_a_process_that_gets_no_more_threads_goes_on_scoring(store: Path) -> None:
    """Those that score large bodies are there from the start. A thread needs 8 MiB of address space."""
    with running(store) as service, little_memory(service.process.pid, 4 * MIB):
        assert service.score(1_000, "?explain=none").status_code == 200
        service.expect_well()


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.mark.skipif(FAKETIME is None and os.environ.get("REQUIRE_TOOLS") != "1", reason="apt-get install libfaketime")
def test_a_clock_that_jumps_by_years_changes_no_answer_and_no_duration(store: Path, tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # as the kernel does it when somebody sets the clock
    }
    with running(store, environment=environment) as service:
        before, ages = service.score().json(), [_age(service)]
        for jump in ("+5y", "-5y"):
            offset.write_text(jump)
            found = service.score().json()
            assert found["results"] == before["results"]
            service.expect_well()
            ages.append(_age(service))
        durations = Scrape(service.ask("/metrics").text)
        route = "/v1/models/{name}/score"
        assert 0 < durations.value("nelbo_http_request_duration_seconds_sum", route=route) < PATIENCE_S
        assert service.stop() == 0
    years = [round((age - ages[0]) / 86400 / 365) for age in ages]
    assert years == [0, 5, -5]  # the clock has jumped


def _age(service: Running) -> float:
    return Scrape(service.ask("/metrics").text).value("nelbo_calibration_age_seconds", model="pumps")


def test_scrapes_that_are_read_byte_by_byte_keep_nobody_waiting(store: Path) -> None:
    with running(store) as service, ExitStack() as stack:
        slow = []
        for _ in range(20):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", service.port))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
            slow.append(connection)
        for _ in range(20):
            assert {connection.recv(1) for connection in slow} != {b""}
            service.expect_well()

"""A real process stands the whole corpus of malformed requests, and serves on."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.corpus import corpus
from tests.corpus.case import GOOD, SCORE, Case
from tests.service.conftest import Scrape

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20
# What a stranger learns nothing from: names of our code and libraries, of files and of this machine.
INTERNALS = re.compile(
    rb"Traceback|File \"|\.py\b|0x[0-9a-f]{6}|object at|site-packages|/usr/|/home/|/root/|/tmp/|"
    rb"msgspec|pydantic|pyarrow|numpy|onnx|starlette|fastapi|uvicorn|simdjson|NoneType|"
    rb"(Type|Value|Key|Attribute|Index|Unicode\w*|Recursion|Memory|Overflow)Error|recursion depth"
)


@dataclass(frozen=True)
class Service:
    """A serving process.

    Attributes:
        port: that it listens on.
        log: the file of its log.
        pid: of the process.
        client: of good requests.
        n_series: of its metrics when it began.
    """

    port: int
    log: Path
    pid: int
    client: httpx.Client
    n_series: int

    def get(self, path: str) -> str:
        return self.client.get(path).raise_for_status().text

    def score(self) -> Any:
        return self.client.post(SCORE, json={"records": [GOOD]}).raise_for_status().json()

    @property
    def memory_mib(self) -> float:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture(scope="module")
def service(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One process for the whole corpus."""
    log = tmp_path_factory.mktemp("corpus") / "log"
    settings = {"NELBO_MODELS": str(models), "NELBO_PORT": "0", "PYTHONPATH": str(ROOT)}
    with log.open("wb") as sink:
        process = subprocess.Popen([sys.executable, "-m", "service"], env=os.environ | settings, stderr=sink)
    try:
        port = _port(log)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            _wait_until_ready(client)
            yield Service(port, log, process.pid, client, len(Scrape(client.get("/metrics").text).series))
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def _port(log: Path) -> int:
    for _ in range(PATIENCE_S * 20):
        if b"\n" in (text := log.read_bytes()):
            return int(json.loads(text.splitlines()[0])["port"])
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def _wait_until_ready(client: httpx.Client) -> None:
    for _ in range(PATIENCE_S * 20):
        if client.get("/healthz/ready").status_code == 200:
            return
        time.sleep(0.05)
    raise AssertionError("the service did not become ready")


def reply(port: int, request: bytes) -> bytes:
    """What comes back for some bytes, until the service closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        with suppress(ConnectionError):  # it may have answered already and take no more
            connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def taken_apart(answer: bytes) -> tuple[int, bytes]:
    """Status and body of an answer, of chunks or not."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        parts = []
        while True:
            size, _, rest = body.partition(b"\r\n")
            n = int(size, 16)
            if n == 0:
                break
            parts.append(rest[:n])
            body = rest[n + 2 :]
        body = b"".join(parts)
    return int(head.split(b" ")[1]), body


def said(case: Case, body: bytes) -> tuple[str | None, str]:
    """The kind of problem that an answer states, and its text."""
    if case.kind is None and case.status >= 400:
        return None, body.decode()
    if case.kind == "error":
        return "error", json.loads(body)["error"]
    if case.status >= 400:
        problem = json.loads(body)
        kind = problem["type"].removeprefix("urn:nelbo:problem:")
        return kind, problem["errors"][0]["detail"] if kind == "wrong-records" else problem["detail"]
    return None, next(iter(errors_in(body)), "")


def errors_in(body: bytes) -> Iterator[str]:
    """What an answer that refuses nothing says of single records, in JSON of one or of many lines."""
    for line in body.splitlines() if body.startswith(b"{") else ():
        found = json.loads(line)
        for result in found.get("results", [found]):
            if "error" in result:
                yield result["error"]["detail"]


@pytest.mark.parametrize("case", corpus(), ids=lambda case: case.name[:80])
def test_a_malformed_request_gets_its_answer_and_the_next_one_is_served(service: Service, case: Case) -> None:
    answer = reply(service.port, case.request)
    status, body = taken_apart(answer)
    assert status == case.status, answer[:2000]
    kind, text = said(case, body)
    assert (kind, text[: len(case.detail)]) == (case.kind, case.detail), text[:2000]
    assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) == 1
    assert not INTERNALS.search(answer.replace(case.request[-20_000:], b"")), answer[:2000]
    assert service.get("/healthz/live") == "alive\n"
    assert service.score()["results"][0]["flagged"] is False


def test_the_corpus_is_large_and_every_request_has_a_name_of_its_own() -> None:
    names = [case.name for case in corpus()]
    assert len(names) >= 300
    assert len(names) == len(set(names))


# Below, what must hold after all of them.


def test_the_corpus_leaves_at_most_60_series_more(service: Service) -> None:
    assert len(Scrape(service.get("/metrics")).series) - service.n_series <= 60


def test_the_corpus_leaves_memory_bounded(service: Service) -> None:
    # The process alone takes 110 MiB, pyarrow 44; the largest bodies are 16 MiB, and freed memory is kept.
    assert service.memory_mib < 400


def test_nothing_of_the_corpus_is_a_failure_of_the_service(service: Service) -> None:
    log = service.log.read_text()
    assert "request failed" not in log
    assert "Traceback" not in log
    metrics = Scrape(service.get("/metrics"))
    assert metrics.value("nelbo_requests_rejected_total", reason="internal") == 0
    answered = [dict(labels) for name, labels in metrics.series if name == "nelbo_http_requests_total"]
    # Whether the service is ready it was asked before all of them, until it was.
    assert not [of for of in answered if of["status"][0] == "5" and of["route"] != "/healthz/ready"]

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nelbo.scoring import Scorer
from service import logs
from tests.bundles import odd_record
from tests.service.conftest import Client, ClientFactory

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(autouse=True)
def _root_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restored afterwards; the test's own client writes nothing."""
    root = logging.getLogger()
    for name in ("httpx", "httpcore", "asyncio"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_an_event_is_one_line_of_json_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", Path("/models"))
    logs.event("model loaded", model="pumps", previous=None)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {"level": "info", "event": "model loaded", "model": "pumps", "previous": None}


def test_lines_of_other_libraries_have_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", Path("/models"))
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    (line,) = lines(capsys)
    assert (line["event"], line["logger"]) == ("Invalid HTTP request received.", "uvicorn.error")


def test_an_event_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("error", Path("/models"))
    logs.event("model loaded")
    assert lines(capsys) == []


def test_a_scored_request_writes_no_line(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", Path("/models"))
    client.score([odd_record(), odd_record(pressure="secret")])
    assert lines(capsys) == []


def test_a_failure_is_logged_with_its_ids_and_place_but_without_its_text(
    client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret-valve")

    logs.configure("info", Path("/models"))
    monkeypatch.setattr(Scorer, "score", fail)
    headers = {"x-request-id": "r1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    client.post("/v1/models/pumps/score", json={"records": [odd_record(valve="secret-valve")]}, headers=headers)
    (line,) = lines(capsys)
    assert (line["event"], line["error"], line["route"]) == (
        "request failed",
        "ZeroDivisionError",
        "/v1/models/{name}/score",
    )
    assert (line["request_id"], line["trace_id"]) == ("r1", TRACE)
    assert line["at"][-1].endswith(" fail")
    assert "secret" not in json.dumps(line)


def test_no_value_of_a_record_is_ever_logged(client_factory: ClientFactory, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", Path("/models"))
    client = client_factory()
    client.score([odd_record(serial="secret", pressure="secret", valve="secret"), {"secret": "secret"}])
    client.score([odd_record(pressure="secret")], "?strict=true")
    client.post("/v1/models/pumps/score", content=b'{"records": "secret"', headers={"content-type": "application/json"})
    client.get("/v1/models/secret")
    captured = capsys.readouterr()
    assert "model loaded" in captured.err
    assert "secret" not in captured.err + captured.out


@pytest.mark.parametrize("header", ["", "00-xyz", f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE.upper()}-b7-01"])
def test_a_malformed_traceparent_has_no_trace_id(header: str) -> None:
    assert logs.trace_id_of(header) is None


def test_log_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", Path("/models"))
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    assert handler.stream is sys.stderr

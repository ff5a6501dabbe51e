"""The audit, with reports that pip-audit wrote, and with the real one against a small service that answers as OSV."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from supply.audit import findings, main
from supply.pins import Pin

PINS = [Pin("attrs", "26.1.0"), Pin("click", "8.5.1")]
_FLASK = {
    "package": {"ecosystem": "PyPI", "name": "flask"},
    "ranges": [{"type": "ECOSYSTEM", "events": [{"fixed": "1.0"}]}],
}
KNOWN_OF_FLASK = {("flask", "0.5"): {"id": "PYSEC-2018-66", "details": "denial of service", "affected": [_FLASK]}}


def reported(name: str, version: str, *ids: str) -> dict[str, Any]:
    """What pip-audit 2.10.1 writes of a library that it looked up."""
    vulns = [{"id": id_, "fix_versions": ["9.9"], "aliases": [], "description": "…"} for id_ in ids]
    return {"name": name, "version": version, "vulns": vulns}


def skipped(name: str, version: str) -> dict[str, Any]:
    """What it writes of one that its service does not have."""
    reason = f"Dependency not found on PyPI and could not be audited: {name} ({version})"
    return {"name": name, "skip_reason": reason}


CANARY = reported("flask", "0.5", "PYSEC-2018-66", "PYSEC-2019-179")


def test_libraries_that_were_looked_up_without_a_finding_pass() -> None:
    report = {"dependencies": [reported("attrs", "26.1.0"), reported("click", "8.5.1"), CANARY], "fixes": []}
    assert findings(report, PINS) == []


def test_a_vulnerability_is_named_with_the_version_that_has_it_no_longer() -> None:
    report = {"dependencies": [reported("attrs", "26.1.0"), reported("click", "8.5.1", "PYSEC-1", "PYSEC-2"), CANARY]}
    assert findings(report, PINS) == ["click 8.5.1: PYSEC-1 (fixed in 9.9); PYSEC-2 (fixed in 9.9)"]


def test_a_library_that_was_skipped_is_a_finding() -> None:
    report = {"dependencies": [reported("attrs", "26.1.0"), skipped("click", "8.5.1"), CANARY]}
    assert findings(report, PINS) == [
        "click 8.5.1: not looked up; Dependency not found on PyPI and could not be audited: click (8.5.1)"
    ]


def test_a_library_that_the_report_leaves_out_is_a_finding() -> None:
    report = {"dependencies": [reported("attrs", "26.1.0"), CANARY]}
    assert findings(report, PINS) == ["click 8.5.1: not looked up; the report does not name it"]


def test_an_answer_about_another_version_is_a_finding() -> None:
    report = {"dependencies": [reported("attrs", "26.1.0"), reported("click", "8.0.0"), CANARY]}
    assert findings(report, PINS) == ["click 8.5.1: not looked up; the report is about 8.0.0"]


def test_a_service_that_knows_no_vulnerability_at_all_is_a_finding() -> None:
    report = {"dependencies": [reported("attrs", "26.1.0"), reported("click", "8.5.1"), reported("flask", "0.5")]}
    (found,) = findings(report, PINS)
    assert found.startswith("the service knows no vulnerability of flask 0.5")


@contextmanager
def service(known: dict[tuple[str, str], dict[str, Any]]) -> Iterator[str]:
    """Answers `POST /v1/query` with what it knows of a library's version; where it does so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            vulnerability = known.get((asked["package"]["name"], asked["version"]))
            body = json.dumps({} if vulnerability is None else {"vulns": [vulnerability]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock.txt"
    path.write_text("attrs==26.1.0\nclick==8.5.1\n", encoding="utf-8")
    return path


def audit(lock: Path, url: str) -> int:
    cache = str(lock.parent / "cache")
    return main([str(lock), "--vulnerability-service", "osv", "--osv-url", url, "--cache-dir", cache, "--timeout", "5"])


def test_the_real_pip_audit_passes_what_a_service_looked_up(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with service(KNOWN_OF_FLASK) as url:
        assert audit(lock, url) == 0
    assert capsys.readouterr().out == "libraries: 2, findings: 0\n"


def test_the_real_pip_audit_fails_on_a_known_vulnerability(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    affected = [{"package": {"ecosystem": "PyPI", "name": "click"}, "ranges": []}]
    vulnerable = {("click", "8.5.1"): {"id": "PYSEC-2026-1", "details": "…", "affected": affected}}
    with service(KNOWN_OF_FLASK | vulnerable) as url:
        assert audit(lock, url) == 1
    assert "click 8.5.1: PYSEC-2026-1 (fixed in no version)\nlibraries: 2, findings: 1\n" in capsys.readouterr().out


def test_the_real_pip_audit_passes_a_service_that_knows_nothing_and_this_does_not(
    lock: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with service({}) as url:
        assert audit(lock, url) == 1
    assert "it looks nothing up" in capsys.readouterr().out


def test_without_a_service_nothing_was_looked_up(lock: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with service({}) as url:
        pass  # nobody listens there any more
    assert audit(lock, url) == 1
    assert capsys.readouterr().out.startswith("nothing was looked up: pip-audit ended with 1 and without a report: ")

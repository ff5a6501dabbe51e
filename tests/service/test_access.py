"""Each route, each method, each kind of key: as the OpenAPI document declares it, by the lane and by the router."""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Response
from fastapi.openapi.models import OpenAPI

from service import access, keyring
from service.access import Access
from service.keyring import KeyRing
from service.keys import Key, KeysError, Scope, new_key, read_keys, write_keys
from service.lane import Lane
from service.problems import ProblemError
from service.settings import Settings
from tests.bundles import VERSION, odd_record
from tests.service.conftest import Client, ClientFactory

NOW = datetime.now(UTC)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FROB"]
SCORE = "/v1/models/pumps/score"
JSON = {"content-type": "application/json"}
# What each kind of key may; the first three are refused as if they were not there.
HOLDERS: dict[str, tuple[Scope, ...]] = {
    "none": (),
    "wrong": (),
    "expired": (),
    "revoked": (),
    "score": ("score",),
    "read": ("read",),
    "admin": ("score", "read", "admin"),
}


@dataclass(frozen=True)
class Guarded:
    """An app that needs keys, and one of each kind."""

    client: Client
    keys: dict[str, str]

    def headers(self, holder: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[holder]}"} if holder in self.keys else {}


def made(*scopes: Scope, expires: datetime | None = None) -> tuple[str, Key]:
    return new_key(scopes, "of a test", NOW, expires)


def guarded(client_factory: ClientFactory, folder: Path, **settings: Any) -> Guarded:
    file = folder / "keys.json"
    of = {name: made(name) for name in ("score", "read", "admin")}
    of["expired"] = made("admin", expires=NOW - timedelta(seconds=1))
    revoked, _ = made("admin")
    wrong = of["admin"][0][:-1] + ("A" if of["admin"][0][-1] != "A" else "B")  # the id of a key that is one
    write_keys(file, [key for _, key in of.values()])
    client = client_factory(keys=file, **settings)
    client.app.add_api_route("/v1/undeclared", lambda: Response("done"), methods=["POST"])
    return Guarded(client, {name: text for name, (text, _) in of.items()} | {"revoked": revoked, "wrong": wrong})


@pytest.fixture
def closed(client_factory: ClientFactory, tmp_path: Path) -> Guarded:
    return guarded(client_factory, tmp_path)


def declared(found: Guarded) -> dict[tuple[str, str], str]:
    """Which scope each path and method needs, as the document says; one route is in no document."""
    document = found.client.get("/openapi.json", headers=found.headers("read")).json()
    needs = {
        (path.replace("{name}", "pumps").replace("{version}", VERSION), method.upper()): operation["x-scope"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    return needs | {("/v2/", "GET"): "read", ("/openapi.json", "GET"): "read", ("/openapi.json", "HEAD"): "read"}


def statuses(app: Any, requests: list[tuple[str, str, dict[str, str]]]) -> list[httpx.Response]:
    async def send() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return [await client.request(method, path, headers=headers) for method, path, headers in requests]

    return asyncio.run(send())


@pytest.mark.parametrize("way", [lambda app: app, Lane], ids=["router", "lane"])
@pytest.mark.parametrize("holder", HOLDERS)
def test_each_route_does_for_each_key_what_it_declares(holder: str, way: Callable[[Any], Any], closed: Guarded) -> None:
    needs = declared(closed)
    paths = sorted({path for path, _ in needs} | {"/", "/docs", "/nothing", "/v1/fans", "/v1/models//score"})
    requests = [(method, path, closed.headers(holder)) for path in paths for method in METHODS]
    wrong = {}
    for (method, path, _), answer in zip(requests, statuses(way(closed.client.app), requests), strict=True):
        need = needs.get((path, method), "any")
        if need == "open" or need in HOLDERS[holder] or (need == "any" and HOLDERS[holder]):
            is_right = answer.status_code not in (401, 403)
        else:
            is_right = answer.status_code == (403 if HOLDERS[holder] else 401)
        if not is_right:
            wrong[method, path] = (need, answer.status_code)
    assert wrong == {}
    assert set(needs.values()) == {"open", "score", "read", "admin"}  # else the matrix shows less


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson", "text/plain"])
@pytest.mark.parametrize("path", [SCORE, "/v1/models/fans/score", "/v2/models/pumps/infer"])
@pytest.mark.parametrize("holder", ["none", "wrong", "read", "score"])
def test_the_lane_refuses_and_counts_as_the_router_does(
    holder: str, path: str, content_type: str, client_factory: ClientFactory, tmp_path: Path
) -> None:
    said = []
    for way in (lambda app: app, Lane):
        found = guarded(client_factory, tmp_path)
        (answer,) = statuses(
            way(found.client.app), [("POST", path, found.headers(holder) | {"content-type": content_type})]
        )
        counts = found.client.get("/metrics", headers=found.headers("read")).text.splitlines()
        kept = [line for line in counts if line.startswith(("nelbo_requests_rejected", "nelbo_http_requests_total"))]
        headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
        said.append((answer.status_code, headers, answer.content, kept))
    assert said[0] == said[1]


def test_nothing_is_open_but_health_and_metrics_only_by_setting(client_factory: ClientFactory, tmp_path: Path) -> None:
    health = {("/healthz/live", "GET"), ("/healthz/ready", "GET")}
    for is_open, expected in ((False, health), (True, health | {("/metrics", "GET")})):
        needs = declared(guarded(client_factory, tmp_path, metrics_open=is_open))
        assert {place for place, need in needs.items() if need == "open"} == expected
    assert client_factory(keys=tmp_path / "keys.json", metrics_open=True).get("/metrics").status_code == 200


def test_a_route_that_declares_nothing_needs_admin(closed: Guarded) -> None:
    answers = [closed.client.post("/v1/undeclared", headers=closed.headers(holder)) for holder in ("score", "admin")]
    assert [answer.status_code for answer in answers] == [403, 200]
    assert declared(closed)["/v1/undeclared", "POST"] == "admin"


def test_who_has_no_key_learns_of_no_path_model_or_method_whether_it_is_there(closed: Guarded) -> None:
    asked = [
        ("GET", "/v1/models/pumps"),
        ("GET", "/v1/models/fans"),
        ("GET", "/nothing"),
        ("PUT", SCORE),
        ("GET", "/docs"),
    ]
    asked += [("POST", SCORE), ("POST", "/v1/models/fans/score")]
    answers = statuses(Lane(closed.client.app), [(method, path, {}) for method, path in asked])
    told = {
        (
            answer.status_code,
            answer.text,
            *(item for item in sorted(answer.headers.items()) if item[0] != "x-request-id"),
        )
        for answer in answers
    }
    assert len(told) == 1


def test_refusals_name_the_way_out(closed: Guarded) -> None:
    client = closed.client
    none, wrong = client.post(SCORE), client.post(SCORE, headers=closed.headers("wrong"))
    scope = client.post(SCORE, headers=closed.headers("read"))
    assert [answer.json()["type"].rpartition(":")[2] for answer in (none, wrong, scope)] == [
        "no-key",
        "wrong-key",
        "wrong-scope",
    ]
    assert [answer.headers["www-authenticate"] for answer in (none, wrong, scope)] == [
        'Bearer realm="nelbo"',
        'Bearer realm="nelbo", error="invalid_token"',
        'Bearer realm="nelbo", error="insufficient_scope", scope="score"',
    ]
    assert none.json()["detail"] == "expected the header Authorization: Bearer KEY, got none of that form"
    assert scope.json()["detail"] == "expected a key with the scope score, got one with read"
    assert client.post("/v2/models/pumps/infer").json() == {"error": none.json()["detail"]}


def test_refusals_are_counted_by_kind(closed: Guarded) -> None:
    client = closed.client
    for holder in ("none", "wrong", "expired", "read"):
        client.post(SCORE, headers=closed.headers(holder))
    found = client.get("/metrics", headers=closed.headers("read")).text
    for kind, n in (("no-key", 1), ("wrong-key", 2), ("wrong-scope", 1)):
        assert f'nelbo_requests_rejected_total{{reason="{kind}"}} {n}.0' in found
    assert 'nelbo_http_requests_total{method="POST",route="/v1/models/{name}/score",status="401"} 3.0' in found


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "bearer\t", "Basic bmVsYm86eA==", "Bearer nelbo_", "Bearer nelbo__", "Bearer \xff"],
)
def test_a_header_that_is_no_key_is_refused(header: str, closed: Guarded) -> None:
    assert closed.client.get("/v1/models", headers={"authorization": header.encode("latin-1")}).status_code == 401


def test_the_scheme_may_be_written_in_any_case(closed: Guarded) -> None:
    assert (
        closed.client.get("/v1/models", headers={"authorization": f"bEARER {closed.keys['read']}"}).status_code == 200
    )


def test_a_body_is_not_read_before_access_is_decided(closed: Guarded) -> None:
    read = []

    async def receive() -> dict[str, Any]:
        read.append(1)
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    for content_type in (b"application/json", b"application/x-ndjson"):
        headers[0] = (b"content-type", content_type)
        scope = {"type": "http", "method": "POST", "path": SCORE, "query_string": b"", "headers": headers}
        asyncio.run(Lane(closed.client.app)(scope, receive, send))
    assert read == []
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert [(start["status"], dict(start["headers"])[b"connection"]) for start in starts] == [(401, b"close")] * 2


@pytest.mark.parametrize(
    ("length", "answer"),
    [("0" * 5_000, None), ("0" * 5_000 + "65537", "close"), ("9" * 5_000, "close"), ("two", "close")],
)
def test_a_length_of_thousands_of_digits_is_refused_like_any_other(
    length: str, answer: str | None, closed: Guarded
) -> None:
    for path in (SCORE, "/v1/models"):
        found = closed.client.post(path, content=b"", headers={**JSON, "content-length": length})
        assert (found.status_code, found.headers.get("connection")) == (401, answer)


# --- the comparison ----------------------------------------------------------------------------------


def test_each_presented_key_is_hashed_once_and_compared_once_whole(
    closed: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("service.keyring.compare_digest", compare)
    ring = closed.client.service.keys
    assert ring is not None
    presented = [*closed.keys.values(), "nelbo_000000000000_x", "", "nelbo_" + "x" * 5000]
    holders = [ring.holder(key.encode()) for key in presented]
    assert compared == [(32, 32)] * len(presented)  # digests, whatever the key; an unknown id meets one too
    assert [holder.id for holder in holders if holder] == [
        closed.keys[name].split("_")[1] for name in ("score", "read", "admin")
    ]


# --- which service is open ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "is_open"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "127.8.8.8"}, True),
        ({"host": "0.0.0.0"}, False),  # noqa: S104  # the point
        ({"host": "::"}, False),
        ({"host": "192.0.2.1"}, False),
        ({"host": "nelbo.example.com"}, False),
        ({"keys": "keys.json"}, False),
        ({"access": "keys"}, False),
        ({"host": "0.0.0.0", "access": "open"}, True),  # noqa: S104
    ],
)
def test_keys_are_needed_unless_only_this_machine_reaches_the_address(settings: dict[str, Any], is_open: bool) -> None:
    assert Settings(**settings).is_open is is_open


def test_without_keys_every_answer_but_health_says_how_to_make_one(
    client_factory: ClientFactory, tmp_path: Path
) -> None:
    for settings in ({"host": "0.0.0.0"}, {"keys": tmp_path / "none.json"}):  # noqa: S104
        client = client_factory(**settings)
        assert client.get("/healthz/ready").status_code == 200
        found = client.score([odd_record()])
        assert found.status_code == 401
        assert "nelbo keys new --scope score --keys FILE makes one" in found.json()["detail"]
        assert "NELBO_KEYS" in found.json()["detail"]


def test_a_stranger_is_not_told_why_the_service_is_not_ready(client_factory: ClientFactory, tmp_path: Path) -> None:
    (tmp_path / "models" / "secretpumps" / "1").mkdir(parents=True)
    (tmp_path / "models" / "secretpumps" / "1" / "manifest.json").write_text("{}")
    found = guarded(lambda **settings: client_factory(tmp_path / "models", **settings), tmp_path)
    stranger, reader = (
        found.client.get("/healthz/ready", headers=found.headers(holder)) for holder in ("none", "read")
    )
    assert (stranger.status_code, reader.status_code) == (503, 503)
    assert "secretpumps" not in stranger.text
    assert "model 'secretpumps'" in reader.json()["detail"]


def test_the_document_says_what_each_operation_needs(closed: Guarded) -> None:
    document = closed.client.get("/openapi.json", headers=closed.headers("read")).json()
    OpenAPI.model_validate(document)
    score, live = document["paths"]["/v1/models/{name}/score"]["post"], document["paths"]["/healthz/live"]["get"]
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert (score["security"], live["security"]) == ([{"key": ["score"]}], [])
    assert {"401", "403"} <= set(score["responses"])
    assert "401" not in live["responses"]


def test_an_open_service_declares_no_security(client: Client) -> None:
    document = client.get("/openapi.json").json()
    assert "securitySchemes" not in document["components"]
    assert "security" not in document["paths"]["/v1/models/{name}/score"]["post"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 403),  # a page of a name that was made to lead here
        ({"origin": "http://example.com"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_no_page_in_a_browser_may_manage_the_models_of_an_open_service(
    headers: dict[str, str], status: int, client: Client
) -> None:
    client.app.add_api_route("/v1/undeclared", lambda: Response("done"), methods=["POST"])
    assert client.post("/v1/undeclared", headers=headers).status_code == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("localhost", 200),
        ("nelbo.localhost:8000", 200),
        ("pumps:8000", 200),  # a name of the operator's own
        ("example.com", 421),
        ("example.com:8000", 421),
        ("127.0.0.1.example.com", 421),
        ("localhost.example.com", 421),
        ("[::1].example.com", 421),
        ("pumps.", 421),
    ],
)
def test_a_service_of_this_machine_alone_is_not_there_for_a_name_that_was_made_to_lead_to_it(
    host: str, status: int, client_factory: ClientFactory
) -> None:
    asked = [("GET", "/v1/models", {"host": host}), ("POST", "/v2/models/fans/infer", {"host": host})]
    asked += [("GET", "/healthz/live", {"host": host})]
    found = [answer.status_code for answer in statuses(Lane(client_factory().app), asked)]
    assert found == [status, 404 if status == 200 else status, 200]
    assert client_factory(access="open").get("/v1/models", headers={"host": host}).status_code == 200


# --- keys that change --------------------------------------------------------------------------------


def test_a_new_key_works_and_a_revoked_one_does_not_once_the_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ring = KeyRing(file)
    text, key = made("score")
    assert (len(ring), ring.holder(text.encode())) == (0, None)
    write_keys(file, [key])
    ring.refresh()
    assert ring.holder(text.encode()) is not None
    write_keys(file, [])
    ring.refresh()
    assert ring.holder(text.encode()) is None


def test_a_key_works_until_it_expires(tmp_path: Path) -> None:
    text, key = made("score", expires=NOW + timedelta(hours=1))
    write_keys(tmp_path / "keys.json", [key])
    now = [key.expires_at - 0.5]
    ring = KeyRing(tmp_path / "keys.json", clock=lambda: now[0])
    assert ring.holder(text.encode()) is not None
    now[0] += 0.5
    assert ring.holder(text.encode()) is None


def test_a_key_that_was_revoked_while_the_file_could_not_be_read_stops_working_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.json"
    text, key = made("score")
    write_keys(file, [key])
    ring = KeyRing(file)
    write_keys(file, [])

    def fails(_: Path) -> list[Key]:
        raise KeysError("the file of keys cannot be read: Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(keyring, "read_keys", fails)
        ring.refresh()
    assert (ring.is_current, ring.holder(text.encode()) is None) == (False, False)
    ring.refresh()
    assert (ring.is_current, ring.holder(text.encode())) == (True, None)


def test_a_look_at_the_keys_that_fails_by_surprise_is_not_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.json"
    text, key = made("score")
    write_keys(file, [key])
    ring, seen = KeyRing(file), []
    failures = [MemoryError()]

    def fails_once(path: Path) -> list[Key]:
        seen.append(ring.is_current)
        if failures:
            raise failures.pop()
        return read_keys(path)

    monkeypatch.setattr(keyring, "read_keys", fails_once)
    monkeypatch.setattr(keyring, "POLL_S", 0.01)
    write_keys(file, [])
    ring.watch()
    deadline = time.monotonic() + 30
    while ring.holder(text.encode()) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    ring.close()
    assert (ring.holder(text.encode()), ring.is_current, seen[:2]) == (None, True, [True, False])


def test_keys_whose_file_system_hangs_are_not_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, answers = tmp_path / "keys.json", threading.Event()
    write_keys(file, [])
    ring = KeyRing(file)

    def hangs(_: Path) -> list[Key]:
        answers.wait(30)
        return []

    monkeypatch.setattr(keyring, "read_keys", hangs)
    monkeypatch.setattr(keyring, "POLL_S", 0.01)
    monkeypatch.setattr(keyring, "_LATE_S", 0.1)
    write_keys(file, [made("score")[1]])
    ring.watch()
    deadline = time.monotonic() + 30
    while ring.is_current and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not ring.is_current
    answers.set()
    while not ring.is_current and time.monotonic() < deadline:
        time.sleep(0.01)
    ring.close()
    assert ring.is_current


@pytest.mark.parametrize("text", [b"{", b"", b'{"format":1,"keys":[{}]}', None])
def test_a_file_of_keys_that_breaks_leaves_the_old_ones_and_says_so(
    text: bytes | None, closed: Guarded, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, ring = tmp_path / "keys.json", closed.client.service.keys
    assert ring is not None
    before = file.read_bytes()
    file.unlink() if text is None else file.write_bytes(text)
    with caplog.at_level(logging.INFO):
        ring.refresh()
        ring.refresh()  # tells it once
    assert [record.getMessage() for record in caplog.records] == ["keys not read"]
    found = closed.client.get("/metrics", headers=closed.headers("read"))
    assert (found.status_code, "nelbo_keys_current 0.0" in found.text) == (200, True)
    file.write_bytes(before)
    ring.refresh()
    assert "nelbo_keys_current 1.0" in closed.client.get("/metrics", headers=closed.headers("read")).text


def test_the_file_is_watched_while_the_service_runs(
    client_factory: ClientFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "POLL_S", 0.01)
    client = client_factory(keys=tmp_path / "keys.json")
    ring = client.service.keys
    assert ring is not None

    async def wait_for_a_key() -> int:
        async with client.service.running(client.app):
            write_keys(tmp_path / "keys.json", [made("score")[1]])
            for _ in range(1000):
                if len(ring):
                    break
                await asyncio.sleep(0.01)
        return len(ring)

    assert asyncio.run(wait_for_a_key()) == 1


# --- what is logged ----------------------------------------------------------------------------------


def test_refusals_are_logged_seldom_and_by_the_id_of_a_known_key_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text, key = made("read")
    write_keys(tmp_path / "keys.json", [key])
    now = [0.0]
    rules = Access(KeyRing(tmp_path / "keys.json"), is_open=False, clock=lambda: now[0])

    def refused(key_text: str) -> None:
        with pytest.raises(ProblemError):
            rules.expect({b"authorization": f"Bearer {key_text}".encode()}, "score")

    with caplog.at_level(logging.INFO):
        for _ in range(1000):
            refused("nelbo_aaaaaaaaaaaa_guess")
        now[0] = access._LOG_S
        refused(text)
    fields = [vars(record)["fields"] for record in caplog.records]
    assert fields == [
        {"reason": "wrong-key", "key": None, "n": 1},
        {"reason": "wrong-scope", "key": key.id, "n": 1000},
    ]


# --- every answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [lambda app: app, Lane], ids=["router", "lane"])
def test_every_answer_has_the_headers_that_guard_a_browser(
    way: Callable[[Any], Any], client: Client, closed: Guarded
) -> None:
    requests: list[tuple[str, str, dict[str, str]]] = [
        ("GET", path, {}) for path in ("/healthz/live", "/v1/models", "/openapi.json", "/metrics", "/nothing", "/docs")
    ]
    requests += [("POST", SCORE, JSON), ("POST", SCORE, {"content-type": "application/x-ndjson"}), ("PUT", SCORE, JSON)]
    for app in (client.app, closed.client.app):
        for answer in statuses(way(app), requests):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers.get_list("content-security-policy", split_commas=False) != []
            assert re.search("frame-ancestors 'none'$", answer.headers["content-security-policy"])


def test_the_documentation_page_may_run_its_own_script_and_no_other(client: Client) -> None:
    found = client.get("/docs")
    policy = found.headers["content-security-policy"]
    assert re.findall(r"script-src ([^;]*);", policy)[0].count("'sha256-") == 1
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    assert found.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("is_open", "is_loopback", "said"),
    [
        (True, True, []),
        (True, False, ["open: whoever reaches the address may do everything"]),
        (False, True, ["no key yet: only health is answered"]),
        (False, False, ["no key yet: only health is answered"]),
    ],
)
def test_a_start_warns_of_a_service_that_is_open_to_others_or_that_answers_nobody(
    is_open: bool, is_loopback: bool, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    Access(None, is_open=is_open).announce(is_loopback=is_loopback)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", text) for text in said
    ]

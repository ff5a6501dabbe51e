"""The lane and the declared route answer alike: status, headers, body and counters."""

import asyncio
import csv
import json
from itertools import count
from typing import Any

import httpx
import pytest

from nelbo.calibration import SCORE_TOLERANCE
from nelbo.decision import Decision
from nelbo.records import Batch
from nelbo.scoring import CHUNK, Scored
from service.batching import Batching
from service.lane import Lane
from tests.bundles import normal_records, odd_record
from tests.service.conftest import Client, ClientFactory, Scrape

PATH = "/v1/models/pumps/score"
JSON = {"content-type": "application/json"}
NORMAL, ODD = normal_records(3, seed=5), odd_record()


def body(*records: object) -> bytes:
    return json.dumps({"records": records}).encode()


INFER = "/v2/models/pumps/infer"
TENSORS = json.dumps(
    {
        "inputs": [
            {"name": "pressure", "datatype": "FP64", "shape": [2], "data": [NORMAL[0]["pressure"], 9.5]},
            {"name": "in/out [l/s]", "datatype": "FP64", "shape": [2], "data": [NORMAL[0]["in/out [l/s]"], 2]},
            {"name": "valve", "datatype": "BYTES", "shape": [2], "data": ["open", "shut"]},
            {"name": "heated", "datatype": "BOOL", "shape": [2], "data": [False, True]},
        ]
    }
).encode()
LARGE = body(*normal_records(2_000, seed=6))
MANY = body(*normal_records(501, seed=7))

REQUESTS: dict[str, tuple[str, str, dict[str, str], bytes]] = {
    "one record": ("POST", PATH, JSON, body(NORMAL[0])),
    "several records": ("POST", PATH, JSON, body(*NORMAL)),
    "no record": ("POST", PATH, JSON, body()),
    "a flagged record": ("POST", PATH, JSON, body(ODD)),
    "a flagged record among others": ("POST", PATH, JSON, body(NORMAL[0], ODD, NORMAL[1])),
    "columns": ("POST", PATH, JSON, json.dumps({"columns": {k: [v] for k, v in ODD.items()}}).encode()),
    "a large body": ("POST", PATH, JSON, LARGE),
    "explain all": ("POST", f"{PATH}?explain=all", JSON, body(*NORMAL)),
    "explain none": ("POST", f"{PATH}?explain=none", JSON, body(ODD)),
    "another rate": ("POST", f"{PATH}?rate=0.05", JSON, body(ODD, NORMAL[0])),
    "a false discovery rate": ("POST", f"{PATH}?fdr=0.5", JSON, body(ODD, NORMAL[0])),
    "missing and unseen": ("POST", PATH, JSON, body(NORMAL[0] | {"rpm": None, "valve": "never seen: a colon"})),
    "a name that is percent-encoded": ("POST", "/v1/models/p%75mps/score", JSON, body(NORMAL[0])),
    "a charset": ("POST", PATH, {"content-type": "Application/JSON; charset=utf-8"}, body(NORMAL[0])),
    "a request id": ("POST", PATH, JSON | {"x-request-id": "abc-1"}, body(NORMAL[0])),
    "one bad record of two": ("POST", PATH, JSON, body(NORMAL[0], NORMAL[1] | {"rpm": "fast"})),
    "a repeated name": ("POST", PATH, JSON, body(NORMAL[0])[:-3] + b',"rpm":1}]}'),
    "one bad record and strict": ("POST", f"{PATH}?strict=true", JSON, body(NORMAL[0] | {"rpm": "fast"})),
    "no JSON": ("POST", PATH, JSON, b"{"),
    "another shape": ("POST", PATH, JSON, b'{"rows":[]}'),
    "deep JSON": ("POST", PATH, JSON, b'{"records":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    "invalid UTF-8": ("POST", PATH, JSON, b'{"records":[{"valve":"\xff"}]}'),
    "an empty body": ("POST", PATH, JSON, b""),
    "too many records": ("POST", PATH, JSON, MANY),
    "too many bytes": ("POST", PATH, JSON, b" " * 300_001),
    "another media type": ("POST", PATH, {"content-type": "text/plain"}, body(NORMAL[0])),
    "no media type": ("POST", PATH, {}, body(NORMAL[0])),
    "a compressed body": ("POST", PATH, JSON | {"content-encoding": "gzip"}, body(NORMAL[0])),
    "an unknown parameter": ("POST", f"{PATH}?rates=1", JSON, body(NORMAL[0])),
    "a rate that is not carried": ("POST", f"{PATH}?rate=0.000001", JSON, body(NORMAL[0])),
    "an unknown model": ("POST", "/v1/models/pump/score", JSON, body(NORMAL[0])),
    "a name with a slash": ("POST", "/v1/models/pu/mps/score", JSON, body(NORMAL[0])),
    "no name": ("POST", "/v1/models//score", JSON, body(NORMAL[0])),
    "another method": ("PUT", PATH, JSON, body(NORMAL[0])),
    "lines": ("POST", PATH, {"content-type": "application/x-ndjson"}, json.dumps(ODD).encode() + b"\n{}\n"),
    "lines and strict": ("POST", f"{PATH}?strict=true", {"content-type": "application/x-ndjson"}, b"{}"),
    "text with commas": (
        "POST",
        PATH,
        {"content-type": "text/csv"},
        b"pressure,valve,in/out [l/s],heated\n1,open,2,true\n",
    ),
    "no text with commas": ("POST", PATH, {"content-type": "text/csv"}, b"pressure\n"),
    "no Arrow stream": ("POST", PATH, {"content-type": "application/vnd.apache.arrow.stream"}, b"{}"),
    "a table is liked best": ("POST", PATH, JSON | {"accept": "text/csv"}, body(NORMAL[0], ODD)),
    "lines are liked best": ("POST", PATH, JSON | {"accept": "application/x-ndjson"}, body(NORMAL[0], ODD)),
    "an inference": ("POST", INFER, JSON, TENSORS),
    "an inference by a version": ("POST", f"{INFER[:-6]}/versions/1/infer", JSON, TENSORS),
    "an inference without an input": ("POST", INFER, JSON, b'{"inputs":[]}'),
    "an inference of too many bytes": ("POST", INFER, JSON, b" " * 300_001),
    "an inference by an unknown model": ("POST", "/v2/models/pump/infer", JSON, TENSORS),
    "another path": ("GET", "/v1/models", {}, b""),
}


def sent(app: Any, requests: list[tuple[str, str, dict[str, str], bytes]]) -> list[httpx.Response]:
    """The answers to requests that are all sent at once."""

    async def send() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await asyncio.gather(
                *(client.request(method, path, headers=h, content=b) for method, path, h, b in requests)
            )

    return asyncio.run(send())


def said(response: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    headers = dict(response.headers)
    if response.request.headers.get("x-request-id") is None:
        headers.pop("x-request-id")  # a new one for each
    return response.status_code, headers, response.content


def counted(client: Client) -> dict[Any, float]:
    """All that is counted, but for how long things took and when they happened."""
    series = Scrape(client.get("/metrics").text).series
    return {
        key: value
        for key, value in series.items()
        if "duration_seconds_bucket" not in key[0]
        and not key[0].endswith(("duration_seconds_sum", "_age_seconds", "_timestamp_seconds"))
    }


def sizes_of_runs(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each run of the scorer will hold, as they come."""
    sizes: list[int] = []
    scorer = client.service.live.scorers()["pumps"]
    score = scorer.score

    def counted_score(batch: Batch, decision: Decision | None = None) -> Scored:
        sizes.append(len(batch))
        return score(batch, decision)

    monkeypatch.setattr(scorer, "score", counted_score)
    return sizes


@pytest.fixture
def limited(client_factory: ClientFactory) -> Any:
    return lambda: client_factory(max_records=500, max_body_bytes=300_000, max_queued_records=50_000)


@pytest.mark.parametrize("name", list(REQUESTS))
def test_the_lane_answers_and_counts_as_the_route_does(name: str, limited: Any) -> None:
    by_route, by_lane = limited(), limited()
    (route_says,) = sent(by_route.app, [REQUESTS[name]])
    (lane_says,) = sent(Lane(by_lane.app), [REQUESTS[name]])
    assert said(lane_says) == said(route_says)
    assert counted(by_lane) == counted(by_route)


def test_requests_that_come_together_get_what_each_would_get_alone(limited: Any) -> None:
    requests = list(REQUESTS.values())
    together = sent(Lane(limited().app), requests)
    alone = [sent(Lane(limited().app), [request])[0] for request in requests]
    assert [answer.status_code for answer in together] == [answer.status_code for answer in alone]
    for one, other in zip(together, alone, strict=True):
        expect_alike(content(one), content(other))


def content(answer: httpx.Response) -> Any:
    match answer.headers["content-type"]:
        case "application/x-ndjson":
            return [json.loads(line) for line in answer.text.splitlines()]
        case "text/csv":
            return [[_number(cell) for cell in row] for row in csv.reader(answer.text.splitlines())]
        case _:
            return answer.json()


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def expect_alike(one: Any, other: Any) -> None:
    """Numbers may differ as those of other batches may: processors add in another order."""
    if isinstance(one, dict):
        assert list(one) == list(other)
        for name in one:
            expect_alike(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            expect_alike(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=2 * SCORE_TOLERANCE, abs=2 * SCORE_TOLERANCE)
    else:
        assert one == other


def test_requests_that_come_together_share_a_run_of_the_graph(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = sizes_of_runs(client, monkeypatch)
    sent(Lane(client.app), [("POST", f"{PATH}?explain=none", JSON, body(*NORMAL))] * 10)
    assert sum(sizes) == 30
    assert len(sizes) < 10


def test_a_turn_takes_no_more_records_than_other_events_can_wait_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sizes_of_runs(client, monkeypatch)
    hundred = body(*normal_records(100, seed=8))
    sent(Lane(client.app), [("POST", f"{PATH}?explain=none", JSON, hundred)] * 30)
    assert sum(sizes) == 3_000
    assert max(sizes) < 2 * CHUNK


def test_a_full_queue_refuses_and_says_when_to_come_again(client_factory: ClientFactory) -> None:
    client = client_factory(max_queued_records=1_500)
    thousand = ("POST", PATH, JSON, body(*normal_records(1_000, seed=9)))
    answers = sent(Lane(client.app), [thousand] * 4)
    statuses = [answer.status_code for answer in answers]
    assert statuses[0] == 200  # one is taken whatever its size
    refused = [answer for answer in answers if answer.status_code == 503]
    assert refused
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert refused[0].json()["type"] == "urn:nelbo:problem:queue-full"
    assert sent(Lane(client.app), [thousand])[0].status_code == 200
    assert client.scrape().value("nelbo_requests_rejected_total", reason="queue-full") == len(refused)
    assert client.service.batching.n_queued == 0


def test_records_that_take_long_fill_the_queue_sooner(client_factory: ClientFactory) -> None:
    seconds = map(float, count(step=10))  # whoever looks at the clock finds ten more seconds gone
    client = client_factory()
    service = client.service
    service.batching = Batching(
        service.live, service.metrics, 10_000, service.capacity, 1e9, lambda: float(next(seconds))
    )
    thousand = ("POST", PATH, JSON, body(*normal_records(1_000, seed=9)))
    assert [answer.status_code for answer in sent(Lane(client.app), [thousand] * 2)] == [200, 200]
    assert sorted(answer.status_code for answer in sent(Lane(client.app), [thousand] * 3)) == [200, 503, 503]


def test_a_failure_of_one_request_is_logged_and_answered_by_its_id(
    client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("7.25 is a value")

    monkeypatch.setattr(client.service.live.scorers()["pumps"], "score", fail)
    (answer,) = sent(Lane(client.app), [("POST", PATH, JSON | {"x-request-id": "r-1"}, body(NORMAL[0]))])
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "r-1")
    assert "r-1" in answer.json()["detail"]
    assert "7.25" not in answer.text


def test_a_failure_among_requests_that_come_together_is_its_own(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = client.service.live.scorers()["pumps"]
    score = scorer.score

    def fail_at_the_odd(batch: Batch, decision: Decision | None = None) -> Scored:
        if (batch.numbers == 3000.0).any():
            raise RuntimeError("no score")
        return score(batch, decision)

    monkeypatch.setattr(scorer, "score", fail_at_the_odd)
    bodies = [body(NORMAL[0]), body(NORMAL[0] | {"rpm": 3000.0}), body(NORMAL[1])]
    answers = sent(Lane(client.app), [("POST", PATH, JSON, one) for one in bodies])
    assert [answer.status_code for answer in answers] == [200, 500, 200]


def test_a_client_that_leaves_before_its_body_is_whole_is_counted(client: Client) -> None:
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": [], "query_string": b""}

    async def leave() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        raise AssertionError("nobody is there")

    asyncio.run(Lane(client.app)(scope, leave, send))
    assert (
        client.scrape().value("nelbo_http_requests_total", route="/v1/models/{name}/score", method="POST", status="499")
        == 1
    )


@pytest.mark.parametrize(("method", "path"), [("POST", PATH), ("GET", "/metrics")])
@pytest.mark.parametrize("message", ["http.response.start", "http.response.body"])
def test_a_client_that_resets_while_it_is_answered_is_no_failure_of_ours(
    method: str, path: str, message: str, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """uvloop raises where bytes are written to a connection that it has found closed."""

    bodies = [body(ODD)]

    async def receive() -> dict[str, Any]:
        while not bodies:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}

    async def send(sent: Any) -> None:
        if sent["type"] == message:
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}
    asyncio.run(Lane(client.app)(scope, receive, send))
    assert caplog.records == []
    route = "/metrics" if method == "GET" else "/v1/models/{name}/score"
    counted = client.scrape()
    assert counted.value("nelbo_http_requests_total", route=route, method=method, status="200") == 1
    assert counted.value("nelbo_requests_rejected_total", reason="internal") == 0

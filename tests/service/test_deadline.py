import asyncio
import json
import threading
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from nelbo.results import results
from service.deadline import Deadline
from service.lane import Lane
from service.problems import ProblemError
from service.request import ScoreRequest
from tests.bundles import normal_records, odd_record
from tests.service.conftest import Client, ClientFactory

PATH = "/v1/models/pumps/score"


def body(n: int) -> bytes:
    return json.dumps({"records": [odd_record()] * n}).encode()


async def sent(client: Client, *bodies: bytes) -> list[httpx.Response]:
    transport = httpx.ASGITransport(Lane(client.app))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        headers = {"content-type": "application/json"}
        return await asyncio.gather(*(http.post(PATH, content=one, headers=headers) for one in bodies))


async def gone() -> Message:
    return {"type": "http.disconnect"}


def test_a_deadline_holds_until_it_is_over_or_nobody_waits() -> None:
    now = [10.0]
    deadline = Deadline(12.0, lambda: now[0])
    deadline.check()
    assert deadline.remaining_s == 2.0
    now[0] = 12.5
    with pytest.raises(ProblemError, match="not ready within the request deadline"):
        deadline.check()
    assert deadline.remaining_s == 0.0
    ended = Deadline(99.0, lambda: now[0])
    ended.end()
    with pytest.raises(ProblemError):
        ended.check()


@pytest.mark.parametrize("n", [3, 3_000], ids=["short", "large"])
def test_an_answer_that_takes_too_long_is_given_up_with_503(n: int, client_factory: ClientFactory) -> None:
    client = client_factory(request_deadline_s=0.0005)
    (found,) = asyncio.run(sent(client, body(n)))
    assert (found.status_code, found.headers["retry-after"]) == (503, "1")
    assert found.json()["type"] == "urn:nelbo:problem:deadline-exceeded"
    assert client.scrape().value("nelbo_requests_rejected_total", reason="deadline-exceeded") == 1
    assert client.service.batching.n_queued == 0


def test_the_explanation_of_thousands_of_records_ends_with_its_deadline(client_factory: ClientFactory) -> None:
    client = client_factory(request_deadline_s=0.3)

    async def check() -> int:
        (found,) = await sent(client, body(9_000))
        worker = client.service.batching.worker
        await asyncio.wait_for(asyncio.wrap_future(worker.submit(int)), timeout=3)  # it is free
        return found.status_code

    assert asyncio.run(check()) == 503


def test_work_for_a_client_that_has_left_is_dropped(client: Client) -> None:
    async def check() -> None:
        batching = client.service.batching
        for n in (500, 9_000):  # short, and explained in the worker; large
            with pytest.raises(ClientDisconnect):
                await batching.score(ScoreRequest("pumps", body(n)), gone)
        await asyncio.wait_for(asyncio.wrap_future(batching.worker.submit(int)), timeout=3)
        assert batching.n_queued == 0

    asyncio.run(check())


def test_what_waits_for_the_worker_beyond_its_deadline_is_never_begun(client_factory: ClientFactory) -> None:
    client = client_factory(request_deadline_s=0.2)

    async def check() -> list[httpx.Response]:
        release = threading.Event()
        for _ in range(client.service.capacity.workers):
            client.service.batching.worker.submit(release.wait)
        answers = await sent(client, *[body(2_000)] * 3)
        release.set()
        return answers

    assert [answer.status_code for answer in asyncio.run(check())] == [503] * 3
    scrape: Any = client.scrape()
    assert scrape.value("nelbo_records_scored_total", model="pumps", outcome="flagged") == 0


def test_explaining_asks_again_and_again_whether_to_go_on(client: Client) -> None:
    scorer = client.service.live.scorers()["pumps"]
    batch = scorer.decoder.objects(normal_records(130))
    asked: list[int] = []

    def go_on() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        results(scorer, scorer.score(batch), "all", go_on)
    assert len(asked) == 3

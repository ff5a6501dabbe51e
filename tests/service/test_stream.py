import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect
from starlette.types import Message

from nelbo.resources import read_resources
from nelbo.scoring import Scorer
from nelbo.store import Store
from service.answer import Tally
from service.batching import Batching
from service.capacity import capacity_of
from service.live import Live
from service.metrics import Metrics
from service.progress import Progress
from service.request import ScoreRequest
from service.settings import Settings
from service.stream import MAX_LINE_BYTES, Incoming, Lines, Streams
from tests.bundles import VERSION, normal_records, odd_record, write_tiny_bundle
from tests.service.conftest import Client, ClientFactory

SCORE = "/v1/models/pumps/score"
NDJSON = {"content-type": "application/x-ndjson"}
RECORDS = [*normal_records(30, seed=4), odd_record(rpm=None), odd_record(valve="ajar"), odd_record()]
ODD = msgspec.json.encode(odd_record())


@pytest.fixture(scope="module")
def live(models: Path) -> Live:
    live = Live(Store(models))
    live.load_all()
    return live


def lines_of(records: Iterable[object]) -> bytes:
    return msgspec.json.Encoder().encode_lines(records)


def parsed(body: bytes) -> list[Any]:
    return [msgspec.json.decode(line) for line in body.splitlines()]


class Conversation:
    """A request whose body comes when the test says so, and its answer as far as it has come."""

    def __init__(self, live: Live, query: str = "", max_records: int = 100, max_bytes_together: int = 1 << 30) -> None:
        self._query = query
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        self.tallies: list[Tally] = []
        self.progress = Progress()
        self._batching = Batching(live, Metrics(live), 1, capacity_of(Settings(), read_resources()), 30.0)
        self._batching.count = self._told  # type: ignore[method-assign]  # to see them one by one
        self.count: Callable[[Tally], None] = self.tallies.append
        self._live = live
        self.streams = Streams(
            live,
            self._batching,
            max_records=max_records,
            max_body_bytes=1 << 20,
            max_bytes_together=max_bytes_together,
        )

    async def run(self) -> None:
        request = ScoreRequest("pumps", b"", NDJSON["content-type"], query=self._query)
        self._live.on_crowded = self.streams.let_go
        try:
            await self.streams.answer(request, self._messages.get, self._send, self.progress)
        finally:
            self._batching.close()

    def _told(self, tally: Tally) -> None:
        self.count(tally)  # which a test may replace

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def say(self, body: bytes, *, more: bool = True) -> None:
        self._messages.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    async def until(self, n_lines: int) -> None:
        """Waits for so many lines of the answer."""
        for _ in range(2000):
            if self.body.count(b"\n") >= n_lines:
                return
            await asyncio.sleep(0.005)
        raise TimeoutError(f"expected {n_lines} lines, got {self.body!r}")


def answered(live: Live, chunks: Iterable[bytes], query: str = "", **options: Any) -> Conversation:
    """A whole stream, in these pieces."""
    conversation = Conversation(live, query, **options)
    for chunk in chunks:
        conversation.say(chunk)
    conversation.say(b"", more=False)
    asyncio.run(conversation.run())
    return conversation


# --- what is answered --------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?rate=0.2", "?explain=all", "?explain=none"])
def test_each_line_gets_the_result_that_its_record_gets_in_json(query: str, client: Client) -> None:
    found = client.post(SCORE + query, content=lines_of(RECORDS), headers=NDJSON)
    in_json = client.post(SCORE + query, json={"records": RECORDS}, headers={"accept": "application/x-ndjson"})
    assert (found.status_code, found.headers["content-type"]) == (200, "application/x-ndjson")
    assert found.content == in_json.content
    assert found.headers["nelbo-threshold"] == in_json.headers["nelbo-threshold"]


def test_the_headers_say_which_version_answers_and_at_which_rate(client: Client) -> None:
    found = client.post(SCORE + "?rate=0.05", content=ODD, headers=NDJSON)
    assert found.headers["nelbo-model"] == f"pumps@{VERSION}"
    assert found.headers["nelbo-effective-rate"] == "0.05"
    assert "content-length" not in found.headers


def test_no_lines_get_an_empty_answer(client: Client) -> None:
    found = client.post(SCORE, content=b"\n \n", headers=NDJSON)
    assert (found.status_code, found.content) == (200, b"")


def test_a_wrong_line_is_an_error_of_its_record_and_blank_ones_do_not_count(live: Live) -> None:
    body = b"\n\n".join([ODD, b"{", b"[1]", ODD.replace(b"9.5", b'"9.5"'), ODD.replace(b"shut", b"\xff"), ODD])
    found = parsed(answered(live, [body]).body)
    assert [result["index"] for result in found] == [0, 1, 2, 3, 4, 5]
    assert [result.get("error", {}).get("expected") for result in found] == [
        None,
        "a JSON object",
        "a JSON object",
        "a number",
        "a string",
        None,
    ]


def test_a_line_that_is_too_long_is_an_error_of_its_record(live: Live) -> None:
    long = b'{"x":"' + b"x" * MAX_LINE_BYTES + b'"}'
    found = parsed(answered(live, [ODD + b"\n" + long[:9], long[9:] + b"\n{\n" + ODD]).body)
    assert found[1]["error"]["detail"] == "record 1: expected a line of at most 1048576 bytes, got a longer one"
    assert found[2]["error"]["detail"].startswith("record 2: expected a JSON object")
    assert [result.get("flagged") for result in found] == [True, None, None, True]


WHOLE = lines_of([normal_records(1)[0], odd_record(valve="zäh"), {}, odd_record()]) + b"\n\r\n" + ODD


@given(st.lists(st.integers(0, len(WHOLE)), max_size=6))
@settings(max_examples=50, deadline=None)
def test_lines_may_come_cut_anywhere(live: Live, cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(WHOLE)]
    pieces = [WHOLE[start:stop] for start, stop in pairwise(bounds)]
    assert answered(live, pieces).body == answered(live, [WHOLE]).body


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_get_a_result_a_line(live: Live, body: bytes) -> None:
    found = answered(live, [body])
    n = sum(1 for line in body.split(b"\n") if line.strip())
    assert (found.status, [result["index"] for result in parsed(found.body)]) == (200, list(range(n)))


# --- when it is answered -----------------------------------------------------------------------------


def test_a_line_is_answered_before_the_next_one_comes(live: Live) -> None:
    async def talk() -> list[int]:
        conversation = Conversation(live)
        running = asyncio.ensure_future(conversation.run())
        for n in (1, 2, 3):
            conversation.say(ODD[:9])
            conversation.say(ODD[9:] + b"\n")
            await conversation.until(n)
        conversation.say(b"", more=False)
        await running
        return [result["index"] for result in parsed(conversation.body)]

    assert asyncio.run(talk()) == [0, 1, 2]


def test_the_answer_begins_before_the_first_line_ends(live: Live) -> None:
    async def talk() -> int:
        conversation = Conversation(live)
        running = asyncio.ensure_future(conversation.run())
        for _ in range(10):
            await asyncio.sleep(0)
        conversation.leave()
        with pytest.raises(ClientDisconnect):
            await running
        return conversation.status

    assert asyncio.run(talk()) == 200


def test_lines_that_come_together_are_scored_together(live: Live) -> None:
    chunks = [lines_of(normal_records(50, seed=i)) for i in range(20)]
    assert [sum(tally.n_records) for tally in answered(live, chunks).tallies] == [1000]


def test_a_fast_stream_is_scored_in_batches_of_bounded_size(live: Live) -> None:
    chunks = [lines_of(normal_records(500, seed=i)) for i in range(7)]
    tallies = answered(live, chunks).tallies
    assert [sum(tally.n_records) for tally in tallies] == [1024, 1024, 1024, 428]


def test_a_client_that_leaves_ends_the_stream(live: Live) -> None:
    conversation = Conversation(live)
    conversation.say(ODD + b"\n")
    conversation.leave()
    with pytest.raises(ClientDisconnect):
        asyncio.run(conversation.run())


def test_a_failure_of_ours_breaks_the_answer_off_without_its_end(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    async def talk() -> Conversation:
        conversation = Conversation(live)
        running = asyncio.ensure_future(conversation.run())
        conversation.say(ODD + b"\n")
        await conversation.until(1)
        monkeypatch.setattr(Scorer, "score", lambda *_: 1 / 0)
        conversation.say(ODD + b"\n")
        with pytest.raises(ZeroDivisionError):
            await running
        return conversation

    sent = asyncio.run(talk()).sent
    assert [message.get("more_body") for message in sent] == [None, True]


def test_one_version_answers_a_whole_stream_and_each_is_watched_for_itself(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, version="1")
    live = Live(Store(tmp_path))
    live.load_all()

    async def talk() -> Conversation:
        conversation = Conversation(live)
        running = asyncio.ensure_future(conversation.run())
        conversation.say(ODD + b"\n")
        await conversation.until(1)
        write_tiny_bundle(tmp_path, version="2", seed=9)
        live.load("pumps")
        conversation.say(ODD + b"\n", more=False)
        await running
        return conversation

    conversation = asyncio.run(talk())
    first, second = parsed(conversation.body)
    assert first | {"index": 1} == second
    assert [tally.scored[0].bundle.version for tally in conversation.tallies if tally.scored] == ["1", "1"]
    assert live.scorers()["pumps"].bundle.version == "2"


def test_a_stream_of_the_version_before_the_last_ends_where_a_third_one_is_to_be_loaded(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, version="1")
    live = Live(Store(tmp_path), patience_s=0.1)
    live.load_all()

    async def talk() -> Conversation:
        conversation = Conversation(live)
        conversation.count = lambda _: None  # a tally would hold on to its version
        running = asyncio.ensure_future(conversation.run())
        conversation.say(ODD + b"\n")
        await conversation.until(1)
        for version in ("2", "3"):
            write_tiny_bundle(tmp_path, version=version)
            await asyncio.to_thread(live.reload, "pumps")
        await running
        return conversation

    conversation = asyncio.run(talk())
    assert [message.get("more_body") for message in conversation.sent] == [None, True]
    assert live.scorers()["pumps"].bundle.version == "3"


# --- memory ------------------------------------------------------------------------------------------


def test_a_line_without_an_end_is_not_kept() -> None:
    lines, most = Lines(max_bytes=1000), 0
    for _ in range(100):
        assert lines.add(b"x" * 300) == []
        most = max(most, lines.n_held)
    assert (most, lines.add(b"\n12\n")) == (900, [None, b"12"])


def test_lines_that_wait_are_bounded_however_many_come() -> None:
    line, n_lines, sent = b"x" * 100 + b"\n", 0, 0

    async def receive() -> Message:
        nonlocal sent
        sent += 1
        return {"type": "http.request", "body": line * 600, "more_body": sent < 500}

    async def read() -> int:
        nonlocal n_lines
        incoming, most = Incoming(receive, 1024, 1 << 20, waits=False, progress=Progress()), 0
        while batch := await incoming.batch():
            n_lines += len(batch)
            most = max(most, incoming.n_held + sum(len(held or b"") for held in batch))
            # No more was taken from the server than two batches hold.
            assert sent * 600 - n_lines < 2 * 1024
        return most

    assert asyncio.run(read()) < 2 * 1024 * 101
    assert n_lines == 300_000


def test_long_lines_make_batches_of_few() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": (b"x" * 400 + b"\n") * 10, "more_body": False}

    async def read() -> list[int]:
        incoming, sizes = Incoming(receive, 1024, 1000, waits=False, progress=Progress()), []
        while batch := await incoming.batch():
            sizes.append(len(batch))
        return sizes

    assert asyncio.run(read()) == [3, 3, 3, 1]


# --- windows and refusals ----------------------------------------------------------------------------


def test_a_false_discovery_rate_holds_in_each_window(live: Live, client: Client) -> None:
    records = [*normal_records(10), *[odd_record()] * 5, *normal_records(10, seed=1), odd_record(), odd_record()]
    chunks = [lines_of([record]) for record in records]
    found = answered(live, chunks, "fdr=0.05&window=15")
    assert [sum(tally.n_records) for tally in found.tallies] == [15, 12]
    windows = [client.score(part, "?fdr=0.05").json()["results"] for part in (records[:15], records[15:])]
    flagged = [result["flagged"] for window in windows for result in window]
    assert [result["flagged"] for result in parsed(found.body)] == flagged
    assert {True, False} == set(flagged)
    assert not {"nelbo-threshold", "nelbo-effective-rate"} & {name.decode() for name, _ in found.sent[0]["headers"]}


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        (
            "fdr=0.1",
            "query parameter 'window': expected it with JSON lines: a false discovery rate of 0.1 holds in each "
            "so many records, got none",
        ),
        ("window=9", "query parameter 'window': expected it beside a false discovery rate, got none"),
        ("fdr=0.1&window=0", "query parameter 'window': expected a whole number from 1 to 999999999, got '0'"),
        ("fdr=0.1&window=101", "query parameter 'window': expected at most 100 records, got 101"),
        (
            "strict=true",
            "query parameter 'strict': expected false with JSON lines, whose answer begins before the last record "
            "came, got true",
        ),
    ],
)
def test_what_a_stream_cannot_keep_is_refused_before_it_begins(query: str, detail: str, live: Live) -> None:
    found = answered(live, [ODD], query)
    assert (found.status, msgspec.json.decode(found.body)["detail"]) == (422, detail)
    assert [tally.rejected for tally in found.tallies] == ["wrong-query"]
    assert (b"connection", b"close") in found.sent[0]["headers"]


def test_a_window_is_refused_where_the_body_comes_whole(client: Client) -> None:
    found = client.score(RECORDS, "?fdr=0.1&window=9")
    assert (found.status_code, found.json()["errors"][0]["parameter"]) == (422, "window")


def test_a_model_whose_own_wish_is_a_false_discovery_rate_needs_a_window_too(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, fdr=0.1)
    live = Live(Store(tmp_path))
    live.load_all()
    assert [answered(live, [ODD], query).status for query in ("", "window=5", "rate=0.1")] == [422, 200, 200]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/models/fans/score", NDJSON, 404),
        (SCORE, NDJSON | {"content-encoding": "gzip"}, 415),
        (SCORE + "?rate=2", NDJSON, 422),
    ],
)
def test_a_wrong_request_is_refused_with_a_problem(
    path: str, headers: dict[str, str], status: int, client: Client
) -> None:
    found = client.post(path, content=ODD, headers=headers)
    assert (found.status_code, found.headers["content-type"]) == (status, "application/problem+json")


# --- limits and counters -----------------------------------------------------------------------------


def test_neither_the_limit_on_bytes_nor_on_records_holds_for_a_stream(client_factory: ClientFactory) -> None:
    client = client_factory(max_records=2, max_body_bytes=20)
    found = client.post(SCORE, content=lines_of(normal_records(50)), headers=NDJSON)
    assert (found.status_code, found.content.count(b"\n")) == (200, 50)


def test_a_stream_is_one_request_and_all_its_records_are_counted(client: Client) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for i in range(6):
            yield lines_of(normal_records(50, seed=i))
        yield b"{}\n" + ODD

    assert client.post(SCORE, content=chunks(), headers=NDJSON).status_code == 200
    scrape = client.scrape()
    route = "/v1/models/{name}/score"
    assert scrape.value("nelbo_http_requests_total", route=route, method="POST", status="200") == 1
    outcomes = [scrape.value("nelbo_records_scored_total", model="pumps", outcome=o) for o in ("normal", "flagged")]
    assert (sum(outcomes), outcomes[1] >= 1) == (301, True)
    assert scrape.value("nelbo_record_errors_total", model="pumps", reason="missing") == 1
    assert client.get("/v1/models/pumps").json()["drift"]["n_records"] == 250


# --- how many ----------------------------------------------------------------------------------------


def test_a_stream_more_than_the_memory_holds_is_refused_until_another_one_ends(live: Live) -> None:
    async def check() -> None:
        first, second, third = (Conversation(live, max_bytes_together=3 << 20) for _ in range(3))
        second.streams = third.streams = first.streams
        running = asyncio.create_task(first.run())
        await asyncio.sleep(0.01)
        await second.run()
        assert (second.status, msgspec.json.decode(second.body)["type"]) == (503, "urn:nelbo:problem:too-many-streams")
        first.say(b"", more=False)
        await running
        third.say(b"", more=False)
        await third.run()
        assert (first.status, third.status) == (200, 200)

    asyncio.run(check())


def test_lines_and_answers_of_a_stream_are_steps(live: Live) -> None:
    found = answered(live, [ODD + b"\n"])
    assert found.progress.n_steps == 2

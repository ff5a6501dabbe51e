"""What a request holds is in no log line and no metric; where the service lies is in no answer either."""

import asyncio
import json
import logging
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from pyarrow import ipc

from nelbo.bundle import NEEDED
from nelbo.scoring import Scorer
from service import logs
from service.keys import new_key, write_keys
from service.lane import Lane
from tests.bundles import VERSION, odd_record, write_tiny_bundle
from tests.service.conftest import Client, ClientFactory
from tests.service.test_access import NOW

WORD, NUMBER = "cAnArY-531", 753197531.25
PLANTED = ("canary", "753197531", "y2fuyxj5")  # in lower case; the last as base64 has it
SCORE, INFER = "/v1/models/pumps/score", "/v2/models/pumps/infer"
JSON, NDJSON, CSV = "application/json", "application/x-ndjson", "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
RECORDS = {
    "a number": odd_record(pressure=NUMBER),
    "a category": odd_record(valve=WORD),
    "an id": odd_record(serial=WORD),
    "a label": odd_record(failed=WORD),
    "text for a number": odd_record(pressure=WORD),
    "text for a truth": odd_record(heated=WORD),
    "a number for text": odd_record(valve=NUMBER),
    "a list": odd_record(pressure=[WORD]),
    "an unknown name": odd_record(**{WORD: 1}),
    "an unknown name with a value": {WORD: WORD},
}
Sent = tuple[str, str, dict[str, str], bytes]


def post(path: str, content_type: str, body: bytes | str, **headers: str) -> Sent:
    return "POST", path, {"content-type": content_type, **headers}, body.encode() if isinstance(body, str) else body


def tensor(name: str, datatype: str, *data: object) -> dict[str, object]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": list(data)}


def tensors(**changed: object) -> str:
    values = {
        "pressure": ("FP64", 5.0),
        "in/out [l/s]": ("FP64", 20.0),
        "valve": ("BYTES", "open"),
        "heated": ("BOOL", True),
    }
    inputs = [tensor(name, kind, changed.get(name, value)) for name, (kind, value) in values.items()]
    return json.dumps({"id": WORD, "parameters": {WORD: WORD}, "inputs": inputs})


def arrow(record: dict[str, Any]) -> bytes:
    sink, table = pa.BufferOutputStream(), pa.table({name: [value] for name, value in record.items()})
    with ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def requests() -> Iterator[Sent]:
    """A request with something planted, for every place that one has."""
    for record in RECORDS.values():
        whole, columns = {"records": [record]}, {"columns": {name: [value] for name, value in record.items()}}
        yield post(SCORE, JSON, json.dumps(whole))
        yield post(f"{SCORE}?strict=true&explain=all", JSON, json.dumps(whole))
        yield post(SCORE, JSON, json.dumps(columns))
        yield post(SCORE, JSON, json.dumps(whole), accept=CSV)
        yield post(SCORE, NDJSON, json.dumps(record) + "\n")
        yield post(SCORE, CSV, ",".join(record) + "\n" + ",".join(map(str, record.values())) + "\n")
        yield post(SCORE, ARROW, arrow(record))
    good = json.dumps({"records": [odd_record()]})
    for text in (
        f'{{"{WORD}',
        f'{{"records":[{{"{WORD}":',
        f"[{NUMBER}",
        f'{{"records":"{WORD}"}}',
        f"{WORD}\x00",
        "[" * 9999 + WORD,
    ):
        for content_type in (JSON, NDJSON, CSV, ARROW):
            yield post(SCORE, content_type, text)
        yield post(INFER, JSON, text)
    for name, value in (("pressure", NUMBER), ("pressure", WORD), ("valve", WORD), ("heated", WORD)):
        yield post(INFER, JSON, tensors(**{name: value}))
        yield post(f"/v2/models/pumps/versions/{VERSION}/infer", JSON, tensors(**{name: value}))
    yield post(INFER, "application/octet-stream", tensors() + WORD, **{"inference-header-content-length": WORD})
    yield post("/v2/repository/index", JSON, json.dumps({"repository_name": WORD, WORD: WORD}))
    for query in (
        f"rate={WORD}",
        f"{WORD}=1",
        f"per={WORD}",
        f"explain={WORD}",
        f"strict={WORD}",
        f"%ff{WORD}",
        f"rate={NUMBER}",
    ):
        yield post(f"{SCORE}?{query}", JSON, good)
        yield post(f"{SCORE}?{query}", NDJSON, good)
        yield "GET", f"/v1/models?{query}", {}, b""
    for header in ("user-agent", "cookie", "accept", "traceparent", "tracestate", "x-forwarded-for", "referer", "host"):
        yield post(SCORE, JSON, good, **{header: WORD})
    yield post(SCORE, f"text/{WORD}", good)
    yield post(SCORE, f"{JSON}; charset={WORD}", good)
    yield post(SCORE, JSON, good, **{"content-encoding": WORD})
    yield post(SCORE, JSON, good, **{"x-request-id": f"{WORD} {WORD}"})  # one that fits is logged: it is meant to be
    for call in (
        f"{WORD}/reload",
        f"pumps/promote?version={WORD}",
        f"pumps/promote?{WORD}=1",
        f"pumps/reload?force={WORD}",
    ):
        yield post(f"/v1/models/{call}", JSON, b"")
    for path in (
        f"/v1/models/{WORD}/score",
        f"/v2/models/{WORD}/infer",
        f"/v1/{WORD}",
        f"/v2/models/pumps/versions/{WORD}/infer",
    ):
        yield post(path, JSON, good)
        yield "GET", path.removesuffix("/score").removesuffix("/infer"), {}, b""
    yield "CANARY", SCORE, {}, b""


def headers_of(keys: dict[str, str]) -> list[dict[str, str]]:
    wrong = [f"Bearer nelbo_{WORD}_{WORD}", f"Bearer {WORD}", f"Basic {WORD}", WORD]
    return [
        *({"authorization": text} for text in wrong),
        *({"authorization": f"Bearer {key}"} for key in keys.values()),
    ]


@dataclass
class Told:
    """What a client is told; of a stream that fails in its middle, the part before."""

    status_code: int = 0
    text: str = ""

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.status_code = message.get("status", self.status_code)
        lines = [f"{name.decode()}: {value.decode()}\n" for name, value in message.get("headers", ())]
        self.text += "".join(lines) + message.get("body", b"").decode(errors="replace")


def answers(app: Any, sent: list[Sent]) -> list[Told]:
    """The answers, one after the other; not by httpx, which takes a stream without an end for a fault of its own."""

    async def send_all() -> list[Told]:
        return [await told(*request) for request in sent]

    async def told(method: str, path: str, headers: dict[str, str], body: bytes) -> Told:
        url = httpx.URL(f"http://test{path}")
        scope = {
            "type": "http",
            "method": method,
            "path": url.path,
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": url.query,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        waiting = [{"type": "http.request", "body": body, "more_body": False}]
        found = Told()

        async def receive() -> dict[str, Any]:
            if not waiting:
                await asyncio.sleep(60)  # the client stays
                return {"type": "http.disconnect"}
            return waiting.pop()

        await app(scope, receive, found.send)
        return found

    return asyncio.run(send_all())


@pytest.fixture(autouse=True)
def _root_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restored afterwards; the test's own client writes nothing."""
    root = logging.getLogger()
    for name in ("httpx", "httpcore"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def found_in(text: str, *places: Path) -> list[str]:
    return [planted for planted in (*PLANTED, *map(str, places)) if planted.lower() in text.lower()]


def fail(*_: object, **__: object) -> None:
    raise ValueError(f"could not convert {WORD} {NUMBER}")


FAILURES: dict[str, list[tuple[Any, str]]] = {
    "nothing": [],
    "the graph": [(Scorer, "score"), (Scorer, "discover")],
    "the reading": [("service.answer", "decoded"), ("service.stream", "_decoded"), ("service.v2.infer", "_decoded")],
    "the writing": [("service.answer", "body_of"), ("service.stream", "lines_of"), ("service.v2.infer", "encoded")],
}


@pytest.mark.parametrize("failure", FAILURES)
def test_nothing_of_a_request_is_logged_or_measured(
    failure: str,
    client_factory: ClientFactory,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("debug", models)
    client = client_factory()
    for owner, name in FAILURES[failure]:
        target = f"{owner}.{name}" if isinstance(owner, str) else None
        monkeypatch.setattr(target, fail) if target else monkeypatch.setattr(owner, name, fail)
    found = answers(Lane(client.app), list(requests()))
    statuses = {answer.status_code for answer in found}
    assert statuses >= ({200, 400, 404, 405, 415, 422} if failure == "nothing" else {500, 404})
    captured = capsys.readouterr()
    assert found_in(captured.err + captured.out, models) == []
    assert found_in(client.get("/metrics").text, models) == []
    assert ("request failed" in captured.err) is (failure != "nothing")
    # A failure of ours says nothing of what came.
    assert [found_in(answer.text) for answer in found if answer.status_code == 500 and found_in(answer.text)] == []


def test_nothing_of_a_key_is_logged_or_measured_but_the_id_of_a_known_one(
    client_factory: ClientFactory,
    tmp_path: Path,
    models: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.access._LOG_S", 0.0)  # every refusal is logged
    logs.configure("debug", models)
    made = {scope: new_key([scope], "", NOW, None) for scope in ("score", "read")}
    write_keys(tmp_path / "keys.json", [key for _, key in made.values()])
    client = client_factory(keys=tmp_path / "keys.json")
    texts = {scope: text for scope, (text, _) in made.items()}
    sent = [
        (method, path, h, b"")
        for method, path in (("POST", SCORE), ("GET", "/v1/models"), ("GET", "/x"))
        for h in headers_of(texts)
    ]
    assert {answer.status_code for answer in answers(Lane(client.app), sent)} == {200, 401, 403, 404, 415}
    captured = capsys.readouterr()
    metrics = client.get("/metrics", headers={"authorization": f"Bearer {texts['read']}"}).text
    text = captured.err + captured.out + metrics
    assert captured.err.count("access refused") == 14
    assert found_in(text, tmp_path) == []
    assert [key.id in captured.err for _, key in made.values()] == [True, True]
    assert [secret[:6] for secret in (t.split("_", 2)[2] for t in texts.values()) if secret[:6] in text] == []
    assert [key.sha256[:8] for _, key in made.values() if key.sha256[:8] in text] == []


def stores(root: Path) -> Iterator[tuple[str, Path]]:
    """What is wrong with them, and stores."""
    write_tiny_bundle(root / "sound")
    yield "nothing", root / "sound"
    yield "no store", root / "none"
    (root / "empty").mkdir()
    yield "an empty store", root / "empty"
    for name in (*NEEDED, "manifest.json"):
        for kind in ("gone", "torn", "a folder"):
            store = root / f"{name}-{kind}".replace(" ", "-")
            file = write_tiny_bundle(store) / name
            if kind == "torn":
                file.write_bytes(file.read_bytes()[:-7])
            else:
                file.unlink()
            if kind == "a folder":
                file.mkdir()
            yield f"{name} {kind}", store
    other = write_tiny_bundle(root / "other", "fans").parent
    other.rename(other.with_name("pumps"))
    yield "another model", root / "other"
    for text in ("{", '{"live":"gone"}', "[]"):
        aliases = write_tiny_bundle(root / f"aliases-{len(text)}").parent / "aliases.json"
        aliases.write_text(text)
        yield f"aliases {text}", root / f"aliases-{len(text)}"


def test_no_answer_and_no_log_line_says_where_the_models_lie(
    client_factory: ClientFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {}
    for case, store in stores(tmp_path):
        logs.configure("debug", store)
        client: Client = client_factory(store)
        paths = [
            (path.replace("{name}", "pumps").replace("{version}", VERSION), method.upper())
            for path, operations in client.app.openapi()["paths"].items()
            for method in operations
        ]
        sent: list[Sent] = [(method, path, {"content-type": JSON}, b"{}") for path, method in paths]
        found = answers(Lane(client.app), sent)
        assert {answer.status_code for answer in found} & ({200} if case == "nothing" else {503, 404}), case
        captured = capsys.readouterr()
        for text in (*(answer.text for answer in found), captured.err, captured.out):
            if found_in(text, tmp_path):
                told[case] = text
    assert told == {}


def test_the_search_would_find_what_was_planted(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("debug", Path("/elsewhere"))
    logs.event("an event", value=WORD, number=NUMBER, at=str(models / "pumps"))
    assert found_in(capsys.readouterr().err, models) == ["canary", "753197531", str(models)]


def test_what_another_library_says_of_an_error_is_cut_to_its_first_line(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("debug", models)
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: %s", WORD)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "Task exception was never retrieved"

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from starlette.types import Message

from nelbo.errors import StoreError
from nelbo.store import PREVIOUS, Store
from service.app import create_app
from service.lifecycle import Lifecycle
from service.live import Live
from service.problems import Answer, ProblemError
from service.request import ScoreRequest
from service.settings import Settings
from tests.bundles import normal_records, versions, write_tiny_bundle
from tests.service.conftest import ClientFactory

Answered = dict[str, Any]


def damage(root: Path, version: str) -> None:
    (root / "pumps" / version / "score.onnx").write_bytes(b"no graph")


def test_a_reload_answers_with_what_serves_now_and_before(client_factory: ClientFactory, tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    client = client_factory(tmp_path)
    store.promote("pumps", "2")
    found = client.post("/v1/models/pumps/reload")
    assert (found.status_code, found.json()) == (
        200,
        {
            "name": "pumps",
            "version": "2",
            "previous": "1",
            "changed": True,
            "detail": "version '2' serves instead of '1'",
            "removed": [],
        },
    )
    assert client.score([]).json()["model"]["version"] == "2"


def test_a_reload_of_what_serves_says_that_nothing_has_changed(client_factory: ClientFactory, tmp_path: Path) -> None:
    versions(tmp_path, "1")
    found = client_factory(tmp_path).post("/v1/models/pumps/reload").json()
    assert (found["changed"], found["detail"]) == (False, "version '1' was verified anew and goes on serving")


def test_a_damaged_version_is_refused_with_its_reason_and_the_old_one_serves(
    client_factory: ClientFactory, tmp_path: Path
) -> None:
    store = versions(tmp_path, "1", "2")
    client = client_factory(tmp_path)
    damage(tmp_path, "2")
    store.promote("pumps", "2")
    found = client.post("/v1/models/pumps/reload")
    assert (found.status_code, found.json()["type"]) == (409, "urn:nelbo:problem:load-failed")
    assert found.json()["detail"] == (
        "bundle 'pumps@2': score.onnx does not match its digest in the manifest; it was changed after export; "
        "version '1' goes on serving"
    )
    assert client.score([]).json()["model"]["version"] == "1"
    (model,) = client.get("/v1/models").json()["models"]
    assert (model["version"], model["reason"] in found.json()["detail"]) == ("1", True)


def test_what_became_of_a_load_is_measured(client_factory: ClientFactory, tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    client = client_factory(tmp_path)
    damage(tmp_path, "2")
    store.promote("pumps", "2")
    client.post("/v1/models/pumps/reload")
    found = client.scrape()
    outcomes = ("loaded", "unchanged", "failed", "schema-changed")
    counts = [found.value("nelbo_model_loads_total", model="pumps", outcome=outcome) for outcome in outcomes]
    assert counts == [1, 0, 1, 0]
    assert found.value("nelbo_model_load_success", model="pumps") == 0
    assert found.value("nelbo_model_versions_in_memory", model="pumps") == 1


def test_another_schema_is_refused_column_by_column_and_can_be_forced(
    client_factory: ClientFactory, tmp_path: Path
) -> None:
    versions(tmp_path, "1")
    client = client_factory(tmp_path)
    write_tiny_bundle(tmp_path, version="2", unit="bar")
    found = client.post("/v1/models/pumps/promote?version=2")
    assert (found.status_code, found.json()["type"]) == (409, "urn:nelbo:problem:schema-changed")
    (change,) = found.json()["errors"]
    assert (change["expected"], change["found"]) == ("a number", "a number in bar")
    assert Store(tmp_path).aliases("pumps")["live"] == "1"
    assert client.post("/v1/models/pumps/promote?version=2&force=true").json()["version"] == "2"


def test_promotion_and_rollback_write_the_aliases(client_factory: ClientFactory, tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    client = client_factory(tmp_path)
    assert client.post("/v1/models/pumps/promote?version=2").json()["previous"] == "1"
    assert store.aliases("pumps") == {"live": "2", "previous": "1"}
    assert client.post("/v1/models/pumps/rollback").json()["version"] == "1"
    assert store.aliases("pumps") == {"live": "1", "previous": "2"}


def test_what_the_store_does_not_have_is_404(client_factory: ClientFactory, tmp_path: Path) -> None:
    versions(tmp_path, "1")
    client = client_factory(tmp_path)
    for path in ("fans/reload", "pumps/promote?version=9", "pumps/rollback", "..%2Fpumps/reload", "pumps@1/reload"):
        found = client.post(f"/v1/models/{path}")
        assert (path, found.status_code) == (path, 404)


def test_a_store_that_cannot_be_written_is_said_to_be_so(client_factory: ClientFactory, tmp_path: Path) -> None:
    versions(tmp_path, "1", "2")
    client = client_factory(tmp_path)
    (tmp_path / "pumps" / ".lock").unlink()
    (tmp_path / "pumps" / ".lock").mkdir()
    found = client.post("/v1/models/pumps/promote?version=2")
    assert (found.status_code, found.json()["type"]) == (409, "urn:nelbo:problem:store-not-writable")
    assert found.json()["detail"].endswith("cannot be changed: Is a directory; version '1' goes on serving")
    assert client.score([]).json()["model"]["version"] == "1"


@pytest.mark.parametrize(
    "query",
    [
        "reload?force=yes",
        "reload?version=1",
        "reload?force=true&force=true",
        "promote",
        "promote?version=",
        "promote?v=1",
    ],
)
def test_a_wrong_query_is_refused(query: str, client_factory: ClientFactory, tmp_path: Path) -> None:
    versions(tmp_path, "1")
    found = client_factory(tmp_path).post(f"/v1/models/pumps/{query}")
    assert (found.status_code, found.json()["type"]) == (422, "urn:nelbo:problem:wrong-query")


def test_a_promotion_removes_old_versions_by_the_setting(client_factory: ClientFactory, tmp_path: Path) -> None:
    store = versions(tmp_path, "3", "1", "2", "4", "5")
    client = client_factory(tmp_path, keep_versions=1)
    assert client.post("/v1/models/pumps/promote?version=5").json()["removed"] == ["1", "2", "4"]
    assert store.versions("pumps") == ["3", "5"]  # the one before can be gone back to


def test_a_promotion_whose_old_versions_cannot_be_removed_is_a_promotion_all_the_same(
    client_factory: ClientFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object) -> list[str]:
        raise StoreError("aliases.json: cannot be read: Input/output error")

    versions(tmp_path, "1", "2")
    monkeypatch.setattr(Store, "prune", unreadable)
    found = client_factory(tmp_path, keep_versions=1).post("/v1/models/pumps/promote?version=2")
    assert (found.status_code, found.json()["version"], found.json()["removed"]) == (200, "2", [])
    assert found.json()["detail"].endswith("'1'; aliases.json: cannot be read: Input/output error")


def test_a_hundred_calls_at_once_are_all_answered_by_few_loads(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    app = create_app(Settings(models=tmp_path))
    live: Live = app.state.service.live
    live.load_all()
    store.promote("pumps", "2")

    async def call() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await asyncio.gather(*(client.post("/v1/models/pumps/reload") for _ in range(100)))

    answers = asyncio.run(call())
    assert {(answer.status_code, answer.json()["version"]) for answer in answers} == {(200, "2")}
    assert sum(live.n_loads("pumps").values()) < 20


def test_two_rollbacks_that_wait_together_go_there_and_back_again(tmp_path: Path) -> None:
    store = versions(tmp_path, "1", "2")
    store.promote("pumps", "2")
    live = Live(store)
    live.load_all()
    lifecycle = Lifecycle(live, None)

    async def call() -> list[str]:
        back = [lifecycle.promote("pumps", PREVIOUS, force=False) for _ in range(2)]
        calls = [lifecycle.reload("pumps", force=False), *back]
        return [answer.version for answer in await asyncio.gather(*calls)]

    assert asyncio.run(call()) == ["2", "1", "2"]
    assert store.aliases("pumps") == {"live": "2", "previous": "1"}


def test_a_call_while_the_store_is_not_there_says_so_and_leaves_every_state(
    client_factory: ClientFactory, tmp_path: Path
) -> None:
    versions(tmp_path / "models", "1")
    client = client_factory(tmp_path / "models")
    (tmp_path / "models").rename(tmp_path / "away")
    for call in ("pumps/reload", "pumps/promote?version=2", "pumps/rollback", "fans/reload"):
        found = client.post(f"/v1/models/{call}")
        assert (found.status_code, found.json()["type"]) == (503, "urn:nelbo:problem:store-not-readable")
    assert client.scrape().value("nelbo_model_load_success", model="pumps") == 1
    assert client.get("/healthz/ready").status_code == 200
    client.service.live.follow()
    (listed,) = client.get("/v1/models").json()["models"]
    assert (listed["state"], listed["reason"]) == ("loaded", "NELBO_MODELS is not there")


def test_a_caller_is_told_that_a_load_has_not_finished_while_the_store_hangs(tmp_path: Path) -> None:
    versions(tmp_path, "1")

    answers = threading.Event()

    class HangingStore(Store):
        def live(self, name: str) -> Path:
            answers.wait(30)
            return super().live(name)

    live = Live(HangingStore(tmp_path))
    threading.Thread(target=live.load_all, daemon=True).start()
    with pytest.raises(ProblemError) as info:
        asyncio.run(Lifecycle(live, None, patience_s=0.05).reload("pumps", force=False))
    assert (info.value.kind, answers.is_set()) == ("load-not-finished", False)
    answers.set()


def test_a_model_that_was_removed_is_said_to_go_on_serving(client_factory: ClientFactory, tmp_path: Path) -> None:
    versions(tmp_path / "models", "1")
    client = client_factory(tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "pumps")
    found = client.post("/v1/models/pumps/reload")
    assert (found.status_code, found.json()["detail"].endswith("; version '1' goes on serving")) == (404, True)


def test_the_calls_are_for_administrators_alone(client_factory: ClientFactory, tmp_path: Path) -> None:
    paths = client_factory(tmp_path).get("/openapi.json").json()["paths"]
    calls = [paths[f"/v1/models/{{name}}/{verb}"]["post"] for verb in ("reload", "promote", "rollback")]
    assert [call["x-scope"] for call in calls] == ["admin"] * 3
    expected = ["200", "403", "404", "409", "421", "422", "503"]
    assert [sorted(call["responses"]) for call in calls] == [expected] * 3


def test_requests_that_wait_together_are_answered_by_one_version(client_factory: ClientFactory, tmp_path: Path) -> None:
    versions(tmp_path, "1", "2")
    service = client_factory(tmp_path).service
    request = ScoreRequest("pumps", msgspec.json.encode({"records": normal_records(2)}))

    async def silent() -> Message:
        return await asyncio.Queue[Message]().get()

    async def ask() -> list[Answer]:
        waiting = [asyncio.ensure_future(service.batching.score(request, silent)) for _ in range(3)]
        await asyncio.sleep(0)  # they are in the queue now
        service.live.promote("pumps", "2")
        return await asyncio.gather(*waiting)

    first, *others = (answer.body for answer in asyncio.run(ask()))
    assert [other == first for other in others] == [True, True]
    scorer = service.live.scorers()["pumps"]
    expected = scorer.score(scorer.decoder.objects(normal_records(2))).statistics["score"]
    found = msgspec.json.decode(first)
    assert found["model"]["version"] == "2"
    assert [result["score"]["value"] for result in found["results"]] == pytest.approx(expected.tolist(), rel=1e-5)

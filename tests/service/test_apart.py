import asyncio
import threading
from pathlib import Path

import pytest

from nelbo.errors import StoreError
from service.apart import Apart
from tests.bundles import write_tiny_bundle
from tests.service.conftest import ClientFactory


def test_what_work_finds_is_handed_on_and_so_is_its_error() -> None:
    def fail() -> int:
        raise StoreError("aliases.json cannot be read")

    assert asyncio.run(Apart().read(lambda: 3)) == 3
    with pytest.raises(StoreError, match=r"^aliases\.json cannot be read$"):
        asyncio.run(Apart().read(fail))


def test_an_error_of_the_system_is_told_without_a_path() -> None:
    def fail() -> None:
        Path("/nowhere/at/all").stat()

    with pytest.raises(StoreError, match=r"^the store of models cannot be read: No such file or directory$"):
        asyncio.run(Apart().read(fail))


def test_four_wait_for_a_store_that_hangs_and_a_fifth_is_told_at_once() -> None:
    hanging, apart = threading.Event(), Apart()

    async def ask() -> list[bool]:
        waiting = [asyncio.create_task(apart.read(hanging.wait)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match=r"does not answer: 4 requests wait for it$"):
            await apart.read(hanging.wait)
        hanging.set()
        found = await asyncio.gather(*waiting)
        return [*found, await apart.read(hanging.wait)]

    assert asyncio.run(ask()) == [True] * 5


def test_calls_that_need_a_thread_are_refused_while_there_is_none_and_answered_later(
    client_factory: ClientFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny_bundle(tmp_path)
    client = client_factory(tmp_path)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def statuses() -> list[int]:
        return [client.get("/v1/models/pumps/versions").status_code, client.post("/v1/models/pumps/reload").status_code]

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert statuses() == [503, 503]
    assert statuses() == [200, 200]
    assert client.scrape().value("nelbo_requests_rejected_total", reason="out-of-resources") == 2

"""The thread that loads the models."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.loader import Loader, loader_of
from service.settings import Settings
from tests.bundles import write_tiny_bundle


@contextmanager
def running(loader: Loader) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=loader.run, daemon=True)
    thread.start()
    yield thread
    loader.stop()
    thread.join(30)
    assert not thread.is_alive()


def loader_over(models: Path, *, reload_s: float) -> Loader:
    return loader_of(Settings(models=models, reload_s=reload_s))


def test_the_store_is_looked_through_once_where_the_pause_is_0(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    loader = loader_over(tmp_path, reload_s=0)
    with running(loader) as thread:
        thread.join(30)
        assert not thread.is_alive()
    assert (loader.live.looked_at(), loader.live.problems()) == (None, [])


def test_a_look_that_fails_is_not_the_last_one(tmp_path: Path) -> None:
    loader = loader_over(tmp_path, reload_s=0.01)
    follow, n_looks = loader.live.follow, 0

    def fail_once() -> None:
        nonlocal n_looks
        n_looks += 1
        if n_looks == 1:
            raise ZeroDivisionError
        follow()

    loader.live.follow = fail_once  # type: ignore[method-assign]
    with running(loader):
        deadline = time.monotonic() + 30
        while loader.live.looked_at() is None and time.monotonic() < deadline:
            time.sleep(0.01)
    assert loader.live.looked_at() is not None


def test_it_begins_once(tmp_path: Path) -> None:
    loader = loader_over(tmp_path, reload_s=60)
    before = threading.active_count()
    loader.begin()
    loader.begin()
    assert threading.active_count() == before + 1
    loader.stop()

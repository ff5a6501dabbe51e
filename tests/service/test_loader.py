"""The thread that loads the models."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.loader import Loader, loader_of
from service.settings import Settings
from tests.bundles import write_tiny_bundle
from tests.service.process import environment


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


def test_to_load_a_model_imports_nothing(tmp_path: Path) -> None:
    """The first load runs beside the imports of the app, and two threads that import see half a module."""
    write_tiny_bundle(tmp_path)
    code = """
import sys
import service.__main__
from nelbo.resources import read_resources
from service.loader import loader_of
from service.settings import Settings
live = loader_of(Settings()).live
read_resources()
before = set(sys.modules)
live.load_all()
print(live.problems(), set(sys.modules) - before, "fastapi" in sys.modules)
"""
    env = environment(MODELS=tmp_path)
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout == "[] set() False\n"

"""Wishes that take long: done one after the other, off the event loop; the same wish, while it waits, is one."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any


class Wishes:
    """A queue with a thread for as long as something is in it.

    The thread is a daemon: a store that hangs must not keep the process from stopping.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, tuple[Callable[[], Any], Future[Any]]] = {}
        self._is_at_work = False

    def make(self, key: Hashable, work: Callable[[], Any]) -> "Future[Any]":
        """Sees that a wish is done, later.

        Args:
            key: what is wished; the same one that waits already, and has not begun, stands for this one too.
            work: does it.

        Raises:
            RuntimeError: there is no thread to do it; nothing waits.
        """
        with self._lock:
            if key not in self._waiting:
                self._waiting[key] = work, Future()
            if not self._is_at_work:
                self._begin(key)
            return self._waiting[key][1]

    def _begin(self, key: Hashable) -> None:
        try:
            threading.Thread(target=self._work, name="wishes", daemon=True).start()
        except RuntimeError:  # there is no thread to be had, and the next wish may get one
            del self._waiting[key]
            raise
        self._is_at_work = True

    def _work(self) -> None:
        while (wish := self._next()) is not None:
            _do(*wish)

    def _next(self) -> tuple[Callable[[], Any], "Future[Any]"] | None:
        with self._lock:
            if not self._waiting:
                self._is_at_work = False
                return None
            return self._waiting.pop(next(iter(self._waiting)))


def _do(work: Callable[[], Any], future: "Future[Any]") -> None:
    try:
        found = work()
    except BaseException as error:  # it is the asker's, whoever that is
        future.set_exception(_bare(error))
    else:
        future.set_result(found)


def _bare(error: BaseException) -> BaseException:
    """The error without the frames that it came through: they hold models that are to be forgotten."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)

"""Work that may hang, as a look at a store on a network may: neither the event loop waits nor the process's end."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from nelbo.errors import StoreError

_MOST, _PATIENCE_S = 4, 10.0  # chosen: more that wait would only be more threads

Found = TypeVar("Found")


class Apart:
    """Does work in threads of their own, which end with the process whatever they wait for.

    Those of a pool would not: Python waits for them at its end. The event loop's thread alone calls it.
    """

    def __init__(self) -> None:
        self._waiting: list[Future[Any]] = []

    async def read(self, work: Callable[[], Found]) -> Found:
        """What work on the store finds.

        Raises:
            StoreError: it cannot be read, or does not answer in time, or others have waited for it for long.
            RuntimeError: there is no thread to be had.
        """
        self._waiting = [one for one in self._waiting if not one.done()]
        if len(self._waiting) >= _MOST:
            raise StoreError(f"the store of models does not answer: {len(self._waiting)} requests wait for it")
        found: Future[Found] = Future()
        found.set_running_or_notify_cancel()  # so that whoever has left does not spoil it
        threading.Thread(target=_do, args=(work, found), name="apart", daemon=True).start()
        self._waiting.append(found)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(found), _PATIENCE_S)
        except TimeoutError as error:
            raise StoreError(f"the store of models has not answered in {_PATIENCE_S:g} s") from error
        except OSError as error:
            raise StoreError(f"the store of models cannot be read: {error.strerror}") from error


def _do(work: Callable[[], Found], found: Future[Found]) -> None:
    try:
        found.set_result(work())
    except BaseException as error:  # whoever waits gets it
        found.set_exception(error)

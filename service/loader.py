"""The thread that loads the models, and then what changes in the store."""

import logging
import threading
from typing import TYPE_CHECKING

from nelbo.probe import Probe
from nelbo.store import Store
from service import logs
from service.live import Live
from service.settings import Settings

if TYPE_CHECKING:
    from nelbo.trust import Trust


class Loader:
    """Loads every model, and looks for changes until it is told to stop.

    Args:
        live: what is loaded.
        pause_s: between two looks, seconds; 0 looks once.
    """

    def __init__(self, live: Live, pause_s: float) -> None:
        self.live, self._pause_s = live, pause_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begins, in a thread of its own, unless it has already."""
        if self._thread is None:
            # A daemon: a store that hangs must not keep the process from stopping.
            self._thread = threading.Thread(target=self.run, name="load", daemon=True)
            self._thread.start()

    def run(self) -> None:
        """Loads, and goes on looking, in this thread."""
        look = self.live.load_all
        while True:
            try:
                look()
            except Exception as error:  # the edge of the thread: the next look may go well
                logs.event("models cannot be read", level=logging.ERROR, error=error)
            if self._pause_s == 0 or self._stopping.wait(self._pause_s):
                return
            look = self.live.follow

    def stop(self) -> None:
        """Looks no more; a load that is going on goes on."""
        self._stopping.set()


def loader_of(settings: Settings, probe: Probe | None = None) -> Loader:
    """The loader of a process with these settings.

    Args:
        settings: of the process.
        probe: what the graph of a model must pass before it is loaded; None for one of its own.

    Raises:
        TrustError: the file of pinned keys will not do.
    """
    live = Live(Store(settings.models.absolute()), trust=trust_of(settings), probe=probe)
    return Loader(live, settings.reload_s)


def trust_of(settings: Settings) -> "Trust | None":
    """Whose bundles are read; None for anybody's.

    Raises:
        TrustError: the file of pinned keys will not do.
    """
    if settings.trust is None:
        return None
    from nelbo.trust import read_trust  # noqa: PLC0415  # cryptography: not for a service that asks for no signature

    return read_trust(settings.trust)

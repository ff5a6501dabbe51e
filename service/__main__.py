"""The serving process: `python -m service`."""

import gc
import os
import signal
import sys
from types import FrameType


def _leave(_signum: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _hang_up(_signum: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _open_standard_files() -> None:
    """Where somebody started us without stdin, stdout or stderr, a connection would get their numbers.

    Then what a library prints would go to a client.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115  # as long as the process


gc.disable()  # what is imported stays, and to look through it again and again takes a tenth of the start

# First of all: a stop that comes while the rest is still being imported is a stop as good as any. The server puts
# its own handlers over these while it serves.
signal.signal(signal.SIGTERM, _leave)
signal.signal(signal.SIGINT, _leave)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # or how a child has ended could not be asked
# A terminal that is closed is one more way to stop; under nohup it is none.
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
    signal.signal(signal.SIGHUP, _hang_up)
_open_standard_files()

from nelbo import trial  # noqa: E402

# Now, while there is little to copy and nothing to be had from it; one that starts from nothing would take half of our
# own start.
_TRIAL = trial.fork() if __name__ == "__main__" else None

import socket  # noqa: E402

from nelbo.errors import TrustError  # noqa: E402
from nelbo.probe import Probe  # noqa: E402
from nelbo.resources import read_resources  # noqa: E402
from service import logs  # noqa: E402
from service.capacity import capacity_of  # noqa: E402
from service.keyring import key_ring_of  # noqa: E402
from service.keys import KeysError  # noqa: E402
from service.loader import loader_of  # noqa: E402
from service.memory import keep_freed_memory  # noqa: E402
from service.settings import Settings, SettingsError, read_settings  # noqa: E402


def main() -> int:
    """Serves until a signal stops it; 2 where the settings or the address will not do."""
    keep_freed_memory()
    try:
        settings = read_settings()
        loader = loader_of(settings, Probe(process=_TRIAL))
        keys = key_ring_of(settings)
        listener = listen(settings)
    except (SettingsError, KeysError, TrustError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logs.configure(settings.log_level, settings.models.absolute())
    host, port = listener.getsockname()[:2]
    capacity = capacity_of(settings, read_resources())
    logs.event(
        "listening",
        host=host,
        port=port,
        workers=capacity.workers,
        max_queued_records=capacity.max_queued_records,
        max_connections=capacity.max_connections,
    )
    try:
        loader.begin()
        # To import this takes as long as to load a model, and most of that is another process's work.
        from service.app import Service  # noqa: PLC0415
        from service.serving import serve  # noqa: PLC0415

        service = Service(settings, loader, keys, capacity)
        service.access.announce(is_loopback=settings.is_loopback)
        serve(service, listener)
    finally:
        logs.event("stopped")
    return 0


def listen(settings: Settings) -> socket.socket:
    """The socket to serve on.

    Raises:
        SettingsError: the address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:  # both of a name that is none
        number = error.errno if isinstance(error, OSError) else None
        why = os.strerror(number) if number and number > 0 else "there is no such address"
        place = f"{settings.host[:80]} port {settings.port}"
        raise SettingsError(f"cannot listen on {place}: {why}; NELBO_HOST and NELBO_PORT change it") from error


if __name__ == "__main__":
    sys.exit(main())

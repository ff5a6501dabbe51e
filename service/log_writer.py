"""Log lines on their way out, for which nobody who is served ever waits."""

import logging
import os
import select
from collections import deque
from typing import TextIO

_MOST_WAITING = 1_000  # lines, some 300 kB; chosen
_PIECE = 4096  # PIPE_BUF of Linux: a pipe that is writable takes so many bytes at once


class LogWriter(logging.StreamHandler[TextIO]):
    """Writes lines to a stream, which may be a pipe that nobody empties.

    A plain handler would then block, and with it the event loop. Here lines wait in memory; what comes when 1,000 wait
    is lost, and how much that was is written when there is room again. Where the reader is gone for good, all are.

    Args:
        stream: of text; the lines go past its buffer where it has a descriptor.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._descriptor = _descriptor_of(stream)
        self._room = select.poll()
        if self._descriptor is not None:
            self._room.register(self._descriptor, select.POLLOUT)
        self._waiting: deque[bytes] = deque()
        self._n_lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record, and what waited before it, as far as there is room."""
        line = self.format(record)
        if self._descriptor is None:
            self.stream.write(f"{line}\n")
        elif len(self._waiting) >= _MOST_WAITING:
            self._n_lost += 1
            self._write(self._descriptor)
        else:
            self._waiting.append(line.encode() + b"\n")
            self._write(self._descriptor)

    def flush(self) -> None:
        """Writes what waits, as far as there is room."""
        if self._descriptor is not None:
            self.acquire()
            try:
                self._write(self._descriptor)
            finally:
                self.release()

    def _write(self, descriptor: int) -> None:
        try:
            while self._waiting and self._room.poll(0):
                line = self._waiting.popleft()
                n = os.write(descriptor, line[:_PIECE])
                if n < len(line):
                    self._waiting.appendleft(line[n:])
                if not self._waiting and self._n_lost:
                    self._tell()
        except BlockingIOError:  # whoever shares the pipe does not want to wait either
            self._waiting.appendleft(line)
        except OSError:  # the reader is gone, or the disk is full: there is no better place to say so
            self._waiting.clear()

    def _tell(self) -> None:
        n, self._n_lost = self._n_lost, 0
        record = logging.LogRecord("nelbo", logging.WARNING, "", 0, "log lines lost", None, None)
        record.fields = {"n_lines": n}
        self._waiting.append(self.format(record).encode() + b"\n")


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError):  # a test's
        return None

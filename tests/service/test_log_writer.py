import contextlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.log_writer import _MOST_WAITING, LogWriter
from service.logs import JsonFormatter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def writer_to(descriptor: int) -> LogWriter:
    writer = LogWriter(os.fdopen(descriptor, "w", closefd=False))
    writer.setFormatter(JsonFormatter(Path("models")))
    return writer


def write(writer: LogWriter, n: int, length: int = 200) -> None:
    for i in range(n):
        writer.emit(logging.LogRecord("nelbo", logging.INFO, "", 0, f"{i} {'x' * length}", None, None))


def events(descriptor: int, writer: LogWriter) -> list[str]:
    """What a reader finds who comes back; the writer goes on as he reads."""
    text = b""
    os.set_blocking(descriptor, False)
    while True:
        writer.flush()
        try:
            text += os.read(descriptor, 1 << 16)
        except BlockingIOError:
            return [json.loads(line)["event"].split()[0] for line in text.splitlines()]


def test_lines_wait_in_order_for_a_reader_that_hangs(pipe: tuple[int, int]) -> None:
    writer = writer_to(pipe[1])
    write(writer, 800)  # some 240 kB, and a pipe takes 64
    assert events(pipe[0], writer) == [str(i) for i in range(800)]


def test_lines_that_nobody_reads_are_lost_in_the_end_and_counted(pipe: tuple[int, int]) -> None:
    writer = writer_to(pipe[1])
    write(writer, 3_000)
    found = events(pipe[0], writer)
    assert found[-1] == "log"
    assert found[:-1] == [str(i) for i in range(len(found) - 1)]
    assert _MOST_WAITING < len(found) < 2_000


def test_a_line_longer_than_a_pipe_is_written_whole(pipe: tuple[int, int]) -> None:
    writer = writer_to(pipe[1])
    write(writer, 2, length=200_000)
    assert events(pipe[0], writer) == ["0", "1"]


def test_a_reader_that_is_gone_is_no_failure(pipe: tuple[int, int]) -> None:
    writer = writer_to(pipe[1])
    os.close(pipe[0])
    write(writer, 3)


def test_a_full_disk_is_no_failure() -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    write(writer_to(descriptor), 3)
    os.close(descriptor)

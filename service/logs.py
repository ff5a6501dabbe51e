"""Log lines: one JSON object an event, UTC, to stderr; never a value of a record.

The standard library's logging writes them, so that uvicorn's lines have the same form.
"""

import logging
import re
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import Any

import msgspec

from service.log_writer import LogWriter
from service.paths import without_path
from service.settings import LogLevel

_LOGGER = logging.getLogger("nelbo")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_FRAMES = 8  # of a traceback, the innermost; chosen, enough to find the line


@dataclass(frozen=True)
class RequestIds:
    """What ties log lines to a request: ours, and that of the trace it belongs to."""

    request_id: str
    trace_id: str | None


request_ids: ContextVar[RequestIds | None] = ContextVar("request_ids", default=None)


def trace_id_of(traceparent: str) -> str | None:
    """The trace id of a W3C `traceparent` header; None where it is malformed or all zeros.

    >>> trace_id_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    '0af7651916cd43dd8448eb211c80319c'
    """
    found = _TRACEPARENT.fullmatch(traceparent)
    return found[1] if found and found[1].strip("0") else None


def configure(level: LogLevel, models: Path) -> None:
    """Sends every log line of the process through the JSON form.

    Args:
        level: the least severe line that is written.
        models: the store's folder, absolute, which no line shows.
    """
    handler = LogWriter(sys.stderr)
    handler.setFormatter(JsonFormatter(models))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Its steps of starting and stopping say nothing that our own events do not.
    logging.getLogger("uvicorn").setLevel(level.upper() if level in ("debug", "error") else logging.WARNING)


def event(name: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object) -> None:
    """Writes one event.

    Args:
        name: what happened, in words that never vary.
        level: of the `logging` module.
        error: what went wrong; its type and place are written, its text is not, since it may hold a value.
        fields: what the event is about.
    """
    exc_info = (type(error), error, error.__traceback__) if error else None
    _LOGGER.log(level, name, exc_info=exc_info, extra={"fields": fields})


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON.

    Args:
        models: the store's folder, absolute; the name of the setting stands for it.
    """

    def __init__(self, models: Path) -> None:
        super().__init__()
        self._models = models

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": self._event(record),
        }
        if record.name != _LOGGER.name:
            line["logger"] = record.name
        ids = request_ids.get()
        if ids is not None:
            line["request_id"] = ids.request_id
            if ids.trace_id is not None:
                line["trace_id"] = ids.trace_id
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = type(record.exc_info[1]).__name__
            line["at"] = _places(record.exc_info[1].__traceback__)
        return without_path(msgspec.json.encode(line, enc_hook=str).decode(), self._models)

    def _event(self, record: logging.LogRecord) -> str:
        """What happened; of what another library says, the first line: asyncio's go on with an error's text."""
        text = record.getMessage()
        return text if record.name == _LOGGER.name else text.partition("\n")[0]


def _places(trace: TracebackType | None) -> list[str]:
    """Modules, lines and functions: a file's path would say where the service is installed."""
    frames = [(frame.f_globals.get("__name__"), line, frame.f_code.co_name) for frame, line in walk_tb(trace)]
    return [f"{module}:{line} {name}" for module, line, name in frames[-_FRAMES:]]

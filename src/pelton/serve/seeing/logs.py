"""The server's log: one event is one line, whatever is in it, and writing it never holds up an answer."""

from __future__ import annotations

import json
import logging
import queue
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, Literal, TextIO

from .record import RequestRecord

LONGEST_VALUE = 1024
"""Characters of any one value; longer ones are cut, and say by how much."""
_MOST_FRAMES = 20
_MOST_WAITING = 10_000
_CLOSE_SECONDS = 1.0

log = logging.getLogger("pelton.access")
Format = Literal["json", "text"]


def bounded(text: str) -> str:
    """The text, or its beginning and how much was left out."""
    if len(text) <= LONGEST_VALUE:
        return text
    return f"{text[:LONGEST_VALUE]}...[{len(text) - LONGEST_VALUE} more]"


def log_request(record: RequestRecord) -> None:
    """Write the line for a request that has ended."""
    log.info("request", extra={"request": record})


def fields_of(event: logging.LogRecord) -> dict[str, Any]:
    """All that a line says, in order: numbers and bounded texts.

    Of exceptions only the types and the places: their messages may quote what a client sent. So of what
    asyncio says only the first line: in the next it shows the exception of a task.
    """
    at = datetime.fromtimestamp(event.created, timezone.utc)
    said = event.getMessage().rstrip()
    if event.name == "asyncio":
        said = said.partition("\n")[0]
    fields: dict[str, Any] = {
        "time": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z",
        "level": event.levelname,
        "logger": bounded(event.name),
        "event": bounded(said),
    }
    request = event.__dict__.get("request")
    if isinstance(request, RequestRecord):
        fields |= _fields_of_request(request)
    if event.exc_info and event.exc_info[1] is not None:
        fields |= _fields_of_fault(event.exc_info[1])
    return fields


def _fields_of_request(request: RequestRecord) -> dict[str, Any]:
    first = request.first_token
    return {
        "id": bounded(request.id),
        "tenant": bounded(request.tenant),
        "method": bounded(request.method),
        "path": bounded(request.path),
        "route": bounded(request.route),
        "status": request.status,
        "ms": round(request.seconds * 1000, 1),
        "ttft_ms": None if first is None else round((first - request.began) * 1000, 1),
        "prompt_tokens": request.prompt_tokens,
        "cached_tokens": request.cached_tokens,
        "completion_tokens": request.completion_tokens,
        "finish_reasons": bounded(",".join(request.finish_reasons)),
    }


def _fields_of_fault(fault: BaseException) -> dict[str, Any]:
    kinds = [type(fault).__name__]
    cause = fault.__cause__ or fault.__context__
    while cause is not None and len(kinds) < 8:
        kinds.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    frames = traceback.extract_tb(fault.__traceback__)[-_MOST_FRAMES:]
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    return {"fault": bounded(" from ".join(kinds)), "at": bounded(" > ".join(places))}


class JsonLines(logging.Formatter):
    """A JSON object a line. ASCII only, so that no viewer sees a line end or a terminal code in a value."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(fields_of(record))


class TextLines(logging.Formatter):
    """For reading: time, level, logger, event, then name=value with texts quoted as in JSON."""

    def format(self, record: logging.LogRecord) -> str:
        fields = fields_of(record)
        head = [json.dumps(fields.pop(name))[1:-1] for name in ("time", "level", "logger", "event")]
        rest = (f"{name}={json.dumps(value)}" for name, value in fields.items() if value not in (None, ""))
        return " ".join([*head, *rest])


class Lines(logging.Handler):
    """Writes formatted lines from a thread of its own; what comes faster than it can be written is dropped
    and counted, so a stuck terminal or pipe never holds up the server."""

    def __init__(self, stream: TextIO, form: Format) -> None:
        super().__init__()
        self.setFormatter(JsonLines() if form == "json" else TextLines())
        self.dropped = 0
        self._stream = stream
        self._queue: queue.Queue[str | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._write, name="pelton-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._queue.put_nowait(self.format(record))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, for a second at most."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            self.dropped += 1
        self._thread.join(_CLOSE_SECONDS)
        super().close()

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # nobody reads it any more
                self.dropped += 1


@contextmanager
def logging_to(stream: TextIO, form: Format, *, level: str = "INFO", access: bool = True) -> Iterator[Lines]:
    """Send the process's log to a stream as lines for as long as the block runs; ours from `level` on,
    others' warnings. `access` says whether each request gets one."""
    lines = Lines(stream, form)
    root, ours = logging.getLogger(), logging.getLogger("pelton")
    before = root.level, ours.level, log.disabled
    root.addHandler(lines)
    root.setLevel(logging.WARNING)
    ours.setLevel(level)
    log.disabled = not access
    try:
        yield lines
    finally:
        root.removeHandler(lines)
        root.setLevel(before[0])
        ours.setLevel(before[1])
        log.disabled = before[2]
        lines.close()

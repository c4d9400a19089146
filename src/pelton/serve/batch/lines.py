"""Lines of an OpenAI batch file, read one at a time with a bounded length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field, ValidationError

from ...errors import ConfigError
from ..http.failures import invalid_body
from ..openai.fields import Fields

MOST_LINE_BYTES = 8 << 20
LONGEST_ID = 512
_CHUNK = 1 << 16


class BatchLine(Fields):
    """One request: what would be posted where, and the name that its answer goes by."""

    custom_id: str = Field(min_length=1, max_length=LONGEST_ID)
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


@dataclass(frozen=True)
class ReadLine:
    """A line of the file: a request, or what is wrong with it. `offset`: bytes of the file up to its end."""

    number: int
    offset: int
    line: BatchLine | None
    custom_id: str | None = None
    fault: str = ""


def read_lines(path: Path, most_bytes: int = MOST_LINE_BYTES) -> Iterator[ReadLine]:
    """The lines that are not empty. A wrong one has its `fault` told; only OSError is raised."""
    seen: set[str] = set()
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(most_bytes + 1):
            number += 1
            if len(raw) > most_bytes and not raw.endswith(b"\n"):
                _skip_line(file)
                yield ReadLine(number, file.tell(), None, fault=f"is longer than {most_bytes} bytes")
            elif raw.strip():
                yield _parsed(number, file.tell(), raw, seen)


def _skip_line(file: BinaryIO) -> None:
    while (rest := file.readline(_CHUNK)) and not rest.endswith(b"\n"):
        pass


def _parsed(number: int, offset: int, raw: bytes, seen: set[str]) -> ReadLine:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return ReadLine(number, offset, None, fault="is not valid JSON")
    given = document.get("custom_id") if isinstance(document, dict) else None
    name = given if isinstance(given, str) and len(given) <= LONGEST_ID else None
    try:
        line = BatchLine.model_validate(document)
        line.custom_id.encode()
    except ValidationError as error:
        reason = invalid_body(error.errors(include_url=False))["error"]["message"]
        return ReadLine(number, offset, None, name, reason)
    except UnicodeEncodeError:
        return ReadLine(number, offset, None, None, "custom_id: holds a lone surrogate, which is no text")
    if line.custom_id in seen:
        return ReadLine(number, offset, None, name, "custom_id: is another line's already")
    seen.add(line.custom_id)
    return ReadLine(number, offset, line, name)


def lines_done(output: Path, given: Path) -> int:
    """How many answers an output file has already, so that a run can go on after them.

    A half-written last line is cut off. Raises ConfigError where the answers are not to these requests.
    """
    done = keep = 0
    requests = read_lines(given)
    with output.open("r+b") as file:
        while raw := file.readline():
            if not raw.endswith(b"\n"):
                break
            request = next(requests, None)
            try:
                answered = json.loads(raw)["custom_id"]
            except (ValueError, RecursionError, TypeError, KeyError):
                answered = ...
            if request is None or answered != request.custom_id:
                raise ConfigError(
                    f"line {done + 1} does not answer the request in its place", subject=str(output)
                )
            done, keep = done + 1, file.tell()
        file.truncate(keep)
    return done

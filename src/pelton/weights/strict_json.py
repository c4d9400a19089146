"""JSON from untrusted files: bounded before it is parsed, and without the corners where readers disagree.

Refused: repeated keys, NaN and Infinity, numbers of absurd length, text that is not UTF-8,
and more values than any real header has (a Python object is tens of times its JSON text).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

from ..errors import ModelFileError

# Room for 65,000 tensors in a safetensors header; costs at most about 60 MB once parsed.
_MOST_VALUES = 1 << 19
# One character outside ASCII makes Python hold the whole text at up to four bytes a character.
_MOST_WIDE_BYTES = 8 << 20
_LONGEST_NUMBER = 64


class _Refused(ValueError):
    """What the hooks below raise inside the JSON parser."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _Refused(f"the key {key[:80]!r} stands twice")
        found[key] = value
    return found


def _no_constant(text: str) -> NoReturn:
    raise _Refused(f"{text} is no JSON number")


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise _Refused(f"a number of {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    if len(text) > _LONGEST_NUMBER:
        raise _Refused(f"a number of {len(text)} digits")
    return float(text)


def parse_object(raw: memoryview, subject: Path) -> dict[str, object]:
    """The JSON object in these bytes. Raises ModelFileError naming the file for anything else."""
    data = bytes(raw)
    values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if values > _MOST_VALUES:
        raise ModelFileError(
            f"more than {_MOST_VALUES} values", subject=subject, field="JSON values", value=values
        )
    if len(data) > _MOST_WIDE_BYTES and (b"\\u" in data or not data.isascii()):
        raise ModelFileError(
            "too long for text outside ASCII", subject=subject, field="JSON bytes", value=len(data)
        )
    try:
        found = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_real,
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ModelFileError(f"not valid JSON: {reason[:200]}", subject=subject) from error
    if not isinstance(found, dict):
        raise ModelFileError("the JSON text must be an object", subject=subject, value=type(found).__name__)
    return found

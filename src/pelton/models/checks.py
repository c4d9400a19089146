"""Settings that cannot be used are refused by file, key and value; sizes are bounded before use."""

from __future__ import annotations

from typing import NoReturn

from ..errors import ModelFileError, UnsupportedModelError
from ..weights.fields import Fields

MOST = {
    "layers": 1024,
    "width": 1 << 20,
    "heads": 1 << 14,
    "vocab": 1 << 24,
    "context": 1 << 28,
    "experts": 4096,
}
"""Bounds on sizes, far above any model in use, so that a hostile file cannot make the plan huge."""


def refuse(
    fields: Fields, key: str, message: str, kind: type[ModelFileError] = UnsupportedModelError
) -> NoReturn:
    """Raise `kind` naming the file, the key with its section, and the value that stands there."""
    try:
        fields.expect(key)  # allows nothing, so it raises with the full key and the value
    except UnsupportedModelError as error:
        raise kind(message, subject=error.subject, field=error.field, value=error.value) from None
    raise kind(message, subject=fields.subject, field=key)


def refuse_broken(fields: Fields, key: str, message: str) -> NoReturn:
    """`refuse` for a value that no model can mean."""
    refuse(fields, key, message, ModelFileError)


def size(fields: Fields, key: str, most: int, default: int | None = None) -> int:
    """A whole number from 1 to `most`. Raises ModelFileError."""
    value = fields.get_int(key) if default is None else fields.get_int(key, default)
    if not 1 <= value <= most:
        refuse_broken(fields, key, f"must be from 1 to {most}")
    return value


def positive(fields: Fields, key: str, default: float | None = None) -> float:
    """A factor from 1e-6 to 1e6. Raises ModelFileError."""
    value = fields.get_float(key) if default is None else fields.get_float(key, default)
    if not 1e-6 <= value <= 1e6:
        refuse_broken(fields, key, "must be from 1e-6 to 1e6")
    return value

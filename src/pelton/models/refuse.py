"""One sentence for a setting that cannot be used: file, key, value and why."""

from __future__ import annotations

from typing import NoReturn

from ..errors import ModelFileError, UnsupportedModelError
from ..weights.fields import Fields


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

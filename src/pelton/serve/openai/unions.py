"""Values told apart by their `type`. Tags are in brackets, so that errors leave them out of field names.

`http/failures` writes what is said of a type that is none of a union's.
"""

from __future__ import annotations

from pydantic import BaseModel, Discriminator


def by_type(default: str | None = None) -> Discriminator:
    """For unions whose members are tagged `<type>`; `default` stands for a value without a type."""

    def tag(value: object) -> str | None:
        if isinstance(value, BaseModel):
            kind: object = value.model_dump(include={"type"}).get("type", default)
        else:
            kind = value.get("type") if isinstance(value, dict) else None
            kind = default if kind is None else kind
        return f"<{kind}>" if isinstance(kind, str) else None

    return Discriminator(tag)

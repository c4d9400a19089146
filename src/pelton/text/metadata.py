"""What building a tokenizer needs to know of a GGUF header; any reader with these methods fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class TokenizerMetadata(Protocol):
    """Typed access to GGUF key-value pairs; a getter raises a PeltonError naming a missing or wrong key."""

    def __contains__(self, key: object) -> bool:
        """Whether the header has `key`."""

    def get_str(self, key: str, /) -> str:
        """The string at `key`."""

    def get_int(self, key: str, /) -> int:
        """The integer at `key`, whatever its width in the file."""

    def get_bool(self, key: str, /) -> bool:
        """The boolean at `key`."""

    def get_array(self, key: str, /) -> Sequence[object]:
        """The array at `key`: strings as str, numbers as int or float (NumPy scalars are fine)."""

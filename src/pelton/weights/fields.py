"""Typed reading of a model's settings, whichever container they came in.

Every getter names file, key and value when it refuses, and remembers the key, so that a model
family can ask at the end what it has not looked at (`unread`) and refuse what it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar, overload

import numpy as np

from ..errors import ModelFileError, UnsupportedModelError

T = TypeVar("T")
D = TypeVar("D")


class _Required:
    """The type of REQUIRED, the default that means: the key must be there."""


REQUIRED: Final = _Required()


class Fields:
    """Read-only settings: key -> bool, int, float, str, a list of these, or a nested mapping.

    A JSON null counts as an absent key. `subject` is the file; `prefix` is put before keys in
    errors for nested settings.
    """

    def __init__(self, subject: Path, values: Mapping[str, object], prefix: str = "") -> None:
        self.subject = subject
        self._values = values
        self._prefix = prefix
        self._read: set[str] = set()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._values.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> tuple[str, ...]:
        """All keys, nulls included, in the file's order."""
        return tuple(self._values)

    def unread(self) -> tuple[str, ...]:
        """Keys with a value that no getter has asked for yet."""
        return tuple(key for key in self._values if key in self and key not in self._read)

    @overload
    def get_str(self, key: str) -> str: ...
    @overload
    def get_str(self, key: str, default: D) -> str | D: ...
    def get_str(self, key: str, default: object = REQUIRED) -> object:
        """A string, or `default` where the key is absent. Raises ModelFileError for another type."""
        value = self._value(key)
        if value is None:
            return self._absent(key, default)
        if not isinstance(value, str):
            self._wrong(key, value, "a string")
        return value

    @overload
    def get_int(self, key: str) -> int: ...
    @overload
    def get_int(self, key: str, default: D) -> int | D: ...
    def get_int(self, key: str, default: object = REQUIRED) -> object:
        """A whole number, or `default` where the key is absent. True and 2.0 are not whole numbers."""
        value = self._value(key)
        if value is None:
            return self._absent(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            self._wrong(key, value, "a whole number")
        return value

    @overload
    def get_float(self, key: str) -> float: ...
    @overload
    def get_float(self, key: str, default: D) -> float | D: ...
    def get_float(self, key: str, default: object = REQUIRED) -> object:
        """A finite number, whole or not, as a float; `default` where the key is absent."""
        value = self._value(key)
        if value is None:
            return self._absent(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not _is_finite(value):
            self._wrong(key, value, "a finite number")
        return float(value)

    @overload
    def get_bool(self, key: str) -> bool: ...
    @overload
    def get_bool(self, key: str, default: D) -> bool | D: ...
    def get_bool(self, key: str, default: object = REQUIRED) -> object:
        """True or false, or `default` where the key is absent."""
        value = self._value(key)
        if value is None:
            return self._absent(key, default)
        if not isinstance(value, bool):
            self._wrong(key, value, "true or false")
        return value

    @overload
    def get_array(self, key: str) -> list[Any]: ...
    @overload
    def get_array(self, key: str, default: D) -> list[Any] | D: ...
    @overload
    def get_array(self, key: str, *, element: type[T]) -> list[T]: ...
    @overload
    def get_array(self, key: str, default: D, *, element: type[T]) -> list[T] | D: ...
    def get_array(self, key: str, default: object = REQUIRED, *, element: type | None = None) -> object:
        """A fresh list; with `element` (str, int, float or bool) every member must be of that very type."""
        value = self._value(key)
        if value is None:
            return self._absent(key, default)
        if isinstance(value, str | bytes) or not isinstance(value, Sequence | np.ndarray):
            self._wrong(key, value, "an array")
        members: list[object] = value.tolist() if isinstance(value, np.ndarray) else list(value)
        if element is not None:
            odd = [item for item in members if type(item) is not element]
            if odd:
                self._wrong(key, odd[0], f"an array of {element.__name__} only")
        return members

    def is_array(self, key: str) -> bool:
        """Whether the value is an array: some settings are one number, or one for each layer."""
        value = self._value(key)
        return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)

    def expect(self, key: str, *allowed: object) -> None:
        """Refuse, with UnsupportedModelError, a value that is present and not one of `allowed`.

        True never equals 1 here. For options a model file may set and pelton has one way to do.
        """
        value = self._value(key)
        if value is not None and not any(type(value) is type(item) and value == item for item in allowed):
            names = ", ".join(repr(item) for item in allowed)
            raise UnsupportedModelError(
                f"only {names} is supported", subject=self.subject, field=self._prefix + key, value=value
            )

    def _value(self, key: str) -> object:
        self._read.add(key)
        return self._values.get(key)

    def _absent(self, key: str, default: object) -> object:
        if isinstance(default, _Required):
            raise ModelFileError("the key is missing", subject=self.subject, field=self._prefix + key)
        return default

    def _wrong(self, key: str, value: object, wanted: str) -> NoReturn:
        raise ModelFileError(f"must be {wanted}", subject=self.subject, field=self._prefix + key, value=value)


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False

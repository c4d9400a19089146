"""Reading a GGUF header that nobody vouches for: every count, length and type checked before use.

The container is specified in ggml's docs/gguf.md. The `gguf` package's reader is not used because
it takes 1.9 s for a 49,000-word vocabulary (this one: 0.04 s) and allocates by counts it has not
checked. Python integers do not wrap, so sums and
products of hostile numbers are safe to compare.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, overload

import numpy as np

from ..errors import ModelFileError, UnsupportedModelError
from ..quant.format import U8
from .gguf_numbers import ValueType

# Bounds far above every published model, so that a count cannot ask for memory a file does not back.
MOST_TENSORS = 1 << 16
MOST_KEYS = 1 << 16
MOST_STRINGS = 1 << 20
LONGEST_KEY = (1 << 16) - 1
LONGEST_TENSOR_NAME = 64
LONGEST_STRING = 16 << 20
MOST_DIMENSIONS = 4

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_SCALARS = {
    ValueType.UINT8: "<u1",
    ValueType.INT8: "<i1",
    ValueType.UINT16: "<u2",
    ValueType.INT16: "<i2",
    ValueType.UINT32: "<u4",
    ValueType.INT32: "<i4",
    ValueType.FLOAT32: "<f4",
    ValueType.UINT64: "<u8",
    ValueType.INT64: "<i8",
    ValueType.FLOAT64: "<f8",
    ValueType.BOOL: "<u1",
}


class StringArray(Sequence[str]):
    """An array of strings in a mapped header, decoded when listed: a Python string of three bytes
    takes twenty times as much."""

    def __init__(self, path: Path, key: str, data: memoryview, count: int) -> None:
        self._path = path
        self._key = key
        self._data = data
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        """Raises ModelFileError at a string that is not UTF-8."""
        data, length_at, position = bytes(self._data), _U64.unpack_from, 0
        strings: list[str] = []
        for _ in range(self._count):
            start = position + 8
            position = start + length_at(data, position)[0]
            try:
                strings.append(data[start:position].decode())
            except UnicodeDecodeError as error:
                raise ModelFileError(
                    "not valid UTF-8",
                    subject=self._path,
                    field=f"{self._key}[{len(strings)}]",
                    value=data[start : start + 40],
                ) from error
        return iter(strings)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return list(self)[index]


@dataclass(frozen=True)
class TensorEntry:
    """A row of the tensor table as the file states it; `dimensions` has the contiguous axis first."""

    name: str
    dimensions: tuple[int, ...]
    type_id: int
    offset: int


@dataclass(frozen=True)
class Header:
    """What stands before the tensor data; `end` is the position after the tensor table."""

    version: int
    metadata: dict[str, object]
    types: dict[str, ValueType]
    entries: list[TensorEntry]
    end: int


class _Cursor:
    """A position in the mapped file that only moves forward, and never past the end."""

    def __init__(self, path: Path, data: U8) -> None:
        self.path = path
        self.view = data.data
        self.size = data.size
        self.position = 0

    def fail(self, message: str, field: str, value: object = None) -> NoReturn:
        raise ModelFileError(message, subject=self.path, field=field, value=value)

    def take(self, length: int, field: str) -> memoryview:
        start = self.position
        if length > self.size - start:
            left = self.size - start
            self.fail(f"needs {length} bytes at {start} where the file has {left} left", field, length)
        self.position = start + length
        return self.view[start : self.position]

    def u32(self, field: str) -> int:
        return int(_U32.unpack(self.take(4, field))[0])

    def u64(self, field: str) -> int:
        return int(_U64.unpack(self.take(8, field))[0])

    def count(self, field: str, most: int, least_bytes: int) -> int:
        """A number of things to follow, each of at least `least_bytes` bytes."""
        found = self.u64(field)
        if found > most:
            self.fail(f"more than {most}", field, found)
        if found * least_bytes > self.size - self.position:
            self.fail("more than the rest of the file can hold", field, found)
        return found

    def text(self, field: str, longest: int) -> str:
        length = self.u64(f"{field} length")
        if length > longest:
            self.fail(f"longer than {longest} bytes", f"{field} length", length)
        raw = self.take(length, field)
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            self.fail("not valid UTF-8", field, bytes(raw[:40]))


def read_header(path: Path, data: U8) -> Header:
    """Metadata and tensor table of a mapped GGUF file, versions 2 and 3, little endian.

    Raises ModelFileError with field and value for whatever is not as the format says.
    """
    cursor = _Cursor(path, data)
    version = _read_version(cursor)
    # The least a tensor takes: name length, number of dimensions, one dimension, type, offset.
    tensor_count = cursor.count("tensor_count", MOST_TENSORS, 8 + 4 + 8 + 4 + 8)
    key_count = cursor.count("metadata_kv_count", MOST_KEYS, 8 + 4 + 1)
    metadata: dict[str, object] = {}
    types: dict[str, ValueType] = {}
    for index in range(key_count):
        key = cursor.text(f"metadata key {index}", LONGEST_KEY)
        if not key or not key.isprintable():
            cursor.fail("a key must be printable text", f"metadata key {index}", key)
        if key in metadata:
            cursor.fail("the key stands twice", "metadata key", key)
        types[key] = _value_type(cursor, key)
        metadata[key] = _read_value(cursor, key, types[key])
    entries = [_read_entry(cursor, index) for index in range(tensor_count)]
    return Header(version, metadata, types, entries, cursor.position)


def _read_version(cursor: _Cursor) -> int:
    magic = bytes(cursor.take(4, "magic"))
    if magic != b"GGUF":
        cursor.fail("not a GGUF file", "magic", magic)
    version = cursor.u32("version")
    if version & 0xFFFF == 0 and version:
        raise UnsupportedModelError(
            "big-endian files are not supported", subject=cursor.path, field="version", value=version
        )
    if version not in (2, 3):
        raise UnsupportedModelError(
            "only versions 2 and 3 are supported", subject=cursor.path, field="version", value=version
        )
    return version


def _value_type(cursor: _Cursor, key: str) -> ValueType:
    number = cursor.u32(f"{key} type")
    try:
        return ValueType(number)
    except ValueError:
        cursor.fail("no such value type", f"{key} type", number)


def _read_value(cursor: _Cursor, key: str, kind: ValueType) -> object:
    if kind == ValueType.STRING:
        return cursor.text(key, LONGEST_STRING)
    if kind == ValueType.ARRAY:
        return _read_array(cursor, key)
    dtype = np.dtype(_SCALARS[kind])
    value = np.frombuffer(cursor.take(dtype.itemsize, key), dtype)[0].item()
    if kind == ValueType.BOOL:
        if value > 1:
            cursor.fail("a truth value must be 0 or 1", key, value)
        return bool(value)
    return value


def _read_array(cursor: _Cursor, key: str) -> object:
    kind = _value_type(cursor, key)
    if kind == ValueType.ARRAY:
        cursor.fail("arrays of arrays are not supported", f"{key} type", int(kind))
    if kind == ValueType.STRING:
        return _read_strings(cursor, key)
    dtype = np.dtype(_SCALARS[kind])
    count = cursor.count(f"{key} count", cursor.size, dtype.itemsize)
    values = np.frombuffer(cursor.take(count * dtype.itemsize, key), dtype)
    if kind == ValueType.BOOL:
        if count and int(values.max()) > 1:
            cursor.fail("a truth value must be 0 or 1", key, int(values.max()))
        return values.view(np.bool_)
    return values


def _read_strings(cursor: _Cursor, key: str) -> StringArray:
    count = cursor.count(f"{key} count", MOST_STRINGS, 8)
    view, start, size = cursor.view, cursor.position, cursor.size
    position = start
    for index in range(count):
        # Two comparisons a string, inlined: a vocabulary has 100,000 of them and more.
        if size - position < 8:
            cursor.fail("the file ends inside the array", f"{key}[{index}] length")
        length = _U64.unpack_from(view, position)[0]
        position += 8
        if length > size - position:
            cursor.fail("longer than the rest of the file", f"{key}[{index}] length", length)
        position += length
    cursor.position = position
    return StringArray(cursor.path, key, view[start:position], count)


def _read_entry(cursor: _Cursor, index: int) -> TensorEntry:
    name = cursor.text(f"tensor {index} name", LONGEST_TENSOR_NAME)
    if not name or not name.isprintable():
        cursor.fail("a tensor name must be printable text", f"tensor {index} name", name)
    rank = cursor.u32(f"{name} dimensions")
    if not 1 <= rank <= MOST_DIMENSIONS:
        cursor.fail(f"must be 1 to {MOST_DIMENSIONS}", f"{name} dimensions", rank)
    dimensions = struct.unpack(f"<{rank}Q", cursor.take(8 * rank, f"{name} shape"))
    if 0 in dimensions:
        cursor.fail("a tensor without elements", f"{name} shape", dimensions)
    return TensorEntry(name, dimensions, cursor.u32(f"{name} type"), cursor.u64(f"{name} offset"))

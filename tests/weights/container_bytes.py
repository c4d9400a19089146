"""GGUF and safetensors files made byte by byte, so that tests can make them wrong in any one place."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
CODES = dict(zip((U8, I8, U16, I16, U32, I32, F32, BOOL, U64, I64, F64), "BbHhIifBQqd", strict=True))


def text(value: str | bytes, length: int | None = None) -> bytes:
    """A GGUF string, with a false length on request."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def number(kind: int, value: float) -> bytes:
    return struct.pack("<" + CODES[kind], value)


def pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def array(kind: int, payloads: Sequence[bytes], count: int | None = None) -> bytes:
    return struct.pack("<IQ", kind, len(payloads) if count is None else count) + b"".join(payloads)


def entry(
    name: str | bytes,
    dimensions: Sequence[int],
    kind: int = 0,
    offset: int = 0,
    rank: int | None = None,
) -> bytes:
    """A row of the tensor table; dimensions have the contiguous axis first."""
    shape = struct.pack(f"<{len(dimensions)}Q", *dimensions)
    head = struct.pack("<I", len(dimensions) if rank is None else rank)
    return text(name) + head + shape + struct.pack("<IQ", kind, offset)


@dataclass(frozen=True)
class GGUF:
    """A file to be written; what is None is counted truly."""

    pairs: Sequence[bytes] = field(default_factory=list)
    entries: Sequence[bytes] = field(default_factory=list)
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: int = 3
    tensor_count: int | None = None
    key_count: int | None = None
    alignment: int = 32

    def bytes(self) -> bytes:
        tensors = len(self.entries) if self.tensor_count is None else self.tensor_count
        keys = len(self.pairs) if self.key_count is None else self.key_count
        head = self.magic + struct.pack("<IQQ", self.version, tensors, keys)
        head += b"".join(self.pairs) + b"".join(self.entries)
        return head + bytes(-len(head) % self.alignment) + self.data


def every_kind_of_pair() -> list[bytes]:
    """One pair of every scalar type, and arrays of them."""
    scalars = [pair(f"scalar.{kind}", kind, number(kind, 1)) for kind in CODES]
    arrays = [
        pair(f"array.{kind}", ARRAY, array(kind, [number(kind, item) for item in (0, 1)])) for kind in CODES
    ]
    words = pair("words", ARRAY, array(STRING, [text(word) for word in ("a", "", "né", "\N{OWL}")]))
    return [
        *scalars,
        *arrays,
        words,
        pair("name", STRING, text("tiny")),
        pair("none", ARRAY, array(STRING, [])),
    ]


def safetensors_bytes(
    header: Mapping[str, object] | str | bytes, data: bytes, length: int | None = None
) -> bytes:
    raw = header if isinstance(header, bytes) else header.encode() if isinstance(header, str) else b""
    if isinstance(header, Mapping):
        raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def described(dtype: str, shape: Sequence[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}

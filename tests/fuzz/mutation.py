"""A seeded mutator of binary files: what a failing disk does, and what an attacker does."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

# The edges of every integer type, and of what a size may become once multiplied.
_EXTREMES = (
    *(0, 1, 2, 7, 31, 32, 33, 255, 256, 4096, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32),
    *(2**40, 2**60, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1),
)
_TOKENS = (
    *(b"GGUF", b"[", b"]", b"{", b"}", b",", b'"', b"-", b"0", b"999999999999999999999", b"null", b"1e400"),
    *(b"\xff", b"\xed\xa0\x80", b"\0" * 8, b'"dtype":"I64"', b"NaN", b"../", b"\\ud800", b"F16", b"BF16"),
)

Mutate = Callable[[random.Random, bytearray], None]


def _flip_bits(source: random.Random, data: bytearray) -> None:
    for _ in range(source.choice((1, 1, 1, 2, 8))):
        data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _set_bytes(source: random.Random, data: bytearray) -> None:
    start = source.randrange(len(data))
    for index in range(start, min(len(data), start + source.choice((1, 4, 16)))):
        data[index] = source.choice((0, 0xFF, 0x7F, 0x80, source.randrange(256)))


def _splice(source: random.Random, data: bytearray) -> None:
    start, length = source.randrange(len(data)), source.choice((1, 3, 8, 24, 64))
    piece = data[start : start + length]
    at = source.randrange(len(data))
    data[at : at + source.choice((0, 0, length))] = piece


def _remove(source: random.Random, data: bytearray) -> None:
    start = source.randrange(len(data))
    del data[start : start + source.choice((1, 4, 8, 40))]


def _truncate(source: random.Random, data: bytearray) -> None:
    del data[source.randrange(len(data)) :]


def _extend(source: random.Random, data: bytearray) -> None:
    data += source.randbytes(source.choice((1, 8, 200)))


def _insert_token(source: random.Random, data: bytearray) -> None:
    at = source.randrange(len(data))
    token = source.choice(_TOKENS)
    data[at : at + source.choice((0, len(token)))] = token


def _edit_word(source: random.Random, data: bytearray) -> None:
    """An integer of four or eight bytes becomes extreme, or changes by little; headers are not aligned."""
    width = source.choice((4, 8, 8))
    at = source.randrange(max(1, len(data) - width))
    form, limit = ("<I", 2**32) if width == 4 else ("<Q", 2**64)
    old = int.from_bytes(data[at : at + width], "little")
    new = source.choice((source.choice(_EXTREMES), old + source.choice((-32, -8, -1, 1, 8, 32)), limit - old))
    data[at : at + width] = struct.pack(form, new % limit)


_MUTATIONS: Sequence[Mutate] = (_flip_bits, _set_bytes, _splice, _remove, _truncate, _extend, _insert_token)


def mutant(seed: int, original: bytes, integer_positions: Sequence[int] = ()) -> bytes:
    """The original with one to three changes; a third, where known, to a length, count or offset."""
    source = random.Random(seed)
    data = bytearray(original)
    for _ in range(source.choice((1, 1, 1, 2, 3))):
        if not data:
            break
        choice = source.random()
        if choice < 0.35 and integer_positions:
            at = source.choice(integer_positions)
            old = int.from_bytes(data[at : at + 8], "little")
            new = source.choice((source.choice(_EXTREMES), old + source.choice((-32, -1, 1, 32))))
            data[at : at + 8] = struct.pack("<Q", new % 2**64)[: max(0, len(data) - at)]
        elif choice < 0.5:
            _edit_word(source, data)
        else:
            source.choice(_MUTATIONS)(source, data)
    return bytes(data)

"""One block of keys and values as a file: a header that says what it is, the numbers, and checksums of both.

    magic "PELTONKV", version, header length, payload length       little-endian
    identity        32 bytes: model, weights, layout and arithmetic that made the numbers
    salt length, number of tokens; the salt (UTF-8), the token ids (int32) from the prefix's first on
    blake2b-256 of all that
    payload         keys [L, K, D, 32], then values [L, K, 32, D]
    blake2b-256 of the header's checksum and the payload

The ids of the whole prefix are there, so a hit compares tokens and trusts no hash. Files are untrusted:
lengths are bounded before anything is read into memory.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ..terms import LONGEST_LABEL
from ..types import BLOCK_SIZE, I32

MAGIC = b"PELTONKV"
VERSION = 1
DIGEST_BYTES = 32
MOST_TOKENS = 1 << 22
MOST_SALT_BYTES = 4 * LONGEST_LABEL
_FIXED = struct.Struct("<8sIIQ32sII")
FIXED_BYTES = _FIXED.size


class BrokenFileError(Exception):
    """A cache file that is not what a cache file should be. Stays inside the disk tier."""


@dataclass(frozen=True)
class BlockHeader:
    """What a file holds: the keys and values of the last block of `tokens`, int32 [n]."""

    identity: bytes
    salt: str
    tokens: I32
    payload_bytes: int

    def __post_init__(self) -> None:
        assert len(self.identity) == DIGEST_BYTES
        assert 0 < len(self.tokens) <= MOST_TOKENS

    @property
    def first_token(self) -> int:
        """Where the last block's tokens begin."""
        return (len(self.tokens) - 1) // BLOCK_SIZE * BLOCK_SIZE

    @property
    def header_bytes(self) -> int:
        return FIXED_BYTES + len(self.salt.encode()) + 4 * len(self.tokens) + DIGEST_BYTES

    @property
    def file_bytes(self) -> int:
        return self.header_bytes + self.payload_bytes + DIGEST_BYTES

    def encode(self) -> bytes:
        """The header with its checksum."""
        salt = self.salt.encode()
        fixed = _FIXED.pack(
            MAGIC,
            VERSION,
            self.header_bytes,
            self.payload_bytes,
            self.identity,
            len(salt),
            len(self.tokens),
        )
        body = fixed + salt + self.tokens.astype("<i4").tobytes()
        return body + blake2b(body, digest_size=DIGEST_BYTES).digest()


def payload_digest(header: bytes, parts: Sequence[memoryview]) -> bytes:
    """The checksum at the end of a file: it ties the payload to its header."""
    digest = blake2b(header[-DIGEST_BYTES:], digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def header_length(start: bytes) -> int:
    """Length of the header that begins with these FIXED_BYTES. Raises BrokenFileError."""
    if len(start) < FIXED_BYTES:
        raise BrokenFileError("shorter than a header")
    magic, version, length, _, _, salt, tokens = _FIXED.unpack(start[:FIXED_BYTES])
    if magic != MAGIC:
        raise BrokenFileError("no cache file")
    if version != VERSION:
        raise BrokenFileError(f"format {version}")
    if salt > MOST_SALT_BYTES or not 0 < tokens <= MOST_TOKENS:
        raise BrokenFileError("impossible lengths")
    if length != FIXED_BYTES + salt + 4 * tokens + DIGEST_BYTES:
        raise BrokenFileError("lengths that contradict each other")
    return int(length)


def decode_header(data: bytes) -> BlockHeader:
    """The header at the beginning of `data`. Raises BrokenFileError for anything else."""
    length = header_length(data)
    if len(data) < length:
        raise BrokenFileError("cut in its header")
    body, digest = data[: length - DIGEST_BYTES], data[length - DIGEST_BYTES : length]
    if blake2b(body, digest_size=DIGEST_BYTES).digest() != digest:
        raise BrokenFileError("header checksum")
    _, _, _, payload, identity, salt, tokens = _FIXED.unpack(body[:FIXED_BYTES])
    ids = np.frombuffer(body, "<i4", tokens, FIXED_BYTES + salt).astype(np.int32)
    try:
        text = body[FIXED_BYTES : FIXED_BYTES + salt].decode()
    except UnicodeDecodeError:
        raise BrokenFileError("a salt that is no text") from None
    return BlockHeader(identity, text, ids, payload)


def checked_payload(data: bytes, wanted: BlockHeader) -> memoryview:
    """The payload of a whole file that must hold exactly `wanted`. Raises BrokenFileError."""
    header = wanted.encode()
    if len(data) != wanted.file_bytes or data[: len(header)] != header:
        raise BrokenFileError("another block")
    payload = memoryview(data)[len(header) : -DIGEST_BYTES]
    if payload_digest(header, [payload]) != data[-DIGEST_BYTES:]:
        raise BrokenFileError("payload checksum")
    return payload

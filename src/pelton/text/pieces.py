"""From a vocabulary piece to the bytes it stands for.

Two alphabets are in use. Byte-level BPE (GPT-2) writes each byte as one printable
character; SentencePiece writes a space as U+2581 and a byte it has no piece for as `<0x0A>`.
"""

from __future__ import annotations

import re

SPACE_MARK = "\u2581"
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>\Z")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's table: printable Latin-1 stands for itself, the other 68 bytes for U+0100 onwards, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    table.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return table


BYTE_OF_CHARACTER = _byte_alphabet()


def byte_level_bytes(piece: str) -> bytes:
    """The bytes of a byte-level piece; a piece with any character outside the alphabet is plain UTF-8.

    That second rule is how Hugging Face's ByteLevel decoder treats added tokens such as `<|a b|>`.
    """
    try:
        return bytes([BYTE_OF_CHARACTER[character] for character in piece])
    except KeyError:
        return piece.encode("utf-8", "replace")


def sentencepiece_bytes(piece: str) -> bytes:
    """The bytes of a SentencePiece piece: U+2581 is a space, `<0xHH>` one byte, the rest UTF-8."""
    match = _BYTE_PIECE.match(piece)
    if match is not None:
        return bytes([int(match.group(1), 16)])
    return piece.replace(SPACE_MARK, " ").encode("utf-8", "replace")


def byte_piece_value(piece: str) -> int | None:
    """The byte that `<0xHH>` names, or None when the piece is not of that form."""
    match = _BYTE_PIECE.match(piece)
    return None if match is None else int(match.group(1), 16)

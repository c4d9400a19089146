"""How few tokens a text can have, told without cutting it into tokens.

Where every byte of a text ends up in a token, its length over that of the longest token is a lower bound. So
a prompt of megabytes can be refused before seconds are spent on it, and none is refused that would have fit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from pelton.text.pieces import BYTE_OF_CHARACTER

_LOSSLESS = frozenset({"Sequence", "ByteLevel", "Digits", "Split", "Metaspace"})
"""Pre-tokenizers that keep all they cut, but for a Split that removes."""
MOST_NORMALIZED = 1 << 20
"""Characters that are normalized to be counted: a text has at least the tokens of its beginning."""
_SLACK = 64
"""Bytes by which the beginning of a text may be longer alone: what follows it can compose with its end."""


@dataclass(frozen=True)
class LengthBound:
    """`longest`: most bytes of normalized text that one token stands for. `lost`: bytes without a token,
    which vanish (SmolLM2 has some)."""

    longest: int
    lost: bytes
    normalizer: normalizers.Normalizer | None

    def least_tokens(self, text: str) -> int:
        """A number of tokens that `text` has at least."""
        if self.normalizer is None:
            data, spare = text.encode("utf-8", "surrogatepass"), 0
        else:
            beginning = text[:MOST_NORMALIZED].encode("utf-8", "ignore").decode()
            data, spare = self.normalizer.normalize_str(beginning).encode(), _SLACK
        return max(0, -(-(len(data.translate(None, self.lost)) - spare) // self.longest))


def length_bound(
    model: models.BPE,
    pieces: Sequence[str | None],
    added: Sequence[AddedToken],
    normalizer: normalizers.Normalizer | None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None,
    bytes_of: Callable[[str], bytes] | None,
) -> LengthBound | None:
    """`bytes_of` gives the bytes of a byte-level piece; None: pieces are text. None where a token may
    stand for any length of text."""
    texts = [token.content for token in added]
    known = {piece for piece in pieces if piece is not None}.difference(texts)
    lost = b""
    if bytes_of is not None:
        lost = bytes(byte for character, byte in BYTE_OF_CHARACTER.items() if character not in known)
    elif not (model.byte_fallback and known.issuperset(f"<0x{byte:02X}>" for byte in range(256))):
        return None  # a run of what has no token is one unknown token
    if any(token.lstrip or token.rstrip for token in added) or not _keeps_all(pre_tokenizer):
        return None
    if normalizer is not None:
        texts += [normalizer.normalize_str(text) for text in texts]
    own = map(_utf8 if bytes_of is None else bytes_of, known)
    return LengthBound(max(map(len, (b" ", *own, *map(_utf8, texts)))), lost, normalizer)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _keeps_all(pre_tokenizer: pre_tokenizers.PreTokenizer | None) -> bool:
    if pre_tokenizer is None:
        return True
    stages = [json.loads(pre_tokenizer.__getstate__())]
    while stages:
        stage = stages.pop()
        if stage["type"] not in _LOSSLESS or stage.get("behavior") == "Removed":
            return False
        stages += stage.get("pretokenizers", ())
    return True

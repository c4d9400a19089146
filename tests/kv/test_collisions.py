"""Prefixes whose hashes collide: none is taken for another, for a hit compares tokens (reliability.md 36)."""

from __future__ import annotations

from collections import Counter
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from pelton.kv import prefix
from pelton.kv.tree import key_of
from pelton.types import BLOCK_SIZE, I32

from ..test_prefix_cache import Answer, ask, cold, engine, prompt, sampled

HASH_BITS = 12
PROMPTS = [prompt(BLOCK_SIZE + 3, seed) for seed in range(500)]
PARAMS = sampled(2)


class Colliding(bytes):
    """The key of a block whose hash has 12 bits."""

    def __hash__(self) -> int:
        return crc32(self) & (1 << HASH_BITS) - 1

    def __eq__(self, other: object) -> bool:
        return bytes.__eq__(self, other) is True

    def __getitem__(self, part: Any) -> Any:
        found = super().__getitem__(part)
        return type(self)(found) if isinstance(found, bytes) else found


class Trusting(Colliding):
    """The mistake: a block is the one that is meant as soon as the hashes are equal."""

    __hash__ = Colliding.__hash__

    def __eq__(self, other: object) -> bool:
        return hash(self) == hash(other)


def wrong_answers(kind: type[Colliding], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many prompts are answered otherwise than without a cache, once all of them are in it."""

    def colliding(tokens: I32) -> bytes:
        return kind(np.asarray(tokens).astype(">i4").tobytes())

    expected = [cold(tokens, PARAMS) for tokens in PROMPTS]
    monkeypatch.setattr(prefix, "key_of", colliding)
    warm = engine(blocks=2 * len(PROMPTS) + 64)
    for tokens in PROMPTS:
        ask(warm, tokens, PARAMS)
    found = [ask(warm, tokens, PARAMS) for tokens in PROMPTS]
    assert all(answer.cached >= BLOCK_SIZE for answer in found)
    return sum(differ(*pair) for pair in zip(found, expected, strict=True))


def differ(found: Answer, expected: Answer) -> bool:
    return (found.tokens, found.numbers) != (expected.tokens, expected.numbers)


def test_with_hashes_of_twelve_bits_no_answer_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = (Colliding(key_of(np.array(tokens[:BLOCK_SIZE], np.int32))) for tokens in PROMPTS)
    hashes = Counter(map(hash, keys))
    assert sum(count > 1 for count in hashes.values()) >= 20
    assert wrong_answers(Colliding, monkeypatch) == 0


def test_a_cache_that_trusted_such_hashes_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wrong_answers(Trusting, monkeypatch) >= 20

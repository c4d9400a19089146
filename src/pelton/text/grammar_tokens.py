"""A tokenizer's vocabulary in the form that grammars need."""

from __future__ import annotations

from pelton.decode.grammar import GrammarVocabulary
from pelton.text.tokenizer import Tokenizer


def grammar_vocabulary(tokenizer: Tokenizer, size: int) -> GrammarVocabulary:
    """The bytes of every token, for a model with `size` logits (its matrix may be padded)."""
    known = min(size, tokenizer.vocab_size)
    return GrammarVocabulary(
        tokens=tuple(tokenizer.token_bytes(token) for token in range(known)),
        control=tuple(sorted(token for token in tokenizer.special_ids if token < known)),
        end=tuple(sorted(token for token in tokenizer.end_ids if token < known)),
        size=size,
    )

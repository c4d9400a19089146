"""Grammars over a model's tokens: which tokens may come next, as states that fork and roll back.

llguidance keeps an Earley parser over a lexer of derivatives and walks the vocabulary as a trie, so nothing
but the text so far decides a mask. The mask is "Efficient Guided Generation for Large Language Models"
(Willard and Louf, 2023) at the level of tokens: a token is allowed where some text of the grammar begins
with it, also where only one text can follow. End tokens are allowed exactly where the grammar may end.

This is the only file that builds a matcher; requests of strangers pass `grammar_guard.py` first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import RequestError
from ..structured import StructuredOutputs
from .grammar_source import grammar_source, refusal

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

MAX_LEXER_STATES = 30_000
"""Of one grammar; a state costs 1 to 2 kB."""
MAX_GRAMMAR_SYMBOLS = 200_000
INITIAL_FUEL = 1_000_000
STEP_FUEL = 200_000
STEP_ITEMS = 50_000


@dataclass(frozen=True)
class GrammarVocabulary:
    """A model's tokens as grammars see them.

    `tokens[id]` are the bytes a token stands for; `control` ids never come from text; `end` ids end one.
    `size` is the number of logits, which may be more than the tokens there are.
    """

    tokens: tuple[bytes, ...]
    control: tuple[int, ...]
    end: tuple[int, ...]
    size: int

    def __post_init__(self) -> None:
        assert 0 < len(self.tokens) <= self.size
        assert all(0 <= token < len(self.tokens) for token in (*self.control, *self.end))


class GrammarCompiler:
    """Compiles grammars for one vocabulary. Making it takes about 0.3 s for 49,152 tokens."""

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        self._vocabulary = vocabulary
        if not vocabulary.end:
            raise RequestError(
                "this model names no end token, so such a text could not end",
                field="structured_outputs",
            )
        self._tokenizer = _tokenizer(vocabulary)

    def compile(self, wanted: StructuredOutputs) -> Grammar:
        """Raises RequestError naming the kind, with the library's reason."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tokenizer, grammar_source(wanted), log_level=0, limits=_limits())
        if matcher.is_error():
            raise refusal(wanted.kind, matcher.get_error())
        return Grammar(matcher, self._vocabulary, wanted.kind)


def _limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=INITIAL_FUEL,
        step_lexer_fuel=STEP_FUEL,
        step_max_items=STEP_ITEMS,
        max_lexer_states=MAX_LEXER_STATES,
        max_grammar_size=MAX_GRAMMAR_SYMBOLS,
        verbose_errors=False,
    )


def _tokenizer(vocabulary: GrammarVocabulary) -> LLTokenizer:
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_TokenSource(vocabulary)), eos_token=list(vocabulary.end))


class _TokenSource:
    """The vocabulary in the form the library reads."""

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        control = {*vocabulary.control, *vocabulary.end}
        self.eos_token_id = vocabulary.end[0]
        self.bos_token_id = None
        padding = vocabulary.size - len(vocabulary.tokens)
        self.tokens = [*vocabulary.tokens, *[b""] * padding]  # without bytes they are never allowed
        self.special_token_ids = sorted(control)

    def __call__(self, text: bytes) -> list[int]:
        """Cuts forced text into tokens, of which there is none: see grammar_source.UNFORCED."""
        return []


class Grammar:
    """A compiled grammar at its beginning."""

    def __init__(self, matcher: LLMatcher, vocabulary: GrammarVocabulary, kind: str) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._kind = kind

    def start(self) -> GrammarState:
        """A state of its own for one sequence."""
        return GrammarState(self._matcher.deep_copy(), self._vocabulary, self._kind)


class GrammarState:
    """Where one sequence's text stands in its grammar. `push`, `rollback` and `fork` follow its tokens.

    Deterministic: states after the same tokens give the same masks, whatever was pushed and rolled back
    between. End tokens are counted here and never shown to the parser, which would not roll them back.
    """

    __slots__ = ("_bits", "_ended", "_kind", "_matcher", "_vocabulary")

    def __init__(self, matcher: LLMatcher, vocabulary: GrammarVocabulary, kind: str) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._kind = kind
        self._ended = 0  # tokens since the first end token, it included
        self._bits = np.zeros(-(-vocabulary.size // 32), dtype=np.int32)

    def push(self, token: int) -> None:
        """Take a token that the mask allowed. One that it did not makes every later mask an error."""
        if self._ended or token in self._vocabulary.end:
            self._ended += 1
        else:
            self._matcher.consume_token(token)

    def rollback(self, count: int) -> None:
        """Forget the last `count` tokens."""
        after_end = min(count, self._ended)
        self._ended -= after_end
        if count > after_end:
            self._matcher.rollback(count - after_end)

    def fork(self) -> GrammarState:
        """An independent state after the same tokens."""
        twin = GrammarState(self._matcher.deep_copy(), self._vocabulary, self._kind)
        twin._ended = self._ended
        return twin

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next [V]; a view that the next call changes.

        Raises RequestError where the grammar became too complex for its limits.
        """
        bits = self._bits
        if self._ended:
            bits.fill(0)
        else:
            self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
            if self._matcher.is_error():
                raise refusal(self._kind, self._matcher.get_error())
        allowed = np.unpackbits(bits.view(np.uint8), count=self._vocabulary.size, bitorder="little")
        if self._ended:
            allowed[list(self._vocabulary.end)] = 1
        return allowed.view(np.bool_)


def token_ids(allowed: NDArray[np.bool_]) -> Sequence[int]:
    """The ids that a mask allows, ascending."""
    ids: list[int] = np.flatnonzero(allowed).tolist()
    return ids

"""The guard of grammars for one model, made when the first grammar comes."""

from __future__ import annotations

from threading import Lock

from pelton.decode.grammar_guard import GrammarGuard
from pelton.structured import StructuredOutputs
from pelton.text.grammar_tokens import grammar_vocabulary
from pelton.text.tokenizer import Tokenizer


class GrammarCheck:
    """What every grammar passes before an engine compiles it. Threads may share it.

    The helper process starts with the first check, which takes half a second, and ends with `close`.
    """

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._guard: GrammarGuard | None = None
        self._making = Lock()

    def check(self, wanted: StructuredOutputs | None) -> None:
        """Return if it is good, or none. Raises RequestError with the reason, ConfigError if it cannot start.

        Without a tokenizer nothing is checked: no grammar can be compiled either.
        """
        if wanted is None or self._tokenizer is None:
            return
        with self._making:
            if self._guard is None:
                self._guard = GrammarGuard(grammar_vocabulary(self._tokenizer, self._vocab_size))
        self._guard.check(wanted)

    @property
    def helper_pid(self) -> int | None:
        """The helper process, while there is one."""
        return None if self._guard is None else self._guard.helper_pid

    def close(self) -> None:
        """End the helper process."""
        if self._guard is not None:
            self._guard.close()

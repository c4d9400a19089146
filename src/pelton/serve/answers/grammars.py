"""The guard of grammars on the event loop's side: a check waits in a thread of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ...decode.grammar_guard import GrammarGuard
from ...errors import RequestError
from ...structured import StructuredOutputs
from ...text.grammar_tokens import grammar_vocabulary
from ..http.failures import renamed
from .prompts import Prompts


class Grammars:
    """Checks what a request's answer shall look like before the engine hears of it.

    One at a time; others wait without holding a thread. The helper process starts with the first check.
    """

    def __init__(self, prompts: Prompts, vocab_size: int) -> None:
        self._prompts = prompts
        self._vocab_size = vocab_size
        self._guard: GrammarGuard | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pelton-grammars")

    async def check(self, wanted: StructuredOutputs, field: str) -> None:
        """Return if it is good. Raises RequestError naming `field`, where the client gave it."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._check, wanted)
        except RequestError as error:
            raise renamed(error, field) from None

    @property
    def helper_pid(self) -> int | None:
        """The helper process, while there is one."""
        return None if self._guard is None else self._guard.helper_pid

    def close(self) -> None:
        """End the helper process; checks that wait are dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._guard is not None:
            self._guard.close()

    def _check(self, wanted: StructuredOutputs) -> None:
        if self._guard is None:
            self._guard = GrammarGuard(grammar_vocabulary(self._prompts.tokenizer, self._vocab_size))
        self._guard.check(wanted)

"""The guard of grammars on the event loop's side: a check waits in a thread of its own."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ...errors import RequestError
from ...structured import StructuredOutputs
from ...text.grammar_check import GrammarCheck
from ..http.failures import renamed


class Grammars:
    """Checks what a request's answer shall look like before the engine hears of it.

    One at a time; others wait without holding a thread.
    """

    def __init__(self, guard: GrammarCheck) -> None:
        self._guard = guard
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pelton-grammars")

    async def check(self, wanted: StructuredOutputs, field: str) -> None:
        """Return if it is good. Raises RequestError naming `field`, where the client gave it."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._guard.check, wanted)
        except RequestError as error:
            raise renamed(error, field) from None

    @property
    def helper_pid(self) -> int | None:
        """The helper process, while there is one."""
        return self._guard.helper_pid

    def close(self) -> None:
        """End the helper process; checks that wait are dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._guard.close()

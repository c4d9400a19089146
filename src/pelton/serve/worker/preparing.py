"""Grammars compile beside the engine: a step never waits for one, whatever it costs."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from ...decode.grammar import Grammar
from ...requests import Requests
from .frames import Add

LONGEST_WAIT = 0.005
"""Seconds between looks for further commands while there is nothing else to do."""


class Preparing:
    """Requests whose grammar is not compiled yet. Compiling leaves the interpreter free."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pelton-grammars")
        self._waiting: dict[int, tuple[Add, Future[Grammar]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, command: Add) -> None:
        """Begin with a request that has `structured_outputs`."""
        wanted = command.params.structured_outputs
        assert wanted is not None
        self._waiting[command.stream] = command, self._thread.submit(self._requests.compile, wanted)

    def drop(self, stream: int) -> None:
        """Forget a request that was cancelled; unknown ones are ignored."""
        found = self._waiting.pop(stream, None)
        if found is not None:
            found[1].cancel()

    def ready(self, *, is_idle: bool) -> list[tuple[Add, Future[Grammar]]]:
        """Those that are done, with a grammar or an exception; if idle, after waiting a moment for one."""
        if is_idle and self._waiting:
            wait([future for _, future in self._waiting.values()], LONGEST_WAIT, FIRST_COMPLETED)
        done = [item for item in self._waiting.values() if item[1].done()]
        for command, _ in done:
            del self._waiting[command.stream]
        return done

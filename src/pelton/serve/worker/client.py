"""The engine as the HTTP side sees it: a narrow protocol, and the client for an engine in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from time import monotonic
from typing import Protocol

from ...async_llm import AsyncLLM
from ...config import SamplingParams
from ...outputs import StreamOutput
from ...terms import ORDINARY, RequestTerms
from ..seeing.view import EngineFacts, EngineLoad, EngineView, facts_of, load_of, view_of


class EngineClient(Protocol):
    """Token ids in, pieces of text out. All that crosses to the engine are these values."""

    @property
    def facts(self) -> EngineFacts: ...

    @property
    def restarts(self) -> int:
        """How often another engine took the place of one that had died."""

    async def open(self) -> None:
        """Called once, in the event loop that streams will be read in."""

    def stream(
        self, prompt: Sequence[int], params: SamplingParams, request_id: str, terms: RequestTerms = ORDINARY
    ) -> AsyncGenerator[StreamOutput, None]:
        """Pieces of all `params.n` texts; closing it drops the request and frees its KV blocks.

        Raises RequestError before the first piece, EngineStoppedError at any time (EngineRestartingError
        where there will soon be an engine again).
        """

    def load(self) -> EngineLoad: ...

    async def view(self) -> EngineView:
        """A closer look, which may take as long as a step. Raises EngineStoppedError."""

    def fault(self, stall_seconds: float) -> str | None:
        """Why the engine is not healthy: it ended, or is busy without a step for so long. None: it is."""

    async def close(self) -> None:
        """End every stream with EngineStoppedError and free the engine."""


class InProcessClient:
    """An AsyncLLM of this process; when its loop fails, it stays so."""

    restarts = 0

    def __init__(self, engine: AsyncLLM) -> None:
        self._engine = engine
        self.facts = facts_of(engine.llm.engine)

    async def open(self) -> None:
        """Its thread runs already."""

    def stream(
        self, prompt: Sequence[int], params: SamplingParams, request_id: str, terms: RequestTerms = ORDINARY
    ) -> AsyncGenerator[StreamOutput, None]:
        return self._engine.stream(prompt, params, request_id, terms)

    def load(self) -> EngineLoad:
        return load_of(self._engine.llm.engine)

    async def view(self) -> EngineView:
        # Another thread steps the engine: this may mix two of its steps, and breaks nothing.
        return view_of(self._engine.llm.engine)

    def fault(self, stall_seconds: float) -> str | None:
        if not self._engine.is_alive:
            return "the engine has stopped"
        idle = monotonic() - self._engine.last_step
        if self._engine.llm.engine.has_work and idle > stall_seconds:
            return f"the engine has work and finished no step for {idle:.0f} s"
        return None

    async def close(self) -> None:
        # Not in the loop's executor: a step that never ends must not keep the process from ending.
        loop = asyncio.get_running_loop()
        closed = asyncio.Event()

        def work() -> None:
            try:
                self._engine.close()
            finally:
                loop.call_soon_threadsafe(closed.set)

        threading.Thread(target=work, name="pelton-close", daemon=True).start()
        await closed.wait()

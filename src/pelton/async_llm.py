"""AsyncLLM: the same engine behind asyncio. A thread of its own steps it; callers await their pieces."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from .config import SamplingParams
from .errors import EngineStoppedError
from .llm import LLM
from .outputs import RequestOutput, StreamOutput
from .request import RequestState
from .requests import LIVE_PATIENCE, Prompt
from .terms import ORDINARY, RequestTerms


@dataclass
class _Caller:
    """The awaiting side of one request."""

    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[StreamOutput | Exception] = field(default_factory=asyncio.Queue)
    state: RequestState | None = None

    def put(self, item: StreamOutput | Exception) -> None:
        with suppress(RuntimeError):  # the caller's event loop may be gone: nobody waits any more
            self.loop.call_soon_threadsafe(self.queue.put_nowait, item)


class AsyncLLM:
    """Many requests at once from coroutines; each ends with exactly one final piece or exception.

    Takes the same arguments as LLM. Cancelling or closing a stream drops its request.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._failure: Exception | None = None
        self._callers: dict[int, _Caller] = {}
        self.last_step = monotonic()
        """When the engine last finished a step or woke up, on `time.monotonic`'s clock."""
        self._thread = threading.Thread(target=self._work, name="pelton-engine", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the engine still takes requests: its thread runs and its loop did not fail."""
        return self._failure is None and self._thread.is_alive()

    async def stream(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        terms: RequestTerms = ORDINARY,
    ) -> AsyncGenerator[StreamOutput, None]:
        """Pieces of the answer as they come. Raises RequestError, or EngineStoppedError after close."""
        caller = _Caller(asyncio.get_running_loop())
        params = await self._checked(sampling_params)
        self._submit(lambda: self._add(caller, prompt, params, request_id, terms))
        left = params.n
        try:
            while left:
                item = await caller.queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                left -= item.finished
        finally:
            if left:
                self._submit(lambda: self._abort(caller), quiet=True)

    async def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        terms: RequestTerms = ORDINARY,
    ) -> RequestOutput:
        """The whole answer to one prompt."""
        caller = _Caller(asyncio.get_running_loop())
        params = await self._checked(sampling_params)
        self._submit(lambda: self._add(caller, prompt, params, request_id, terms))
        left = params.n
        try:
            while left:
                item = await caller.queue.get()
                if isinstance(item, Exception):
                    raise item
                left -= item.finished
        finally:
            if left:
                self._submit(lambda: self._abort(caller), quiet=True)
        assert caller.state is not None
        return caller.state.snapshot()

    def close(self) -> None:
        """End all requests with EngineStoppedError, stop the thread, free the model."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self.llm.close()

    async def _checked(self, given: SamplingParams | None) -> SamplingParams:
        """The parameters, once their grammar is known to cost the engine's thread little."""
        params = given or SamplingParams()
        if params.structured_outputs is not None:
            await asyncio.to_thread(self.llm.grammars.check, params.structured_outputs)
        return params

    def _submit(self, command: Callable[[], None], quiet: bool = False) -> None:
        with self._wake:
            if self._closing or self._failure is not None:
                if quiet:
                    return
                raise EngineStoppedError("the engine is closed") from self._failure
            self._commands.append(command)
            self._wake.notify()

    def _add(
        self,
        caller: _Caller,
        prompt: Prompt,
        params: SamplingParams,
        request_id: str | None,
        terms: RequestTerms,
    ) -> None:
        if self._failure is not None:
            caller.put(self._stopped())
            return
        try:
            caller.state = self.llm.requests.add(prompt, params, request_id, terms)
        except Exception as error:  # whatever a request does wrong, it alone fails
            caller.put(error)
            return
        self._callers[id(caller.state)] = caller

    def _abort(self, caller: _Caller) -> None:
        if caller.state is not None and self._failure is None:
            self.llm.requests.abort(caller.state)
            self._callers.pop(id(caller.state), None)

    def _work(self) -> None:
        try:
            while self._take_commands():
                deltas = self.llm.requests.step(LIVE_PATIENCE)
                self.last_step = monotonic()
                for delta in deltas:
                    caller = self._callers.get(id(delta.request))
                    if caller is not None:
                        caller.put(delta.output)
                for delta in deltas:  # only now: several sequences of a request may end in one step
                    if delta.request.finished:
                        self._callers.pop(id(delta.request), None)
        except Exception as error:  # whatever broke the loop must reach everyone who waits
            with self._wake:  # nothing is submitted from now on; what was is told so below
                self._failure = error
                commands, self._commands = list(self._commands), deque()
            for command in commands:
                command()
        for caller in self._callers.values():
            caller.put(self._stopped())

    def _stopped(self) -> EngineStoppedError:
        stopped = EngineStoppedError("the engine stopped")
        stopped.__cause__ = self._failure
        return stopped

    def _take_commands(self) -> bool:
        """Run what callers asked for, sleeping while there is nothing to do; False to stop."""
        with self._wake:
            while not (self._commands or self._closing or self.llm.engine.has_work):
                self._wake.wait()
            commands, self._commands = list(self._commands), deque()
            closing = self._closing
            self.last_step = monotonic()
        for command in commands:
            command()
        return not closing

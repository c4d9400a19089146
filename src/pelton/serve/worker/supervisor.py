"""The engine in a process of its own: many streams over one socket, and another process when it dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace

from ...config import SamplingParams
from ...errors import EngineRestartingError, EngineStoppedError, PeltonError, RequestError
from ...outputs import StreamOutput
from ...terms import ORDINARY, RequestTerms
from ..seeing.view import EngineLoad, EngineView
from .frames import Add, Cancel, Failed, Look, Piece, Ready, Report, Start, Step, View, encode
from .mailbox import MOST_WAITING, Mailbox, SlowReaderError
from .process import WorkerCommand, WorkerProcess, worker_command

log = logging.getLogger("pelton.serve.engine")

MOST_ATTEMPTS = 2
"""Processes that a request may be sent to; the second to die under it makes it a suspect, and it fails."""
MOST_FAILURES = 3
"""Processes in a row that die before they give a token; then nobody waits for the next one."""
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 30.0
_END_SECONDS = 1.0
_LOAD_SECONDS = 600.0


@dataclass(eq=False)
class _Stream:
    """A request under way. `add` is its command, for the next process as long as nothing has `begun`."""

    number: int
    add: bytes
    left: int
    mailbox: Mailbox = field(default_factory=Mailbox)
    attempts: int = 0
    begun: bool = False


class EngineProcess:
    """An EngineClient whose engine is another process; when that dies, streams that had begun end with
    EngineRestartingError, and what had given nothing yet goes to the next process, once.

    Waits until the model is loaded; raises what load_engine raises. A process that is busy and silent
    for `stall_seconds` is killed. Start it in a thread that lives as long as it is wanted.
    """

    def __init__(
        self, start: Start, *, stall_seconds: float = 60.0, command: WorkerCommand = worker_command
    ) -> None:
        self._command = command
        self._stall_seconds = stall_seconds
        self._process = WorkerProcess(start, command)
        try:
            ready = self._process.wait_ready()
        except BaseException:
            self._process.discard()
            raise
        self.facts = ready.facts
        self.restarts = 0
        # What was measured once, such as the context that memory allowed, is now what is asked for.
        settings = replace(start.settings, context_length=ready.facts.context_length)
        self._start = Start(start.reference, start.path, start.kind, start.verified, settings)
        self._load = self._idle_load = ready.load
        self._streams: dict[int, _Stream] = {}
        self._count = 0
        self._failures = 0
        self._quiet = 0.0
        self._is_ready, self._is_closed = True, False
        self._view: asyncio.Future[EngineView] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self._process.join(self)
        self._watching = asyncio.create_task(self._watch())

    @property
    def pid(self) -> int:
        """The process that has, or will have, the engine."""
        return self._process.pid

    async def stream(
        self, prompt: Sequence[int], params: SamplingParams, request_id: str, terms: RequestTerms = ORDINARY
    ) -> AsyncGenerator[StreamOutput, None]:
        self._check(prompt, params)
        stream = self._add(prompt, params, request_id, terms)
        left = params.n
        try:
            while left:
                for piece in await stream.mailbox.take():
                    left -= piece.finished
                    yield piece
        finally:
            if self._streams.pop(stream.number, None) is not None and stream.attempts and self._is_ready:
                self._process.send(encode(Cancel(stream.number)))

    def load(self) -> EngineLoad:
        return self._load

    async def view(self) -> EngineView:
        if self._is_closed or not self._is_ready:
            raise self._restarting_error()
        if self._view is None or self._view.done():
            self._view = asyncio.get_running_loop().create_future()
            self._process.send(encode(Look()))
        return await asyncio.shield(self._view)

    def fault(self, stall_seconds: float) -> str | None:
        if self._is_closed:
            return "the engine is closed"
        if not self._is_ready:
            return "the engine's process ended, another is being started"
        if self._quiet > stall_seconds:
            return f"the engine has work and finished no step for {self._quiet:.0f} s"
        return None

    async def close(self) -> None:
        self._is_closed = True
        for task in (self._restarting, self._watching):
            if task is not None:
                task.cancel()
        self._end_view()
        for stream in list(self._streams.values()):
            self._end(stream, EngineStoppedError("the engine is closed"))
        self._process.hang_up()
        try:
            await asyncio.wait_for(self._process.gone(), _END_SECONDS)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.gone()

    def kill(self) -> None:
        """End the process at once, for where there is no event loop."""
        self._is_closed = True
        self._process.discard()

    def on_report(self, process: WorkerProcess, report: Report) -> None:
        self._quiet = 0.0
        if isinstance(report, Step):
            self._load = report.load
            for piece in report.pieces:
                self._deliver(piece)
        elif isinstance(report, View):
            if self._view is not None and not self._view.done():
                self._view.set_result(report.view)
        elif isinstance(report, Failed):
            log.error("the model cannot be loaded again: %s", report.fault.error())
        elif isinstance(report, Ready) and not self._is_closed:
            self._is_ready, self._load = True, report.load
            self.restarts += 1
            for stream in list(self._streams.values()):
                self._send(stream)

    def on_lost(self, process: WorkerProcess, reason: str) -> None:
        if self._is_closed:
            return
        self._is_ready, self._load = False, self._idle_load
        self._failures += 1
        self._end_view()
        for stream in list(self._streams.values()):
            if stream.begun or stream.attempts >= MOST_ATTEMPTS or self._failures >= MOST_FAILURES:
                self._end(stream, self._restarting_error())
        self._restarting = asyncio.create_task(self._restart(process, reason))

    def _check(self, prompt: Sequence[int], params: SamplingParams) -> None:
        """What can be told here need not cross: it also bounds what does."""
        vocab = self.facts.vocab_size
        params.validate_for(vocab, self.facts.context_length, len(prompt))
        for token in prompt:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab:
                raise RequestError(f"is not a token id below {vocab}", field="prompt_token_ids", value=token)

    def _add(
        self, prompt: Sequence[int], params: SamplingParams, request_id: str, terms: RequestTerms
    ) -> _Stream:
        if self._is_closed:
            raise EngineStoppedError("the engine is closed")
        if not self._is_ready and self._failures >= MOST_FAILURES:
            raise self._restarting_error()
        self._count += 1
        add = Add(self._count, list(prompt), params, request_id, terms)
        stream = _Stream(self._count, encode(add), params.n)
        self._streams[stream.number] = stream
        if self._is_ready:
            self._send(stream)
        return stream

    def _send(self, stream: _Stream) -> None:
        if len(self._streams) == 1:
            self._quiet = 0.0  # it may have been idle for long
        stream.attempts += 1
        self._process.send(stream.add)

    def _deliver(self, piece: Piece) -> None:
        stream = self._streams.get(piece.stream)
        if stream is None:  # cancelled since
            return
        output = piece.output
        if output.index < 0:
            assert output.error is not None
            self._end(stream, output.error)
            return
        if not stream.begun:
            stream.begun, stream.add = True, b""
            self._failures = 0  # this process is good for something
        stream.mailbox.put(output)
        stream.left -= output.finished
        if not stream.left:
            del self._streams[stream.number]
        elif stream.mailbox.is_full:
            self._process.send(encode(Cancel(stream.number)))
            self._end(stream, SlowReaderError(f"more than {MOST_WAITING} bytes waited for a slow reader"))

    def _end(self, stream: _Stream, error: PeltonError) -> None:
        del self._streams[stream.number]
        stream.mailbox.fail(error)

    def _end_view(self) -> None:
        if self._view is not None and not self._view.done():
            self._view.set_exception(self._restarting_error())
            self._view.exception()  # looked at: whoever asked may have left

    def _restarting_error(self) -> EngineRestartingError:
        return EngineRestartingError(
            "the engine's process ended under this request; another takes its place",
            retry_after=max(1, round(self._delay)),
        )

    @property
    def _delay(self) -> float:
        """Seconds to wait before the next process: none after a first failure."""
        spare = self._failures - 2
        return 0.0 if spare < 0 else min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(spare, 16))

    async def _restart(self, old: WorkerProcess, reason: str) -> None:
        old.kill()
        await old.gone()
        log.error("%s (it %s); another is started in %.1f s", reason, old.ended(), self._delay)
        while True:
            await asyncio.sleep(self._delay)
            try:
                self._process = WorkerProcess(self._start, self._command)
                break
            except OSError as error:  # no memory or no process to be had at the moment
                self._failures += 1
                log.error("no process can be started: %s", error.strerror)
        self._quiet = 0.0
        await self._process.join(self)

    async def _watch(self) -> None:
        """Kill a process that hangs. A pause of this one's own counts as one interval at most."""
        interval = min(0.5, self._stall_seconds / 4)
        while True:
            await asyncio.sleep(interval)
            is_busy = bool(self._streams) if self._is_ready else True
            self._quiet = self._quiet + interval if is_busy else 0.0
            if self._quiet > (self._stall_seconds if self._is_ready else _LOAD_SECONDS):
                log.error("the engine has work and finished no step for %.0f s; killed", self._quiet)
                self._quiet = 0.0
                self._process.kill()

"""The engine's process: commands in, steps out, over one socket that the server's process gave it.

One thread does everything, so nothing waits for a lock or the interpreter: it takes what commands have
come before each step (a cancelled request is gone in the next one) and never waits for the server to read.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import NoReturn

from ...decode.grammar import Grammar
from ...errors import EngineStoppedError, PeltonError
from ...loading import LoadedEngine, load_resolved
from ...request import RequestState
from ...requests import LIVE_PATIENCE, Requests
from ...settings import default_threads
from ..seeing.logs import TextLines
from ..seeing.view import facts_of, load_of, view_of
from .frames import (
    Add,
    Cancel,
    Command,
    Failed,
    Fault,
    FrameError,
    FrameReader,
    Look,
    Piece,
    Ready,
    Report,
    Start,
    Step,
    View,
    decode_command,
    encode,
)
from .joining import Joining
from .preparing import Preparing

log = logging.getLogger("pelton.serve.worker")

MOST_UNREAD = 32 << 20
"""Bytes of steps that the server has not read, beyond which the engine waits for it."""
_CHUNK = 1 << 18
_PR_SET_PDEATHSIG = 1


class ChannelClosedError(EngineStoppedError):
    """The server's end of the socket is gone."""


class Channel:
    """The socket to the server's process, without blocking unless asked to wait."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._reader = FrameReader()
        self._unsent = bytearray()
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def receive(self, *, wait: bool) -> list[Command]:
        """Commands that have come; with `wait`, at least one. Raises ChannelClosedError, FrameError."""
        commands: list[Command] = []
        while True:
            must_wait = (wait and not commands) or len(self._unsent) > MOST_UNREAD
            if self._unsent:
                self._flush()
            ready = self._poll.poll(None if must_wait else 0)
            if not ready:
                return commands
            if ready[0][1] & ~select.POLLOUT:
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise ChannelClosedError("the server has gone")
                commands += map(decode_command, self._reader.feed(data))
            elif not must_wait:
                return commands

    def send(self, report: Report) -> None:
        """Hand a report over, or keep what the server has no room for yet."""
        self._unsent += encode(report)
        self._flush()

    def _flush(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError as error:
            raise ChannelClosedError("the server has gone") from error
        self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))


class Worker:
    """Steps an engine as long as there is work and tells the server what came of it."""

    def __init__(
        self, channel: Channel, loaded: LoadedEngine, seed: int | None, joining: Joining | None = None
    ) -> None:
        self._channel = channel
        self._engine = loaded.engine
        self._requests = Requests(loaded, seed)
        self._states: dict[int, RequestState] = {}
        self._numbers: dict[int, int] = {}
        self._preparing = Preparing(self._requests)
        self._joining = joining

    def run(self) -> NoReturn:
        """Serve until the server closes its end, which raises ChannelClosedError."""
        core = self._engine
        self._channel.send(Ready(facts_of(core), load_of(core)))
        while True:
            commands = self._channel.receive(wait=not (core.has_work or self._preparing))
            pieces = [piece for command in commands if (piece := self._obey(command)) is not None]
            for prepared in self._preparing.ready(is_idle=not core.has_work):
                pieces += filter(None, [self._add(*prepared)])
            if core.has_work:
                pieces += self._step()
            if self._joining is not None:
                pieces = self._joining.take(pieces)
            self._channel.send(Step(load_of(core), pieces))

    def _obey(self, command: Command) -> Piece | None:
        """None, or what refuses the request."""
        if isinstance(command, Add):
            if command.params.structured_outputs is None:
                return self._add(command)
            self._preparing.put(command)
        elif isinstance(command, Cancel):
            self._preparing.drop(command.stream)
            if self._joining is not None:
                self._joining.drop(command.stream)
            dropped = self._states.pop(command.stream, None)
            if dropped is not None:
                del self._numbers[id(dropped)]
                self._requests.abort(dropped)
        elif isinstance(command, Look):
            self._channel.send(View(view_of(self._engine)))
        else:
            raise FrameError("the engine is loaded already")
        return None

    def _add(self, command: Add, compiled: Future[Grammar] | None = None) -> Piece | None:
        """None, or what refuses the request."""
        try:
            grammar = None if compiled is None else compiled.result()
            state = self._requests.add(
                command.prompt, command.params, command.request_id, command.terms, grammar
            )
        except PeltonError as error:
            return Piece.refusal(command.stream, error)
        except Exception as error:  # whatever a request does wrong, it alone fails
            log.error("a request failed: %s", type(error).__name__, exc_info=error)
            return Piece.refusal(command.stream, PeltonError("a fault in the engine; its log says more"))
        self._states[command.stream] = state
        self._numbers[id(state)] = command.stream
        return None

    def _step(self) -> list[Piece]:
        deltas = self._requests.step(LIVE_PATIENCE)
        pieces = [Piece(self._numbers[id(delta.request)], delta.output) for delta in deltas]
        for delta in deltas:  # only now: several sequences of a request may end in one step
            if delta.request.finished:
                number = self._numbers.pop(id(delta.request), None)
                if number is not None:
                    del self._states[number]
        return pieces


Loader = Callable[[Start], LoadedEngine]


def load_as_told(start: Start) -> LoadedEngine:
    """The engine that the first frame asks for."""
    return load_resolved(start.resolved, start.settings)


def serve_socket(descriptor: int, load: Loader = load_as_told) -> int:
    """The life of the process; its exit status. `load` is another in tests of what an engine can suffer."""
    _leave_with_the_server()
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        (start,) = channel.receive(wait=True)
        if not isinstance(start, Start):
            raise FrameError("begins with another command")
        try:
            loaded = load(start)
        except PeltonError as error:
            channel.send(Failed(Fault.of(error)))
            return 1
        gc.freeze()  # the vocabulary's objects live as long as the process
        try:
            has_spare = default_threads() > start.settings.num_threads
            joining = None if has_spare else Joining()
            Worker(channel, loaded, start.settings.seed, joining).run()
        finally:
            loaded.close()
    except ChannelClosedError:
        return 0
    except Exception as error:  # the end of this process, not of the server
        log.error("the engine failed: %s", type(error).__name__, exc_info=error)
        return 1


def _leave_with_the_server() -> None:
    """Die when the server's process does, stay when a signal is for it, and leave no memory image behind."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A process manager signals every process of a service; running streams may go on for their grace.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # It would hold users' prompts, and writing it would keep the socket open for seconds.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()


def main(load: Loader = load_as_told) -> None:
    """Be an engine process; the number of its socket is the first argument."""
    lines = logging.StreamHandler()
    lines.setFormatter(TextLines())
    logging.basicConfig(handlers=[lines])
    status = serve_socket(int(sys.argv[1]), load)
    sys.stderr.flush()
    os._exit(status)  # the interpreter's own end would take as long as its start


if __name__ == "__main__":
    main()

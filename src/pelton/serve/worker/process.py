"""One engine process from the server's side: started, spoken to, ended."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import IO, Protocol, cast

from ...errors import EngineStoppedError
from .frames import Failed, FrameError, FrameReader, Ready, Report, Start, decode_report, encode

log = logging.getLogger("pelton.serve.worker")

# The module search path is this process's own: `-m` would put the working directory, which may hold
# anything, before all else.
_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from pelton.serve.worker.worker import main; main()"
_CHUNK = 1 << 18
_SOCKET_BUFFER = 1 << 20
_LONGEST_LINE = 1 << 10

WorkerCommand = Callable[[int], Sequence[str]]
"""The command line of an engine process, given the number of its socket."""


def worker_command(descriptor: int) -> Sequence[str]:
    return (sys.executable, "-c", _BOOT, str(descriptor), *sys.path)


def _relay(stream: IO[bytes]) -> None:
    """What the process says to nobody in particular becomes lines of this one's log."""
    with stream:
        for line in iter(lambda: stream.readline(_LONGEST_LINE), b""):
            log.warning("%s", line.decode("utf-8", "replace").rstrip())


class Listener(Protocol):
    """Who is told what an engine process says, on the event loop that it was joined to."""

    def on_report(self, process: WorkerProcess, report: Report) -> None: ...

    def on_lost(self, process: WorkerProcess, reason: str) -> None:
        """Called once: the process has closed its end, or said what cannot be understood."""


class WorkerProcess(asyncio.Protocol):
    """A child process with an engine. It dies when the thread that started it ends (Linux's
    PR_SET_PDEATHSIG), so start it from one that lives as long as it is wanted."""

    def __init__(self, start: Start, command: WorkerCommand = worker_command) -> None:
        self._socket, theirs = socket.socketpair()
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self._listener: Listener | None = None
        with theirs:
            for end in (self._socket, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
            self._child = subprocess.Popen(
                command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a terminal's Ctrl-C is for the server alone
            )
        assert self._child.stderr is not None
        threading.Thread(target=_relay, args=(self._child.stderr,), name="pelton-stderr", daemon=True).start()
        self._socket.sendall(encode(start))
        self.began = monotonic()

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait_ready(self) -> Ready:
        """Wait, without an event loop, until the engine is loaded.

        Raises the PeltonError that kept it from loading, EngineStoppedError where the process died.
        """
        while True:
            data = self._socket.recv(_CHUNK)
            if not data:
                raise EngineStoppedError(f"the engine's process {self.ended()} while it loaded the model")
            for frame in self._reader.feed(data):
                report = decode_report(frame)
                if isinstance(report, Failed):
                    raise report.fault.error()
                if not isinstance(report, Ready):
                    raise FrameError("the engine reports a step before it is ready")
                return report

    async def join(self, listener: Listener) -> None:
        """From now on `listener` is told, in the running event loop."""
        self._listener = listener
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self, sock=self._socket)

    def send(self, command: bytes) -> None:
        """Hand over an encoded command; it waits in memory while the process does not read."""
        assert self._transport is not None
        self._transport.write(command)

    def kill(self) -> None:
        """End the process now; its listener hears of it through the loop."""
        self._child.kill()

    def discard(self) -> None:
        """End a process that no event loop has to do with any more, and wait for that."""
        self.kill()
        self._child.wait()
        if self._transport is None:
            self._socket.close()

    def ended(self) -> str:
        """How the process ended, waiting for that."""
        status = self._child.wait()
        return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"

    @property
    def is_gone(self) -> bool:
        return self._child.poll() is not None

    async def gone(self) -> None:
        """Return once the process has ended."""
        while not self.is_gone:
            await asyncio.sleep(0.005)

    def hang_up(self) -> None:
        """Close this end: the process ends after the step it is in."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._socket.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        assert self._listener is not None
        try:
            for frame in self._reader.feed(data):
                self._listener.on_report(self, decode_report(frame))
        except FrameError as error:
            self.kill()
            self._lost(str(error))

    def connection_lost(self, error: Exception | None) -> None:
        self._lost("the engine's process ended")

    def _lost(self, reason: str) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.on_lost(self, reason)
        self.hang_up()

"""Grammars of strangers are tried out in a process that can be killed before an engine compiles them.

Grammars have made servers hang, crash and run out of memory (vLLM's CVE-2025-32381 and CVE-2026-55574,
Outlines' CVE-2025-29770). Here one costs at most CHECK_SECONDS and CHECK_MEMORY of a helper process, and its
verdict is remembered in memory of fixed size; nothing is written to disk.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from base64 import b64encode
from collections import OrderedDict
from dataclasses import asdict
from hashlib import blake2b
from threading import Lock
from time import monotonic
from typing import Any

from ..errors import ConfigError, RequestError
from ..structured import SUBJECT, StructuredOutputs
from .grammar import GrammarVocabulary
from .grammar_helper import HEADER, LARGEST_FRAME, frame_of

CHECK_SECONDS = 0.5
CHECK_MEMORY = 128 << 20
START_SECONDS = 30.0
MOST_VERDICTS = 32_768
"""A verdict is a digest of 16 bytes and at most 600 characters: 32 MiB in all."""
LONGEST_MESSAGE = 500

# The module search path is this process's own: `-m` would put the working directory before all else.
_BOOT = "import sys; sys.path[:] = sys.argv[1:]; from pelton.decode.grammar_helper import main; main()"


class HelperLostError(Exception):
    """The helper ended, or had to be ended; `timed_out` tells which."""

    def __init__(self, *, timed_out: bool) -> None:
        super().__init__("timed out" if timed_out else "ended")
        self.timed_out = timed_out


class GrammarGuard:
    """Says whether a structured output may go to an engine. Threads may share it; one check runs at a time.

    The helper process starts with the first check (about half a second) and again after one that killed
    it. `close` ends it; a closed guard starts it anew when asked again.
    """

    def __init__(
        self, vocabulary: GrammarVocabulary, *, seconds: float = CHECK_SECONDS, memory: int = CHECK_MEMORY
    ) -> None:
        self._vocabulary = vocabulary
        self._seconds = seconds
        self._memory = memory
        self._lock = Lock()
        self._helper: Helper | None = None
        self._verdicts: OrderedDict[bytes, tuple[str | None, str] | None] = OrderedDict()

    def check(self, wanted: StructuredOutputs) -> None:
        """Return if it is good. Raises RequestError with the reason, ConfigError without the library."""
        content = asdict(wanted)
        key = blake2b(json.dumps(content).encode(), digest_size=16).digest()
        with self._lock:
            if key in self._verdicts:
                self._verdicts.move_to_end(key)
            else:
                self._verdicts[key] = self._verdict(content)
                if len(self._verdicts) > MOST_VERDICTS:
                    self._verdicts.popitem(last=False)
            verdict = self._verdicts[key]
        if verdict is not None:
            field, message = verdict
            raise RequestError(message, subject=SUBJECT, field=field or wanted.kind)

    @property
    def helper_pid(self) -> int | None:
        """The helper process, while there is one."""
        return None if self._helper is None else self._helper.pid

    @property
    def num_verdicts(self) -> int:
        """Verdicts that are remembered."""
        return len(self._verdicts)

    def close(self) -> None:
        """End the helper process."""
        with self._lock:
            self._end()

    def _verdict(self, content: dict[str, Any]) -> tuple[str | None, str] | None:
        while True:
            is_fresh = self._helper is None or self._helper.checks == 0
            if self._helper is None:
                self._helper = Helper(self._vocabulary, self._memory)
            try:
                reply = self._helper.ask(content, self._seconds)
            except HelperLostError as lost:
                self._end()
                if lost.timed_out:
                    return None, f"takes longer than {self._seconds:g} s to compile"
                if is_fresh:  # else what earlier grammars left behind may have been the fault
                    return None, "is too large or too complex to compile"
                continue
            if not reply:
                return None
            return reply.get("field"), str(reply.get("message"))[:LONGEST_MESSAGE]

    def _end(self) -> None:
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.end()


class Helper:
    """A running helper process. Raises ConfigError where it does not come up."""

    def __init__(self, vocabulary: GrammarVocabulary, memory: int) -> None:
        self.checks = 0
        self._child = subprocess.Popen(
            (sys.executable, "-c", _BOOT, *sys.path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for the server alone
        )
        first = {
            "tokens": [b64encode(token).decode() for token in vocabulary.tokens],
            "control": vocabulary.control,
            "end": vocabulary.end,
            "size": vocabulary.size,
            "memory": memory,
        }
        try:
            self._exchange(first, START_SECONDS)
        except HelperLostError:
            self.end()
            raise ConfigError(
                "the process that checks grammars does not start; is llguidance installed"
                " (`pip install 'pelton[structured]'`)?",
                field=SUBJECT,
            ) from None

    @property
    def pid(self) -> int:
        return self._child.pid

    def ask(self, content: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The helper's reply. Raises HelperLostError where it gives none in time."""
        reply = self._exchange(content, seconds)
        self.checks += 1
        return reply

    def end(self) -> None:
        """Kill the process and forget it."""
        self._child.kill()
        for stream in (self._child.stdin, self._child.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                continue
        self._child.wait()

    def _exchange(self, content: dict[str, Any], seconds: float) -> dict[str, Any]:
        assert self._child.stdin is not None
        deadline = monotonic() + seconds
        try:
            self._child.stdin.write(frame_of(content))
            self._child.stdin.flush()
        except BrokenPipeError:
            raise HelperLostError(timed_out=False) from None
        (size,) = HEADER.unpack(self._read(HEADER.size, deadline))
        if size > LARGEST_FRAME:
            raise HelperLostError(timed_out=False)
        reply: dict[str, Any] = json.loads(self._read(size, deadline))
        return reply

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._child.stdout is not None
        descriptor = self._child.stdout.fileno()
        data = b""
        while len(data) < size:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - monotonic()))
            if not ready:
                raise HelperLostError(timed_out=True)
            part = os.read(descriptor, size - len(data))
            if not part:
                raise HelperLostError(timed_out=False)
            data += part
        return data

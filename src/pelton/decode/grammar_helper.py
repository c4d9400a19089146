"""The process that tries a stranger's grammar out before an engine meets it. See `grammar_guard.py`.

It compiles and computes the first mask with the same vocabulary and limits as the engine, so whatever it
says yes to costs the engine no more. It may be killed, run out of memory or crash: nothing is lost.
Frames either way are a length of 4 bytes, big-endian, and that much JSON.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import PeltonError
from ..structured import StructuredOutputs
from .grammar import GrammarCompiler, GrammarVocabulary

HEADER = struct.Struct(">I")
LARGEST_FRAME = 64 << 20
ORPHAN_SECONDS = 5
"""A check that outlives its caller ends by itself after this long."""


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """The next frame; None where the stream has ended."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (size,) = HEADER.unpack(header)
    if size > LARGEST_FRAME:
        return None
    body = stream.read(size)
    frame: dict[str, Any] | None = json.loads(body) if len(body) == size else None
    return frame


def frame_of(content: dict[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    return HEADER.pack(len(body)) + body


def vocabulary_of(frame: dict[str, Any]) -> GrammarVocabulary:
    tokens = tuple(b64decode(token) for token in frame["tokens"])
    return GrammarVocabulary(tokens, tuple(frame["control"]), tuple(frame["end"]), frame["size"])


def limit_memory(more: int) -> None:
    """From now on this process may map at most `more` bytes beyond what it has mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def verdict(compiler: GrammarCompiler, frame: dict[str, Any]) -> dict[str, Any]:
    """`{}` where the grammar is good, else what is wrong with it."""
    try:
        compiler.compile(StructuredOutputs(**frame)).start().allowed()
    except PeltonError as error:
        return {"field": error.field, "message": error.message}
    except MemoryError:
        return {"field": None, "message": "needs more memory than a grammar may"}
    except RecursionError:
        return {"field": None, "message": "is nested too deeply"}
    return {}


def main() -> None:
    """Answer frames from standard input until it ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = read_frame(source)
    if first is None:
        return
    compiler = GrammarCompiler(vocabulary_of(first))
    limit_memory(first["memory"])
    reply: dict[str, Any] = {}
    while True:
        sink.write(frame_of(reply))
        sink.flush()
        frame = read_frame(source)
        if frame is None:
            return
        signal.alarm(ORPHAN_SECONDS)
        reply = verdict(compiler, frame)
        signal.alarm(0)

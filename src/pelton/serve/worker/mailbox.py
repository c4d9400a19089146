"""What a stream has got from the engine and its reader has not taken yet."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

from msgspec.msgpack import Decoder, Encoder

from ...decode.logprobs import Logprob, TokenLogprobs
from ...errors import PeltonError
from ...outputs import StreamOutput

MOST_WAITING = 128 << 10
"""Bytes that wait for one reader, at most: 13,000 tokens of text, or 250 with 20 logprobs each. In all of a
reader's buffers are then at most 256 KiB (reliability.md 4), besides the kernel's."""
MOST_TAKEN = 8 << 10
"""Bytes of what waits that become events at a time; of logprobs these are six times as large as JSON."""
_OVERHEAD = 64
"""Bytes of a part, besides what is in it."""
_Row = list[tuple[int, float, int, str | None]]
_ENCODER, _DECODER = Encoder(), Decoder(list[_Row])


class SlowReaderError(PeltonError):
    """More waited for a reader than is kept for one."""


def joined(first: StreamOutput, second: StreamOutput) -> StreamOutput:
    """Two pieces of one text as one."""
    logprobs = first.logprobs
    if second.logprobs is not None:
        logprobs = (*(first.logprobs or ()), *second.logprobs)
    return replace(
        second,
        text=first.text + second.text,
        token_ids=first.token_ids + second.token_ids,
        logprobs=logprobs,
        prompt_logprobs=first.prompt_logprobs or second.prompt_logprobs,
        hidden_state=first.hidden_state or second.hidden_state,
    )


def _packed(logprobs: Sequence[TokenLogprobs]) -> bytes:
    return _ENCODER.encode(
        [[(token, e.logprob, e.rank, e.decoded_token) for token, e in row.items()] for row in logprobs]
    )


def _unpacked(rows: bytes) -> Iterator[TokenLogprobs]:
    for row in _DECODER.decode(rows):
        yield {token: Logprob(logprob, rank, text) for token, logprob, rank, text in row}


class _Part:
    """Pieces of one text that follow each other, in few bytes: as objects logprobs take ten times as many."""

    __slots__ = ("_ids", "_last", "_rows", "_text", "size")

    def __init__(self, piece: StreamOutput) -> None:
        self.size = _OVERHEAD
        self._text = bytearray()
        self._ids = array("i")
        self._rows: list[bytes] = []
        self._last = self._counted(piece)

    def add(self, piece: StreamOutput) -> None:
        earlier = self._last
        self._last = replace(
            self._counted(piece),
            prompt_logprobs=earlier.prompt_logprobs or piece.prompt_logprobs,
            hidden_state=earlier.hidden_state or piece.hidden_state,
        )

    def piece(self) -> StreamOutput:
        """All of it as one piece."""
        return replace(
            self._last,
            text=self._text.decode("utf-8", "surrogatepass"),
            token_ids=tuple(self._ids),
            logprobs=tuple(row for rows in self._rows for row in _unpacked(rows)) if self._rows else None,
        )

    def _counted(self, piece: StreamOutput) -> StreamOutput:
        """Keep what a piece has, and return the rest of it."""
        text = piece.text.encode("utf-8", "surrogatepass")
        self._text += text
        self._ids.extend(piece.token_ids)
        self.size += len(text) + self._ids.itemsize * len(piece.token_ids)
        if piece.logprobs is None:
            return piece
        self._rows.append(_packed(piece.logprobs))
        self.size += len(self._rows[-1]) + _OVERHEAD
        return replace(piece, logprobs=None)


class Mailbox:
    """A reader slower than the engine gets longer pieces, not more of them, and nobody else waits for it.

    What waits is bounded by whoever puts it there: once it `is_full`, the stream should fail.
    """

    def __init__(self) -> None:
        self._texts: dict[int, deque[_Part]] = {}
        self._error: PeltonError | None = None
        self._reader: asyncio.Future[None] | None = None
        self.size = 0
        """Bytes that wait, about; log probabilities of the prompt, which come once, are not counted."""

    @property
    def is_full(self) -> bool:
        return self.size > MOST_WAITING

    def put(self, piece: StreamOutput) -> None:
        parts = self._texts.setdefault(piece.index, deque())
        if parts and parts[-1].size < MOST_TAKEN:
            self.size -= parts[-1].size
            parts[-1].add(piece)
        else:
            parts.append(_Part(piece))
        self.size += parts[-1].size
        self._wake()

    def fail(self, error: PeltonError) -> None:
        """End the stream with an exception, after what it has got."""
        self._error = error
        self._wake()

    async def take(self) -> list[StreamOutput]:
        """Of what is there about MOST_TAKEN bytes, waiting for something. Raises what `fail` was given."""
        if not self._texts and self._error is None:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        pieces, taken = list[StreamOutput](), 0
        while self._texts and taken < MOST_TAKEN:
            index = next(iter(self._texts))
            parts = self._texts.pop(index)
            part = parts.popleft()
            if parts:  # behind the other texts
                self._texts[index] = parts
            taken += part.size
            pieces.append(part.piece())
        self.size -= taken
        if not pieces and self._error is not None:
            raise self._error
        return pieces

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

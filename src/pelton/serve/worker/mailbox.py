"""What a stream has got from the engine and its reader has not taken yet."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from ...errors import PeltonError
from ...outputs import StreamOutput


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
    )


class Mailbox:
    """Holds at most one piece a text: a reader slower than the engine gets longer pieces, not more of them,
    so what waits for it is no larger than the text itself, and nobody else waits for it."""

    def __init__(self) -> None:
        self._pieces: dict[int, StreamOutput] = {}
        self._error: PeltonError | None = None
        self._reader: asyncio.Future[None] | None = None

    def put(self, piece: StreamOutput) -> None:
        earlier = self._pieces.get(piece.index)
        self._pieces[piece.index] = piece if earlier is None else joined(earlier, piece)
        self._wake()

    def fail(self, error: PeltonError) -> None:
        """End the stream with an exception, after what it has got."""
        self._error = error
        self._wake()

    async def take(self) -> list[StreamOutput]:
        """All that is there, waiting for something. Raises what `fail` was given."""
        if not self._pieces and self._error is None:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        pieces, self._pieces = list(self._pieces.values()), {}
        if not pieces and self._error is not None:
            raise self._error
        return pieces

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

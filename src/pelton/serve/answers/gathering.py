"""Pieces of a request put together for a reply that is not streamed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from ...decode.logprobs import TokenLogprobs
from ...outputs import StreamOutput
from .generation import Answer

Rows = Sequence[TokenLogprobs] | None


@dataclass
class Gathered:
    """One choice, whole. `prompt_logprobs` are with the first choice of a prompt."""

    parts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    prompt_logprobs: Sequence[TokenLogprobs | None] | None = None

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def take(self, piece: StreamOutput) -> None:
        self.parts.append(piece.text)
        self.token_ids += piece.token_ids
        if piece.logprobs is not None:
            self.logprobs = [*(self.logprobs or ()), *piece.logprobs]
        if piece.prompt_logprobs is not None:
            self.prompt_logprobs = piece.prompt_logprobs
        if piece.finished:
            self.finish_reason, self.stop_reason = piece.finish_reason, piece.stop_reason


async def gather(answer: Answer) -> list[Gathered]:
    """All choices in the order of their indices. Raises what the request fails with."""
    choices: dict[int, Gathered] = {}
    async with aclosing(answer.pieces()) as pieces:
        async for piece in pieces:
            choices.setdefault(piece.index, Gathered()).take(piece)
    return [choices[index] for index in sorted(choices)]

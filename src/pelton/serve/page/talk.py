"""One question asked by the page, through the same admission, queue and engine as any client's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from time import monotonic

from ...config import SamplingParams
from ...errors import PeltonError
from ..answers.generation import Answer, Service
from ..openai.chat import render
from ..openai.fields import ChatMessage, TemplateFields


@dataclass
class Controls:
    """What a user can turn; None for the seed draws one. The page's inputs are bound to these."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 256
    seed: int | None = None

    def params(self) -> SamplingParams:
        """Raises RequestError naming the field that is out of range."""
        return SamplingParams(
            temperature=float(self.temperature),
            top_p=float(self.top_p),
            max_tokens=int(self.max_tokens),
            seed=None if self.seed is None else int(self.seed),
        )


@dataclass
class Progress:
    """An answer as it comes. Seconds from the question; tokens/s counts from the first token on."""

    text: str = ""
    tokens: int = 0
    first: float | None = None
    elapsed: float = 0.0
    finish_reason: str | None = None
    error: str | None = None
    started: float = field(default_factory=monotonic)

    @property
    def tokens_per_second(self) -> float:
        if self.first is None or self.tokens < 2 or self.elapsed <= self.first:
            return 0.0
        return (self.tokens - 1) / (self.elapsed - self.first)

    @property
    def line(self) -> str:
        """A line of figures about the answer so far."""
        if self.error is not None:
            return self.error
        if self.first is None:
            return "waiting"
        parts = [f"{self.tokens} tokens", f"{self.tokens_per_second:.0f} tokens/s"]
        parts.append(f"first after {self.first * 1e3:.0f} ms")
        return " · ".join([*parts, *([self.finish_reason] if self.finish_reason else [])])


async def talk(
    service: Service, messages: Sequence[tuple[str, str]], controls: Controls
) -> AsyncGenerator[Progress, None]:
    """The answer to (role, text) messages after each piece; an error is its last state, never raised."""
    progress = Progress()
    try:
        body = TemplateFields(messages=[ChatMessage(role=role, content=text) for role, text in messages])
        work = [partial(render, service.prompts, body)]
        answer = Answer(service, f"page-{token_hex(8)}", work, controls.params(), "messages")
        async with aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                _note(progress, piece.text, len(piece.token_ids), piece.finish_reason)
                yield progress
    except PeltonError as error:
        progress.error = str(error)
        yield progress


def _note(progress: Progress, text: str, tokens: int, finish_reason: str | None) -> None:
    progress.text += text
    progress.tokens += tokens
    progress.elapsed = monotonic() - progress.started
    progress.finish_reason = finish_reason
    if progress.first is None and tokens:
        progress.first = progress.elapsed

"""One answer as it streams: its text, how it ended, and how fast it came."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config import SamplingParams
    from ..llm import LLM
    from ..outputs import StreamOutput

INTERRUPTED = "interrupted"


@dataclass
class Answer:
    """What has come so far; times are seconds since the request, `finish_reason` may be "interrupted"."""

    prompt_tokens: int
    parts: list[str] = field(default_factory=list)
    num_tokens: int = 0
    first_token_seconds: float | None = None
    last_token_seconds: float = 0.0
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    @property
    def text(self) -> str:
        return "".join(self.parts)

    @property
    def interrupted(self) -> bool:
        return self.finish_reason == INTERRUPTED

    @property
    def decode_rate(self) -> float | None:
        """Tokens a second after the first; None for fewer than two tokens."""
        if self.first_token_seconds is None or self.num_tokens < 2:
            return None
        return (self.num_tokens - 1) / max(self.last_token_seconds - self.first_token_seconds, 1e-9)

    def take(self, piece: StreamOutput, elapsed: float) -> None:
        """Add what one step brought, `elapsed` seconds after the request."""
        self.last_token_seconds = elapsed
        if piece.token_ids and self.first_token_seconds is None:
            self.first_token_seconds = elapsed
        self.num_tokens += len(piece.token_ids)
        self.parts.append(piece.text)
        if piece.finished:
            self.finish_reason, self.stop_reason = piece.finish_reason, piece.stop_reason

    def timings(self) -> dict[str, float | None]:
        first = self.first_token_seconds
        return {
            "first_token_seconds": first,
            "prompt_tokens_per_second": self.prompt_tokens / first if first else None,
            "decode_tokens_per_second": self.decode_rate,
            "seconds": self.last_token_seconds,
        }

    def document(self) -> dict[str, object]:
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "stop_reason": self.stop_reason,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.num_tokens,
        }


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed."""

    asked: bool = False


@contextmanager
def between_steps() -> Iterator[Interrupt]:
    """Note a Ctrl-C instead of raising it, so that no engine step is cut in half; a second one raises."""
    interrupt = Interrupt()

    def remember(number: int, frame: FrameType | None) -> None:
        if interrupt.asked:
            raise KeyboardInterrupt
        interrupt.asked = True

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


def stream_answer(
    llm: LLM, prompt: Sequence[int], params: SamplingParams, show: Callable[[str], None]
) -> Answer:
    """Generate, handing each piece of text to `show` as it comes. Ctrl-C ends the answer and keeps it.

    Raises the request's own error if it fails, after what came before it was shown.
    """
    from ..requests import LIVE_PATIENCE

    answer = Answer(len(prompt))
    start = perf_counter()
    state = llm.requests.add(prompt, params)
    try:
        with between_steps() as interrupt:
            while not state.finished and not interrupt.asked:
                for delta in llm.requests.step(LIVE_PATIENCE):
                    answer.take(delta.output, perf_counter() - start)
                    if delta.output.text:
                        show(delta.output.text)
                    if delta.output.error is not None:
                        raise delta.output.error
    finally:
        llm.requests.abort(state)
    if not state.finished or answer.finish_reason is None:
        answer.finish_reason = INTERRUPTED
    return answer

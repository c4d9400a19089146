"""What a request comes back as, named as vLLM names it."""

from __future__ import annotations

from dataclasses import dataclass, field

from .decode.logprobs import TokenLogprobs
from .errors import PeltonError


@dataclass
class CompletionOutput:
    """One of a request's n texts. `finish_reason` is "stop", "length" or "error"; None while it runs."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: PeltonError | None = None


@dataclass
class RequestMetrics:
    """Moments of a request in seconds of one steady clock; None where it did not get that far."""

    arrival_time: float
    first_token_time: float | None = None
    finished_time: float | None = None

    @property
    def time_to_first_token(self) -> float | None:
        return None if self.first_token_time is None else self.first_token_time - self.arrival_time


@dataclass
class RequestOutput:
    """A request and its texts so far."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    metrics: RequestMetrics
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    num_cached_tokens: int = 0

    @property
    def finished(self) -> bool:
        return all(output.finish_reason is not None for output in self.outputs)


@dataclass(frozen=True)
class StreamOutput:
    """What one step added to one of a request's texts. The last has `finished` set, exactly once an index.

    `prompt_logprobs` come with the request's first piece, where they were asked for. `num_cached_tokens`:
    how many of the prompt's tokens were not computed for this request, since a cache had them. `started`:
    when its first step began, on `time.monotonic`'s clock.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None = None
    finished: bool = False
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    error: PeltonError | None = None
    prompt_logprobs: tuple[TokenLogprobs | None, ...] | None = None
    num_cached_tokens: int = 0
    started: float | None = None

"""Counts and times one prompt of a request, for the metrics and for its request's record."""

from __future__ import annotations

from time import monotonic

from ...config import SamplingParams
from ...errors import NotFiniteError
from ...outputs import StreamOutput
from .metrics import Metrics
from .record import RequestRecord


class RequestMeter:
    """Takes the pieces of an answer; `arrival` is when the server had read the request, by `monotonic`."""

    def __init__(
        self,
        metrics: Metrics,
        arrival: float,
        prompt_tokens: int,
        params: SamplingParams,
        record: RequestRecord | None = None,
    ) -> None:
        self._metrics = metrics
        self._record = record
        self._arrival = arrival
        self._started: float | None = None
        self._first: float | None = None
        self._last: dict[int, float] = {}
        self._tokens = 0
        self._reason = "abort"
        self._prompt_tokens = prompt_tokens
        self._params = params
        self._has_begun = self._is_refused = False
        if record is not None:
            record.params = params
            record.prompt_tokens += prompt_tokens
            record.sequences += params.n

    def take(self, piece: StreamOutput) -> None:
        """Count one piece of the answer; with the first the engine has taken the prompt, not before."""
        if not self._has_begun and piece.error is None:
            self._has_begun = True
            self._metrics.begin(self._prompt_tokens, self._params)
        if piece.token_ids:
            now = monotonic()
            if self._first is None:
                self._begin(piece, now)
            last = self._last.get(piece.index)
            if last is not None:
                self._metrics.between.observe((now - last) / len(piece.token_ids))
            self._last[piece.index] = now
            self._tokens += len(piece.token_ids)
            self._metrics.generated(now, len(piece.token_ids))
        if piece.finish_reason is not None:
            self._reason = piece.finish_reason
            if self._record is not None:
                self._record.finish_reasons.append(piece.finish_reason)
        if isinstance(piece.error, NotFiniteError):
            self._metrics.not_finite.inc()

    def _begin(self, piece: StreamOutput, now: float) -> None:
        """The first token is there."""
        self._first = now
        self._started = piece.started
        self._metrics.began(now, now - self._arrival, self._prompt_tokens, piece.num_cached_tokens)
        if piece.started is not None:
            self._metrics.queued.observe(max(0.0, piece.started - self._arrival))
            self._metrics.prefill.observe(max(0.0, now - piece.started))
        if self._record is not None:
            self._record.cached_tokens += piece.num_cached_tokens
            if self._record.first_token is None:
                self._record.first_token, self._record.started = now, piece.started

    def refuse(self) -> None:
        """The request was wrong: if nothing came of it, it was never one of the engine's."""
        self._is_refused = not self._has_begun

    def end(self, completed: bool) -> None:
        """The request is over; `completed` is False where it failed or its client left."""
        if self._record is not None:
            self._record.completion_tokens += self._tokens
        if self._is_refused:
            return
        self._metrics.ended(self._reason if completed or self._reason == "error" else "abort")
        if self._first is None or not completed:
            return
        now = monotonic()
        metrics = self._metrics
        metrics.whole.observe(now - self._arrival)
        metrics.decode.observe(max(self._last.values()) - self._first)
        if self._started is not None:
            metrics.inference.observe(max(0.0, now - self._started))
        metrics.output_length.observe(self._tokens)
        decoded = self._tokens - len(self._last)
        if decoded > 0:
            spent = sum(last - self._first for last in self._last.values())
            metrics.per_token.observe(spent / decoded)

"""Engine events -> text: what has been said so far by each sequence of one request."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

from .config import SamplingParams
from .decode.logprobs import TokenLogprobs
from .events import TokenEvent
from .outputs import CompletionOutput, RequestMetrics, RequestOutput, StreamOutput
from .text import Detokenizer, StopMatcher, Tokenizer


class SequenceText:
    """Turns one sequence's tokens into text; holds back what could be the start of a stop string."""

    __slots__ = ("_detokenizer", "_params", "_parts", "_stops", "_tokenizer", "output")

    def __init__(self, index: int, params: SamplingParams, tokenizer: Tokenizer | None) -> None:
        self.output = CompletionOutput(index)
        self._params = params
        self._tokenizer = tokenizer
        self._parts: list[str] = []
        self._detokenizer = None
        if tokenizer is not None and params.detokenize:
            self._detokenizer = Detokenizer(tokenizer, skip_special=params.skip_special_tokens)
        self._stops = StopMatcher(tuple(params.stop), include=params.include_stop_str_in_output)
        if params.logprobs is not None:
            self.output.logprobs = []
            self.output.cumulative_logprob = 0.0

    def take(self, event: TokenEvent) -> StreamOutput:
        """Add an event; a stop string in the text finishes the output even where the event did not."""
        output, token = self.output, event.token
        if event.hidden_state is not None:
            output.hidden_state = event.hidden_state
        text = "" if token is None else self._add_token(token, event)
        if event.is_last and output.finish_reason is None:
            text += self._flush()
            if output.finish_reason is None:  # the rest may have completed a stop string
                output.finish_reason = event.finish.finish_reason if event.finish else "error"
                output.stop_reason = event.finish.stop_reason if event.finish else None
            output.error = event.error
        if text:
            self._parts.append(text)
        finished = output.finish_reason is not None
        if finished:
            output.text = "".join(self._parts)
        return StreamOutput(
            output.index,
            text,
            () if token is None else (token,),
            None if output.logprobs is None or token is None else (output.logprobs[-1],),
            finished,
            output.finish_reason,
            output.stop_reason,
            output.error,
            None,
            event.num_cached,
            event.started,
            event.hidden_state,
        )

    def snapshot(self) -> CompletionOutput:
        """The output with its text so far."""
        if self.output.finish_reason is None:
            self.output.text = "".join(self._parts)
        return self.output

    def _add_token(self, token: int, event: TokenEvent) -> str:
        output = self.output
        output.token_ids.append(token)
        if output.logprobs is not None and event.logprobs is not None:
            output.logprobs.append(self._named(event.logprobs))
            output.cumulative_logprob = (output.cumulative_logprob or 0.0) + event.logprobs[token].logprob
        if self._detokenizer is None:
            return ""
        stopped = event.finish is not None and event.finish.finish_reason == "stop"
        if stopped and not self._params.include_stop_str_in_output:
            return ""
        return self._match(self._detokenizer.push(token))

    def _match(self, text: str) -> str:
        if not self._params.stop or len(self.output.token_ids) <= self._params.min_tokens:
            return text
        ready, matched = self._stops.feed(text)
        if matched is not None:
            self.output.finish_reason, self.output.stop_reason = "stop", matched
        return ready

    def _flush(self) -> str:
        if self._detokenizer is None:
            return ""
        text = self._match(self._detokenizer.finish())
        return text if self.output.finish_reason is not None else text + self._stops.finish()

    def _named(self, logprobs: TokenLogprobs) -> TokenLogprobs:
        return name_logprobs(logprobs, self._tokenizer)


def name_logprobs(logprobs: TokenLogprobs, tokenizer: Tokenizer | None) -> TokenLogprobs:
    """The same with each token's own text filled in."""
    if tokenizer is None:
        return logprobs
    return {
        token: replace(entry, decoded_token=tokenizer.decode([token], skip_special=False))
        for token, entry in logprobs.items()
    }


class RequestState:
    """One request under way: its sequences' texts, by engine sequence id."""

    __slots__ = ("_has_begun", "_open", "_output", "_texts", "_tokenizer")

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int],
        params: SamplingParams,
        sequence_ids: list[int],
        tokenizer: Tokenizer | None,
    ) -> None:
        self._texts = [SequenceText(index, params, tokenizer) for index in range(len(sequence_ids))]
        self._open = dict(zip(sequence_ids, self._texts, strict=True))
        self._tokenizer = tokenizer
        self._has_begun = False
        scored: list[TokenLogprobs | None] | None = None if params.prompt_logprobs is None else [None]
        self._output = RequestOutput(
            request_id, prompt, prompt_token_ids, [], RequestMetrics(monotonic()), prompt_logprobs=scored
        )

    @property
    def sequence_ids(self) -> set[int]:
        """Sequences that have not finished."""
        return set(self._open)

    @property
    def finished(self) -> bool:
        return not self._open

    def take(self, event: TokenEvent) -> StreamOutput | None:
        """Add an event of one of its sequences; None where it carries nothing to stream."""
        if event.prompt_logprobs and self._output.prompt_logprobs is not None:
            self._output.prompt_logprobs += [name_logprobs(p, self._tokenizer) for p in event.prompt_logprobs]
            return None
        text = self._open.get(event.sequence)
        if text is None:
            return None
        delta = text.take(event)
        if not self._has_begun and event.error is None:
            delta = self._begin(event, delta)
        if delta.finished:
            del self._open[event.sequence]
            if not self._open:
                self._output.metrics.finished_time = monotonic()
        return delta

    def _begin(self, event: TokenEvent, delta: StreamOutput) -> StreamOutput:
        """The request's first piece, with what comes with it."""
        self._has_begun = True
        self._output.metrics.first_token_time = monotonic()
        self._output.num_cached_tokens = event.num_cached
        if self._output.prompt_logprobs is None:
            return delta
        return replace(delta, prompt_logprobs=tuple(self._output.prompt_logprobs))

    def snapshot(self) -> RequestOutput:
        """The request's output as far as it has come."""
        self._output.outputs = [text.snapshot() for text in self._texts]
        return self._output

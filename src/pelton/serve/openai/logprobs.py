"""The engine's log probabilities in the two shapes of the API."""

from __future__ import annotations

from collections.abc import Sequence

from ...decode.logprobs import Logprob, TokenLogprobs
from ...text import Tokenizer
from .replies import ChatLogprob, ChatLogprobs, PromptLogprob, PromptLogprobs, TextLogprobs, TopLogprob

LEAST = -9999.0
"""Stands for minus infinity, which JSON cannot say."""


def chat_logprobs(rows: Sequence[TokenLogprobs], top: int, tokenizer: Tokenizer) -> ChatLogprobs:
    """Each token's own and its `top` alternatives; `bytes` are exact where a token is half a character."""
    content = []
    for row in rows:
        entries = list(row.items())
        chosen = _entry(*entries[0], tokenizer)
        best = sorted(entries, key=lambda entry: entry[1].rank)[:top]
        alternatives = [_entry(token, value, tokenizer) for token, value in best]
        content.append(ChatLogprob(**chosen.model_dump(), top_logprobs=alternatives))
    return ChatLogprobs(content=content)


def _entry(token: int, value: Logprob, tokenizer: Tokenizer) -> TopLogprob:
    return TopLogprob(
        token=value.decoded_token or "",
        logprob=max(value.logprob, LEAST),
        bytes=list(tokenizer.token_bytes(token)),
    )


class OffsetLogprobs:
    """Builds /v1/completions' shape, whose offsets count the characters of the tokens before."""

    def __init__(self) -> None:
        self._offset = 0

    def unpredicted(self, text: str) -> TextLogprobs:
        """A first token, of which there is no log probability."""
        self._offset += len(text)
        return TextLogprobs(text_offset=[0], token_logprobs=[None], tokens=[text], top_logprobs=[None])

    def take(self, rows: Sequence[TokenLogprobs], top: int) -> TextLogprobs:
        reply = TextLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
        for row in rows:
            chosen = next(iter(row.values()))
            text = chosen.decoded_token or ""
            reply.text_offset.append(self._offset)
            reply.tokens.append(text)
            reply.token_logprobs.append(max(chosen.logprob, LEAST))
            # The chosen token comes along even where it is not among the best, as with vLLM and OpenAI.
            reply.top_logprobs.append(
                {v.decoded_token or "": max(v.logprob, LEAST) for v in reversed(row.values())} if top else {}
            )
            self._offset += len(text)
        return reply


def prompt_logprobs(rows: Sequence[TokenLogprobs | None]) -> PromptLogprobs:
    """By token id; null for the first token, which nothing predicts."""
    return [
        None
        if row is None
        else {
            str(token): PromptLogprob(
                logprob=max(value.logprob, LEAST), rank=value.rank, decoded_token=value.decoded_token
            )
            for token, value in row.items()
        }
        for row in rows
    ]

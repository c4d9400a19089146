"""What clients send to /v1/completions and /v1/embeddings: prompts instead of conversations."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from ...config import MAX_INTEGER, MAX_N, SamplingParams
from ...errors import ContextOverflowError, RequestError
from .fields import REQUEST_ID, SamplingFields, TermFields, Truncate

MAX_PROMPTS = 256
"""Prompts of one request."""

_PROMPT_SCHEMA = {
    "oneOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS},
        {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        {
            "type": "array",
            "items": {"type": "array", "items": {"type": "integer"}},
            "minItems": 1,
            "maxItems": MAX_PROMPTS,
        },
    ]
}


ManyPrompts = Annotated[str | list[Any], WithJsonSchema(_PROMPT_SCHEMA)]


class CompletionRequest(SamplingFields):
    """POST /v1/completions."""

    prompt: ManyPrompts
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(default=16, description="0 only with echo.")
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = Field(default=None, ge=1, le=MAX_N)
    suffix: str | None = Field(default=None, description="Refused: the model does not fill in the middle.")

    @property
    def scores_only(self) -> bool:
        """Whether the prompts' own log probabilities are all that is wanted, as evaluations do."""
        return bool(self.echo) and self.max_tokens == 0

    def params(self) -> SamplingParams:
        """Raises RequestError for values out of range and fields that do not go together."""
        if self.suffix is not None:
            raise RequestError("is not supported: the model does not fill in the middle", field="suffix")
        limit = self.limit()
        params = self.sampling(1 if self.scores_only else limit, self.logprobs)
        if self.echo and self.logprobs is not None:
            params = replace(params, prompt_logprobs=max(self.logprobs, self.prompt_logprobs or 0))
        return params if self.best_of is None else self._with_rivals(params, self.best_of)

    def _with_rivals(self, params: SamplingParams, best_of: int) -> SamplingParams:
        if best_of < params.n:
            raise RequestError(f"is below n = {params.n}", field="best_of", value=best_of)
        if best_of > params.n and self.stream:
            raise RequestError("above n is not for streams", field="best_of", value=best_of)
        try:
            return replace(params, n=best_of, logprobs=params.logprobs or 0)
        except RequestError as error:
            raise RequestError(error.message, field="best_of", value=best_of) from None

    def prompts(self, room: int | None) -> list[str | list[int]]:
        """As `prompts_of`."""
        return prompts_of(self.prompt, "prompt", room)


class EmbeddingRequest(TermFields):
    """POST /v1/embeddings."""

    model: str | None = None
    input: ManyPrompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    truncate_prompt_tokens: Truncate = None
    request_id: str | None = Field(default=None, pattern=REQUEST_ID)
    user: str | None = Field(default=None, description="Taken for compatibility; nothing is done with it.")


def prompts_of(given: str | list[Any], field: str, room: int | None) -> list[str | list[int]]:
    """One text or list of token ids a prompt; of the latter at most `room`, if not None.

    Raises RequestError naming the one that is wrong, ContextOverflowError for one that is too long.
    """
    if isinstance(given, str):
        return [given]
    if not given:
        raise RequestError("is empty", field=field)
    if isinstance(given[0], int):
        return [_token_ids(given, field, room)]
    if len(given) > MAX_PROMPTS:
        raise RequestError(f"at most {MAX_PROMPTS} are taken", field=field, value=len(given))
    return [_prompt(item, f"{field}[{index}]", room) for index, item in enumerate(given)]


def _token_ids(items: list[Any], field: str, room: int | None) -> list[int]:
    """The list, once all in it are whole numbers; whether they are tokens the engine checks."""
    if room is not None and len(items) > room:  # before a look at each, which takes 20 ms a million
        raise ContextOverflowError(
            f"{len(items)} prompt tokens do not fit the context of {room}", field=field
        )
    for item in items:
        if type(item) is not int:
            raise RequestError("a list of token ids holds only whole numbers", field=field)
    return items


def _prompt(item: object, field: str, room: int | None) -> str | list[int]:
    if isinstance(item, str):
        return item
    if isinstance(item, list):
        return _token_ids(item, field, room)
    raise RequestError("a prompt is a text or a list of token ids", field=field)

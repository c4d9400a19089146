"""What clients may send. A field that is not here is refused by name; Labels are taken and ignored."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from ...config import (
    MAX_BAD_WORDS,
    MAX_INTEGER,
    MAX_LOGIT_BIAS,
    MAX_LOGPROBS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    MAX_TOKEN_IDS,
    SamplingParams,
)
from ...errors import RequestError
from ...structured import StructuredOutputs
from ...terms import RequestTerms
from ...tools.definitions import ToolUse
from .form_fields import ResponseFormat, StructuredFields
from .tool_fields import Tool, ToolChoice, tool_use

MAX_MESSAGES = 16_384
"""Of one conversation; each is at least three tokens in any template known."""
MAX_PARTS = 16_384
"""Of one message: its blocks, or its calls of tools."""
REQUEST_ID = "^[A-Za-z0-9_.:-]{1,128}$"

_DIRECT = (
    *("n", "temperature", "top_p", "top_k", "min_p", "typical_p"),
    *("repetition_penalty", "frequency_penalty", "presence_penalty"),
    *("allowed_token_ids", "banned_token_ids", "bad_words", "min_tokens", "stop", "stop_token_ids"),
    *("ignore_eos", "include_stop_str_in_output", "skip_special_tokens", "seed", "prompt_logprobs"),
    "detokenize",
)
"""Fields that SamplingParams has under the same name; null means its default."""


_TERMS = ("priority", "deadline", "program", "cache_salt")
"""Fields of RequestTerms; the tenant is who the API key says."""


class Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def at_most(most: int) -> BeforeValidator:
    """For a list: refused by its length before any item is looked at, which takes pydantic 9 us a message."""

    def check(value: object) -> object:
        if isinstance(value, list) and len(value) > most:
            raise PydanticCustomError("too_long", "has more than {most} items", {"most": most})
        return value

    return BeforeValidator(check)


def _not_zero(value: int | None) -> int | None:
    if value == 0:
        raise PydanticCustomError("zero", "must be above 0, or -1 for as many as fit")
    return value


Truncate = Annotated[
    int | None,
    Field(ge=-1, le=MAX_INTEGER, json_schema_extra={"not": {"const": 0}}),
    AfterValidator(_not_zero),
]
"""How many of a prompt's last tokens are kept."""


MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class Labels(Fields):
    """What clients send for their provider's books: taken for compatibility, and nothing is done with it."""

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[MetadataKey, MetadataValue] | None = Field(default=None, max_length=16)
    service_tier: Literal["auto", "default"] | None = None


class StreamOptions(Fields):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Literal[False] | None = None


class TermFields(Fields):
    """How a request is treated: RequestTerms but for the tenant, who is whose API key it came with."""

    priority: int | None = None
    deadline: float | None = None
    program: str | None = None
    cache_salt: str | None = None

    def terms(self, tenant: str) -> RequestTerms:
        """Prefixes are shared within a tenant only, whatever salt is given. Raises RequestError."""
        given = {name: getattr(self, name) for name in _TERMS if getattr(self, name) is not None}
        terms = RequestTerms(tenant=tenant, **given)
        return replace(terms, cache_salt=_salt(tenant, terms.cache_salt))


def _salt(tenant: str, given: str) -> str:
    """The salt of a tenant's salt. A digest, so that no salt of another's can be the same."""
    if not tenant and not given:
        return ""
    return blake2b(json.dumps([tenant, given]).encode(), digest_size=16).hexdigest()


class SamplingFields(TermFields):
    """SamplingParams' fields: types are checked here, ranges there."""

    model: str | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = Field(default=None, max_length=MAX_LOGIT_BIAS)
    allowed_token_ids: list[int] | None = Field(default=None, max_length=MAX_TOKEN_IDS)
    banned_token_ids: list[int] | None = Field(default=None, max_length=MAX_TOKEN_IDS)
    bad_words: list[str] | None = Field(default=None, max_length=MAX_BAD_WORDS)
    min_tokens: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    stop: str | Annotated[list[str], Field(max_length=MAX_STOP_STRINGS)] | None = None
    stop_token_ids: list[int] | None = Field(default=None, max_length=MAX_STOP_TOKEN_IDS)
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    detokenize: bool | None = None
    seed: int | None = None
    prompt_logprobs: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    structured_outputs: StructuredFields | None = None
    truncate_prompt_tokens: Truncate = None
    request_id: str | None = Field(default=None, pattern=REQUEST_ID)
    user: str | None = None

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """Checked parameters. Raises RequestError naming field and value."""
        if self.stream and self.prompt_logprobs is not None:
            raise RequestError(
                "is not given for streams", field="prompt_logprobs", value=self.prompt_logprobs
            )
        if self.stream_options is not None and not self.stream:
            raise RequestError("is only for stream = true", field="stream_options")
        given = {name: getattr(self, name) for name in _DIRECT if getattr(self, name) is not None}
        bias = None if self.logit_bias is None else {_token(key): v for key, v in self.logit_bias.items()}
        form = self.form()
        return SamplingParams(
            max_tokens=max_tokens, logprobs=logprobs, logit_bias=bias, structured_outputs=form, **given
        )

    def limit(self) -> int | None:
        """The most tokens, by either name. Raises RequestError where the two say different things."""
        newer = self.max_completion_tokens
        if newer is None:
            return self.max_tokens
        if "max_tokens" in self.model_fields_set and self.max_tokens not in (None, newer):
            raise RequestError("differs from max_tokens; give one of them", field="max_completion_tokens")
        return newer

    def form(self) -> StructuredOutputs | None:
        """What the text shall look like. Raises RequestError naming the part that is wrong."""
        return None if self.structured_outputs is None else self.structured_outputs.outputs()

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_running_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)


_ROLE_SCHEMA = {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_-]{0,31}$"}
_CONTENT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "required": ["type", "text"],
            },
        },
        {"type": "null"},
    ]
}


class ChatMessage(Fields):
    """One message. Fields of OpenAI's answers that this server never fills may come back as null."""

    role: Annotated[str, WithJsonSchema(_ROLE_SCHEMA)]
    content: Annotated[
        str | list[dict[str, Any]] | None, at_most(MAX_PARTS), WithJsonSchema(_CONTENT_SCHEMA)
    ] = None
    name: str | None = None
    tool_calls: Annotated[list[dict[str, Any]] | None, at_most(MAX_PARTS)] = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = Field(default=None, exclude=True)
    audio: None = None
    function_call: None = None

    def plain(self) -> dict[str, object]:
        """The message as chat templates know it: content always there, other fields where given."""
        role = (
            "system" if self.role == "developer" else self.role
        )  # OpenAI's newer word, which few templates know
        return {"content": self.content, **self.model_dump(exclude_none=True), "role": role}


class TemplateFields(Fields):
    """How a conversation becomes a prompt."""

    messages: Annotated[
        Annotated[list[ChatMessage], Field(fail_fast=True, max_length=MAX_MESSAGES)], at_most(MAX_MESSAGES)
    ]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    @property
    def tool_use(self) -> ToolUse | None:
        """The tools that may be called. Raises RequestError naming the one that is wrong."""
        return tool_use(self.tools, self.tool_choice, self.parallel_tool_calls)


class ChatRequest(TemplateFields, Labels, SamplingFields):
    """POST /v1/chat/completions."""

    store: Literal[False] | None = Field(default=None, description="Answers are kept by /v1/responses alone.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    response_format: ResponseFormat | None = None

    def form(self) -> StructuredOutputs | None:
        given = None if self.response_format is None else self.response_format.outputs()
        if given is None:
            return super().form()
        if self.structured_outputs is not None:
            raise RequestError("give this or structured_outputs, not both", field="response_format")
        return given

    @property
    def form_field(self) -> str:
        """Where an error in the form of the answer lies."""
        if self.structured_outputs is not None:
            return "structured_outputs"
        if self.tools:
            return "tools"
        return "response_format.json_schema.schema"  # no other can be wrong this late

    def params(self) -> SamplingParams:
        """Without a limit the answer may run to the end of the context."""
        if self.top_logprobs is not None and not self.logprobs:
            raise RequestError("needs logprobs = true", field="top_logprobs", value=self.top_logprobs)
        return self.sampling(self.limit(), (self.top_logprobs or 0) if self.logprobs else None)


class TokenizeRequest(Fields):
    """POST /tokenize: a text, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[
        Annotated[list[ChatMessage], Field(fail_fast=True, max_length=MAX_MESSAGES)] | None,
        at_most(MAX_MESSAGES),
    ] = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[Tool] | None = None
    return_token_strs: bool = False


class DetokenizeRequest(Fields):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[int]


def _token(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 10):
        raise RequestError("keys are token ids", field="logit_bias", value=key[:64])
    return int(key)

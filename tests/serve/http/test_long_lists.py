"""Long lists are refused by their length, before each of their items costs time on the event loop."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pelton.serve.anthropic.fields import MessagesRequest
from pelton.serve.openai.fields import MAX_MESSAGES, MAX_PARTS, ChatRequest, TokenizeRequest
from pelton.serve.responses.fields import ResponsesRequest

MANY_MESSAGES: list[Any] = [{"role": "user", "content": "a"}] * (MAX_MESSAGES + 1)
MANY_BLOCKS = [{"role": "user", "content": [{"type": "text", "text": "a"}] * (MAX_PARTS + 1)}]
MANY_PARTS = [{"role": "user", "content": [{"type": "input_text", "text": "a"}] * (MAX_PARTS + 1)}]
LISTS: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (ChatRequest, {"messages": MANY_MESSAGES}),
    (ChatRequest, {"messages": MANY_BLOCKS}),
    (ChatRequest, {"messages": [{"role": "assistant", "tool_calls": [{}] * (MAX_PARTS + 1)}]}),
    (TokenizeRequest, {"messages": MANY_MESSAGES}),
    (MessagesRequest, {"max_tokens": 1, "messages": MANY_MESSAGES}),
    (MessagesRequest, {"max_tokens": 1, "messages": MANY_BLOCKS}),
    (ResponsesRequest, {"input": MANY_MESSAGES}),
    (ResponsesRequest, {"input": MANY_PARTS}),
]


@pytest.mark.parametrize(("model", "body"), LISTS)
def test_a_list_that_is_too_long_is_not_an_error_per_item(
    model: type[BaseModel], body: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError, match="more than 16384 items") as caught:
        model.model_validate(body)
    assert caught.value.error_count() <= 2  # of a union each member says what it expects


@pytest.mark.parametrize("model", [ChatRequest, ResponsesRequest])
def test_of_many_wrong_items_the_first_is_told(model: type[BaseModel]) -> None:
    field = "messages" if model is ChatRequest else "input"
    with pytest.raises(ValidationError) as caught:
        model.model_validate({field: [{"nonsense": 1}] * 1000})
    assert caught.value.error_count() < 10

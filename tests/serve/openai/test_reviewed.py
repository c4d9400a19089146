"""Details of the chat and of completions that OpenAI's clients count on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pelton.serve.anthropic.tools import OfferedTool

from ..serving import CONTEXT, NAME, Served, serving

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "hello world"}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {"type": "object", "additionalProperties": False},
        "strict": True,
    },
}


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path, api_key="key") as served:
        served.http.headers["Authorization"] = "Bearer key"
        yield served


def post(served: Served, path: str, **body: Any) -> Any:
    reply = served.http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_log_probabilities_of_a_prompt_are_there_for_many_choices(served: Served) -> None:
    one = post(served, CHAT, messages=[USER], max_tokens=1, prompt_logprobs=1, seed=1)
    for _ in range(3):  # which choice brings them is the engine's business
        many = post(served, CHAT, messages=[USER], max_tokens=2, prompt_logprobs=1, n=4, seed=1)
        assert one["prompt_logprobs"] is not None
        assert many["prompt_logprobs"] == one["prompt_logprobs"]


def test_log_probabilities_of_a_prompt_are_there_for_the_best_of_many(served: Served) -> None:
    for seed in range(6):
        body = {"prompt": "hello", "max_tokens": 2, "prompt_logprobs": 1, "best_of": 4, "seed": seed}
        (choice,) = post(served, TEXT, **body)["choices"]
        assert choice["prompt_logprobs"] is not None


def test_a_developer_is_the_system(served: Served) -> None:
    said = [
        post(served, "/tokenize", messages=[{"role": role, "content": "Be terse"}, USER])["tokens"]
        for role in ("developer", "system")
    ]
    assert said[0] == said[1]


def test_an_answer_may_come_back_with_no_annotations(served: Served) -> None:
    answer = {"role": "assistant", "content": "a", "annotations": []}
    post(served, CHAT, messages=[USER, answer, USER], max_tokens=1)


def test_two_equal_limits_are_one(served: Served) -> None:
    limits: Any = {"max_tokens": 3, "max_completion_tokens": 3}
    post(served, CHAT, messages=[USER], **limits)
    post(served, TEXT, prompt="hello", **limits)
    limits["max_tokens"] = 4
    assert served.http.post(CHAT, json={"messages": [USER], **limits}).status_code == 400
    reply = served.http.post(TEXT, json={"prompt": "hello", **limits})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "max_completion_tokens")
    reply = served.http.post(TEXT, json={"prompt": "hello", "echo": True, **limits, "max_tokens": 0})
    assert reply.status_code == 400


def test_completions_know_the_newer_name_of_the_limit(served: Served) -> None:
    """It takes the place of the 16 tokens that are the older one's default."""
    body: Any = {"prompt": "hello", "ignore_eos": True}
    for given, tokens in (({}, 16), ({"max_completion_tokens": 20}, 20), ({"max_completion_tokens": 3}, 3)):
        assert post(served, TEXT, **body, **given)["usage"]["completion_tokens"] == tokens
    assert post(served, TEXT, **body, max_completion_tokens=None)["usage"]["completion_tokens"] == 16


@pytest.mark.parametrize("given", ["bearer key", "Bearer  key", "BEARER key"])
def test_the_scheme_of_a_key_has_no_case(served: Served, given: str) -> None:
    assert served.http.get("/v1/models", headers={"Authorization": given}).status_code == 200


def test_a_refused_prompt_is_not_counted(served: Served) -> None:
    def counts() -> list[str]:
        lines = served.http.get("/metrics").text.splitlines()
        names = ("prompt_tokens_total{", "request_success_total{")
        return [line for line in lines if any(name in line for name in names)]

    before = counts()
    body = {"prompt": [1] * (CONTEXT + 1), "max_tokens": 1}
    assert served.http.post(TEXT, json=body).status_code == 400
    assert counts() == before != []


CALL = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}
CHOICE = {"extra_body": {"structured_outputs": {"choice": ["yes", "no", "maybe"]}}}


@pytest.mark.parametrize("more", [CHOICE, CALL], ids=["text", "tools"])
def test_the_clients_own_helper_reads_streams_of_many_choices(served: Served, more: Any) -> None:
    """It takes the first chunk to be of the first choice."""
    asked: Any = {"model": NAME, "messages": [USER], "max_tokens": 200, "n": 3, "seed": 1, **more}
    with served.openai("key") as client:
        whole = client.chat.completions.create(**asked)
        with client.chat.completions.stream(**asked) as stream:
            for _ in stream:
                pass
            streamed = stream.get_final_completion()
    for said, choice in zip(whole.choices, streamed.choices, strict=True):
        assert (choice.index, choice.message.role) == (said.index, "assistant")
        assert (choice.message.content or "") == (said.message.content or "")
        assert len(choice.message.tool_calls or ()) == len(said.message.tool_calls or ())


def test_a_strict_tool_is_strict_in_every_api() -> None:
    tool = OfferedTool(name="add", input_schema={"type": "object"}, strict=True)
    assert tool.tool().function.strict is True

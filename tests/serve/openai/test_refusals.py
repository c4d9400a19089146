"""Bad requests, each a 4xx that names the field, after which the server answers as before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..serving import CONTEXT, NAME, Served, serving

USER = {"role": "user", "content": "hi"}
HUGE = 2**70

SAMPLING: list[tuple[str, Any]] = [
    ("n", 0), ("n", -1), ("n", 10**9), ("n", 1.5), ("n", True), ("n", "2"), ("n", HUGE),
    ("temperature", -0.1), ("temperature", 101), ("temperature", float("nan")), ("temperature", "hot"),
    ("temperature", 10**400), ("temperature", [1]), ("temperature", False),
    ("top_p", 0), ("top_p", 1.01), ("top_p", -1), ("top_p", float("inf")), ("top_p", {}),
    ("top_k", -2), ("top_k", 0.5), ("top_k", HUGE), ("top_k", "all"),
    ("min_p", -0.5), ("min_p", 2), ("typical_p", 0), ("typical_p", 1.5),
    ("repetition_penalty", 0), ("repetition_penalty", 1000), ("frequency_penalty", -3),
    ("presence_penalty", 2.5), ("presence_penalty", "x"),
    ("logit_bias", {"a": 1}), ("logit_bias", {"1": 101}), ("logit_bias", {"-1": 1}), ("logit_bias", [1]),
    ("logit_bias", {"49152": 1}), ("logit_bias", {str(i): 1 for i in range(2000)}),
    ("logit_bias", {"1": float("nan")}), ("logit_bias", {"9" * 5000: 1}),
    ("allowed_token_ids", []), ("allowed_token_ids", [49152]), ("allowed_token_ids", [-1]),
    ("allowed_token_ids", ["1"]), ("banned_token_ids", [HUGE]), ("bad_words", [""]), ("bad_words", "a" * 999),
    ("bad_words", ["x"] * 200), ("min_tokens", -1), ("min_tokens", HUGE), ("max_tokens", 0),
    ("max_tokens", -5), ("max_tokens", "many"), ("max_tokens", HUGE), ("max_tokens", 2.5),
    ("stop", ""), ("stop", [""]), ("stop", ["a"] * 17 + ["b"]), ("stop", 5), ("stop", ["a" * 300]),
    ("stop", [None]), ("stop", ["\ud800"]), ("stop_token_ids", [-1]), ("stop_token_ids", [49152]),
    ("stop_token_ids", ["end"]), ("ignore_eos", "yes"), ("ignore_eos", 1), ("seed", -HUGE), ("seed", HUGE),
    ("seed", 0.5), ("prompt_logprobs", -1), ("prompt_logprobs", 21), ("detokenize", 0),
    ("skip_special_tokens", "no"), ("stream", "true"), ("stream_options", {"include_usage": True}),
    ("stream_options", 1), ("user", 7), ("echo", 5), ("suffix", "x"), ("tools", [1]), ("nonsense", None),
    ("model", 5), ("return_token_ids", "x"),
]  # fmt: skip

CHAT: list[tuple[str, Any]] = [
    ("messages", []), ("messages", None), ("messages", "hi"), ("messages", {}), ("messages[0]", ["hi"]),
    ("messages[0].role", [{"role": "a b", "content": "x"}]), ("messages[0].role", [{"content": "x"}]),
    ("messages[0].role", [{"role": "<|im_start|>", "content": "x"}]), ("messages[0].role", [{"role": 5}]),
    ("messages[1].content", [USER, {"role": "user"}]),
    ("messages[0].content", [{"role": "user", "content": 5}]),
    ("messages[0].content[0].type", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
    ("messages[0].extra", [{**USER, "extra": 1}]), ("messages", [{"role": "user", "content": "\ud800"}]),
    ("messages[0].tool_calls", [{**USER, "tool_calls": "x"}]),
]  # fmt: skip

CHAT_FIELDS: list[tuple[str, Any]] = [
    ("max_completion_tokens", 0), ("max_completion_tokens", HUGE), ("top_logprobs", 3), ("top_logprobs", 21),
    ("logprobs", 2), ("response_format", {"type": "xml"}), ("add_generation_prompt", None),
    ("continue_final_message", True), ("options", {"no_such": 1}), ("tool_choice", "sometimes"),
    ("store", True), ("service_tier", "flex"), ("metadata", {"a": 1}), ("metadata", {"a" * 65: "b"}),
]  # fmt: skip

PROMPTS: list[tuple[str, Any]] = [
    ("prompt", None), ("prompt", ""), ("prompt", []), ("prompt", [[]]), ("prompt", 5), ("prompt", {"a": 1}),
    ("prompt[1]", ["a", 5]), ("prompt", [1, "a"]), ("prompt", [1, True]), ("prompt_token_ids", [49152]),
    ("prompt_token_ids", [-1]), ("prompt_token_ids", [HUGE]), ("prompt", ["a"] * 257), ("text", "\udfff"),
    ("logprobs", 21), ("logprobs", True), ("suffix", "x"),
]  # fmt: skip


@pytest.fixture(scope="module")
def served(real_model_path: Path) -> Iterator[Served]:
    with serving(real_model_path) as served:
        yield served


@pytest.fixture(autouse=True)
def _nothing_is_left(served: Served) -> Iterator[None]:
    yield
    assert served.service.gate.under_way == 0
    free, total = served.free_blocks()
    assert free == total
    assert served.http.get("/health").status_code == 200


def refusal(served: Served, path: str, body: Any, status: int = 400) -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = served.http.post(path, content=raw, headers={"Content-Type": "application/json"})
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) < 1000
    found: dict[str, Any] = error
    return found


def cases(table: list[tuple[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("field", "value"), table, ids=lambda v: repr(v)[:24])


def is_named(error: dict[str, Any], field: str) -> bool:
    param: str = error["param"]
    return param == field or param.startswith(f"{field}[") or param.startswith(f"{field}.")


@cases(SAMPLING)
def test_a_bad_sampling_field_is_named(served: Served, field: str, value: Any) -> None:
    for path, prompt in (
        ("/v1/completions", {"prompt": "hi"}),
        ("/v1/chat/completions", {"messages": [USER]}),
    ):
        assert is_named(refusal(served, path, {**prompt, field: value}), field)


@cases(CHAT)
def test_a_bad_conversation_is_named(served: Served, field: str, value: Any) -> None:
    assert is_named(refusal(served, "/v1/chat/completions", {"messages": value}), field)


@cases(CHAT_FIELDS)
def test_a_bad_chat_field_is_named(served: Served, field: str, value: Any) -> None:
    name = {"options": "chat_template_kwargs"}.get(field, field.partition(".")[0])
    assert is_named(refusal(served, "/v1/chat/completions", {"messages": [USER], name: value}), name)


@cases(PROMPTS)
def test_a_bad_prompt_is_named(served: Served, field: str, value: Any) -> None:
    name = "prompt" if field in ("prompt[1]", "prompt_token_ids", "text") else field
    body = {"prompt": "hi", name: value}
    assert is_named(refusal(served, "/v1/completions", body), name)


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_says_both_numbers(served: Served, stream: bool) -> None:
    error = refusal(served, "/v1/completions", {"prompt": [5] * 2000, "stream": stream})
    assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")
    assert "2000" in error["message"]
    assert str(CONTEXT) in error["message"]
    long = [{"role": "user", "content": "word " * 1500}]
    error = refusal(served, "/v1/chat/completions", {"messages": long, "stream": stream})
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 6000]
)
def test_what_is_no_json_object_is_a_400(served: Served, path: str, body: bytes) -> None:
    refusal(served, path, body)


def test_bad_tokens_and_texts_for_the_tokenizer(served: Served) -> None:
    for tokens in ([-1], [49152], [HUGE], ["a"], "x", [1.5], None):
        assert is_named(refusal(served, "/detokenize", {"tokens": tokens}), "tokens")
    for body in ({}, {"prompt": "a", "messages": [USER]}, {"prompt": 5}, {"prompt": "\ud800"}):
        assert is_named(refusal(served, "/tokenize", body), "prompt")


def test_unknown_models_and_routes_are_404(served: Served) -> None:
    body = {"prompt": "hi", "model": "gpt-4"}
    error = refusal(served, "/v1/completions", body, 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert NAME in error["message"]
    assert served.http.get("/v1/models/other").status_code == 404
    assert served.http.get("/nowhere").json()["error"]["type"] == "not_found_error"
    assert served.http.get("/v1/completions").status_code == 405


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_beyond_the_limit_is_a_413(served: Served, is_chunked: bool) -> None:
    body = b'{"prompt": "' + b"a" * (8 << 20) + b'"}'
    content: Any = (body[at : at + 65536] for at in range(0, len(body), 65536)) if is_chunked else body
    reply = served.http.post("/v1/completions", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code == 413
    assert "8388608" in reply.json()["error"]["message"]


def test_other_hosts_and_other_content_are_refused(served: Served) -> None:
    for path, kind in (("/health", "invalid_request_error"), ("/v1/messages", "error")):
        reply = served.http.get(path, headers={"Host": "evil.example"})
        assert (reply.status_code, reply.headers["content-type"]) == (400, "application/json")
        document = reply.json()
        assert kind in (document.get("type"), document["error"]["type"])
        assert "evil.example" in document["error"]["message"]
    plain = served.http.post(
        "/v1/completions", content='{"prompt": "x"}', headers={"Content-Type": "text/plain"}
    )
    assert plain.status_code == 400

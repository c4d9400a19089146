"""The API through OpenAI's own client, on the real model: it says what LLM says, bit for bit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from pelton import SamplingParams
from pelton.serve.openai.replies import ChatChunk, Completion

from ..serving import CONTEXT, NAME, Served, serving

CHAT: list[Any] = [{"role": "user", "content": "What is the capital of France? One sentence."}]
STORY = "Once upon a time"


@pytest.fixture(scope="module")
def served(real_model_path: Path) -> Iterator[Served]:
    with serving(real_model_path) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[OpenAI]:
    with served.openai() as client:
        yield client


@pytest.fixture(scope="module")
def greedy_text(client: OpenAI) -> str:
    reply = client.chat.completions.create(model=NAME, messages=CHAT, temperature=0, max_tokens=24)
    text = reply.choices[0].message.content
    assert text is not None
    return text


def stream_text(client: OpenAI, prompt: str, seed: int, tokens: int) -> str:
    chunks = client.completions.create(
        model=NAME, prompt=prompt, max_tokens=tokens, seed=seed, temperature=0.8, stream=True
    )
    return "".join(chunk.choices[0].text for chunk in chunks)


def events(served: Served, path: str, **body: Any) -> list[str]:
    """The data of each server-sent event."""
    with served.http.stream("POST", path, json=body) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        return [line.removeprefix("data: ") for line in reply.iter_lines() if line]


def test_a_chat_says_what_llm_says(served: Served, client: OpenAI, real_model_path: Path) -> None:
    from pelton import LLM

    params = SamplingParams(temperature=0.9, top_p=0.9, seed=5, max_tokens=30)
    with LLM(str(real_model_path), context_length=CONTEXT, threads=1, kv_memory=64 << 20) as llm:
        (expected,) = llm.chat(CHAT, params)
    reply = client.chat.completions.create(
        model=NAME, messages=CHAT, temperature=0.9, top_p=0.9, seed=5, max_completion_tokens=30
    )
    choice = reply.choices[0]
    assert choice.message.content == expected.outputs[0].text
    assert choice.finish_reason == expected.outputs[0].finish_reason
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == len(expected.prompt_token_ids)
    assert reply.usage.completion_tokens == len(expected.outputs[0].token_ids)


def test_a_chat_stream_adds_up_and_fits_its_schema(served: Served, greedy_text: str) -> None:
    *chunks, done = events(
        served, "/v1/chat/completions", model=NAME, messages=CHAT, temperature=0, max_tokens=24,
        stream=True, stream_options={"include_usage": True},
    )  # fmt: skip
    assert done == "[DONE]"
    parsed = [ChatChunk.model_validate_json(chunk, strict=True, extra="forbid") for chunk in chunks]
    *pieces, last = parsed
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == greedy_text
    assert [chunk.choices[0].delta.role for chunk in pieces] == ["assistant"] + [None] * (len(pieces) - 1)
    reasons = [chunk.choices[0].finish_reason for chunk in pieces]
    assert reasons[-1] is not None
    assert set(reasons[:-1]) == {None}
    assert all('"usage":null' in chunk for chunk in chunks[:-1])
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert len({chunk.id for chunk in parsed}) == 1


def test_a_completion_stream_fits_its_schema_and_has_no_usage_unasked(served: Served) -> None:
    *chunks, done = events(served, "/v1/completions", prompt=STORY, seed=1, max_tokens=6, stream=True)
    assert done == "[DONE]"
    for chunk in chunks:
        parsed = Completion.model_validate_json(chunk, strict=True, extra="forbid")
        assert parsed.usage is None
        assert '"usage"' not in chunk
    assert '"finish_reason":"length"' in chunks[-1]


def test_sixteen_streams_each_say_what_they_say_alone(client: OpenAI) -> None:
    prompts = [f"{number}. The thing I like most about" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda item: stream_text(client, item[1], item[0], 16), enumerate(prompts)))
    alone = [stream_text(client, prompt, number, 16) for number, prompt in enumerate(prompts)]
    assert together == alone
    assert len(set(alone)) == 16


def test_n_choices_and_many_prompts_keep_their_places(client: OpenAI) -> None:
    prompts = [STORY, "def f(x):", "1, 2, 3,"]
    ask: Any = {"model": NAME, "max_tokens": 6, "seed": 3}
    reply = client.completions.create(prompt=prompts, n=2, **ask)
    assert [choice.index for choice in reply.choices] == list(range(6))
    for number, prompt in enumerate(prompts):
        alone = client.completions.create(prompt=prompt, n=2, **ask)
        assert [c.text for c in alone.choices] == [c.text for c in reply.choices[2 * number : 2 * number + 2]]
    streamed = [""] * 6
    for chunk in client.completions.create(prompt=prompts, n=2, stream=True, **ask):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [choice.text for choice in reply.choices]


def test_chat_logprobs_are_the_same_streamed_and_whole(client: OpenAI) -> None:
    ask: Any = {"model": NAME, "messages": CHAT, "temperature": 0, "max_tokens": 5}
    reply = client.chat.completions.create(logprobs=True, top_logprobs=2, **ask)
    assert reply.choices[0].logprobs is not None
    content = reply.choices[0].logprobs.content
    assert content is not None
    assert len(content) == 5
    for entry in content:
        assert len(entry.top_logprobs) == 2
        assert entry.logprob == entry.top_logprobs[0].logprob <= 0  # greedy takes the likeliest
        assert bytes(entry.bytes or []).decode() == entry.token
    streamed = [
        entry
        for chunk in client.chat.completions.create(logprobs=True, top_logprobs=2, stream=True, **ask)
        if chunk.choices[0].logprobs is not None
        for entry in chunk.choices[0].logprobs.content or []
    ]
    assert [entry.model_dump() for entry in streamed] == [entry.model_dump() for entry in content]


def test_completion_and_prompt_logprobs(client: OpenAI) -> None:
    reply = client.completions.create(
        model=NAME, prompt=STORY, max_tokens=4, temperature=0, logprobs=2,
        extra_body={"prompt_logprobs": 1, "return_token_ids": True},
    )  # fmt: skip
    choice = reply.choices[0]
    assert choice.logprobs is not None
    assert "".join(choice.logprobs.tokens or []) == choice.text
    assert choice.logprobs.text_offset is not None
    assert choice.logprobs.text_offset[0] == 0
    extra = choice.model_extra
    assert extra is not None
    assert extra["prompt_logprobs"][0] is None
    assert len(extra["prompt_logprobs"]) == len(extra["prompt_token_ids"])
    assert len(extra["token_ids"]) == 4


def test_stop_strings_and_vllm_fields(client: OpenAI, greedy_text: str) -> None:
    stop = greedy_text[8:12]
    reply = client.chat.completions.create(
        model=NAME, messages=CHAT, temperature=0, max_tokens=24, stop=[stop],
        extra_body={"top_k": 5, "min_p": 0.1, "include_stop_str_in_output": True},
    )  # fmt: skip
    choice = reply.choices[0]
    assert choice.message.content == greedy_text[: greedy_text.index(stop) + 4]
    assert (choice.finish_reason, (choice.model_extra or {})["stop_reason"]) == ("stop", stop)


def test_labels_for_a_provider_change_nothing(client: OpenAI, greedy_text: str) -> None:
    reply = client.chat.completions.create(
        model=NAME,
        messages=CHAT,
        temperature=0,
        max_tokens=24,
        store=False,
        metadata={"run": "7"},
        service_tier="auto",
        user="u",
        safety_identifier="s",
        prompt_cache_key="k",
    )
    assert reply.choices[0].message.content == greedy_text


def test_an_answer_can_be_sent_back_and_continued(client: OpenAI) -> None:
    first = client.chat.completions.create(model=NAME, messages=CHAT, temperature=0, max_tokens=4)
    talk = [*CHAT, first.choices[0].message.model_dump()]
    reply = client.chat.completions.create(
        model=NAME, messages=talk, temperature=0, max_tokens=4,
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )  # fmt: skip
    whole = client.chat.completions.create(model=NAME, messages=CHAT, temperature=0, max_tokens=8)
    joined = (first.choices[0].message.content or "") + (reply.choices[0].message.content or "")
    assert joined == whole.choices[0].message.content


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_blocks(served: Served, stream: bool) -> None:
    body = {"prompt": STORY, "max_tokens": 900, "ignore_eos": True, "stream": stream, "n": 2}
    for _ in range(4):
        if stream:
            with served.http.stream("POST", "/v1/completions", json=body) as reply:
                next(reply.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                served.http.post("/v1/completions", json=body, timeout=0.2)
    free, total = served.free_blocks()
    assert free == total
    assert served.service.gate.under_way == 0


def test_models_version_health_and_ready(served: Served, client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, (model.model_extra or {})["max_model_len"]) == (NAME, CONTEXT)
    assert client.models.retrieve(NAME).id == NAME
    assert served.http.get("/version").json()["version"]
    for path in ("/health", "/ready"):
        assert (served.http.get(path).status_code, served.http.get(path).json()) == (200, {"status": "ok"})
    paths = served.http.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/tokenize", "/metrics"} <= set(paths)


def test_tokenize_and_detokenize(served: Served) -> None:
    text = "Grüße, 世界!"
    reply = served.http.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
    assert reply["count"] == len(reply["tokens"]) == len(reply["token_strs"])
    assert reply["max_model_len"] == CONTEXT
    assert served.http.post("/detokenize", json={"tokens": reply["tokens"]}).json() == {"prompt": text}
    chat = served.http.post("/tokenize", json={"messages": CHAT}).json()
    assert chat["tokens"] == asyncio.run(served.service.prompts.render(CHAT))


def test_metrics_count_and_answer_to_both_names(served: Served, client: OpenAI) -> None:
    def figures() -> dict[str, float]:
        families = text_string_to_metric_families(served.http.get("/metrics").text)
        return {s.name: s.value for family in families for s in family.samples if "le" not in s.labels}

    before = figures()
    client.completions.create(model=NAME, prompt=STORY, max_tokens=7, extra_body={"ignore_eos": True})
    after = figures()
    for prefix in ("pelton:", "vllm:"):
        assert after[f"{prefix}generation_tokens_total"] - before[f"{prefix}generation_tokens_total"] == 7
        first = f"{prefix}time_to_first_token_seconds_count"
        assert after[first] - before[first] == 1
        assert after[f"{prefix}kv_cache_usage_perc"] == after[f"{prefix}num_requests_running"] == 0


def test_the_request_id_comes_back_and_names_the_reply(served: Served) -> None:
    body = {"prompt": STORY, "max_tokens": 1}
    reply = served.http.post("/v1/completions", json=body, headers={"X-Request-Id": "abc-1"})
    assert reply.headers["x-request-id"] == "abc-1"
    assert reply.json()["id"] == "cmpl-abc-1"
    odd = served.http.post("/v1/completions", json=body, headers={"X-Request-Id": "a b\x7f"})
    assert odd.headers["x-request-id"].isalnum()

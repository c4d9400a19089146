"""What /v1/completions and /v1/embeddings take besides a prompt, through OpenAI's own client."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI

from pelton import LLM
from pelton.serve.openai.replies import Completion

from ..serving import CONTEXT, NAME, Served, serving

STORY = "hello world in the"
ASK: dict[str, Any] = {"model": NAME, "prompt": STORY, "max_tokens": 8, "seed": 3}


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path) as served:
        yield served


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[OpenAI]:
    with served.openai() as client:
        yield client


@pytest.fixture(scope="module")
def llm(tiny_path: Path) -> Iterator[LLM]:
    with LLM(str(tiny_path), context_length=CONTEXT, threads=1, kv_memory=8 << 20) as llm:
        yield llm


def post(served: Served, path: str, **body: Any) -> dict[str, Any]:
    reply = served.http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def chunks(served: Served, path: str, **body: Any) -> list[dict[str, Any]]:
    with served.http.stream("POST", path, json={**body, "stream": True}) as reply:
        assert reply.status_code == 200
        *events, done = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert done == "[DONE]"
    return [json.loads(event) for event in events]


@pytest.mark.parametrize("prompt", [STORY, [70, 80, 290, 75]], ids=["text", "tokens"])
def test_echo_puts_the_prompt_before_the_text(client: OpenAI, prompt: Any) -> None:
    ask = {**ASK, "prompt": prompt, "n": 2, "logprobs": 2}
    plain, echoed = client.completions.create(**ask), client.completions.create(**ask, echo=True)
    for without, choice in zip(plain.choices, echoed.choices, strict=True):
        assert choice.text.endswith(without.text)
        said, own = choice.logprobs, without.logprobs
        assert said is not None
        assert own is not None
        assert said.tokens is not None
        assert "".join(said.tokens) == choice.text
        before = len(choice.text) - len(without.text)
        assert choice.text[:before] == (STORY if prompt == STORY else choice.text[:before])
        assert (said.token_logprobs or [])[0] is None
        assert (said.top_logprobs or [])[0] is None
        assert (said.token_logprobs or [])[-8:] == own.token_logprobs
        assert (said.text_offset or [])[-8:] == [before + at for at in own.text_offset or []]


@pytest.mark.parametrize("most", [0, 5])
def test_echo_streams_what_it_says_whole(served: Served, most: int) -> None:
    ask = {"prompt": [STORY, "the end"], "n": 2, "seed": 3, "max_tokens": most, "logprobs": 1, "echo": True}
    whole = post(served, "/v1/completions", **ask)
    texts, logprobs = [""] * 4, [[] for _ in range(4)]  # type: list[str], list[list[float | None]]
    for chunk in chunks(served, "/v1/completions", **ask):
        for choice in Completion.model_validate(chunk).choices:
            texts[choice.index] += choice.text
            if choice.logprobs is not None:
                logprobs[choice.index] += choice.logprobs.token_logprobs
    assert texts == [choice["text"] for choice in whole["choices"]]
    assert logprobs == [choice["logprobs"]["token_logprobs"] for choice in whole["choices"]]
    assert whole["usage"]["completion_tokens"] == 4 * most


def test_the_token_that_ends_a_score_is_nobodys_in_a_stream_too(served: Served) -> None:
    """What it would have been does not show, even where it is what an answer stops at."""
    ask = {"prompt": STORY, "temperature": 0}
    (following,) = post(served, "/v1/completions", **ask, max_tokens=1)["choices"]
    ask |= {"max_tokens": 0, "echo": True, "stop": [following["text"]], "return_token_ids": True}
    (whole,) = post(served, "/v1/completions", **ask)["choices"]
    *_, last = chunks(served, "/v1/completions", **ask)
    (choice,) = last["choices"]
    for name in ("finish_reason", "stop_reason", "token_ids", "logprobs"):
        assert choice[name] == whole[name], name
    assert (whole["finish_reason"], whole["stop_reason"], whole["token_ids"]) == ("length", None, [])


def test_a_prompt_is_scored_without_a_token_more(served: Served, llm: LLM) -> None:
    from pelton import SamplingParams

    reply = post(served, "/v1/completions", prompt=STORY, max_tokens=0, echo=True, logprobs=0)
    (choice,) = reply["choices"]
    (expected,) = llm.generate([STORY], SamplingParams(max_tokens=1, prompt_logprobs=0))
    rows = [row for row in expected.prompt_logprobs or () if row is not None]
    assert choice["logprobs"]["token_logprobs"][1:] == [next(iter(row.values())).logprob for row in rows]
    assert (choice["text"], choice["finish_reason"]) == (STORY, "length")
    assert reply["usage"]["completion_tokens"] == 0


def test_best_of_returns_the_likeliest_of_those_it_ran(client: OpenAI) -> None:
    every = client.completions.create(**ASK, n=6, logprobs=1).choices

    def likelihood(choice: Any) -> float:
        return float(sum(choice.logprobs.token_logprobs))

    likeliest = sorted(every, key=likelihood, reverse=True)
    best = client.completions.create(**ASK, n=2, best_of=6)
    assert [choice.text for choice in best.choices] == [choice.text for choice in likeliest[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert best.choices[0].logprobs is None
    assert best.usage is not None
    assert best.usage.completion_tokens == 48
    same = client.completions.create(**ASK, n=6, best_of=6).choices
    assert [choice.text for choice in same] == [choice.text for choice in every]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 0}, "best_of"),
        ({"best_of": 129}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"best_of": 2, "temperature": 0}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens"),
        ({"request_id": "a b"}, "request_id"),
        ({"hidden_state": True}, "hidden_state"),
    ],
)
def test_refusals_name_the_field(served: Served, fields: dict[str, Any], param: str) -> None:
    reply = served.http.post("/v1/completions", json={"prompt": STORY, **fields})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_usage_tells_what_the_cache_had_and_comes_with_every_chunk_if_asked(served: Served) -> None:
    prompt = [7] * 100
    post(served, "/v1/completions", prompt=prompt, max_tokens=1)
    again = post(served, "/v1/completions", prompt=prompt, max_tokens=1)["usage"]
    assert 96 <= again["prompt_tokens_details"]["cached_tokens"] < 100
    options = {"include_usage": True, "continuous_usage_stats": True}
    ask = {"prompt": prompt, "max_tokens": 4, "ignore_eos": True, "stream_options": options}
    told = [chunk["usage"] for chunk in chunks(served, "/v1/completions", **ask, return_token_ids=True)]
    counts = [usage["completion_tokens"] for usage in told]  # what waits for a slow reader is joined
    assert counts == sorted(counts)
    assert counts[-2:] == [4, 4]
    assert counts[0] >= 1
    assert all(usage["prompt_tokens"] == 100 for usage in told)
    talk = {"messages": [{"role": "user", "content": STORY}], "max_tokens": 4, "stream_options": options}
    assert all(chunk["usage"]["prompt_tokens"] for chunk in chunks(served, "/v1/chat/completions", **talk))


def test_truncation_keeps_the_last_tokens(served: Served) -> None:
    ids = list(range(60, 90))
    ask = {"max_tokens": 4, "seed": 1, "return_token_ids": True}
    cut = post(served, "/v1/completions", prompt=ids, truncate_prompt_tokens=5, **ask)["choices"][0]
    assert cut["prompt_token_ids"] == ids[-5:]
    assert (
        cut["token_ids"] == post(served, "/v1/completions", prompt=ids[-5:], **ask)["choices"][0]["token_ids"]
    )
    fitting = post(served, "/v1/completions", prompt=[5] * 2000, truncate_prompt_tokens=-1, **ask)
    assert fitting["usage"]["prompt_tokens"] == CONTEXT - 4


def test_token_ids_and_request_ids(served: Served) -> None:
    ask = {
        "prompt": STORY,
        "max_tokens": 3,
        "seed": 3,
        "return_token_ids": True,
        "request_id": "mine-7",
        "ignore_eos": True,
    }
    whole = post(served, "/v1/completions", **ask)
    assert whole["id"] == "cmpl-mine-7"
    parts = chunks(served, "/v1/completions", **ask)
    assert parts[0]["choices"][0]["prompt_token_ids"] == whole["choices"][0]["prompt_token_ids"]
    streamed = [token for part in parts for token in part["choices"][0]["token_ids"]]
    assert streamed == whole["choices"][0]["token_ids"]


def test_embeddings_are_the_llms(served: Served, client: OpenAI, llm: LLM) -> None:
    expected = [done.outputs.embedding for done in llm.embed([STORY, "the end"])]
    reply = client.embeddings.create(model=NAME, input=[STORY, "the end"])
    assert [item.index for item in reply.data] == [0, 1]
    for item, vector in zip(reply.data, expected, strict=True):
        assert np.array_equal(np.array(item.embedding, dtype=np.float32), np.array(vector, dtype=np.float32))
    plain = post(served, "/v1/embeddings", input=STORY, encoding_format="float", dimensions=8)
    assert len(plain["data"][0]["embedding"]) == 8
    coded = post(served, "/v1/embeddings", input=STORY, encoding_format="base64")["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(coded), "<f4").tolist() == expected[0]
    tokens = llm.encode(STORY)
    assert post(served, "/v1/embeddings", input=[tokens, tokens])["data"][1]["embedding"] == expected[0]
    assert plain["usage"] == {"prompt_tokens": len(tokens), "total_tokens": len(tokens)}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [""]}, "input"),
        ({"input": ["x", 5]}, "input[1]"),
        ({"input": [[5, "x"]]}, "input[0]"),
        ({"input": [10**6]}, "input"),
        ({"input": [5] * CONTEXT}, "input"),
        ({"input": "\ud800"}, "input"),
        ({"dimensions": 65}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_what_cannot_be_embedded_is_named(served: Served, fields: dict[str, Any], param: str) -> None:
    body = json.dumps({"input": STORY, **fields})
    reply = served.http.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)

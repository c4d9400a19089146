"""Prompts that cannot fit are refused by their length, before they are cut into tokens; others are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..serving import CONTEXT, Served, serving

LONG = "the user " * 400_000
"""3.6 MB, which take seconds to tokenize."""
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "/v1/completions": ("prompt", {"prompt": ["hello", LONG]}),
    "/v1/embeddings": ("input", {"input": LONG}),
    "/v1/chat/completions": ("messages", {"messages": [{"role": "user", "content": LONG}]}),
    "/v1/responses": ("input", {"input": LONG}),
    "/v1/messages": ("messages", {"messages": [{"role": "user", "content": LONG}], "max_tokens": 5}),
}


@pytest.fixture(scope="module")
def served(tiny_path: Path) -> Iterator[Served]:
    with serving(tiny_path) as served:
        yield served


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_both_numbers_are_told(served: Served, path: str, stream: bool) -> None:
    field, body = BODIES[path]
    if path != "/v1/embeddings":
        body = {**body, "stream": stream}
    reply = served.http.post(path, json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    found = re.search(r"at least (\d+) prompt tokens do not fit the context of (\d+)", error["message"])
    assert found is not None, error
    assert CONTEXT < int(found[1]) <= len(LONG)
    assert int(found[2]) == CONTEXT
    if path != "/v1/messages":
        assert (error["param"], error["code"]) == (field, "context_length_exceeded")


def test_one_beyond_what_a_text_may_have_says_the_same(served: Served) -> None:
    """More bytes than the tokenizer takes at all."""
    reply = served.http.post("/v1/completions", json={"prompt": "x" * (5 << 20)})
    assert "at least" in reply.json()["error"]["message"]


@pytest.mark.parametrize("word", ["assistant", "x", " ", "\u00e9", "\U0001f600", "<tool>", "\n"])
def test_what_just_fits_is_not_refused(served: Served, word: str) -> None:
    tokenizer = served.service.prompts.tokenizer
    each = len(tokenizer.encode(word * 64)) / 64
    text = word * int((CONTEXT - 1) / each)
    while len(tokenizer.encode(text)) > CONTEXT - 1:
        text = text[:-1]
    assert len(tokenizer.encode(text)) > CONTEXT - 10
    assert served.http.post("/v1/completions", json={"prompt": text, "max_tokens": 1}).status_code == 200
    reply = served.http.post("/v1/completions", json={"prompt": text + 10 * word, "max_tokens": 1})
    assert reply.status_code == 400
    assert str(CONTEXT) in reply.json()["error"]["message"]


def test_what_is_cut_to_fit_or_only_counted_is_not_refused(served: Served) -> None:
    text = "the user " * 20_000
    body = {"prompt": text, "max_tokens": 1, "truncate_prompt_tokens": 100}
    reply = served.http.post("/v1/completions", json=body)
    assert reply.json()["usage"]["prompt_tokens"] == 100
    count = served.http.post("/tokenize", json={"prompt": text}).json()["count"]
    told = served.http.post("/v1/completions", json={"prompt": text}).json()["error"]["message"]
    least = re.search(r"at least (\d+) prompt", told)
    assert least is not None
    assert CONTEXT < int(least[1]) <= count
    talk = [{"role": "user", "content": text}]
    counted = served.http.post("/v1/messages/count_tokens", json={"messages": talk}).json()["input_tokens"]
    assert counted >= count - 10

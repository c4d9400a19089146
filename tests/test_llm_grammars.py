"""Grammars of LLM and AsyncLLM pass the guard's process, as a server's do (reliability.md 23)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pelton import LLM, AsyncLLM, SamplingParams
from pelton.errors import RequestError
from pelton.structured import StructuredOutputs

from .decode.test_grammar_guard import EXPONENTIAL
from .serve.tiny_model import write_tiny

GOOD = SamplingParams(structured_outputs=StructuredOutputs(choice=["the user"]), max_tokens=20)
BAD = SamplingParams(structured_outputs=StructuredOutputs(grammar=EXPONENTIAL), max_tokens=20)
TALK = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def llm(tiny_file: Path) -> Iterator[LLM]:
    with LLM(str(tiny_file), threads=1, kv_memory=8 << 20) as llm:
        yield llm


async def _awaited(llm: LLM, params: SamplingParams) -> str:
    engine = AsyncLLM(llm)
    try:
        return (await engine.generate("a", params)).outputs[0].text
    finally:
        engine.close()


async def _streamed(llm: LLM, params: SamplingParams) -> str:
    engine = AsyncLLM(llm)
    try:
        return "".join([piece.text async for piece in engine.stream("a", params)])
    finally:
        engine.close()


WAYS: dict[str, Callable[[LLM, SamplingParams], str]] = {
    "generate": lambda llm, params: llm.generate("a", params)[0].outputs[0].text,
    "chat": lambda llm, params: llm.chat(TALK, params)[0].outputs[0].text,
    "stream": lambda llm, params: "".join(piece.text for piece in llm.stream("a", params)),
    "async generate": lambda llm, params: asyncio.run(_awaited(llm, params)),
    "async stream": lambda llm, params: asyncio.run(_streamed(llm, params)),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_grammar_that_would_take_for_ever_is_refused_on_every_way(llm: LLM, way: str) -> None:
    with pytest.raises(RequestError, match=r"longer than 0\.5 s|too big"):
        WAYS[way](llm, BAD)
    assert not llm.engine.has_work


@pytest.mark.parametrize("way", WAYS)
def test_a_good_one_is_kept_to_on_every_way(llm: LLM, way: str) -> None:
    assert WAYS[way](llm, GOOD) == "the user"


def test_the_process_comes_with_the_first_grammar_and_ends_with_the_llm(tiny_file: Path) -> None:
    with LLM(str(tiny_file), threads=1, kv_memory=8 << 20) as llm:
        llm.generate("a", SamplingParams(max_tokens=1))
        assert helper_of(llm) is None
        llm.generate("a", GOOD)
        first = helper_of(llm)
        assert first is not None
        os.kill(first, signal.SIGKILL)  # nothing is lost with it
        other = SamplingParams(structured_outputs=StructuredOutputs(regex="a{2}"), max_tokens=5)
        assert llm.generate("a", other)[0].outputs[0].text == "aa"
        second = helper_of(llm)
    assert second not in (None, first)
    assert not Path(f"/proc/{second}").exists()


def helper_of(llm: LLM) -> int | None:
    return llm.grammars.helper_pid

"""The Python API on the real model: what a user's three lines give."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from pelton import LLM, AsyncLLM, SamplingParams
from pelton.errors import ConfigError, ContextOverflowError, EngineStoppedError, RequestError
from pelton.spec.ngram import NgramDrafter

CHAT = [{"role": "user", "content": "What is the capital of France? One sentence."}]
PROMPTS = ["The capital of France is", "def fibonacci(n):", "Once upon a time", "1, 2, 3, 4,"]
GREEDY = SamplingParams(temperature=0, max_tokens=24)


@pytest.fixture(scope="module")
def llm(real_model_path: Path) -> Iterator[LLM]:
    with LLM(str(real_model_path), context_length=1024, threads=2) as llm:
        yield llm


def test_it_knows_the_capital_of_france(llm: LLM) -> None:
    (output,) = llm.chat(CHAT, GREEDY)
    assert "Paris" in output.outputs[0].text
    assert output.outputs[0].finish_reason == "stop"
    assert output.finished


@pytest.mark.parametrize("params", [GREEDY, SamplingParams(temperature=1.0, seed=3, max_tokens=24)])
def test_a_request_says_the_same_alone_and_in_any_company(llm: LLM, params: SamplingParams) -> None:
    together = llm.generate(PROMPTS * 3, params)
    alone = [llm.generate(prompt, params)[0].outputs[0].text for prompt in PROMPTS]
    assert [output.outputs[0].text for output in together] == alone * 3
    assert len(set(alone)) == len(PROMPTS)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafts_do_not_change_the_text(real_model_path: Path, llm: LLM, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=11, max_tokens=40)
    prompt = "a b c d e f g. a b c d e f g. a b c d"
    with LLM(str(real_model_path), context_length=1024, threads=2, drafter=NgramDrafter()) as drafted:
        text = drafted.generate(prompt, params)[0].outputs[0].text
        assert drafted.engine.stats.drafted > 0
    assert text == llm.generate(prompt, params)[0].outputs[0].text


def test_stream_adds_up_to_the_whole(llm: LLM) -> None:
    pieces = list(llm.stream(CHAT, GREEDY))
    assert "".join(piece.text for piece in pieces) == llm.chat(CHAT, GREEDY)[0].outputs[0].text
    assert [piece.finished for piece in pieces].count(True) == 1
    assert pieces[-1].finish_reason == "stop"


def test_closing_a_stream_early_frees_its_memory(llm: LLM) -> None:
    stream = llm.stream("Count: 1, 2, 3", SamplingParams(max_tokens=200))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not llm.engine.has_work
    assert llm.engine.pool.num_free == llm.engine.pool.num_blocks


def test_stop_strings_end_the_text_before_them(llm: LLM) -> None:
    full = llm.generate("1, 2, 3, 4,", GREEDY)[0].outputs[0].text
    stop = full[6:9]
    (output,) = llm.generate("1, 2, 3, 4,", SamplingParams(temperature=0, max_tokens=24, stop=[stop]))
    assert output.outputs[0].text == full[: full.index(stop)]
    assert (output.outputs[0].finish_reason, output.outputs[0].stop_reason) == ("stop", stop)


def test_n_logprobs_and_prompt_logprobs(llm: LLM) -> None:
    params = SamplingParams(n=3, seed=1, max_tokens=5, logprobs=2, prompt_logprobs=1)
    (output,) = llm.generate("The sky is", params)
    assert len(output.outputs) == 3
    for completion in output.outputs:
        assert completion.logprobs is not None
        chosen = [row[t].logprob for row, t in zip(completion.logprobs, completion.token_ids, strict=True)]
        assert completion.cumulative_logprob == pytest.approx(sum(chosen))
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == len(output.prompt_token_ids)


def test_token_ids_are_a_prompt_too(llm: LLM) -> None:
    ids = llm.encode("The capital of France is")
    by_text = llm.generate("The capital of France is", GREEDY)[0].outputs[0].text
    assert llm.generate(ids, GREEDY)[0].outputs[0].text == by_text
    assert llm.generate({"prompt_token_ids": ids}, GREEDY)[0].outputs[0].text == by_text


def test_mistakes_are_named(llm: LLM, real_model_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_num_seq.*did you mean max_num_seqs"):
        LLM(str(real_model_path), max_num_seq=4)
    with pytest.raises(ContextOverflowError, match="context of 1024"):
        llm.generate([0] * 1024, GREEDY)
    with pytest.raises(RequestError, match="49152"):
        llm.generate([49152], GREEDY)
    with pytest.raises(ConfigError, match="context_length"):
        LLM(str(real_model_path), context_length=10**6)
    assert not llm.engine.has_work


def test_async_requests_run_together_and_cancel_alone(real_model_path: Path, llm: LLM) -> None:
    expected = [llm.generate(prompt, GREEDY)[0].outputs[0].text for prompt in PROMPTS]
    engine = AsyncLLM(LLM(str(real_model_path), context_length=1024, threads=2))

    async def first_piece() -> None:
        async for _ in engine.stream("Tell me a long story", SamplingParams(max_tokens=500)):
            return

    async def together() -> list[str]:
        answers, _ = await asyncio.gather(
            asyncio.gather(*(engine.generate(prompt, GREEDY) for prompt in PROMPTS)), first_piece()
        )
        return [answer.outputs[0].text for answer in answers]

    async def refused() -> None:
        with pytest.raises(RequestError, match="is empty"):
            await engine.generate([], GREEDY)

    async def closed() -> None:
        with pytest.raises(EngineStoppedError):
            await engine.generate("hello", GREEDY)

    try:
        assert asyncio.run(together()) == expected
        asyncio.run(refused())
    finally:
        engine.close()
    asyncio.run(closed())

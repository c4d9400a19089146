"""The Python API on the real model: what a user's three lines give."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pelton import LLM, AsyncLLM, SamplingParams
from pelton.errors import ConfigError, ContextOverflowError, EngineStoppedError, RequestError
from pelton.exec.native import available_levels
from pelton.llm import settings_from
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
    with LLM(str(real_model_path), context_length=1024, threads=2, drafts="off") as plain:
        expected = plain.generate(prompt, params)[0].outputs[0].text
        assert plain.engine.stats.drafted == 0
    with LLM(str(real_model_path), context_length=1024, threads=2, drafter=NgramDrafter()) as drafted:
        assert drafted.generate(prompt, params)[0].outputs[0].text == expected
        assert drafted.engine.stats.drafted > 0
    before = llm.engine.stats.drafted
    assert llm.generate(prompt, params)[0].outputs[0].text == expected
    assert llm.engine.stats.drafted > before  # unless it is told not to


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


def test_streams_take_turns_with_each_other_and_with_whole_answers(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=24, logprobs=1)
    alone = [[piece.token_ids for piece in llm.stream(prompt, params)] for prompt in PROMPTS]
    streams = [llm.stream(prompt, params) for prompt in PROMPTS]
    said: list[list[tuple[int, ...]]] = [[] for _ in PROMPTS]
    for turn in range(6):
        for stream, pieces in zip(streams, said, strict=True):
            pieces += [next(stream).token_ids for _ in range(2)]
        if turn == 2:
            (whole,) = llm.generate(PROMPTS[0], params)
            assert whole.outputs[0].token_ids == [token for piece in alone[0] for token in piece]
    for stream, pieces in zip(streams, said, strict=True):
        pieces += [piece.token_ids for piece in stream]
    assert said == alone
    assert not llm.engine.has_work


def test_a_whole_answer_does_not_wait_for_a_stream(llm: LLM) -> None:
    stream = llm.stream(PROMPTS[2], SamplingParams(max_tokens=500, ignore_eos=True, seed=1))
    next(stream)
    llm.generate(PROMPTS[1], SamplingParams(max_tokens=3))
    assert llm.engine.has_work
    stream.close()  # type: ignore[attr-defined]


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
    for same in (
        {"prompt_token_ids": ids}, {"prompt": "The capital of France is"}, tuple(ids), np.array(ids),
        [np.array(ids)], [np.int64(token) for token in ids], np.array([ids, ids]),
    ):  # fmt: skip
        assert llm.generate(same, GREEDY)[0].outputs[0].text == by_text


@pytest.mark.parametrize(
    ("prompts", "field"),
    [
        ([1, 2, "three"], "prompt_token_ids"),
        ([[1], 5, [2]], "prompt"),
        ([1, True], "prompt_token_ids"),
        ([[1.5]], "prompt_token_ids"),
        ([None], "prompt"),
        (None, "prompts"),
        (123, "prompt"),
        (b"bytes", "prompt"),
        ({"prompt_token_ids": None}, "prompt"),
        ({"prompt": "x", "prompt_token_ids": [1]}, "prompt"),
        ({"prompt": "x" * 1000, "images": []}, "prompt"),
        (np.array([1.0]), "prompt_token_ids"),
        (np.array(3), "prompt"),
    ],
)
def test_a_prompt_that_is_none_is_refused_whole(llm: LLM, prompts: Any, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        llm.generate(prompts, GREEDY)
    assert caught.value.field == field
    assert len(str(caught.value)) < 200
    assert not llm.engine.has_work


@pytest.mark.parametrize("params", [{"temperature": 0}, [None], "greedy", 5, [GREEDY, GREEDY]])
def test_sampling_params_that_are_none_are_refused(llm: LLM, params: Any) -> None:
    with pytest.raises(RequestError, match="sampling_params"):
        llm.generate([[1]], params)
    if params != [GREEDY, GREEDY]:
        with pytest.raises(RequestError, match="sampling_params"):
            next(llm.stream([1], params))


@pytest.mark.parametrize("messages", ["hello", [], 5, [*CHAT, "y"], [CHAT, "y"], [CHAT, [5]]])
def test_conversations_that_are_none_are_refused(llm: LLM, messages: Any) -> None:
    with pytest.raises(RequestError, match="message"):
        llm.chat(messages, GREEDY)


@pytest.mark.parametrize("field", ["stop", "bad_words"])
def test_words_need_a_tokenizer(field: str) -> None:
    words: dict[str, Any] = {field: ["x"]}
    with (
        LLM("synthetic:llama-135m?layers=1&context=64", kv_memory=8 << 20, threads=1) as silent,
        pytest.raises(RequestError, match=f"{field}: needs a tokenizer"),
    ):
        silent.generate([[1]], SamplingParams(**words))


@pytest.mark.parametrize(
    ("field", "value"), [("tenant_weights", [1]), ("kv_cache_dir", 5), ("isa", 5), ("kv_dtype", ["float16"])]
)
def test_settings_of_a_wrong_kind_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        settings_from({field: value})


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


@pytest.mark.parametrize(
    ("weights", "asked", "chosen"),
    [
        ("Q4_1", "auto", "int8"),
        ("BF16", "auto", "bfloat16"),
        ("F32", "auto", "float16"),
        ("F16", "auto", "float16"),
    ]
    + [("Q8_0", dtype, dtype) for dtype in ("int8", "bfloat16", "float16", "float32")],
)
def test_keys_and_values_are_no_coarser_than_activations(weights: str, asked: str, chosen: str) -> None:
    reference = f"synthetic:llama-135m?format={weights}&layers=1&context=64"
    multiplied = {"int8": ("avx_vnni", "avx512", "avx512_bf16"), "bfloat16": ("avx512_bf16",)}
    if asked == "auto" and available_levels()[-1] not in multiplied.get(chosen, available_levels()):
        chosen = "float16"
    with LLM(reference, kv_memory=8 << 20, threads=1, kv_dtype=asked) as llm:
        assert llm.engine.kv.layout.dtype == chosen
        (output,) = llm.generate([[1, 2, 3]], SamplingParams(max_tokens=3, temperature=0.0))
        assert len(output.outputs[0].token_ids) == 3
    with LLM(reference, kv_memory=8 << 20, threads=1, isa="generic", kv_dtype=asked) as llm:
        assert llm.engine.kv.layout.dtype == (asked if asked != "auto" else "float16")


@pytest.mark.parametrize("bias", [False, True])
def test_keys_with_a_bias_are_not_kept_in_int8(bias: bool, tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 128,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "vocab_size": 256,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
    }
    config = {**sizes, "model_type": "llama", "num_attention_heads": 2, "attention_bias": bias}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with LLM(f"synthetic:{tmp_path}?format=Q4_0", kv_memory=8 << 20, threads=1, context_length=64) as llm:
        chosen = llm.engine.kv.layout.dtype
    assert (chosen == "int8") == (
        not bias and available_levels()[-1] in ("avx_vnni", "avx512", "avx512_bf16")
    )


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "qwen2", "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 64}
        | {"num_hidden_layers": 1, "vocab_size": 256, "max_position_embeddings": 64, "rms_norm_eps": 1e-5},
        {
            "model_type": "gpt2",
            "n_embd": 128,
            "n_head": 2,
            "n_layer": 1,
            "vocab_size": 256,
            "n_positions": 64,
        },
    ],
    ids=["qwen2", "gpt2"],
)
def test_families_whose_keys_have_a_bias(config: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with LLM(f"synthetic:{tmp_path}?format=Q4_0", kv_memory=8 << 20, threads=1, context_length=64) as llm:
        assert llm.engine.kv.layout.dtype in ("bfloat16", "float16")


def test_an_unknown_format_of_keys_and_values_is_told_all_that_there_are() -> None:
    with pytest.raises(
        ConfigError, match="kv_dtype = 'bf16': must be one of auto, int8, bfloat16, float16, float32"
    ):
        LLM("synthetic:llama-135m?format=Q4_0&layers=1&context=64", threads=1, kv_dtype="bf16")


def test_who_says_how_much_memory_to_fill_has_it_filled() -> None:
    reference = "synthetic:llama-135m?format=Q4_0&layers=1&context=64"
    for memory in (None, 8 << 20):
        with LLM(reference, kv_memory=memory, threads=1) as llm:
            cache, blocks = llm.engine.prefixes, llm.engine.pool.num_blocks
            assert cache is not None
            assert cache.working_set.window == (blocks if memory else max(2, blocks // 64))

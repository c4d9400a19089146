"""A screened output head changes no greedy text, alone or among others, and goes with its executor."""

from __future__ import annotations

from pathlib import Path
from weakref import ref

import pytest

from pelton import LLM, SamplingParams
from pelton.errors import EngineStoppedError
from pelton.exec.native import NativeExecutor

GREEDY = SamplingParams(temperature=0.0, max_tokens=200, ignore_eos=True)


def texts(llm: LLM, prompts: list[str]) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(prompts, GREEDY)]


@pytest.mark.parametrize("threads", [1, 2])
def test_greedy_texts_are_the_same_with_and_without(real_model_path: Path, threads: int) -> None:
    prompts = ["The water of a mountain stream", "def fibonacci(n):", "Les chats"]
    with LLM(str(real_model_path), threads=threads, prefix_cache=False, context_length=512) as llm:
        executor = llm.engine.executor
        assert isinstance(executor, NativeExecutor)
        executor.screen_head(False)
        expected = texts(llm, prompts)
        executor.screen_head(True)
        assert texts(llm, prompts) == expected  # samples, then a copy that grows from pass to pass
        target = executor._target
        assert target is not None
        screen = target.screening.screen
        assert screen is not None
        assert screen.ready
        assert texts(llm, prompts) == expected
        assert [texts(llm, [prompt])[0] for prompt in prompts] == expected
        assert 0.0 < screen.share < 0.3


def test_closing_lets_go_of_the_screen(real_model_path: Path) -> None:
    llm = LLM(str(real_model_path), threads=2, context_length=64)
    executor = llm.engine.executor
    assert isinstance(executor, NativeExecutor)
    assert executor._target is not None
    screening = ref(executor._target.screening)
    llm.close()
    assert screening() is None
    with pytest.raises(EngineStoppedError):
        executor.screen_head(False)

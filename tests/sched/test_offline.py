"""LLM.generate groups prompts that begin alike, to the texts that each has alone."""

from __future__ import annotations

import numpy as np

from pelton import LLM, SamplingParams

MODEL = "synthetic:llama-135m?layers=1&context=512"


def test_a_batch_is_grouped_and_says_the_same() -> None:
    random = np.random.default_rng(0)
    beginnings = [random.integers(0, 1000, 128).tolist() for _ in range(4)]
    prompts = [[*beginnings[i % 4], *random.integers(0, 1000, 5).tolist()] for i in range(16)]
    params = [SamplingParams(max_tokens=6, temperature=1.0, seed=i, ignore_eos=True) for i in range(16)]
    with LLM(MODEL, max_num_seqs=4, threads=1, prefix_cache=False) as llm:
        alone = [llm.generate([prompt], one)[0] for prompt, one in zip(prompts, params, strict=True)]
    with LLM(MODEL, max_num_seqs=4, threads=1) as llm:
        before = llm.engine.scheduler
        together = llm.generate(prompts, params)
        assert llm.engine.scheduler is before
        assert llm.engine.stats.rows <= 4 * 128 + 16 * (5 + 6)
    assert [o.outputs[0].token_ids for o in together] == [o.outputs[0].token_ids for o in alone]

"""vLLM's CPU build as a worker: `LLM(...)` on a bfloat16 folder, its engine stepped to see each token."""

from __future__ import annotations

from collections.abc import Sequence

import vllm
from protocol import CannotDo, Generated, Stopwatch, serve

# Of the machine's memory, for keys and values; the default of nearly all is refused beside other engines.
MEMORY_SHARE = 0.2
CONTEXT = 4096


class VLLM:
    version = vllm.__version__

    def __init__(self, model: str, threads: int) -> None:
        self._llm = vllm.LLM(
            model, dtype="bfloat16", max_model_len=CONTEXT, gpu_memory_utilization=MEMORY_SHARE
        )
        self._requests = 0

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Generated:
        params = vllm.SamplingParams(
            max_tokens=new_tokens, temperature=0.0, ignore_eos=True, detokenize=False
        )
        engine = self._llm.llm_engine
        watch = Stopwatch(len(prompts))
        places, seen = {}, [0] * len(prompts)
        for place, prompt in enumerate(prompts):
            name = str(self._requests)
            self._requests += 1
            places[name] = place
            engine.add_request(name, {"prompt_token_ids": list(prompt)}, params)
        while engine.has_unfinished_requests():
            for output in engine.step():
                place = places[output.request_id]
                count = len(output.outputs[0].token_ids)
                watch.token(place, count - seen[place])
                seen[place] = count
        return watch.stop(len(prompts) * new_tokens)

    def score(self, windows: Sequence[Sequence[int]]) -> float:
        params = vllm.SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True, prompt_logprobs=0)
        prompts = [{"prompt_token_ids": list(window)} for window in windows]
        total = 0.0
        for window, output in zip(windows, self._llm.generate(prompts, params, use_tqdm=False), strict=True):
            if output.prompt_logprobs is None:
                raise CannotDo("gave no log-probabilities of the prompt")
            for token, entry in zip(window, output.prompt_logprobs, strict=True):
                total -= 0.0 if entry is None else entry[token].logprob
        return total


if __name__ == "__main__":
    serve(VLLM)

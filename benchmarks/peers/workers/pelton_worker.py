"""pelton as a worker: `LLM(...)` with its defaults."""

from __future__ import annotations

from collections.abc import Sequence

from protocol import Generated, Stopwatch, serve

import pelton
from pelton import LLM, SamplingParams


class Pelton:
    version = pelton.__version__
    drafts = "ngram"

    def __init__(self, model: str, threads: int) -> None:
        self._llm = LLM(model, threads=threads, drafts=self.drafts)

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Generated:
        params = SamplingParams(max_tokens=new_tokens, temperature=0.0, ignore_eos=True, detokenize=False)
        requests = self._llm.requests
        watch = Stopwatch(len(prompts))
        places = {id(requests.add(prompt, params)): place for place, prompt in enumerate(prompts)}
        running = len(places)
        while running:
            for delta in requests.step():
                if delta.output.error is not None:
                    raise delta.output.error
                if delta.output.token_ids:
                    watch.token(places[id(delta.request)], len(delta.output.token_ids))
                running -= delta.output.finished
        return watch.stop(len(prompts) * new_tokens)

    def score(self, windows: Sequence[Sequence[int]]) -> float:
        params = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True, prompt_logprobs=0)
        total = 0.0
        for window, output in zip(
            windows, self._llm.generate([list(w) for w in windows], params), strict=True
        ):
            scored = output.prompt_logprobs
            assert scored is not None
            for token, entry in zip(window, scored, strict=True):
                total -= 0.0 if entry is None else entry[token].logprob
        return total


if __name__ == "__main__":
    serve(Pelton)

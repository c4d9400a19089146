"""transformers as a worker: the model's own forward in a loop, bfloat16, keys and values kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers
from protocol import CannotDo, Generated, Stopwatch, serve


class Transformers:
    version = transformers.__version__

    def __init__(self, model: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Generated:
        if len({len(prompt) for prompt in prompts}) > 1:
            raise CannotDo("no continuous batching on CPU: prompts of one length only")
        cache = transformers.DynamicCache(config=self._model.config)
        ids = torch.tensor([list(prompt) for prompt in prompts])
        watch = Stopwatch(len(prompts))
        for _ in range(new_tokens):
            done = self._model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            ids = done.logits[:, -1:].argmax(dim=-1)
            for place in range(len(prompts)):
                watch.token(place)
        return watch.stop(len(prompts) * new_tokens)

    @torch.inference_mode()
    def score(self, windows: Sequence[Sequence[int]]) -> float:
        total = 0.0
        for window in windows:
            ids = torch.tensor([list(window)])
            known = self._model(ids).logits[0, :-1].double().log_softmax(dim=-1)
            total -= float(known.gather(1, ids[0, 1:, None]).sum())
        return total


if __name__ == "__main__":
    serve(Transformers)

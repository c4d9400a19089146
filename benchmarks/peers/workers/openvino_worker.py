"""OpenVINO GenAI as a worker: ContinuousBatchingPipeline, from a GGUF file or an OpenVINO folder.

Rows of a step: 512 instead of the default 256, in which a prompt of 512 is one pass. The rest is default,
so keys and values are stored as int8.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import openvino
import openvino_genai as genai
from protocol import Generated, Stopwatch, serve

ROWS = 512


class OpenVINO:
    version = openvino.__version__.split("-")[0]

    def __init__(self, model: str, threads: int) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = ROWS
        self._pipeline = genai.ContinuousBatchingPipeline(
            model, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads}
        )
        self._requests = 0

    def generate(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> Generated:
        config = genai.GenerationConfig(max_new_tokens=new_tokens, ignore_eos=True, do_sample=False)
        watch = Stopwatch(len(prompts))
        for place, output in self._run(prompts, config):
            watch.token(place, len(output.generated_ids))
        return watch.stop(len(prompts) * new_tokens)

    def score(self, windows: Sequence[Sequence[int]]) -> float:
        config = genai.GenerationConfig(
            max_new_tokens=1, ignore_eos=True, do_sample=False, echo=True, logprobs=1
        )
        total = 0.0
        for window in windows:
            seen: list[float] = []
            for _, output in self._run([window], config):
                seen += output.generated_log_probs
            total -= sum(seen[1 : len(window)])
        return total

    def _run(
        self, prompts: Sequence[Sequence[int]], config: genai.GenerationConfig
    ) -> Iterator[tuple[int, genai.GenerationOutput]]:
        handles = []
        for prompt in prompts:
            ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
            handles.append(self._pipeline.add_request(self._requests, ids, config))
            self._requests += 1
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            for place, handle in enumerate(handles):
                while handle.can_read():
                    yield from ((place, output) for output in handle.read().values())


if __name__ == "__main__":
    serve(OpenVINO)

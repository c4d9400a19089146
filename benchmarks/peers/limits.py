"""What the machine allows at most for each test: no engine can be faster with the model's own file.

Bytes of weights, keys and values over the measured read bandwidth, or multiply-adds over the measured peak,
whichever takes longer. All prompts of a test count as one pass and all its sequences decode together, so the
limit does not depend on how an engine makes its batches.
"""

from __future__ import annotations

from dataclasses import dataclass

from work import Test, Workload

from pelton import LLM
from pelton.cost.machine import Machine
from pelton.cost.roofline import bound_of, pass_load, step_costs
from pelton.types import BLOCK_SIZE


@dataclass(frozen=True)
class Limits:
    """Limits of one model, held by an engine that is never run."""

    llm: LLM
    workload: Workload

    def tokens_per_second(self, test: Test, machine: Machine) -> float:
        """The test's own tokens a second, see Test."""
        lengths = test.lengths or tuple(len(prompt) for prompt in self.workload.sharegpt)
        count, mean = len(lengths), round(sum(lengths) / len(lengths))
        prompts = self._seconds(machine, mean, 0, count)
        step = self._seconds(machine, 1, mean + test.new_tokens // 2, count)
        if test.kind == "prompt":
            return sum(lengths) / prompts
        if test.kind == "decode":
            return count / step
        return count * test.new_tokens / (prompts + (test.new_tokens - 1) * step)

    def _seconds(self, machine: Machine, rows: int, depth: int, sequences: int) -> float:
        executor, kv = self.llm.engine.executor, self.llm.engine.kv.layout
        element = kv.block_bytes / (BLOCK_SIZE * kv.shape.elements_per_token)
        formats = {name: tensor.format for name, tensor in self.llm.loaded.model.weights.items()}
        load = pass_load(
            rows=rows, depth=depth, sequences=sequences, kv_bytes=element, weight_bytes=executor.weight_bytes
        )
        return bound_of(step_costs(executor.plan, load, formats), machine).seconds

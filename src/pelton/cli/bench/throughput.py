"""`pelton bench throughput`: many prompts through LLM.generate, reported as vLLM reports it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import say, say_json
from ..figures import share
from ..options import EngineFlags, Json

if TYPE_CHECKING:
    from ...cost.machine import Machine
    from ...llm import LLM

MOST_FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class Throughput:
    """Totals of one run; rates are per second of it. `ceiling` bounds output_tokens_per_second."""

    elapsed_time: float
    num_requests: int
    num_failed: int
    total_num_tokens: int
    output_num_tokens: int
    steps: int
    rows_per_step: float
    ceiling: float

    @property
    def requests_per_second(self) -> float:
        return self.num_requests / self.elapsed_time

    @property
    def tokens_per_second(self) -> float:
        return self.total_num_tokens / self.elapsed_time

    @property
    def output_tokens_per_second(self) -> float:
        return self.output_num_tokens / self.elapsed_time

    def document(self) -> dict[str, float]:
        return {
            **asdict(self),
            "requests_per_second": self.requests_per_second,
            "tokens_per_second": self.tokens_per_second,
            "output_tokens_per_second": self.output_tokens_per_second,
        }


def throughput(
    *,
    engine: EngineFlags,
    num_prompts: Annotated[int, typer.Option("--num-prompts", min=1, max=100_000)] = 32,
    input_len: Annotated[int, typer.Option("--input-len", min=1, help="Tokens of a random prompt.")] = 128,
    output_len: Annotated[int, typer.Option("--output-len", min=1, help="Tokens to generate each.")] = 128,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="A text file, one prompt a line, instead of random ones."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    json: Json = False,
) -> None:
    """Run many prompts through LLM.generate at once and report tokens per second."""
    from ...cost.machine import measure, remember
    from ..home import machines_folder

    with engine.open() as llm:
        batch = (
            read_prompts(llm, prompts, num_prompts)
            if prompts
            else random_prompts(llm, num_prompts, input_len, seed)
        )
        machine = measure(llm.settings.num_threads, engine.isa)
        remember(machines_folder(), machine)
        most = ceiling(llm, machine, [len(prompt) for prompt in batch], output_len)
        if not json:
            say(f"ceiling: {most:.1f} output tokens/s")
        result = run_batch(llm, batch, output_len, seed, most, shown=sys.stderr.isatty() and not json)
    if json:
        say_json({"model": engine.model, **result.document(), "machine": asdict(machine)})
        return
    say(
        f"Throughput: {result.requests_per_second:.2f} requests/s,"
        f" {result.tokens_per_second:.2f} total tokens/s,"
        f" {result.output_tokens_per_second:.2f} output tokens/s"
    )
    say(f"share of the ceiling: {share(result.output_tokens_per_second / most)}")
    say(f"{result.steps} steps of {result.rows_per_step:.1f} rows, {result.elapsed_time:.2f} s")
    if result.num_failed:
        say(f"{result.num_failed} of {result.num_requests} requests failed")


def random_prompts(llm: LLM, count: int, length: int, seed: int) -> list[list[int]]:
    """Token ids [count][length]."""
    import numpy as np

    random = np.random.Generator(np.random.Philox(seed))
    vocab = llm.engine.executor.plan.vocab_size
    return [row.tolist() for row in random.integers(0, vocab, (count, length))]


def read_prompts(llm: LLM, path: Path, most: int) -> list[list[int]]:
    """Token ids of the first `most` lines that are not blank. Raises ConfigError where there is none."""
    from ...errors import ConfigError

    if path.stat().st_size > MOST_FILE_BYTES:
        raise ConfigError(f"is larger than {MOST_FILE_BYTES} bytes", subject=path)
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 at byte {error.start}", subject=path) from None
    if not lines:
        raise ConfigError("holds no prompt", subject=path)
    return [llm.encode(line) for line in lines[:most]]


def run_batch(
    llm: LLM, prompts: Sequence[Sequence[int]], output_len: int, seed: int, most: float, *, shown: bool
) -> Throughput:
    """Sampled at temperature 1 past any end token, as vLLM's benchmark does."""
    from ...config import SamplingParams

    params = [
        SamplingParams(max_tokens=output_len, ignore_eos=True, seed=seed + index)
        for index in range(len(prompts))
    ]
    before = llm.engine.stats.steps, llm.engine.stats.rows
    start = perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=shown)
    elapsed = perf_counter() - start
    generated = sum(len(output.outputs[0].token_ids) for output in outputs)
    steps, rows = llm.engine.stats.steps - before[0], llm.engine.stats.rows - before[1]
    return Throughput(
        elapsed_time=elapsed,
        num_requests=len(outputs),
        num_failed=sum(output.outputs[0].finish_reason == "error" for output in outputs),
        total_num_tokens=generated + sum(len(output.prompt_token_ids) for output in outputs),
        output_num_tokens=generated,
        steps=steps,
        rows_per_step=rows / max(steps, 1),
        ceiling=most,
    )


def ceiling(llm: LLM, machine: Machine, lengths: Sequence[int], output_len: int) -> float:
    """Output tokens a second at most: every prompt's bound, and decode steps as full as they may be."""
    from ...cost.roofline import bound_of, pass_load, step_costs
    from ...types import BLOCK_SIZE

    executor, kv = llm.engine.executor, llm.engine.kv.layout
    element = kv.block_bytes / (BLOCK_SIZE * kv.shape.elements_per_token)
    formats = {name: tensor.format for name, tensor in llm.loaded.model.weights.items()}

    def seconds(rows: int, depth: int, sequences: int) -> float:
        load = pass_load(
            rows=rows, depth=depth, sequences=sequences, kv_bytes=element, weight_bytes=executor.weight_bytes
        )
        return bound_of(step_costs(executor.plan, load, formats), machine).seconds

    mean = max(1, sum(lengths) // len(lengths))
    together = min(len(lengths), llm.engine.max_num_seqs)
    prompts = seconds(mean, 0, together) * len(lengths) / together
    decoding = seconds(1, mean + output_len // 2, together) * output_len * len(lengths) / together
    return output_len * len(lengths) / (prompts + decoding)

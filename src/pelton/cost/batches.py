"""Decode speed of several sequences together: what batching gains on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from ..batch import make_batch
from ..engine import Engine
from ..errors import ConfigError
from ..kv import BlockTable, blocks_for
from ..quant import Format
from ..types import BLOCK_SIZE, Span
from .machine import Machine
from .roofline import bound_of, pass_load, step_costs

_FIRST_ROW = np.zeros(1, dtype=np.int32)


@dataclass(frozen=True)
class BatchSpeed:
    """`sequences` decoding together at `depth`: tokens a second in all, and the most the machine allows."""

    sequences: int
    depth: int
    tokens_per_second: float
    ceiling: float
    limit: str


def batch_speed(
    engine: Engine, formats: Mapping[str, Format], machine: Machine, sequences: int, depth: int, steps: int
) -> BatchSpeed:
    """Time `steps` decode steps of an idle engine; the KV before them is whatever the arena holds.

    Raises ConfigError where the arena or the context is too small.
    """
    if depth + steps > engine.context_length or sequences * blocks_for(depth + steps) > engine.pool.num_free:
        raise ConfigError("do not fit the KV memory; raise --kv-memory", field="sequences", value=sequences)
    tables = [BlockTable(engine.pool, engine.kv.copy_block) for _ in range(sequences)]
    try:
        for table in tables:
            table.prepare(0, depth + steps)
        _step(engine, tables, depth)
        start = perf_counter()
        for position in range(depth, depth + steps):
            _step(engine, tables, position)
        elapsed = perf_counter() - start
    finally:
        for table in tables:
            table.release()
    most, limit = _ceiling(engine, formats, machine, sequences, depth + steps // 2)
    return BatchSpeed(sequences, depth, sequences * steps / elapsed, most, limit)


def _step(engine: Engine, tables: list[BlockTable], position: int) -> None:
    vocab = engine.executor.plan.vocab_size
    spans = [
        Span(number, position, np.array([(7 * number + position) % vocab], np.int32), table.array, _FIRST_ROW)
        for number, table in enumerate(tables)
    ]
    forward = engine.executor.begin(make_batch(spans), engine.kv)
    forward.advance()
    forward.logits()


def _ceiling(
    engine: Engine, formats: Mapping[str, Format], machine: Machine, sequences: int, depth: int
) -> tuple[float, str]:
    executor = engine.executor
    element = engine.kv.layout.block_bytes / (BLOCK_SIZE * executor.plan.kv.elements_per_token)
    load = pass_load(
        rows=1, depth=depth, sequences=sequences, kv_bytes=element, weight_bytes=executor.weight_bytes
    )
    bound = bound_of(step_costs(executor.plan, load, formats), machine)
    return sequences / bound.seconds, bound.limit

"""Passes that are timed do exactly the work their name says."""

from __future__ import annotations

import pytest

from pelton.cost.machine import Machine
from pelton.cost.passes import PassResult, PassTest, PassTimer, ceiling, parse_counts
from pelton.engine import Engine
from pelton.errors import ConfigError
from pelton.exec.reference import ReferenceExecutor, ReferenceForward
from pelton.kv import KVArena
from pelton.types import Batch

from ..tiny import tiny_arena, tiny_plan, tiny_weights

WEIGHTS = tiny_weights(weight_format="Q8_0")
PLAN = tiny_plan(WEIGHTS)
MACHINE = Machine("round figures", "avx512", 2, ((1 << 20, 1e10),), 1e12, 5e11, 2.5e11, 1e-6)


class CountingExecutor(ReferenceExecutor):
    """Notes the rows and outputs of every pass."""

    def __init__(self) -> None:
        super().__init__(PLAN, WEIGHTS)
        self.seen: list[tuple[int, int, int]] = []

    def begin(self, batch: Batch, kv: KVArena) -> ReferenceForward:
        self.seen.append((int(batch.context[0]), batch.num_rows, len(batch.outputs)))
        return super().begin(batch, kv)


def engine_of(executor: ReferenceExecutor, context: int = 256) -> Engine:
    return Engine(executor, tiny_arena(PLAN, blocks=8), context)


@pytest.mark.parametrize(
    ("test", "passes"),
    [
        (PassTest("pp", 70), [(0, 32, 0), (32, 32, 0), (64, 6, 1)]),
        (PassTest("tg", 3), [(0, 1, 1), (1, 1, 1), (2, 1, 1)]),
        (PassTest("tg", 2, 40), [(0, 32, 0), (32, 8, 1), (40, 1, 1), (41, 1, 1)]),
    ],
)
def test_a_test_runs_its_rows_and_no_more(test: PassTest, passes: list[tuple[int, int, int]]) -> None:
    executor = CountingExecutor()
    assert PassTimer(engine_of(executor), chunk=32).seconds(test) > 0
    assert executor.seen == passes


def test_a_repetition_does_not_compute_the_depth_again() -> None:
    executor = CountingExecutor()
    timer = PassTimer(engine_of(executor), chunk=32)
    for _ in range(2):
        timer.seconds(PassTest("tg", 2, 40))
    assert executor.seen[4:] == [(40, 1, 1), (41, 1, 1)]


def test_blocks_go_back() -> None:
    engine = engine_of(CountingExecutor())
    timer = PassTimer(engine, chunk=32)
    timer.seconds(PassTest("pp", 40))
    timer.close()
    assert engine.pool.num_free == engine.pool.num_blocks


def test_a_context_that_is_too_short_is_refused_with_both_numbers() -> None:
    timer = PassTimer(engine_of(CountingExecutor(), context=64), chunk=32)
    with pytest.raises(ConfigError, match=r"72 positions.* 64"):
        timer.seconds(PassTest("tg", 8, 64))


def test_a_deeper_context_has_a_lower_ceiling() -> None:
    engine = engine_of(CountingExecutor())
    formats = {name: tensor.format for name, tensor in WEIGHTS.items()}
    shallow, deep = (ceiling(engine, formats, MACHINE, PassTest("tg", 8, at), 32)[0] for at in (0, 200))
    assert shallow > deep
    prompt, _ = ceiling(engine, formats, MACHINE, PassTest("pp", 64), 32)
    assert prompt > shallow


def test_figures_of_a_result() -> None:
    result = PassResult(PassTest("tg", 128, 4096), (10.0, 14.0), 24.0, "memory")
    assert str(result.test) == "tg128 @ d4096"
    assert (result.mean, result.share) == (12.0, 0.5)
    assert result.deviation == pytest.approx(2.828, abs=1e-3)
    assert PassResult(PassTest("pp", 1), (1.0,), 2.0, "memory").deviation == 0.0


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "1.5", "12345678", " 1", "1\n"])
def test_counts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_counts(text, "--n-gen")
    assert caught.value.field == "--n-gen"


def test_counts() -> None:
    assert parse_counts("512,0,16", "--n-gen") == (512, 0, 16)


@pytest.mark.parametrize(
    ("kind", "tokens", "depth"), [("xx", 1, 0), ("pp", 0, 0), ("pp", 1, -1), ("tg", 1 << 21, 0)]
)
def test_tests_that_cannot_be_are_refused(kind: str, tokens: int, depth: int) -> None:
    with pytest.raises(ConfigError):
        PassTest(kind, tokens, depth)

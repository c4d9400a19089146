"""A profile accounts for the whole of a pass and counts the work its plan does."""

from __future__ import annotations

import pytest

from pelton.cost.machine import Machine
from pelton.cost.passes import PassTest
from pelton.cost.profile import profile
from pelton.engine import Engine
from pelton.exec.native import NativeExecutor

from ..tiny import tiny_arena, tiny_plan, tiny_weights

MACHINE = Machine("round figures", "avx512", 2, ((1 << 20, 1e10),), 1e12, 5e11, 2.5e11, 1e-6)


@pytest.mark.parametrize("test", [PassTest("pp", 70), PassTest("tg", 4, 20)], ids=str)
def test_shares_add_up_to_the_pass(test: PassTest) -> None:
    weights = tiny_weights(weight_format="Q8_0")
    plan = tiny_plan(weights)
    executor = NativeExecutor(plan, weights, threads=2)
    engine = Engine(executor, tiny_arena(plan, blocks=8), 256)
    formats = {name: tensor.format for name, tensor in weights.items()}
    result = profile(engine, executor, formats, MACHINE, test, chunk=32)
    parts = {share.name: share for share in result.shares}
    assert sum(share.share for share in result.shares) == pytest.approx(1.0, abs=0.05)
    assert {"matrix products", "attention", "waiting for other threads"} <= set(parts)
    products = parts["matrix products"]
    assert products.rate is not None
    assert products.rate > 0
    assert products.limit in ("memory", "compute")
    assert engine.pool.num_free == engine.pool.num_blocks
    executor.close()

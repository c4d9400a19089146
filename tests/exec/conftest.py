"""A tiny model on both executors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pelton.exec.native import NativeExecutor
from pelton.exec.reference import ReferenceExecutor

from ..tiny import tiny_plan, tiny_weights
from .passes import Case


@pytest.fixture(params=["F32", "Q4_1"])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    weights = tiny_weights(weight_format=request.param)
    plan = tiny_plan(weights)
    executor = NativeExecutor(plan, weights, 2)
    yield plan, executor, ReferenceExecutor(plan, weights)
    executor.close()

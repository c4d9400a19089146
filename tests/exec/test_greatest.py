"""Passes that want only the greatest logit of each row say which it is, on every executor."""

from __future__ import annotations

import numpy as np
import pytest

from pelton.batch import make_batch
from pelton.errors import PlanError
from pelton.exec.native import NativeExecutor
from pelton.exec.native_screen import Screening
from pelton.exec.protocol import Executor
from pelton.exec.reference import ReferenceExecutor
from pelton.plan.passes import narrow

from ..laws.bench import Bench, random_tokens
from ..tiny import VOCAB, tiny_plan, tiny_weights

WEIGHTS = tiny_weights(weight_format="Q8_0")
PLAN = tiny_plan(WEIGHTS)


def greatest_and_logits(executor: Executor, lengths: list[int]) -> tuple[list[int], list[int]]:
    """Of the last rows of some prompts: what one pass says, and the places in the logits of another."""
    bench = Bench(executor)
    whole_spans = [bench.walk(random_tokens(length, length, VOCAB)).span(length) for length in lengths]
    spans = [span._replace(outputs=span.outputs[-1:]) for span in whole_spans]
    asked = executor.begin(make_batch(spans, only_greatest=True), bench.arena)
    asked.advance()
    found = asked.greatest()
    whole = executor.begin(make_batch(spans), bench.arena)
    whole.advance()
    return found, whole.logits().argmax(axis=1).tolist()


@pytest.mark.parametrize("narrowed", [False, True], ids=["all rows", "wanted rows"])
@pytest.mark.parametrize("least_bytes", [1, 8 << 20], ids=["pieces", "stored"])
@pytest.mark.parametrize("lengths", [[9], [3, 1, 20], [2] * 12])
def test_native_passes_say_which(
    monkeypatch: pytest.MonkeyPatch, lengths: list[int], least_bytes: int, narrowed: bool
) -> None:
    monkeypatch.setattr("pelton.exec.native.Screening", lambda pool: Screening(pool, least_bytes=least_bytes))
    executor = NativeExecutor(narrow(PLAN) if narrowed else PLAN, WEIGHTS, 2)
    found, expected = greatest_and_logits(executor, lengths)
    assert found == expected
    executor.close()


def test_the_reference_says_which() -> None:
    found, expected = greatest_and_logits(ReferenceExecutor(PLAN, WEIGHTS), [5, 8])
    assert found == expected


def test_what_is_no_number_has_no_greatest() -> None:
    executor = ReferenceExecutor(PLAN, WEIGHTS)
    bench = Bench(executor)
    forward = executor.begin(make_batch([bench.walk(random_tokens(4, 1, VOCAB)).span(4)]), bench.arena)
    forward.advance()
    logits = forward.logits().copy()
    logits[1, 3], logits[2] = np.nan, -np.inf
    forward.write(PLAN.logits, logits)
    assert [token < 0 for token in forward.greatest()] == [False, True, True, False]


def test_logits_that_nobody_asked_for_are_not_shown() -> None:
    executor = NativeExecutor(PLAN, WEIGHTS, 1)
    bench = Bench(executor)
    span = bench.walk(random_tokens(4, 1, VOCAB)).span(4)
    forward = executor.begin(make_batch([span], only_greatest=True), bench.arena)
    with pytest.raises(PlanError, match="logits come last"):
        forward.greatest()
    forward.advance()
    with pytest.raises(PlanError, match="greatest logits only"):
        forward.logits()
    assert len(forward.greatest()) == 4
    executor.close()

"""Who is let in, whose share is kept, and when those sent away are told to come again."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pelton.serve.http.admission import LONGEST_RETRY, Gate
from pelton.serve.http.failures import BusyError

LARGEST = 4
"""Sequences of one request."""


class Clock:
    """Time that passes when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def nothing() -> None:
    """Called for each refusal."""


def admitted(stack: ExitStack, gate: Gate, count: int, tenant: str) -> BusyError | None:
    """None if the request is in, until the stack is closed."""
    try:
        stack.enter_context(gate.admit(count, tenant))
    except BusyError as busy:
        return busy
    return None


@given(
    st.integers(1, 8),
    st.integers(0, 40),
    st.integers(2, 4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, LARGEST), st.booleans())),
)
def test_a_tenant_within_its_share_is_never_refused(
    at_once: int, max_queue: int, number: int, moves: list[tuple[int, int, bool]]
) -> None:
    tenants = [f"tenant {at}" for at in range(number)]
    gate = Gate(at_once, max_queue, nothing, tenants=tenants)
    share = gate.capacity // (2 * number)
    inside: dict[str, list[tuple[ExitStack, int]]] = {tenant: [] for tenant in tenants}
    for who, count, leaves in moves:
        tenant = tenants[who % number]
        if leaves and inside[tenant]:
            inside[tenant].pop()[0].close()
            continue
        held = sum(count for _, count in inside[tenant])
        stack = ExitStack()
        refusal = admitted(stack, gate, count, tenant)
        if refusal is None:
            inside[tenant].append((stack, count))
        else:
            assert held + count > share
            assert 1 <= refusal.retry_after <= LONGEST_RETRY
        total = sum(count for stays in inside.values() for _, count in stays)
        assert gate.under_way == total
        assert total <= gate.capacity + LARGEST  # one alone may be larger than the queue


def test_one_tenant_alone_may_have_it_all() -> None:
    gate = Gate(2, 6, nothing)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(gate.admit(1))
        with pytest.raises(BusyError, match="8 sequences are under way, the most is 8"), gate.admit(1):
            pass


def test_a_tenant_has_a_limit_of_its_own_where_told() -> None:
    gate = Gate(2, 6, nothing, most_per_tenant=2)
    with gate.admit(2, "ann"):
        with pytest.raises(BusyError, match="of this API key"), gate.admit(1, "ann"):
            pass
        with gate.admit(2, "bob"):
            assert gate.under_way == 4


def test_when_to_come_again_follows_the_rate_at_which_sequences_end() -> None:
    clock = Clock()
    gate = Gate(2, 6, nothing, clock=clock)
    for _ in range(20):  # two a second
        with gate.admit(1):
            clock.now += 0.5
        clock.now += 60.0  # idle: says nothing about how fast it is
    assert gate.rate.per_second == pytest.approx(2.0)
    told = []
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(gate.admit(1))
        for _ in range(20):
            with pytest.raises(BusyError) as caught, gate.admit(1):
                pass
            told.append(caught.value.retry_after)
    assert told[:8] == [1, 1, 2, 2, 3, 3, 4, 4]  # each half a second after the one before
    assert set(told[8:]) == {4}  # a full queue takes that long


def test_before_anything_ended_the_answer_is_a_second() -> None:
    gate = Gate(1, 0, nothing)
    with gate.admit(1), pytest.raises(BusyError) as caught, gate.admit(1):
        pass
    assert caught.value.retry_after == 1

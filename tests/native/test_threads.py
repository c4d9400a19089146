"""The thread pool: barriers that hold, failures that end, teams larger than the machine, fork."""

from __future__ import annotations

import multiprocessing
import sys
import threading

import pytest

from pelton import _native
from pelton.errors import KernelUnsupportedError


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_no_thread_passes_a_barrier_early(threads: int) -> None:
    assert _native.exercise_pool(_native.ThreadPool(threads), jobs=20, barriers=20) == 0


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("failing", [0, 1, 4])
def test_a_failing_thread_ends_the_job_and_the_pool_goes_on(threads: int, failing: int) -> None:
    pool = _native.ThreadPool(threads)
    expected = 10 if failing < threads else 0
    assert _native.exercise_pool(pool, jobs=10, barriers=6, failing=failing, fail_at=3) == expected
    assert _native.exercise_pool(pool, jobs=10, barriers=6) == 0


def test_callers_take_turns() -> None:
    pool = _native.ThreadPool(2)
    failed: list[int] = []

    def work() -> None:
        failed.append(_native.exercise_pool(pool, jobs=50, barriers=5))

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert failed == [0, 0, 0, 0]


@pytest.mark.parametrize("threads", [1, 3])
def test_running_inside_a_run_is_refused(threads: int) -> None:
    pool = _native.ThreadPool(threads)
    with pytest.raises(ValueError, match="inside"):
        _native.run_inside_run(pool)
    assert _native.exercise_pool(pool, jobs=2, barriers=2) == 0


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_sizes_outside_the_range_are_refused(threads: int) -> None:
    with pytest.raises(ValueError, match="1 to 1024"):
        _native.ThreadPool(threads)


def test_many_pools_come_and_go() -> None:
    for threads in range(1, 40):
        assert _native.exercise_pool(_native.ThreadPool(threads % 4 + 1), jobs=1, barriers=1) == 0


def run_in_child(pool: _native.ThreadPool, reply: multiprocessing.SimpleQueue[str]) -> None:
    try:
        _native.exercise_pool(pool, jobs=1, barriers=1)
        reply.put("ran")
    except KernelUnsupportedError as error:
        own = _native.exercise_pool(_native.ThreadPool(2), jobs=3, barriers=3)
        reply.put(f"{error}; {own}")


@pytest.mark.skipif(sys.platform != "linux", reason="fork start method")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_make_its_own_pool() -> None:
    pool = _native.ThreadPool(2)
    context = multiprocessing.get_context("fork")
    reply: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    child = context.Process(target=run_in_child, args=(pool, reply))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    answer = reply.get()
    assert "fork" in answer
    assert answer.endswith("; 0")
    assert _native.exercise_pool(pool, jobs=2, barriers=2) == 0

"""Profiles of passes as text: each kind of work, its share of the pass, the rate it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..console import say, say_table
from ..figures import seconds, share

if TYPE_CHECKING:
    from ...cost.machine import Machine
    from ...cost.passes import PassTest
    from ...cost.profile import Profile, Share
    from ...llm import LLM

_COLUMNS = ("work", "share", "time", "reaches", "of", "limit")


def profiles_of(llm: LLM, machine: Machine, tests: Sequence[PassTest], chunk: int) -> list[Profile]:
    """A profile of each test; none for an executor that keeps no times."""
    from ...cost.machine import reads_now
    from ...cost.profile import profile
    from ...exec.native import NativeExecutor

    executor = llm.engine.executor
    if not isinstance(executor, NativeExecutor):
        return []
    formats = {name: tensor.format for name, tensor in llm.loaded.model.weights.items()}
    return [
        profile(llm.engine, executor, formats, machine.reading_at(reads_now(machine)), test, chunk)
        for test in tests
    ]


def say_profile(profile: Profile) -> None:
    """One table: what the time of a test went to."""
    say("")
    say(f"{profile.test}: {seconds(profile.seconds)}")
    say_table(_COLUMNS, [_row(part) for part in profile.shares], right=_COLUMNS[1:5])


def _row(part: Share) -> tuple[str, ...]:
    if part.rate is None or part.peak is None:
        return (part.name, share(part.share), seconds(part.seconds), "", "", "")
    unit = "GB/s" if part.limit == "memory" else "G/s"
    rate, peak = (f"{value / 1e9:.1f} {unit}" for value in (part.rate, part.peak))
    return (part.name, share(part.share), seconds(part.seconds), rate, peak, part.limit or "")

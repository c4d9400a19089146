"""Names of schedulers: the settings', the registry's and the engine's are the same."""

from __future__ import annotations

import pytest

from pelton.errors import ConfigError
from pelton.kv import BlockPool
from pelton.sched.registry import POLICIES, Machinery, SchedulerChoice, make_scheduler, scheduler_for
from pelton.settings import SCHEDULERS, EngineSettings

from ..tiny import tiny_arena, tiny_plan, tiny_weights


def test_the_settings_know_every_scheduler() -> None:
    assert tuple(POLICIES) == SCHEDULERS
    for name in SCHEDULERS:
        assert EngineSettings(scheduler=name).scheduler == name


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="token-budget, mlfq"):
        EngineSettings(scheduler="fastest")
    with pytest.raises(ConfigError, match="token-budget, mlfq"):
        make_scheduler("fastest", Machinery(BlockPool(1), 1, 1))


@pytest.mark.parametrize("weight", [0, -1.0, 1e9, True, "2", float("nan")])
def test_weights_are_checked(weight: float) -> None:
    with pytest.raises(ConfigError) as caught:
        EngineSettings(tenant_weights={"a": weight})
    assert caught.value.field == "tenant_weights['a']"


def test_an_engines_scheduler_swaps_only_with_room_to_swap_to() -> None:
    arena = tiny_arena(tiny_plan(tiny_weights()), 4)
    for swap in (0, 1 << 20):
        choice = SchedulerChoice("fair", {"a": 2.0}, swap)
        scheduler = scheduler_for(choice, BlockPool(4), arena, 2, 16)
        assert scheduler.schedule().planned == []

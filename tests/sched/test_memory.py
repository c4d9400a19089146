"""Claims on free blocks: the running total is what a walk over all of them would find."""

from __future__ import annotations

import numpy as np
import pytest

from pelton.sched.memory import Claims
from pelton.sched.registry import POLICIES

from .world import World


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("swap_blocks", [0, 8])
def test_the_total_is_the_sum(name: str, swap_blocks: int) -> None:
    random = np.random.default_rng(4)
    world = World(name, blocks=14, max_sequences=4, budget=24, swap_blocks=swap_blocks, cached=True)
    for _ in range(300):
        if random.random() < 0.3:
            world.add(int(random.integers(1, 150)), int(random.integers(1, 60)))
        if world.live and random.random() < 0.05:
            world.abort(world.live[int(random.choice(list(world.live)))])
        running = [s for s in world.scheduler.running if s.num_outputs]
        if running and random.random() < 0.05:
            world.fork(running[0], 30)
        world.step()
        world.scheduler._claims.begin_step()
        claims = world.scheduler._claims
        walked = [
            max(0, claim.blocks - len(claim.sequence.table.blocks)) for claim in claims._claims.values()
        ]
        assert claims._outstanding == sum(walked)
        assert all(walked[i] or number in claims._firm for i, number in enumerate(claims._claims))


@pytest.mark.parametrize("name", ["predicted-length", "prefix-groups"])
def test_a_step_looks_at_each_claim_a_few_times_however_many_there_are(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [0]
    look_at = Claims._look_at

    def counted(claims: Claims, claim: object) -> None:
        looks[0] += 1
        look_at(claims, claim)  # type: ignore[arg-type]

    monkeypatch.setattr(Claims, "_look_at", counted)
    world = World(name, blocks=1200, max_sequences=200, budget=256)
    for _ in range(200):
        world.add(8, 200)
    for _ in range(8):
        world.step()
    assert len(world.scheduler.running) > 50
    looks[0] = 0
    world.step()
    assert looks[0] <= 3 * 200

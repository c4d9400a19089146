"""The schedulers by name: what `--scheduler` chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType

from ..errors import ConfigError
from ..kv import BlockPool, KVArena, SwapSpace
from .budget import TokenBudgetScheduler
from .deadline import EarliestDeadline
from .fair import FairShares
from .first_come import FirstComeFirstServed
from .mlfq import SkipJoinQueues
from .policy import Policy
from .predicted import PredictedLength
from .preemption import Preemption, Recompute
from .prefix_groups import PrefixGroups
from .program import ProgramAttainedService
from .rates import StepRates
from .skip_predict import SkipPredict
from .swapping import SwapOrRecompute


@dataclass(frozen=True)
class SchedulerChoice:
    """A scheduler's name and what is set for it. swap_bytes: memory for preempted sequences' keys and
    values; 0: they are always computed again."""

    name: str = "token-budget"
    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    swap_bytes: int = 0


@dataclass(frozen=True)
class Machinery:
    """What a scheduler works with. weights: shares of tenants, 1 where nothing is said.

    `clock` gives seconds; no policy reads any other. `rates` learns what steps and copies cost.
    """

    pool: BlockPool
    max_sequences: int
    budget: int
    preemption: Preemption = field(default_factory=Recompute)
    rates: StepRates = field(default_factory=StepRates)
    weights: Mapping[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = monotonic


POLICIES: Mapping[str, Callable[[Machinery], Policy]] = MappingProxyType(
    {
        "token-budget": lambda _: FirstComeFirstServed(),
        "mlfq": lambda _: SkipJoinQueues(),
        "predicted-length": lambda _: PredictedLength(),
        "skip-predict": lambda _: SkipPredict(),
        "program": lambda _: ProgramAttainedService(),
        "prefix-groups": lambda _: PrefixGroups(),
        "deadline": lambda machinery: EarliestDeadline(machinery.rates),
        "fair": lambda machinery: FairShares(machinery.weights),
    }
)

MEMORY_BOUND = "prefix-groups"
"""Runs as many sequences as memory and rows allow, whatever `max_sequences` says."""


def make_scheduler(name: str, machinery: Machinery) -> TokenBudgetScheduler:
    """Raises ConfigError for a name that is none."""
    policy = POLICIES.get(name)
    if policy is None:
        raise ConfigError(f"must be one of {', '.join(POLICIES)}", field="scheduler", value=name)
    return TokenBudgetScheduler(
        machinery.pool,
        machinery.max_sequences,
        machinery.budget,
        policy(machinery),
        machinery.preemption,
        machinery.rates,
        machinery.clock,
    )


def scheduler_for(
    choice: SchedulerChoice, pool: BlockPool, arena: KVArena, max_sequences: int, budget: int
) -> TokenBudgetScheduler:
    """The scheduler of an engine. Raises ConfigError for a name that is none."""
    rates = StepRates()
    preemption: Preemption = Recompute()
    if choice.swap_bytes:
        space = SwapSpace(arena, choice.swap_bytes)
        block = arena.layout.block_bytes
        preemption = SwapOrRecompute(space, pool, choice.swap_bytes // block, block, rates)
    if choice.name == MEMORY_BOUND:
        max_sequences = max(max_sequences, budget)
    weights = choice.tenant_weights
    return make_scheduler(
        choice.name, Machinery(pool, max_sequences, budget, preemption, rates, weights=weights)
    )


def offline_scheduler(pool: BlockPool, max_sequences: int, budget: int) -> TokenBudgetScheduler:
    """For a batch that is known as a whole: prefix groups, with no more sequences at once than asked for."""
    return make_scheduler(MEMORY_BOUND, Machinery(pool, max_sequences, budget))

"""Eviction by one predicted bit a block, with a bound on what wrong predictions cost."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .eviction import deepest
from .reuse import ReuseCounts, ReusePredictor, Traits
from .tree import Node

PHASES_REMEMBERED = 8
"""How long it is known that a block was requested before, though it was evicted since."""


@dataclass
class _Members:
    """A set of nodes from which one can be drawn at random."""

    nodes: list[Node] = field(default_factory=list)
    place: dict[Node, int] = field(default_factory=dict)

    def add(self, node: Node) -> None:
        if node not in self.place:
            self.place[node] = len(self.nodes)
            self.nodes.append(node)

    def discard(self, node: Node) -> None:
        at = self.place.pop(node, None)
        if at is not None:
            last = self.nodes.pop()
            if last is not node:
                self.nodes[at] = last
                self.place[last] = at


@dataclass(slots=True)
class _Asked:
    """When a block was last requested, what was known of it then, and how often it was requested in all."""

    phase: int
    traits: Traits
    times: int


class MarkAndPredict:
    """Mark&Predict of "Paging with Succinct Predictions", with phase predictions.

    A request marks a block and comes with one predicted bit: will the block be requested in the next phase?
    The victim is an unmarked block predicted not to be, any unmarked block if there is none, each drawn at
    random. When all are marked a new phase begins and all marks go. Promise, by the paper: at most twice
    the misses of an optimal policy that knows the future where the bits are right, and whatever they are, at
    most as many misses a phase as there are blocks, ln(blocks) times the optimum's on average.

    A block in use counts as requested all the time, and where the drawn block has descendants in memory the
    last of them goes: they are unmarked too, for a request marks all ancestors. The predictor learns online:
    at the end of a phase it is known which blocks of the phase before were requested again, evicted or not.
    """

    def __init__(self, predictor: ReusePredictor | None = None, seed: int = 0) -> None:
        self._predictor: ReusePredictor = predictor or ReuseCounts()
        self._random = np.random.Generator(np.random.Philox(seed))
        self._phase = 0
        self._asked: dict[int, _Asked] = {}  # by what the tokens are, in memory or not
        self._resting: dict[Node, None] = {}  # in order: draws depend on the seed alone
        self._wanted: dict[Node, bool] = {}  # predicted at the last request
        self._unmarked = {bit: _Members() for bit in (False, True)}  # resting ones

    @property
    def phase(self) -> int:
        """Phases begun, from 0 on."""
        return self._phase

    def request(self, node: Node) -> None:
        name = node.name
        before = self._asked.get(name)
        if before is not None and before.phase == self._phase:
            before.times += 1
        else:
            if before is not None and before.phase == self._phase - 1:
                self._predictor.learn(before.traits, True)
            times = 1 if before is None else before.times + 1
            self._asked[name] = _Asked(self._phase, _traits(node, times), times)
        self._wanted[node] = self._predictor.predict(self._asked[name].traits)
        self._mark(node)

    def rest(self, node: Node) -> None:
        self._mark(node)
        self._resting[node] = None

    def wake(self, node: Node) -> None:
        self._resting.pop(node, None)
        self._mark(node)

    def forget(self, node: Node) -> None:
        self._mark(node)  # out of the sets to draw from
        self._resting.pop(node, None)
        self._wanted.pop(node, None)

    def victim(self) -> Node:
        if not self._unmarked[False].nodes and not self._unmarked[True].nodes:
            self._begin_phase()
        for bit in (False, True):
            nodes = self._unmarked[bit].nodes
            if nodes:
                return deepest(nodes[int(self._random.integers(len(nodes)))])
        raise AssertionError("no block rests")

    def _mark(self, node: Node) -> None:
        """Resting blocks that are not in a set to draw from are the marked ones."""
        for members in self._unmarked.values():
            members.discard(node)

    def _begin_phase(self) -> None:
        for name, asked in list(self._asked.items()):
            if asked.phase == self._phase - 1:  # not requested in the phase that ends
                self._predictor.learn(asked.traits, False)
            elif asked.phase < self._phase - PHASES_REMEMBERED:
                del self._asked[name]
        self._phase += 1
        for node in self._resting:
            self._unmarked[self._wanted.get(node, True)].add(node)


def _traits(node: Node, times: int) -> Traits:
    """How often it was requested, how deep it lies, whether it is a sequence's unfinished end."""
    depth = node.depth.bit_length()
    return min(times, 4), min(depth, 7), int(node.is_full), min(len(node.children), 2)

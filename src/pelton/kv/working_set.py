"""How many blocks a prefix cache fills before it takes over its own oldest instead of memory never used."""

from __future__ import annotations

from collections import OrderedDict

from .tree import Node, name_below


class WorkingSet:
    """The window of "The Working Set Model for Program Behavior" (Denning 1968), counted in blocks: one that
    rests while `window` newer ones enter the cache is *stale*.

    A page of memory that was never used takes 3 microseconds to come into being, and 20 where a virtual
    machine has to get it from its host: 512 tokens of the default model then take 185 ms instead of 125. A
    stale block's memory costs nothing, so it is used again while the pool still has memory of its own.

    The window learns as the ghost lists of "ARC: A Self-Tuning, Low Overhead Replacement Cache" do: what was
    given up is remembered by name, and when it is asked for again after d newer blocks the window becomes
    5/4 d. So a cache whose old blocks are wanted grows to the whole pool, one miss ahead.
    """

    def __init__(self, window: int, most: int) -> None:
        self.window = min(window, most)
        self._most = most
        self._now = 0  # blocks that entered the cache so far
        self._ghosts: OrderedDict[int, int] = OrderedDict()  # name -> when it came to rest

    def enter(self) -> None:
        """A block enters the cache."""
        self._now += 1

    def rest(self, node: Node) -> None:
        node.rested = self._now

    def is_stale(self, node: Node) -> bool:
        """Of a resting node."""
        return self._now - node.rested > self.window

    def give_up(self, node: Node) -> None:
        """A resting node leaves the tree for want of memory."""
        self._ghosts[node.name] = node.rested
        if len(self._ghosts) > self._most:
            self._ghosts.popitem(last=False)

    def miss(self, parent: Node, key: bytes) -> None:
        """A sequence asks for a block that the tree does not have."""
        rested = self._ghosts.pop(name_below(parent, key), None)
        if rested is not None:
            self._widen(rested)

    def read(self, node: Node) -> None:
        """A sequence asks for a block that is on disk only: given up, or from before a restart."""
        if node.rested:
            self._widen(node.rested)

    def _widen(self, rested: int) -> None:
        distance = self._now - rested
        self.window = min(self._most, max(self.window, distance + distance // 4))

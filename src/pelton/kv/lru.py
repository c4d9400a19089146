"""Eviction of what was not used for the longest time."""

from __future__ import annotations

from collections import OrderedDict

from .tree import Node


class LeastRecentlyUsed:
    """RadixAttention's policy ("Efficiently Programming Large Language Models using SGLang"): the leaf that
    was used longest ago goes first.

    A block counts as used until its last sequence lets go. Sequences let go from the last block to the first,
    so a parent always stands behind its children and the first in line is a leaf.
    """

    def __init__(self) -> None:
        self._resting: OrderedDict[Node, None] = OrderedDict()

    def request(self, node: Node) -> None:
        """A request alone changes nothing: the block is in use."""

    def rest(self, node: Node) -> None:
        self._resting[node] = None

    def wake(self, node: Node) -> None:
        del self._resting[node]

    def forget(self, node: Node) -> None:
        self._resting.pop(node, None)

    def victim(self) -> Node:
        return next(iter(self._resting))
